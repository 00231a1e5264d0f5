"""Hosted content: its records, what is collected of it, and how it is pulled."""
