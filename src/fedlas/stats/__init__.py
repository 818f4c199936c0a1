"""Confidence intervals, noise floors and calibration tests over test samples; paired tests over seeds.

In: ``Predictions``, or numbers by method and seed. Out: intervals, floors, p-values.
"""

from typing import TYPE_CHECKING

from fedlas._core.lazy import lazy_getattr
from fedlas.resample.effective import effective_sample_size
from fedlas.stats.estimates import Estimate, EstimateTable, class_estimates, estimates
from fedlas.stats.noise_floor import NoiseFloor, noise_floor

if TYPE_CHECKING:
    from fedlas.stats.best import BestMethod, compare_to_best
    from fedlas.stats.bootstrap import bootstrap_interval, bootstrap_intervals
    from fedlas.stats.compare import (
        holm,
        mean_interval,
        paired_t_test,
        sign_test,
        wilcoxon_test,
    )
    from fedlas.stats.difference import Difference
    from fedlas.stats.estimates_by_group import GroupEstimate, group_estimates
    from fedlas.stats.intervals import ALPHA, Interval
    from fedlas.stats.joint import joint_p_value
    from fedlas.stats.meta_analysis import RandomEffects, random_effects
    from fedlas.stats.optimism_bootstrap import Optimism, optimism
    from fedlas.stats.poisson_meta_analysis import poisson_random_effects
    from fedlas.stats.pooling import PooledEstimates, partial_pooling
    from fedlas.stats.power import seeds_needed
    from fedlas.stats.ranks import RankComparison, compare_ranks
    from fedlas.stats.selective_risk import (
        RejectOption,
        RiskThreshold,
        reject_option,
        risk_threshold,
    )
    from fedlas.stats.spiegelhalter import SpiegelhalterTest, spiegelhalter_test
    from fedlas.stats.two_models import paired_bootstrap

__all__ = [
    "ALPHA",
    "BestMethod",
    "Difference",
    "Estimate",
    "EstimateTable",
    "GroupEstimate",
    "Interval",
    "NoiseFloor",
    "Optimism",
    "PooledEstimates",
    "RandomEffects",
    "RankComparison",
    "RejectOption",
    "RiskThreshold",
    "SpiegelhalterTest",
    "bootstrap_interval",
    "bootstrap_intervals",
    "class_estimates",
    "compare_ranks",
    "compare_to_best",
    "effective_sample_size",
    "estimates",
    "group_estimates",
    "holm",
    "joint_p_value",
    "mean_interval",
    "noise_floor",
    "optimism",
    "paired_bootstrap",
    "paired_t_test",
    "partial_pooling",
    "poisson_random_effects",
    "random_effects",
    "reject_option",
    "risk_threshold",
    "seeds_needed",
    "sign_test",
    "spiegelhalter_test",
    "wilcoxon_test",
]

if not TYPE_CHECKING:  # a type checker would take any name for one of the package
    __getattr__ = lazy_getattr(
        __name__,
        {
            "best": "BestMethod compare_to_best",
            "bootstrap": "bootstrap_interval bootstrap_intervals",
            "compare": "holm mean_interval paired_t_test sign_test wilcoxon_test",
            "difference": "Difference",
            "estimates_by_group": "GroupEstimate group_estimates",
            "intervals": "ALPHA Interval",
            "joint": "joint_p_value",
            "optimism_bootstrap": "Optimism optimism",
            "poisson_meta_analysis": "poisson_random_effects",
            "pooling": "PooledEstimates partial_pooling",
            "power": "seeds_needed",
            "meta_analysis": "RandomEffects random_effects",
            "ranks": "RankComparison compare_ranks",
            "selective_risk": "RejectOption RiskThreshold reject_option risk_threshold",
            "spiegelhalter": "SpiegelhalterTest spiegelhalter_test",
            "two_models": "paired_bootstrap",
        },
    )

    def __dir__() -> list[str]:
        return __all__
