"""The upstream client."""
