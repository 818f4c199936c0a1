"""Splits of a source, and batches of them: from memory, or streamed from disk."""
