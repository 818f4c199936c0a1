"""Optimizers and regressions behind the calibrators: Newton's method, folds, line search, and warnings of fits.

Input: logits and labels as tensors. Output: parameters as float64 tensors on the CPU. Private to the calibrators.
"""
