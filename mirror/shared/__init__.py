"""The Redis that replicas share: its keys, and how it is reached."""
