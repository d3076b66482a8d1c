"""Scores and choices as pure functions: what is taken, what gives way and why. Never Ray, never files."""
