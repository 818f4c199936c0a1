"""Utilities that every package uses: argument checks, errors, files, terminal output, random numbers and threads.

In it: argument checks and errors, the registry, optional packages, files, the terminal, processes, random streams.
In: arguments and names from users. Out: checked values, or an ``InputError``. Public parts are in ``fedlas.errors``
and ``fedlas.checks``.
"""
