"""Foundations of every package: argument checks, registry, optional packages, files, ranks, random streams."""
