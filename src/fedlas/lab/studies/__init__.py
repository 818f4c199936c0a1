"""Finished runs measured again: post-hoc calibrators, shifted data, OOD data, uncertainty methods, diagnosis.

In: run folders. Out: numbers and predictions; ``lab.report`` makes tables and pages of them.
"""
