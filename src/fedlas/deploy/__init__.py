"""Export of calibrated models, calibration cards, and drift monitoring of live predictions.

In: a model, its calibration, its predictions. Out: ONNX, ``torch.export`` or TorchScript files; a card as JSON values;
an alarm or none. :func:`fedlas.card` makes a card.
"""

from typing import TYPE_CHECKING

from fedlas._core.lazy import lazy_getattr

if TYPE_CHECKING:
    from fedlas.deploy.build_card import make_card
    from fedlas.deploy.calibration import Calibration, fit_calibration, read_calibration
    from fedlas.deploy.card import Card
    from fedlas.deploy.exported import Exported
    from fedlas.deploy.formats import FORMATS
    from fedlas.deploy.model_files import export, export_model
    from fedlas.deploy.monitor.look import Monitor

__all__ = [
    "FORMATS",
    "Calibration",
    "Card",
    "Exported",
    "Monitor",
    "export",
    "export_model",
    "fit_calibration",
    "make_card",
    "read_calibration",
]

if not TYPE_CHECKING:  # a type checker would take any name for one of the package
    __getattr__ = lazy_getattr(
        __name__,
        {
            "calibration": "Calibration fit_calibration read_calibration",
            "card": "Card",
            "model_files": "export export_model",
            "exported": "Exported",
            "formats": "FORMATS",
            "build_card": "make_card",
            "monitor.look": "Monitor",
        },
    )

    def __dir__() -> list[str]:
        return __all__
