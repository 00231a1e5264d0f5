"""The dashboard: a page, what it is made of, and who gives it to browsers."""
