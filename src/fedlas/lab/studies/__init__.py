"""Studies of finished runs: post-hoc calibrators, shifted data, OOD data, uncertainty methods, diagnosis.

Input: run folders. Output: metrics and predictions, from which ``lab.report`` makes tables and pages.
"""

from typing import TYPE_CHECKING

from fedlas._core.lazy import lazy_getattr

if TYPE_CHECKING:
    from fedlas.lab.studies.diagnose import RunDiagnosis, RunGroup, diagnose_run, group_by_settings
    from fedlas.lab.studies.export import iter_test_images, run_card
    from fedlas.lab.studies.run_parts import load_held_out, load_test_predictions
    from fedlas.lab.studies.shift import measure_shift

__all__ = [
    "RunDiagnosis",
    "RunGroup",
    "diagnose_run",
    "group_by_settings",
    "iter_test_images",
    "load_held_out",
    "load_test_predictions",
    "measure_shift",
    "run_card",
]

if not TYPE_CHECKING:  # a type checker would take any name for one of the package
    __getattr__ = lazy_getattr(
        __name__,
        {
            "diagnose": "RunGroup RunDiagnosis group_by_settings diagnose_run",
            "export": "run_card iter_test_images",
            "run_parts": "load_held_out load_test_predictions",
            "shift": "measure_shift",
        },
    )
