"""What lies on the disk: nothing partial, nothing unverified, one mirror at a time, whoever dies when."""
