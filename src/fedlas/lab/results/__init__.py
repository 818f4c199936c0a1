"""Results of finished runs by method, seed and stage, with comparisons between the methods.

Input: a ``Summary`` of run folders, or the output of a study. Output: ``Result``, which ``lab.report`` displays
without computing anything again.
"""

from typing import TYPE_CHECKING

from fedlas._core.lazy import lazy_getattr

if TYPE_CHECKING:
    from fedlas.lab.results.detection import Detection
    from fedlas.lab.results.differences import method_differences
    from fedlas.lab.results.result import Result, build_result
    from fedlas.lab.results.stages import (
        AUTO,
        calibrated_metrics,
        split_by_calibrator,
        with_calibrators,
    )

__all__ = [
    "AUTO",
    "Detection",
    "Result",
    "build_result",
    "calibrated_metrics",
    "method_differences",
    "split_by_calibrator",
    "with_calibrators",
]

if not TYPE_CHECKING:  # a type checker would take any name for one of the package
    __getattr__ = lazy_getattr(
        __name__,
        {
            "detection": "Detection",
            "differences": "method_differences",
            "result": "Result build_result",
            "stages": "AUTO calibrated_metrics split_by_calibrator with_calibrators",
        },
    )
