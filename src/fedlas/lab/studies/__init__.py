"""Studies of finished runs: post-hoc calibrators, shifted data, OOD data, uncertainty methods, diagnosis.

Input: run folders. Output: metrics and predictions, from which ``lab.report`` makes tables and pages.
"""

from typing import TYPE_CHECKING

from fedlas._core.lazy import at_first_use

if TYPE_CHECKING:
    from fedlas.lab.studies.diagnose import RunGroup, Study, grouped, study_run
    from fedlas.lab.studies.export import iter_test_images, run_card
    from fedlas.lab.studies.run_parts import run_held_out, test_part
    from fedlas.lab.studies.shift import measure_shift

__all__ = [
    "RunGroup",
    "Study",
    "grouped",
    "iter_test_images",
    "measure_shift",
    "run_card",
    "run_held_out",
    "study_run",
    "test_part",
]

if not TYPE_CHECKING:  # a type checker would take any name for one of the package
    __getattr__ = at_first_use(
        __name__,
        {
            "diagnose": "RunGroup Study grouped study_run",
            "export": "run_card iter_test_images",
            "run_parts": "run_held_out test_part",
            "shift": "measure_shift",
        },
    )
