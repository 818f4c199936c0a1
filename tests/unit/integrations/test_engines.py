"""Ray, DuckDB and Spark: batches in their processes give what one process gives."""

import shutil
import sys

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import fedlas
from fedlas.integrations.engines import (
    apply_dataset,
    calibrated_batches,
    duckdb_function,
    estimates_of_sums,
    evaluate_dataset,
    sums_of_batch,
)
from fedlas.predictions import Columns, Predictions

COLUMNS = Columns(probs="p_*", target="y")


def table(rows, seed=0):
    random = np.random.default_rng(seed)
    logits = random.normal(size=(rows, 3))
    probs = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    target = (random.random((rows, 1)) > probs.cumsum(axis=1)).sum(axis=1)
    sharp = np.exp(2 * logits) / np.exp(2 * logits).sum(axis=1, keepdims=True)
    return {**{f"p_{k}": sharp[:, k] for k in range(3)}, "y": target, "id": np.arange(rows)}


def predictions_of(frame):
    probs = np.stack([frame[f"p_{k}"] for k in range(3)], axis=1)
    return Predictions.from_probs(probs, frame["y"])


def rows_of(frame, part):
    return {name: column[part] for name, column in frame.items()}


def test_merged_sums_are_those_of_one_process_and_their_intervals_cover():
    whole = fedlas.evaluate(predictions_of(table(200_000, 99)))
    hits = {"nll": 0, "ece": 0, "accuracy": 0}
    for seed in range(20):
        frame = table(6000, seed)
        blocks = [
            sums_of_batch(rows_of(frame, slice(at, at + 300)), COLUMNS)
            for at in range(0, 6000, 300)
        ]
        found = estimates_of_sums(blocks, groups=20)
        one = fedlas.evaluate(predictions_of(frame))
        for name in ("nll", "brier", "ece", "accuracy"):
            assert found[name].value == pytest.approx(one[name], abs=1e-12)
        for name in hits:
            hits[name] += found[name].low <= whole[name] <= found[name].high
    assert min(hits.values()) >= 16


def test_a_group_may_have_several_blocks():
    frame = table(1000)
    blocks = [
        sums_of_batch(rows_of(frame, slice(at, at + 100)), COLUMNS) for at in range(0, 1000, 100)
    ]
    found = estimates_of_sums(blocks, groups=3)
    assert found["nll"].value == pytest.approx(
        fedlas.evaluate(predictions_of(frame))["nll"], abs=1e-12
    )
    single = estimates_of_sums([sums_of_batch(frame, COLUMNS)])
    assert np.isinf(single["nll"].low)


@pytest.fixture(scope="module")
def calibration():
    return fedlas.calibrate(table(500, 1), probs="p_*", target="y")


@pytest.mark.system
@pytest.mark.filterwarnings("ignore")
def test_ray(calibration):
    ray = pytest.importorskip("ray")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    try:
        frame = table(20_000, 2)
        dataset = ray.data.from_arrow(
            [pa.table(rows_of(frame, slice(at, at + 5000))) for at in range(0, 20_000, 5000)]
        )
        found = evaluate_dataset(dataset, COLUMNS, batch_size=1000)
        one = fedlas.evaluate(predictions_of(frame))
        for name in ("nll", "brier", "ece", "accuracy"):
            assert found[name].value == pytest.approx(one[name], abs=1e-12)
            assert found[name].low < one[name] < found[name].high
        after = apply_dataset(dataset, calibration, concurrency=2, batch_size=3000).to_pandas()
        after = after.sort_values("id")
        wanted = calibration.apply(frame)
        for name in calibration.added:
            np.testing.assert_allclose(after[name], wanted[name], rtol=0, atol=1e-12)
    finally:
        ray.shutdown()


@pytest.mark.system
@pytest.mark.filterwarnings("ignore")
def test_duckdb(calibration):
    duckdb = pytest.importorskip("duckdb")
    frame = table(5000, 2)
    wanted = calibration.apply(frame)
    with duckdb.connect() as connection:
        connection.register("scores", pa.table(frame))
        call = duckdb_function(connection, calibration)
        result = connection.execute(
            f"SELECT id, unnest({call}) FROM scores ORDER BY id"
        ).fetchnumpy()
    for name in calibration.added:
        np.testing.assert_allclose(result[name], wanted[name], rtol=0, atol=1e-12)


@pytest.mark.long
@pytest.mark.filterwarnings("ignore")
def test_spark(calibration, monkeypatch):
    SparkSession = pytest.importorskip("pyspark.sql").SparkSession
    if shutil.which("java") is None:
        pytest.skip("no Java runtime")
    monkeypatch.setenv("PYSPARK_PYTHON", sys.executable)

    frame = table(5000, 2)
    wanted = calibration.apply(frame)
    spark = (
        SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false").getOrCreate()
    )
    try:
        live = spark.createDataFrame(pd.DataFrame(frame))
        added = ", ".join(f"{name} double" for name in calibration.added)
        schema = f"p_0 double, p_1 double, p_2 double, y bigint, id bigint, {added}"
        after = (
            live.mapInArrow(calibrated_batches(calibration), schema).toPandas().sort_values("id")
        )
    finally:
        spark.stop()
    for name in calibration.added:
        np.testing.assert_allclose(after[name], wanted[name], rtol=0, atol=1e-12)
