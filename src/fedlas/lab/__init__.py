"""The laboratory: a recipe in, runs and a report out."""
