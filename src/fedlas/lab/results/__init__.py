"""Results of finished runs by method, seed and stage, with comparisons between the methods.

Input: a ``Summary`` of run folders, or the output of a study. Output: ``Result``, which ``lab.report`` displays
without computing anything again.
"""

from typing import TYPE_CHECKING

from fedlas._core.lazy import at_first_use

if TYPE_CHECKING:
    from fedlas.lab.results.detection import Detection
    from fedlas.lab.results.differences import method_differences
    from fedlas.lab.results.result import Result, result_from
    from fedlas.lab.results.stages import AUTO, after_calibrators, at_stages, with_calibrators

__all__ = [
    "AUTO",
    "Detection",
    "Result",
    "after_calibrators",
    "at_stages",
    "method_differences",
    "result_from",
    "with_calibrators",
]

if not TYPE_CHECKING:  # a type checker would take any name for one of the package
    __getattr__ = at_first_use(
        __name__,
        {
            "detection": "Detection",
            "differences": "method_differences",
            "result": "Result result_from",
            "stages": "AUTO after_calibrators at_stages with_calibrators",
        },
    )
