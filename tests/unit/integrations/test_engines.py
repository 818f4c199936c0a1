"""Ray, DuckDB and Spark: batches in their processes give what one process gives."""

import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import fedlas
from fedlas.errors import InputError
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
PAGE = Path(__file__).parents[3] / "docs" / "database.md"


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


def test_merged_sums_match_one_process_and_intervals_cover():
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


def test_blocks_go_to_their_group_in_turn():
    frame = table(1000)

    def blocks():
        return [
            sums_of_batch(rows_of(frame, slice(at, at + 100)), COLUMNS)
            for at in range(0, 1000, 100)
        ]

    merged = blocks()[:3]
    for number, block in enumerate(blocks()[3:]):
        merged[number % 3].merge(block)
    assert estimates_of_sums(blocks(), groups=3) == estimates_of_sums(merged, groups=50)
    # A group more or fewer leaves out other blocks.
    assert estimates_of_sums(blocks(), groups=4) != estimates_of_sums(merged, groups=50)


@pytest.fixture(scope="module")
def calibration():
    return fedlas.calibrate(table(500, 1), probs="p_*", target="y")


@pytest.mark.system
@pytest.mark.filterwarnings("ignore")
def test_ray_of_one_cpu(calibration):
    """An actor left no CPU to read, and the job waited for ever."""
    ray = pytest.importorskip("ray")
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
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
        after = apply_dataset(dataset, calibration, batch_size=3000).to_pandas()
        after = after.sort_values("id")
        wanted = calibration.apply(frame)
        for name in calibration.added:
            np.testing.assert_allclose(after[name], wanted[name], rtol=0, atol=1e-12)
    finally:
        ray.shutdown()


@pytest.mark.system
@pytest.mark.filterwarnings("ignore")
def test_the_lines_of_the_page_in_ray(tmp_path, monkeypatch):
    ray = pytest.importorskip("ray")
    block = next(
        text
        for text in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
        if "ray.data" in text
    )
    monkeypatch.chdir(tmp_path)
    frame = table(6000, 2)
    single = {"p": frame["p_0"], "y": (frame["y"] == 0).astype(int), "id": frame["id"]}
    fedlas.calibrate(single, probs="p", target="y", method="temperature").save("cal.json")
    (tmp_path / "scored").mkdir()
    for at in range(0, 6000, 2000):
        pq.write_table(pa.table(rows_of(single, slice(at, at + 2000))), f"scored/{at}.parquet")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    try:
        names = {}
        exec(block, names)
    finally:
        ray.shutdown()
    one = fedlas.evaluate(fedlas.read_predictions(single, probs="p", target="y").predictions)
    assert names["nll"].value == pytest.approx(one["nll"], abs=1e-12)
    after = pd.concat(map(pd.read_parquet, (tmp_path / "calibrated").glob("*.parquet")))
    wanted = names["calibration"].apply(single)["calibrated_p"]
    np.testing.assert_allclose(after.sort_values("id")["calibrated_p"], wanted, atol=1e-12)


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
    assert call.null_count == 0


@pytest.mark.system
@pytest.mark.filterwarnings("ignore")
def test_null_is_null_in_duckdb_and_counted():
    """One NULL stopped the query; a batch of NULL alone would stop the others."""
    duckdb = pytest.importorskip("duckdb")
    frame = table(500, 1)
    single = {"p": frame["p_0"], "y": (frame["y"] == 0).astype(int)}
    calibration = fedlas.calibrate(single, probs="p", target="y", method="temperature")
    live = pa.table({"p": [None, 0.3, None, 0.6] + [None] * 5000})
    with duckdb.connect() as connection:
        connection.register("scores", live)
        call = duckdb_function(connection, calibration)
        after = connection.sql(f"SELECT {call} AS q FROM scores").fetchall()
    wanted = calibration.apply({"p": [0.3, 0.6]})["calibrated_p"]
    assert after[:4] == [(None,), (wanted[0],), (None,), (wanted[1],)]
    assert (len(after), call.null_count) == (5004, 5002)


def test_batches_may_lack_all_scores_or_all_rows():
    frame = table(500, 1)
    calibration = fedlas.calibrate(frame, probs="p_*", target="y", method="temperature")
    live = pa.table(rows_of(frame, slice(0, 4)))
    nothing = live.set_column(0, "p_0", pa.nulls(4, pa.float64()))
    batches = [live.to_batches()[0], nothing.to_batches()[0], live.slice(0, 0)]
    after = pa.concat_tables(
        part if isinstance(part, pa.Table) else pa.Table.from_batches([part])
        for part in calibrated_batches(calibration, missing="empty")(batches)
    )
    values = np.asarray(after["calibrated_p_0"], float)
    np.testing.assert_allclose(values[:4], calibration.apply(live)["calibrated_p_0"])
    assert np.isnan(values[4:]).tolist() == [True] * 4
    with pytest.raises(InputError, match="row 1"):
        list(calibrated_batches(calibration)([nothing]))


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
