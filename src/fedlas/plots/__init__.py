"""Plots of predictions, scores and training logs.

In: predictions, scores or log records, and optionally a matplotlib Axes to draw on. Out: the Axes. Save its figure with
``ax.figure.savefig("name.svg")``.

Without an Axes, notebooks and programs that import ``matplotlib.pyplot`` get a figure of pyplot, so that ``plt.show()``
and ``plt.savefig("name.png")`` work as usual: the current figure if it is empty, else a new one. Other
programs get a figure that is freed with its last reference. No function changes ``rcParams``.
"""

from typing import TYPE_CHECKING

from fedlas._core.lazy import lazy_getattr

if TYPE_CHECKING:
    from fedlas.plots.coverage import risk_coverage, risk_coverage_curve
    from fedlas.plots.forest import forest_plot
    from fedlas.plots.indicator import score_bins, score_scatter, strength_histogram
    from fedlas.plots.labels import label_reliability_diagrams
    from fedlas.plots.net_benefit import decision_curve
    from fedlas.plots.ood import roc_curves, score_histogram
    from fedlas.plots.positive_class import positive_reliability_diagram
    from fedlas.plots.ranks import critical_difference_diagram
    from fedlas.plots.reliability import reliability_diagram
    from fedlas.plots.risk_histogram import risk_distribution
    from fedlas.plots.seeds import seed_values
    from fedlas.plots.smooth_curve import (
        CalibrationCurve,
        ConsistencyBand,
        calibration_curve,
        consistency_band,
    )
    from fedlas.plots.theme import DARK, LIGHT, PAPER, Theme, new_axes, paper_axes
    from fedlas.plots.training import training_curves

__all__ = [
    "DARK",
    "LIGHT",
    "PAPER",
    "CalibrationCurve",
    "ConsistencyBand",
    "Theme",
    "calibration_curve",
    "consistency_band",
    "critical_difference_diagram",
    "decision_curve",
    "forest_plot",
    "label_reliability_diagrams",
    "new_axes",
    "paper_axes",
    "positive_reliability_diagram",
    "reliability_diagram",
    "risk_coverage",
    "risk_coverage_curve",
    "risk_distribution",
    "roc_curves",
    "score_bins",
    "score_histogram",
    "score_scatter",
    "seed_values",
    "strength_histogram",
    "training_curves",
]

if not TYPE_CHECKING:  # a type checker would take any name for one of the package
    __getattr__ = lazy_getattr(
        __name__,
        {
            "smooth_curve": "CalibrationCurve ConsistencyBand calibration_curve consistency_band",
            "net_benefit": "decision_curve",
            "forest": "forest_plot",
            "indicator": "score_bins score_scatter strength_histogram",
            "labels": "label_reliability_diagrams",
            "ood": "roc_curves score_histogram",
            "positive_class": "positive_reliability_diagram",
            "ranks": "critical_difference_diagram",
            "reliability": "reliability_diagram",
            "coverage": "risk_coverage risk_coverage_curve",
            "risk_histogram": "risk_distribution",
            "seeds": "seed_values",
            "theme": "DARK LIGHT PAPER Theme new_axes paper_axes",
            "training": "training_curves",
        },
    )

    def __dir__() -> list[str]:
        return __all__
