"""Data sets, one family a file.

In: a folder, or nothing for embedded ones. Out: a ``Source`` of train and test images with labels and class names.
"""
