"""Pipeline from a source to batches: splits, and batches from memory or from disk."""
