"""Features: the input of a model's classifier head, or of its global pool.

In: a model, and a name if the search should not decide. Out: the module (:func:`find_head`, :func:`find_pool`; by a
batch, ``run.py``), and its input during a forward pass (:class:`FeatureTap`, ``read.py``).
"""

from fedlas.features.head import FeatureTap, find_head, find_pool

__all__ = ["FeatureTap", "find_head", "find_pool"]
