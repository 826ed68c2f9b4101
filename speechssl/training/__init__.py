"""The training loop, which knows no task: updates, checkpoints, metrics, health."""
