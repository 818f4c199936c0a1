"""Four watches over a stream of predictions, in constant memory: has anything changed since the card was written?

In: a card, and files of predictions with or without labels. Out: what each watch found, and its history.
"""
