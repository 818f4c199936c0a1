"""Export of calibrated models, calibration cards, and drift monitoring of live predictions.

In: a model, its calibration, its predictions. Out: ONNX, ``torch.export`` or TorchScript files; a card as JSON values;
an alarm or none. :func:`fedlas.card` makes a card.
"""

from fedlas.deploy.calibration import Calibration, fit_calibration, read_calibration
from fedlas.deploy.card import Card
from fedlas.deploy.export import export, export_model
from fedlas.deploy.exported import Exported
from fedlas.deploy.formats import FORMATS
from fedlas.deploy.make_card import make_card
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
