"""The laboratory: a recipe in, runs and a report out.

The command line runs what is here. The library, which is everything outside ``lab`` and ``cli``, never imports it.
"""

from typing import TYPE_CHECKING, Any

__all__ = ["BenchResult", "bench"]

if TYPE_CHECKING:
    from fedlas.lab.benches.run_all import bench as bench
    from fedlas.lab.report.result import BenchResult as BenchResult


def __getattr__(name: str) -> Any:
    from importlib import import_module

    homes = {"bench": "benches.run_all", "BenchResult": "report.result"}
    if name not in homes:
        raise AttributeError(f"fedlas.lab has no {name!r}.")
    return getattr(import_module(f"fedlas.lab.{homes[name]}"), name)
