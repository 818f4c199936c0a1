"""Benchmarks: recipe x losses x seeds, run folders, and the report over them."""
