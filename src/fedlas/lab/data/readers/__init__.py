"""Readers of published file formats and folder layouts, with errors for damaged or missing files."""
