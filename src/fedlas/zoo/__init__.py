"""Optional methods, which the rest of the library never imports: OOD scores, uncertainty methods, semantic grouping.

:mod:`fedlas.zoo.ood` scores how unlike the training data a sample is; :mod:`fedlas.zoo.uncertainty` has
ensembles, dropout, Laplace and Bayesian weights; :class:`SemanticGrouping` is registered with the calibrators.
"""

from fedlas.zoo import ood, uncertainty
from fedlas.zoo.semantic_grouping import SemanticGrouping

__all__ = ["SemanticGrouping", "ood", "uncertainty"]
