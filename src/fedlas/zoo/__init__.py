"""The annex: OOD scores, ensembles and Bayesian layers. Nothing in the library imports it.

:mod:`fedlas.zoo.ood` scores samples by how unlike the training data they are; :mod:`fedlas.zoo.uncertainty` has
ensembles, dropout, Laplace and Bayesian weights.
"""

from fedlas.zoo import ood, uncertainty

__all__ = ["ood", "uncertainty"]
