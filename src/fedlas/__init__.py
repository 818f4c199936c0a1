"""Calibration for PyTorch classifiers: the FedLAS loss and other losses, metrics and post-hoc calibrators.

Every public name is imported at its first use, so that ``import fedlas`` costs nothing until then.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fedlas import binary as binary
    from fedlas import calibrators as calibrators
    from fedlas import checks as checks
    from fedlas import deploy as deploy
    from fedlas import diagnose as diagnose
    from fedlas import errors as errors
    from fedlas import features as features
    from fedlas import integrations as integrations
    from fedlas import losses as losses
    from fedlas import metrics as metrics
    from fedlas import plots as plots
    from fedlas import stats as stats
    from fedlas import zoo as zoo
    from fedlas.calibrated import CalibratedModel, TableCalibration, calibrate
    from fedlas.features import FeatureTap, find_head
    from fedlas.integrations.sklearn import CalibratedClassifier as CalibratedClassifier
    from fedlas.metrics import evaluate
    from fedlas.objective import Objective, param_groups, predict
    from fedlas.predictions import MultiLabel, Predictions, TopLabel, read_predictions
    from fedlas.present.card import CalibrationCard, card
    from fedlas.present.comparison import Comparison, compare
    from fedlas.present.evaluation import Evaluation
    from fedlas.present.report import report
    from fedlas.stats import estimates

__version__ = "0.1.0"

__all__ = [
    "CalibratedModel",
    "CalibrationCard",
    "Comparison",
    "Evaluation",
    "FeatureTap",
    "MultiLabel",
    "Objective",
    "Predictions",
    "TableCalibration",
    "TopLabel",
    "__version__",
    "calibrate",
    "card",
    "checks",
    "compare",
    "errors",
    "estimates",
    "evaluate",
    "find_head",
    "param_groups",
    "predict",
    "read_predictions",
    "report",
]

_HOMES = {
    "CalibratedClassifier": "integrations.sklearn",
    "CalibratedModel": "calibrated",
    "CalibrationCard": "present.card",
    "Comparison": "present.comparison",
    "Evaluation": "present.evaluation",
    "FeatureTap": "features",
    "MultiLabel": "predictions",
    "Objective": "objective",
    "Predictions": "predictions",
    "TableCalibration": "calibrated",
    "TopLabel": "predictions",
    "calibrate": "calibrated",
    "card": "present.card",
    "compare": "present.comparison",
    "estimates": "stats",
    "evaluate": "metrics",
    "find_head": "features",
    "param_groups": "objective",
    "predict": "objective",
    "read_predictions": "predictions",
    "report": "present.report",
}
"""The module that defines each public function and class."""
_ELSEWHERE = {
    "Card": "fedlas.deploy.Card",
    "Monitor": "fedlas.deploy.Monitor",
    "export": "fedlas.deploy.model_files, or CalibratedModel.export",
    "load": "fedlas.Predictions.load, or fedlas.CalibratedModel.load",
}
"""Where to find names that users look for at the top level."""
_MODULES = (
    "binary", "calibrators", "checks", "deploy", "diagnose", "errors", "features", "integrations", "losses", "metrics",
    "plots", "stats", "zoo",
)  # fmt: skip
"""Public modules."""


if not TYPE_CHECKING:  # a type checker would take any name for one of the package

    def __getattr__(name: str) -> Any:
        if name in _MODULES:
            return import_module(f"fedlas.{name}")
        if name not in _HOMES:
            raise AttributeError(f"fedlas has no {name!r}. {_suggestion(name)}")
        value = globals()[name] = getattr(import_module(f"fedlas.{_HOMES[name]}"), name)
        return value

    def __dir__() -> list[str]:
        return sorted({*__all__, *_MODULES})

    def _suggestion(name: str) -> str:
        if name in _ELSEWHERE:
            return f"It is {_ELSEWHERE[name]}."
        from fedlas._core.errors import suggestion

        return suggestion(name, __dir__())
