"""The records of hosted content: what was pushed here, and is nowhere else."""
