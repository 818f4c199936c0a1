"""File formats and folder layouts of published data sets."""
