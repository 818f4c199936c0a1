"""Is it more than noise? Intervals and noise floors over the samples of a test set, paired tests over seeds.

In: ``Predictions``, or numbers by method and seed. Out: intervals, floors, p-values.
"""

from fedlas.stats.accuracy_without_labels import accuracy_without_labels
from fedlas.stats.bootstrap import bootstrap_interval, bootstrap_intervals
from fedlas.stats.compare import Comparison, PairedTest, compare_to_best, holm, paired_t_test
from fedlas.stats.estimates import Estimate, class_estimates, estimates
from fedlas.stats.group_estimates import GroupEstimate, group_estimates
from fedlas.stats.importance import importance_weights
from fedlas.stats.intervals import ALPHA, Interval
from fedlas.stats.noise_floor import NoiseFloor, noise_floor
from fedlas.stats.paired import PairedBootstrap, paired_bootstrap
from fedlas.stats.power import seeds_needed
from fedlas.stats.reject_option import RejectOption, reject_option
from fedlas.stats.seeds import EffectSize, effect_size, mean_interval, sign_test, wilcoxon_test
from fedlas.stats.selective_risk import RiskThreshold, risk_threshold
from fedlas.stats.spiegelhalter import SpiegelhalterTest, spiegelhalter_test
from fedlas.stats.two_models import ModelDifference
from fedlas.stats.weights import effective_samples

__all__ = [
    "ALPHA",
    "Comparison",
    "EffectSize",
    "Estimate",
    "GroupEstimate",
    "Interval",
    "ModelDifference",
    "NoiseFloor",
    "PairedBootstrap",
    "PairedTest",
    "RejectOption",
    "RiskThreshold",
    "SpiegelhalterTest",
    "accuracy_without_labels",
    "bootstrap_interval",
    "bootstrap_intervals",
    "class_estimates",
    "compare_to_best",
    "effect_size",
    "effective_samples",
    "estimates",
    "group_estimates",
    "holm",
    "importance_weights",
    "mean_interval",
    "noise_floor",
    "paired_bootstrap",
    "paired_t_test",
    "reject_option",
    "risk_threshold",
    "seeds_needed",
    "sign_test",
    "spiegelhalter_test",
    "wilcoxon_test",
]
