"""The registries that the mirror pulls from."""
