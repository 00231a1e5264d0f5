"""What makes replicas one mirror: the secret they share, the beat by which they know of one another, their leases."""
