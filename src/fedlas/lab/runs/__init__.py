"""Single runs: execution, run folders, loading, and summaries over a bench.

In: a :class:`~fedlas.lab.recipes.Run` (recipe, loss, seed). Out: a ``RunFolder``, and a ``Summary`` of many.

A run's folder holds ``config.yaml`` (resolved; compared on every restart), ``data.json`` (fingerprint of its data,
compared too), ``data_root.txt`` (where it was read; compared with nothing, and not for publication),
``environment.json`` (one entry a start), ``splits.npz``, ``log.jsonl`` (one line an epoch), ``checkpoint.pt`` (model,
loss, hooks, optimizer, schedule, generators, best weights; plain tensors only), ``predictions/{val,test}.npz`` (logits,
target, features), ``metrics.json`` (written last: it marks the run as finished) and ``error.txt`` if it failed. A
report adds ``intervals.json``, tied to the predictions by their hash. Without checkpoint and predictions a folder still
counts as finished and can be reported. The runs of a bench can be packed into a zip, which is read as if the folders
were there (``pack.py`` writes it, ``folder.py`` reads it); ``results/`` keeps such zips.

Every file but the log is written next to its place and moved there whole. The log grows by a line an epoch and is cut
back to the checkpoint on a restart. A lock keeps a second process out.
"""

from typing import TYPE_CHECKING

from fedlas._core.lazy import at_first_use

if TYPE_CHECKING:
    from fedlas.lab.runs.begin import BusyError, begun, claim, finished, settled
    from fedlas.lab.runs.bench_folder import check_bench_folder, find_runs, run_folders
    from fedlas.lab.runs.collection import collect, pack, read_run
    from fedlas.lab.runs.data import data_fingerprint, prepare_data, warn_of_small_validation
    from fedlas.lab.runs.execution import execute
    from fedlas.lab.runs.folder import RUNS, RunFolder, UnreadableError
    from fedlas.lab.runs.intervals import failure_reasons, with_estimates
    from fedlas.lab.runs.load import Trained, load_trained, splits_at_hand
    from fedlas.lab.runs.measure import alarms_of, recorded
    from fedlas.lab.runs.predict import predictions_of
    from fedlas.lab.runs.provenance import environment, note_start
    from fedlas.lab.runs.summary import FinishedRun, RunEstimates, Summary
    from fedlas.lab.runs.train import build_objective
    from fedlas.lab.runs.workload import Forecast, count_train_images, forecast, threads_for

__all__ = [
    "RUNS",
    "BusyError",
    "FinishedRun",
    "Forecast",
    "RunEstimates",
    "RunFolder",
    "Summary",
    "Trained",
    "UnreadableError",
    "alarms_of",
    "begun",
    "build_objective",
    "check_bench_folder",
    "claim",
    "collect",
    "count_train_images",
    "data_fingerprint",
    "environment",
    "execute",
    "failure_reasons",
    "find_runs",
    "finished",
    "forecast",
    "load_trained",
    "note_start",
    "pack",
    "predictions_of",
    "prepare_data",
    "read_run",
    "recorded",
    "run_folders",
    "settled",
    "splits_at_hand",
    "threads_for",
    "warn_of_small_validation",
    "with_estimates",
]

if not TYPE_CHECKING:  # a type checker would take any name for one of the package
    __getattr__ = at_first_use(
        __name__,
        {
            "begin": "BusyError begun claim finished settled",
            "bench_folder": "check_bench_folder find_runs run_folders",
            "collection": "collect pack read_run",
            "data": "data_fingerprint prepare_data warn_of_small_validation",
            "execution": "execute",
            "folder": "RUNS RunFolder UnreadableError",
            "intervals": "failure_reasons with_estimates",
            "load": "Trained load_trained splits_at_hand",
            "measure": "alarms_of recorded",
            "predict": "predictions_of",
            "provenance": "environment note_start",
            "summary": "FinishedRun RunEstimates Summary",
            "train": "build_objective",
            "workload": "Forecast forecast threads_for count_train_images",
        },
    )
