"""Doing: everything that can block, fail from outside or tell the time."""
