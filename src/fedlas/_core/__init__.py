"""Foundations every room may lean on: argument checks, registries, collectives, optional imports."""
