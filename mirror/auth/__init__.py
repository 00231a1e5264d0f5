"""Who may: the users of a file, and the rules for them. Knows nothing of HTTP."""
