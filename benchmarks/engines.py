"""A table in one process and in two Ray workers, time and memory: ``python benchmarks/engines.py ROWS FOLDER``.

Writes Parquet files of two classes (eight files), and evaluates and applies a mixture to them both ways. Memory is the
largest of this process, or of all processes under it.
"""

import sys
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq

import fedlas
from fedlas.integrations.engines import (
    apply_dataset,
    estimates_of_sums,
    evaluate_dataset,
    sums_of_batch,
)
from fedlas.predictions import Columns

COLUMNS = Columns(probs="p", target="y")
BATCH = 2**18


def frame(rows, seed):
    random = np.random.default_rng(seed)
    score = random.normal(size=rows)
    happens = random.random(rows) < 1 / (1 + np.exp(-score))
    return {"p": 1 / (1 + np.exp(-2 * score)), "y": happens.astype(np.int64)}


class Peak(threading.Thread):
    """Largest memory of this process and its children, in MiB."""

    def __init__(self):
        super().__init__(daemon=True)
        self.mib = 0.0
        self.is_over = threading.Event()

    def run(self):
        here = psutil.Process()
        while not self.is_over.wait(0.5):
            total = 0
            for process in [here, *here.children(recursive=True)]:
                try:
                    total += process.memory_full_info().pss
                except psutil.Error:
                    continue
            self.mib = max(self.mib, total / 2**20)


def timed(name, function):
    peak = Peak()
    peak.start()
    start = time.perf_counter()
    result = function()
    seconds = time.perf_counter() - start
    peak.is_over.set()
    print(f"{name}: {seconds:.0f} s, {peak.mib:.0f} MiB, {result}", flush=True)


def batches(folder):
    for path in sorted(folder.glob("*.parquet")):
        yield from pq.ParquetFile(path).iter_batches(BATCH)


def one_evaluate(folder):
    blocks = (sums_of_batch(pa.Table.from_batches([each]), COLUMNS) for each in batches(folder))
    found = estimates_of_sums(blocks)["nll"]
    return f"NLL {found.value:.12f} [{found.low:.6f}, {found.high:.6f}]"


def one_apply(folder, calibration):
    with pq.ParquetWriter(
        folder / "out", pa.schema(dict.fromkeys(("p", "y", "calibrated_p"), pa.float64()))
    ) as file:
        for each in batches(folder):
            after = calibration.apply(pa.Table.from_batches([each]))
            file.write_table(after.cast(file.schema))
    (folder / "out").unlink()
    return "applied"


def main():
    rows, folder = int(float(sys.argv[1])), Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(8):
        pq.write_table(
            pa.table(frame(rows // 8, number)), folder / f"{number}.parquet", row_group_size=BATCH
        )
    calibration = fedlas.calibrate(frame(5000, 99), probs="p", target="y")
    timed("evaluate, one process", lambda: one_evaluate(folder))
    timed("apply, one process", lambda: one_apply(folder, calibration))

    import ray

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=2**30)
    dataset = ray.data.read_parquet([str(path) for path in sorted(folder.glob("*.parquet"))])

    def two_evaluate():
        found = evaluate_dataset(dataset, COLUMNS, batch_size=BATCH, concurrency=2)["nll"]
        return f"NLL {found.value:.12f} [{found.low:.6f}, {found.high:.6f}]"

    def two_apply():
        apply_dataset(dataset, calibration, concurrency=2, batch_size=BATCH).write_parquet(
            str(folder / "ray")
        )
        return "applied"

    timed("evaluate, two Ray workers", two_evaluate)
    timed("apply, two Ray workers", two_apply)


if __name__ == "__main__":
    main()
