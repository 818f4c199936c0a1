"""Recipes: YAML and overrides to a checked configuration, and the runs that it plans.

In: the name of a preset or file, ``KEY=VALUE`` overrides. Out: a ``Recipe``, and a list of ``Run``.
"""
