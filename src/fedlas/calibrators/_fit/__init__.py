"""What fits the calibrators: Newton's method, regressions, folds, line search, and the warnings after a fit.

In: logits and labels as tensors. Out: parameters as float64 tensors on the CPU. Private to the calibrators.
"""
