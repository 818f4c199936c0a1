"""Laboratory: trains runs from recipes, and reports on them.

The command line runs what is here. The library, which is everything outside ``lab`` and ``cli``, never imports it.
"""

from typing import TYPE_CHECKING

from fedlas._core.lazy import lazy_getattr

__all__ = ["BenchResult", "bench"]

if TYPE_CHECKING:
    from fedlas.lab.benches.all_runs import bench as bench
    from fedlas.lab.report.result import BenchResult as BenchResult
else:
    __getattr__ = lazy_getattr(
        __name__, {"benches.all_runs": "bench", "report.result": "BenchResult"}
    )
