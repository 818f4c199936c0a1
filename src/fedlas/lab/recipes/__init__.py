"""Recipes: YAML to a checked configuration and the runs it plans."""
