"""The scrubber, and what it does with what has rotted."""
