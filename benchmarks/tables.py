"""Time and memory of ``fedlas apply`` on a CSV and on Parquet, and of reading and writing them by pyarrow.

    python benchmarks/tables.py 1000000 5000000

Each file has an id, a name, three probabilities and an amount. The time is that of a processor, on one thread; the
memory is the most that the process has taken so far. pyarrow holds the whole table, and is timed up to 5,000,000 rows.
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
from fedlas.calibrated.table_files import apply_to_files, open_tables

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


def write(path, rows, random):
    with path.open("wb") as file:
        for start in range(0, rows, CHUNK):
            count = min(CHUNK, rows - start)
            _, columns = drawn(random, count)
            names = [f"c{number % 977}" for number in range(count)]
            amount = random.normal(size=count).round(2)
            table = pa.table(
                {"id": np.arange(start, start + count), "name": names, **columns, "amount": amount}
            )
            pyarrow.csv.write_csv(table, file, pyarrow.csv.WriteOptions(include_header=start == 0))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", type=int, nargs="+")
    torch.set_num_threads(1)
    random = np.random.default_rng(0)
    calibration = fitted(random)
    with tempfile.TemporaryDirectory() as folder:
        for rows in parser.parse_args().rows:
            live, out = Path(folder) / "live.csv", Path(folder) / "out.csv"
            write(live, rows, random)
            begin = time.process_time()
            apply_to_files(calibration, open_tables([live]), out)
            seconds = time.process_time() - begin
            most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            print(
                f"{rows:,} rows, {live.stat().st_size / 1e6:,.0f} MB: apply {seconds:.2f} s, {most:,.0f} MiB"
            )
            if rows > 5_000_000:
                continue
            begin = time.process_time()
            table = pyarrow.csv.read_csv(live)
            pyarrow.csv.write_csv(table, out)
            alone = time.process_time() - begin
            print(f"    pyarrow {alone:.2f} s, ratio {seconds / alone:.2f}")
            live, out = live.with_suffix(".parquet"), out.with_suffix(".parquet")
            pyarrow.parquet.write_table(table, live)
            begin = time.process_time()
            apply_to_files(calibration, open_tables([live]), out)
            seconds = time.process_time() - begin
            begin = time.process_time()
            pyarrow.parquet.write_table(pyarrow.parquet.read_table(live), out)
            alone = time.process_time() - begin
            print(
                f"    Parquet: apply {seconds:.2f} s, pyarrow {alone:.2f} s, ratio {seconds / alone:.2f}"
            )


if __name__ == "__main__":
    main()
