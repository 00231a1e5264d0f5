"""Warming references, jobs of it, and what is kept warm."""
