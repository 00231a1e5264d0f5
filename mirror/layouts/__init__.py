"""OCI image layouts as tar archives: written and read as they pass by, never whole in memory. Pure."""
