"""What a person reads of predictions: tables, sentences and pages of an evaluation, a card, or a stream.

In: predictions, and what :mod:`fedlas.stats` and :mod:`fedlas.deploy` compute of them. Out: ``rich`` tables, Markdown,
JSON and HTML. Templates are in ``templates/``.
"""
