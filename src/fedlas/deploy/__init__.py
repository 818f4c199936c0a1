"""Calibrated models as files, the calibration card, and drift in a stream of predictions.

In: a model, its calibration, its predictions. Out: ONNX, ``torch.export`` or safetensors files; a card as plain values;
an alarm or none.
"""
