"""Calibrated models as files, the calibration card, and drift in a stream of predictions.

In: a model, its calibration, its predictions. Out: ONNX, ``torch.export`` or TorchScript files; a card as plain values;
an alarm or none. :func:`fedlas.card` makes a card.
"""

from fedlas.deploy.card import Card
from fedlas.deploy.export import export
from fedlas.deploy.exported import Exported
from fedlas.deploy.monitor.look import Monitor

__all__ = ["Card", "Exported", "Monitor", "export"]
