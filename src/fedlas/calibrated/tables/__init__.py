"""Calibrations of tables: fitted, checked on rows left out, applied to frames and files.

In: ``fedlas.predictions.tables`` and calibrators. Out: ``TableCalibration``.
"""
