"""What is made from the values of the Helm chart: its schema, and its README. `python -m charts` writes both."""
