"""The laboratory: a recipe in, runs and a report out.

The command line runs what is here. The library, which is everything outside ``lab`` and ``cli``, never imports it.
"""
