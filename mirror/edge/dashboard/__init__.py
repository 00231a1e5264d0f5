"""The dashboard: a page, and what it is made of, as they lie in the package."""
