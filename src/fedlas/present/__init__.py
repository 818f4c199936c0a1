"""Tables, sentences and HTML pages that present evaluations, cards and monitors.

In: predictions, and what :mod:`fedlas.stats` and :mod:`fedlas.deploy` compute of them. Out: ``rich`` tables, Markdown,
JSON and HTML. Templates are in ``templates/``.
"""
