"""The tests: a folder for each folder of ``mirror/``, plus integration, e2e and bench."""
