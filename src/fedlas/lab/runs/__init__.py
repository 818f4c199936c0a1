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

from fedlas._core.lazy import lazy_getattr

if TYPE_CHECKING:
    from fedlas.lab.runs.begin import (
        BusyError,
        acquire_folder,
        read_metrics_if_finished,
        resolve_precision,
        with_saved_precision,
    )
    from fedlas.lab.runs.bench_folder import check_bench_folder, find_runs, run_folders
    from fedlas.lab.runs.collection import collect_runs, pack_runs, read_finished_run
    from fedlas.lab.runs.data import data_fingerprint, prepare_data, warn_if_validation_small
    from fedlas.lab.runs.execution import execute
    from fedlas.lab.runs.folder import PACK_FILE, RunFolder, UnreadableError
    from fedlas.lab.runs.intervals import missing_interval_reasons, with_estimates
    from fedlas.lab.runs.load import TrainedRun, load_splits_if_available, load_trained_run
    from fedlas.lab.runs.measure import default_metrics, summarize_alarms
    from fedlas.lab.runs.predict import predict_part
    from fedlas.lab.runs.provenance import environment, record_start
    from fedlas.lab.runs.summary import FinishedRun, RunEstimates, Summary
    from fedlas.lab.runs.train import build_objective
    from fedlas.lab.runs.workload import Forecast, choose_threads, count_train_images, forecast_run

__all__ = [
    "PACK_FILE",
    "BusyError",
    "FinishedRun",
    "Forecast",
    "RunEstimates",
    "RunFolder",
    "Summary",
    "TrainedRun",
    "UnreadableError",
    "acquire_folder",
    "build_objective",
    "check_bench_folder",
    "choose_threads",
    "collect_runs",
    "count_train_images",
    "data_fingerprint",
    "default_metrics",
    "environment",
    "execute",
    "find_runs",
    "forecast_run",
    "load_splits_if_available",
    "load_trained_run",
    "missing_interval_reasons",
    "pack_runs",
    "predict_part",
    "prepare_data",
    "read_finished_run",
    "read_metrics_if_finished",
    "record_start",
    "resolve_precision",
    "run_folders",
    "summarize_alarms",
    "warn_if_validation_small",
    "with_estimates",
    "with_saved_precision",
]

if not TYPE_CHECKING:  # a type checker would take any name for one of the package
    __getattr__ = lazy_getattr(
        __name__,
        {
            "begin": "BusyError with_saved_precision acquire_folder read_metrics_if_finished resolve_precision",
            "bench_folder": "check_bench_folder find_runs run_folders",
            "collection": "collect_runs pack_runs read_finished_run",
            "data": "data_fingerprint prepare_data warn_if_validation_small",
            "execution": "execute",
            "folder": "PACK_FILE RunFolder UnreadableError",
            "intervals": "missing_interval_reasons with_estimates",
            "load": "TrainedRun load_trained_run load_splits_if_available",
            "measure": "summarize_alarms default_metrics",
            "predict": "predict_part",
            "provenance": "environment record_start",
            "summary": "FinishedRun RunEstimates Summary",
            "train": "build_objective",
            "workload": "Forecast forecast_run choose_threads count_train_images",
        },
    )
