"""``fedlas tune``: search the options of losses on validation, with the same budget for every method.

``domain`` (what a parameter may be), ``options`` and ``space`` (which parameters a method has) say where to look;
``plan`` is the whole study before it starts, ``record`` one trial on disk, ``trial`` does its runs, ``sampler`` draws
the next one from those before it (optuna), ``study`` does all of them; ``summary``, ``best``, ``report`` and
``command`` say what came out.
"""
