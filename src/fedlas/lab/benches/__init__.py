"""All runs of a recipe: planned, executed somewhere, counted in a dry run.

In: recipes, losses, seeds, an executor. Out: finished run folders.
"""
