"""Slow, obvious or foreign versions that the tests compare the package with."""
