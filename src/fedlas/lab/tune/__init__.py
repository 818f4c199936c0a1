"""Search of the options of losses on validation data, with the same budget for every method.

In: a recipe and search spaces. Out: trials on disk, the best setting of each method as a recipe, a page.

``domain``, ``options`` and ``space`` define the search space; ``plan`` is the whole study before it starts; ``record``
is a trial on disk; ``trial`` does its runs; ``sampler`` draws the next trial from those before it (optuna); ``study``
does all trials; ``summary``, ``best`` and ``report`` hold the outcome.
"""
