"""Tables of predictions: roles of columns, formats of files, and readers of scores and labels.

In: files or data frames, and ``Columns``. Out: ``ScoreTable``, and the predictions in it. ``formats/`` holds
what reads and writes their cells.
"""
