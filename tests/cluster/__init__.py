"""Replicas among themselves: who may ask what, and what is believed of the answers."""
