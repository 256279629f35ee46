"""Decisions: pure functions of a session, a step and the time."""
