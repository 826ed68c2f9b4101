"""Files that are either whole or not there: atomic writes, checkpoints, JSON."""
