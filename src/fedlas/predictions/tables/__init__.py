"""Tables of predictions: what their columns mean, and what their rows say.

In: files or data frames, and ``Columns``. Out: ``ScoreTable``, and the predictions in it. ``formats/`` holds
what reads and writes their cells.
"""
