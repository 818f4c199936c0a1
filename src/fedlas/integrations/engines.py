"""Metrics and calibration of large tables in batches, for Ray, Spark, DuckDB and other engines.

The engine reads, schedules and writes; these functions process its batches and merge the results.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import numpy as np

from fedlas._core.check import InputError, check_count, describe, warn_user
from fedlas._core.extras import require
from fedlas._core.kinds import check_argument_types
from fedlas.calibrated import TableCalibration
from fedlas.calibrated.tables.apply import apply_to_frame
from fedlas.calibrated.tables.missing import Missing, MissingPolicy
from fedlas.metrics.streaming import StreamingMetrics
from fedlas.predictions import Columns, Predictions, read_predictions
from fedlas.stats.degrees import critical_t
from fedlas.stats.estimates import Estimate

__all__ = [
    "SqlCall",
    "apply_dataset",
    "calibrated_batches",
    "duckdb_function",
    "estimates_of_sums",
    "evaluate_dataset",
    "sums_of_batch",
]
_SUMS_COLUMN = "sums"
_CONFIDENCE_LEVEL = 0.95


def sums_of_batch(
    batch: Any, columns: Columns, *, metrics: Sequence[str] | None = None, num_bins: int = 15
) -> StreamingMetrics:
    """Return the metric sums of a labeled batch; sums of several batches can be merged and pickled.

    Args:
        batch: An Arrow table, a pandas or polars frame, or a mapping from names to columns.
        columns: Which column is what; class names of text labels must be among the names of score columns, or named by
            ``classes``, so that all batches number them alike.
        metrics: Names; None: those that sums give.
        num_bins: Bins, at least 1.

    Raises:
        InputError: As :func:`~fedlas.read_predictions`, or if the scores are confidences alone.

    Example:
        >>> batch = {"p_0": [0.9, 0.2], "p_1": [0.1, 0.8], "y": [0, 1]}
        >>> sums = sums_of_batch(batch, Columns(probs="p_*", target="y"), metrics=["accuracy"])
        >>> sums.merge(sums_of_batch(batch, Columns(probs="p_*", target="y"), metrics=["accuracy"]))
        >>> sums.num_samples, sums.compute()
        (4, {'accuracy': 1.0})
    """
    predictions = read_predictions(_to_columns(batch), columns).predictions
    if not isinstance(predictions, Predictions) or not predictions.has_target:
        raise InputError(
            "the batch must have scores of all classes and labels",
            f"columns {columns}",
            "Name probs= or logits=, and target=.",
        )
    weighted = predictions.weights is not None
    sums = StreamingMetrics(
        predictions.num_classes, metrics=metrics, num_bins=num_bins, weighted=weighted
    )
    sums.update(
        predictions.tensors().logits,
        predictions.tensors().target,
        weights=predictions.tensors().weights,
    )
    return sums


@check_argument_types
def estimates_of_sums(blocks: Iterable[StreamingMetrics], groups: int = 50) -> dict[str, Estimate]:
    """Return metrics of merged batch sums, with intervals by a delete-a-group jackknife.

    Args:
        blocks: Sums of the blocks, all of the same metrics.
        groups: Groups that blocks are merged into, at least 2. Rows of one cluster belong in one block.

    Returns:
        By name, intervals of 95 %; from minus to plus infinity with a single block.

    Raises:
        InputError: Without blocks.

    Note:
        The delete-a-group jackknife with Student's t: as many pieces of the table as there are groups must be alike.
        The values equal those of one process within 1e-12.

    Source:
        Kott 2001, "The delete-a-group jackknife", Journal of Official Statistics 17.

    Example:
        >>> columns = Columns(probs="p", target="y")
        >>> frames = [{"p": [0.9, 0.2, 0.6], "y": [1, 0, 0]}, {"p": [0.1, 0.8, 0.7], "y": [0, 1, 1]}]
        >>> blocks = [sums_of_batch(frame, columns, metrics=["accuracy"]) for frame in frames]
        >>> round(estimates_of_sums(blocks)["accuracy"].value, 2)
        0.83
    """
    check_count("groups", groups, low=2)
    parts: list[StreamingMetrics] = []
    for number, block in enumerate(blocks):
        if not isinstance(block, StreamingMetrics):
            raise InputError(
                "blocks must be StreamingMetrics",
                describe(block),
                "Pass what sums_of_batch returned.",
            )
        if number < groups:
            parts.append(block)
        else:
            parts[number % groups].merge(block)
    if not parts:
        raise InputError("blocks must not be empty", "none", "Check the table.")
    # All but one group, from sums of those before it and of those after it.
    after = [parts[-1]]
    for block in parts[-2::-1]:
        after.append(_merge_copies(block, after[-1]))
    after.reverse()
    values = after[0].compute()
    without = []
    before: StreamingMetrics | None = None
    for number, block in enumerate(parts):
        following = after[number + 1] if number + 1 < len(parts) else None
        others = [sums for sums in (before, following) if sums is not None]
        if others:
            without.append(_merge_copies(*others).compute())
        before = block if before is None else _merge_copies(before, block)
    return {
        name: _jackknife_estimate(value, [each[name] for each in without])
        for name, value in values.items()
    }


def _merge_copies(*sums: StreamingMetrics) -> StreamingMetrics:
    """Return merged sums, leaving the arguments unchanged."""
    result: StreamingMetrics = pickle.loads(pickle.dumps(sums[0]))  # our own bytes
    for other in sums[1:]:
        result.merge(other)
    return result


def _jackknife_estimate(value: float, without: Sequence[float]) -> Estimate:
    count = len(without)
    if count < 2:
        return Estimate(value, -np.inf, np.inf)
    gaps = np.asarray(without) - np.mean(without)
    error = float(np.sqrt((count - 1) / count * (gaps**2).sum()))
    reach = error * critical_t(_CONFIDENCE_LEVEL, count - 1)
    return Estimate(value, value - reach, value + reach, confidence_level=_CONFIDENCE_LEVEL)


@check_argument_types
def evaluate_dataset(
    dataset: Any,
    columns: Columns,
    *,
    metrics: Sequence[str] | None = None,
    num_bins: int = 15,
    batch_size: int = 2**20,
    **ray_options: Any,
) -> dict[str, Estimate]:
    """Return metrics with intervals of a labeled Ray ``Dataset``, computed in batches.

    Args:
        dataset: The ``ray.data.Dataset``.
        columns: As in :func:`sums_of_batch`.
        metrics: As there.
        num_bins: As there.
        batch_size: Rows of a block.
        ray_options: For ``map_batches``, such as ``concurrency=2``.

    Example:
        >>> columns = Columns(probs="p_*", target="y")
        >>> evaluate_dataset(ray.data.read_parquet("scored/"), columns)["nll"]  # doctest: +SKIP
    """
    if not hasattr(dataset, "select_columns") or not hasattr(dataset, "map_batches"):
        fix = "Pass ray.data.read_parquet(...), or a frame to fedlas.report."
        raise InputError("dataset must be a ray.data.Dataset", describe(dataset), fix)
    check_count("batch_size", batch_size, low=1)
    needed = dataset.select_columns(_needed_columns(dataset, columns))
    blocks = needed.map_batches(
        _pickle_batch_sums,
        batch_size=batch_size,
        batch_format="pyarrow",
        fn_kwargs={"columns": columns, "metrics": metrics, "num_bins": num_bins},
        **ray_options,
    )
    return estimates_of_sums(pickle.loads(row[_SUMS_COLUMN]) for row in blocks.iter_rows())


def _needed_columns(dataset: Any, columns: Columns) -> list[str]:
    """Return the names of the dataset's columns that the metrics need."""
    patterns = [
        pattern
        for name in ("logits", "probs", "target", "weights", "label_probs")
        for pattern in columns.split_option(name)
    ]
    return [
        name
        for name in dataset.schema().names
        if any(name == pattern or fnmatchcase(name, pattern) for pattern in patterns)
    ]


def _pickle_batch_sums(batch: Any, **options: Any) -> dict[str, list[bytes]]:
    return {_SUMS_COLUMN: [pickle.dumps(sums_of_batch(batch, **options))]}


class _BatchCalibrator:
    """Callable that adds calibrated columns to batches."""

    def __init__(self, content: bytes, missing: MissingPolicy | None) -> None:
        self._calibration: TableCalibration = pickle.loads(content)  # our own bytes
        self._missing: MissingPolicy = missing or self._calibration.missing

    def __call__(self, batch: Any) -> Any:
        after, done = apply_to_frame(self._calibration, batch, Missing(self._missing))
        for note in done.notes:
            warn_user(note)
        return after


def apply_dataset(
    dataset: Any,
    calibration: TableCalibration,
    *,
    concurrency: int = 1,
    missing: MissingPolicy | None = None,
    **ray_options: Any,
) -> Any:
    """Return a Ray ``Dataset`` with the calibrated columns added; each actor loads the calibration once.

    Args:
        dataset: The ``ray.data.Dataset``.
        calibration: Fitted by :func:`fedlas.calibrate` on a table, or loaded.
        concurrency: Actors. Where the cluster has no more CPUs than that, they reserve none, so that one is left to
            read.
        missing: What happens to rows without a score, as in :meth:`~fedlas.TableCalibration.apply`.
        ray_options: For ``map_batches``, such as ``batch_size=100_000``.

    Example:
        >>> apply_dataset(ray.data.read_parquet("live/"), calibration).write_parquet("calibrated/")  # doctest: +SKIP
    """
    ray = require("ray", extra="ray")
    actors = require("ray.data", extra="ray").ActorPoolStrategy(size=concurrency)
    options = {"batch_format": "pyarrow", "compute": actors, **ray_options}
    if ray.cluster_resources().get("CPU", 0) <= concurrency:
        options.setdefault("num_cpus", 0)
    content = pickle.dumps(calibration)
    return dataset.map_batches(_BatchCalibrator, fn_constructor_args=(content, missing), **options)


def calibrated_batches(
    calibration: TableCalibration, *, missing: MissingPolicy | None = None
) -> Callable[[Iterable[Any]], Iterator[Any]]:
    """Return a function that adds calibrated columns to each batch of an iterator.

    Spark takes it as ``frame.mapInArrow(calibrated_batches(calibration), schema)`` or ``mapInPandas``; an Arrow
    ``RecordBatch`` comes back as one. ``missing`` says what happens to rows without a score.

    Example:
        >>> spark_frame.mapInPandas(calibrated_batches(calibration), schema)  # doctest: +SKIP
    """
    content = pickle.dumps(calibration)

    def batches(parts: Iterable[Any]) -> Iterator[Any]:
        apply = _BatchCalibrator(content, missing)
        for part in parts:
            yield apply(part)

    return batches


class SqlCall(str):
    """An SQL function call as text, which counts the rows without a score.

    Attributes:
        null_count: Rows so far without a score, for which it returned NULL.
    """

    null_count: int = 0


@check_argument_types
def duckdb_function(
    connection: Any, calibration: TableCalibration, name: str = "calibrated"
) -> SqlCall:
    """Register a calibration as an SQL function of a DuckDB connection, and return the text of a call.

    The function returns a number, or with several scores a struct of the calibrated columns; NULL where a score is
    NULL. The call counts such rows.

    Args:
        connection: What ``duckdb.connect`` returns.
        calibration: Without columns of lists.
        name: Name of the function.

    Raises:
        InputError: If one column holds the scores of all classes as lists.

    Example:
        >>> call = duckdb_function(connection, calibration)  # doctest: +SKIP
    """
    if not hasattr(connection, "create_function"):
        fix = "Pass what duckdb.connect() returned."
        raise InputError("connection must be a DuckDB connection", describe(connection), fix)
    if not name.isidentifier():
        raise InputError(
            "name must be a valid SQL function name",
            repr(name),
            "Pass a name such as 'calibrated'.",
        )
    if calibration.in_lists:
        raise InputError(
            "scores must be in one column per class", "lists", "Write one column per class."
        )
    arrow = require("pyarrow", extra="tables")
    covariates = calibration.covariates
    numbers = [*calibration.scores, *(covariates.numbers if covariates else ())]
    texts = [*(covariates.categories if covariates else ())]
    added = calibration.added
    pairs = ", ".join(
        f"{_quote_identifier(column)} := {_quote_identifier(column)}"
        for column in (*numbers, *texts)
    )
    call = SqlCall(f"{name}(struct_pack({pairs}))")

    def calibrate_rows(rows: Any) -> Any:
        chunks = rows.combine_chunks() if hasattr(rows, "combine_chunks") else rows
        frame = arrow.table(dict(zip([*numbers, *texts], chunks.flatten(), strict=True)))
        lacking = Missing("empty")
        after, done = apply_to_frame(calibration, frame, lacking)
        for note in done.notes:
            warn_user(note)
        call.null_count += lacking.count
        columns = [after[column].to_numpy() for column in added]
        arrays = [arrow.array(column, mask=np.isnan(column)) for column in columns]
        return arrays[0] if len(added) == 1 else arrow.StructArray.from_arrays(arrays, list(added))

    fields = [f"{_quote_identifier(column)} DOUBLE" for column in numbers]
    fields += [f"{_quote_identifier(column)} VARCHAR" for column in texts]
    results = ", ".join(f"{_quote_identifier(column)} DOUBLE" for column in added)
    connection.create_function(
        name,
        calibrate_rows,
        [f"STRUCT({', '.join(fields)})"],
        "DOUBLE" if len(added) == 1 else f"STRUCT({results})",
        type="arrow",
        null_handling="special",
    )
    return call


def _quote_identifier(name: str) -> str:
    """Return a name as a quoted SQL identifier."""
    return '"{}"'.format(name.replace('"', '""'))


def _to_columns(batch: Any) -> Any:
    """Return an Arrow table as a dict of columns, and any other frame unchanged."""
    if isinstance(batch, Mapping) or not hasattr(batch, "column_names"):
        return batch
    return {name: batch[name] for name in batch.column_names}
