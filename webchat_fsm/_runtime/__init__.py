"""Perform what the core decides: all code that can block, fail from outside or read the time."""
