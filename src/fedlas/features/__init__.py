"""Features: finding a model's classifier head and reading its input."""

from fedlas.features.head import find_head
from fedlas.features.tap import FeatureTap

__all__ = ["FeatureTap", "find_head"]
