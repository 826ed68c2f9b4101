"""Where the project lies."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
"""The repository: the package, its tools and recipes."""
