"""Methods x seeds x stages: what finished runs measured, compared and tested once.

In: a ``Summary`` of run folders, or what a study returned. Out: ``Result``, which ``lab.report`` shows and nothing else
computes again.
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
