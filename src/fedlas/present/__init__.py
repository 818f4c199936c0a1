"""Tables, sentences and pages about predictions: of an evaluation, a card, or a stream.

In: predictions, and what :mod:`fedlas.stats` and :mod:`fedlas.deploy` compute of them. Out: ``rich`` tables, Markdown,
JSON and HTML. Templates are in ``templates/``.
"""
