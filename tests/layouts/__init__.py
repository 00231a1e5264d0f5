"""OCI image layouts as tar archives: read strictly, put together, written the same each time."""
