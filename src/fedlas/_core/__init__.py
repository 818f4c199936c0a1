"""Foundations of every package; independent of models and calibration.

In it: argument checks and errors, the registry, optional packages, files, the terminal, processes, random streams.
In: arguments and names from users. Out: checked values, or an ``InputError``. Public parts are in ``fedlas.errors``
and ``fedlas.checks``.
"""
