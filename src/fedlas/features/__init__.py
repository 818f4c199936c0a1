"""Features of a model: the input of its classifier head or of its global pool.

Input: a model, and optionally the name of a module. Output: the module (:func:`find_head`, :func:`find_pool`), and its
input during a forward pass (:class:`FeatureTap`).
"""

from fedlas.features.head import FeatureTap, find_head, find_pool

__all__ = ["FeatureTap", "find_head", "find_pool"]
