"""Several replicas as processes, each with a disk of its own, on one real Redis."""
