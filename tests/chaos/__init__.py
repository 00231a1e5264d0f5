"""Chaos: replicas, their Redis and their registries fail at random, under load; then all is up, and all must be right.

``python -m tests.chaos --seconds 120`` prints a line for each event, and at the end what clients saw. A seed repeats
the events of a run, as far as anything with processes and sockets repeats.
"""
