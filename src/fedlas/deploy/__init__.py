"""Calibrated models as files, the calibration card, and drift in a stream of predictions.

In: a model with its calibration, or predictions. Out: ONNX, ``torch.export`` or safetensors files; an alarm or none.
"""
