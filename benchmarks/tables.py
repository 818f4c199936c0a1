"""Time and memory of ``fedlas apply`` on a CSV and on Parquet, and of reading and writing them by pyarrow.

    python benchmarks/tables.py 1000000

Each file has an id, a name, three probabilities and an amount. The time is that of a processor, on one thread; "mixture
alone" is that of the calibrator, which either file needs. The memory is the most that the process has taken so far.
"""

import argparse
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import torch

import fedlas
from fedlas import Predictions
from fedlas.calibrated.tables.files import apply_to_files
from fedlas.predictions.tables.formats.format import ROWS

CHUNK = 500_000


def drawn(random, rows):
    logits = 2 * random.normal(size=(rows, 3))
    probs = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return logits, {f"p_{name}": column for name, column in zip("abc", probs.T, strict=True)}


def fitted(random):
    logits, columns = drawn(random, 3000)
    noise = random.gumbel(size=logits.shape)
    return fedlas.calibrate(
        {**columns, "y": (logits / 2 + noise).argmax(axis=1)}, probs="p_*", target="y"
    )


def write(folder, rows, random):
    """Write the same table as CSV and Parquet, a chunk at a time, and return both paths."""
    paths = (folder / "live.csv", folder / "live.parquet")
    writer = None
    with paths[0].open("wb") as file:
        for start in range(0, rows, CHUNK):
            count = min(CHUNK, rows - start)
            _, columns = drawn(random, count)
            names = [f"c{number % 977}" for number in range(count)]
            amount = random.normal(size=count).round(2)
            table = pa.table(
                {"id": np.arange(start, start + count), "name": names, **columns, "amount": amount}
            )
            pyarrow.csv.write_csv(table, file, pyarrow.csv.WriteOptions(include_header=start == 0))
            writer = writer or pyarrow.parquet.ParquetWriter(paths[1], table.schema)
            writer.write_table(table)
    writer.close()
    return paths


def processor(function, *arguments):
    begin = time.process_time()
    function(*arguments)
    return time.process_time() - begin


def mixture(calibration, rows):
    """Transform so many rows, in chunks as a table has them."""
    logits = torch.randn(ROWS, 3, dtype=torch.float64)
    for _ in range(0, rows, ROWS):
        calibration.calibrator.transform(Predictions(logits))


def apply(calibration, path):
    apply_to_files(calibration, [path], path.with_stem("out"))


def pyarrow_alone(path):
    out = path.with_stem("out")
    if path.suffix == ".csv":
        pyarrow.csv.write_csv(pyarrow.csv.read_csv(path), out)
    else:
        pyarrow.parquet.write_table(pyarrow.parquet.read_table(path), out)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", type=int)
    torch.set_num_threads(1)
    pa.set_cpu_count(1)
    random = np.random.default_rng(0)
    calibration = fitted(random)
    rows = parser.parse_args().rows
    with tempfile.TemporaryDirectory() as folder:
        paths = write(Path(folder), rows, random)
        print(f"{rows:,} rows: mixture alone {processor(mixture, calibration, rows):.2f} s")
        seconds = {}
        for path in paths:
            seconds[path] = processor(apply, calibration, path)
            most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            size = path.stat().st_size / 1e6
            print(f"{path.suffix} {size:,.0f} MB: apply {seconds[path]:.2f} s, {most:,.0f} MiB")
        for path in paths:
            alone = processor(pyarrow_alone, path)
            print(f"{path.suffix}: pyarrow {alone:.2f} s, ratio {seconds[path] / alone:.2f}")


if __name__ == "__main__":
    main()
