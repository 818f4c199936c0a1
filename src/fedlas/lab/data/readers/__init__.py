"""File formats and folder layouts of published data sets, and messages for files that are damaged or missing."""
