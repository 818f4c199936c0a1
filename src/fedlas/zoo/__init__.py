"""The annex: OOD scores, ensembles, Bayesian layers, a calibrator of groups. Nothing in the library imports it.

:mod:`fedlas.zoo.ood` scores samples by how unlike the training data they are; :mod:`fedlas.zoo.uncertainty` has
ensembles, dropout, Laplace and Bayesian weights; :class:`SemanticGrouping` is registered with the calibrators.
"""

from fedlas.zoo import ood, uncertainty
from fedlas.zoo.semantic_grouping import SemanticGrouping

__all__ = ["SemanticGrouping", "ood", "uncertainty"]
