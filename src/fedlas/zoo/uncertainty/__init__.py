"""Uncertainty methods: ensembles, dropout, Bayesian weights, Laplace approximation, Bayesian heads.

Input: a model, or predictions of several models. Output: modules that average over draws, penalties for training, or
combined :class:`~fedlas.Predictions`. ``fedlas.lab.studies.uncertainty`` applies them to finished runs.
"""

from fedlas.zoo.uncertainty.bayes_by_backprop import KLPenalty, SampledWeights
from fedlas.zoo.uncertainty.bayesian_layers import BayesianConfig, to_bayesian
from fedlas.zoo.uncertainty.ensemble import average, log_mean_softmax
from fedlas.zoo.uncertainty.hyper_ensemble import greedy_selection
from fedlas.zoo.uncertainty.last_layer_laplace import LastLayerLaplace
from fedlas.zoo.uncertainty.matrix_gaussian import MatrixGaussian
from fedlas.zoo.uncertainty.mc_dropout import DropoutSamples, mc_dropout
from fedlas.zoo.uncertainty.orthogonality import OrthogonalityPenalty
from fedlas.zoo.uncertainty.probabilistic_backprop import ProbabilisticBackprop
from fedlas.zoo.uncertainty.two_stage import LatentKL, MLPHead, TwoStage, VariationalHead

__all__ = [
    "BayesianConfig",
    "DropoutSamples",
    "KLPenalty",
    "LastLayerLaplace",
    "LatentKL",
    "MLPHead",
    "MatrixGaussian",
    "OrthogonalityPenalty",
    "ProbabilisticBackprop",
    "SampledWeights",
    "TwoStage",
    "VariationalHead",
    "average",
    "greedy_selection",
    "log_mean_softmax",
    "mc_dropout",
    "to_bayesian",
]
