"""The commands that talk to a running mirror, over its admin API."""
