"""Calibrations of tables: fit, out-of-fold metrics, and application to frames and files.

In: ``fedlas.predictions.tables`` and calibrators. Out: ``TableCalibration``.
"""
