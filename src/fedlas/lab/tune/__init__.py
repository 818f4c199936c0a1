"""Search of the options of losses on validation data, with the same budget for every method.

In: a recipe and search spaces. Out: trials on disk, the best setting of each method as a recipe, a page.

``domain``, ``options`` and ``space`` say where to search; ``plan`` is the whole study before it starts; ``record`` is
one trial on disk; ``trial`` does its runs; ``sampler`` draws the next trial from those before it (optuna); ``study``
does them all; ``summary``, ``best`` and ``report`` say what came out.
"""
