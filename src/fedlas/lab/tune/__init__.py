"""Search of the options of losses on validation data with optuna, the same budget for every method.

In: a recipe and search spaces. Out: ``optuna.log`` with every trial, and the best setting of each method as a recipe.

``space`` finds the parameters of each method and their ranges, ``study`` plans and runs the trials, ``best`` writes the
outcome.
"""
