"""Formats of tables, one module per format with reader and writer; ``by_suffix.py`` selects them by file name."""
