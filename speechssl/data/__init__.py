"""From recordings to a feature store on disk, and from a store to batches."""
