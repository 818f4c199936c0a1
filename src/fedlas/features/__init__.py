"""Features: finding a model's classifier head, or its global pool, and reading the input."""

from fedlas.features.head import find_head
from fedlas.features.pool import find_pool
from fedlas.features.tap import FeatureTap

__all__ = ["FeatureTap", "find_head", "find_pool"]
