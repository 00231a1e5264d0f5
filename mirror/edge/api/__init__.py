"""The admin API, ``/api/v1/``: what operators ask of a running mirror, and what the commands ask for them."""
