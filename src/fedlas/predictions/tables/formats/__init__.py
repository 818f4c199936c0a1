"""Formats of tables: a file each, with what reads and what writes it; ``by_suffix.py`` finds the one of a file."""
