"""A calibration as a SELECT in PostgreSQL and Spark, each started here: what ``apply`` gives, to 1e-9."""

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

import fedlas
from fedlas.cli import main
from fedlas.deploy import export
from fedlas.deploy.sql_maps import sql_calibrator_names
from fedlas.errors import CalibrationWarning

pytestmark = pytest.mark.system
METHODS = ("auto", *sql_calibrator_names())
MISSING = [[np.nan, 0.5, 0.5], [0.5, 0.5, np.nan], [np.nan, np.nan, np.nan]]


def missing(reason):
    """A user without a database skips these tests; CI may not."""
    if "FEDLAS_CI" in os.environ:
        pytest.fail(reason)
    pytest.skip(reason)


def programs():
    """The folder of PostgreSQL's programs, where Debian puts them or on the path; None if there are none."""
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    on_path = shutil.which("pg_ctl")
    folders = [*debian, *([Path(on_path).resolve().parent] if on_path else [])]
    needed = ("initdb", "pg_ctl", "psql")
    return next((each for each in folders if all((each / name).exists() for name in needed)), None)


class Postgres:
    """A server on a socket in a temporary folder; as another user where this one is root, which it refuses to be."""

    def __init__(self, folder):
        self.folder = folder
        self.user = {}
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            os.chown(folder, nobody.pw_uid, nobody.pw_gid)
            self.user = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
        self.data = folder / "data"

    def run(self, program, *arguments, **options):
        done = subprocess.run(
            [programs() / program, *arguments],
            cwd=self.folder,
            env={
                "PATH": os.environ["PATH"],
                "LC_ALL": "C",
                "PGHOST": str(self.folder),
                "PGUSER": "me",
            },
            capture_output=True,
            text=True,
            **self.user,
            **options,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def __enter__(self):
        self.run(
            "initdb", "--pgdata", self.data, "--username", "me", "--auth", "trust", "--no-sync"
        )
        server = f"-c listen_addresses= -c unix_socket_directories={self.folder} -c fsync=off"
        log = self.folder / "log"
        # Without a log file the server would hold the pipe of the output open.
        self.run(
            "pg_ctl", "start", "--wait", "--pgdata", self.data, "--options", server, "--log", log
        )
        return self

    def __exit__(self, *_):
        self.run("pg_ctl", "stop", "--mode", "immediate", "--pgdata", self.data)

    def select(self, statement, columns, rows):
        """The rows of a statement, for a table of these rows; NaN where it has NULL."""
        names = ", ".join(
            '"{}" double precision'.format(name.replace('"', '""')) for name in columns
        )
        lines = [
            ",".join("" if value != value else repr(float(value)) for value in row) for row in rows
        ]
        (self.folder / "load.sql").write_text(f"CREATE TABLE predictions ({names});\n")
        (self.folder / "rows.csv").write_text("\n".join(lines) + "\n")
        (self.folder / "cal.sql").write_text(statement)
        options = ["--no-psqlrc", "--set", "ON_ERROR_STOP=1", "--dbname", "postgres"]
        copy = f"\\copy predictions FROM '{self.folder / 'rows.csv'}' (FORMAT csv)"
        self.run("psql", *options, "--file", "load.sql", "--command", copy)
        told = self.run("psql", *options, "--csv", "--tuples-only", "--file", "cal.sql")
        self.run("psql", *options, "--command", "DROP TABLE predictions")
        found = [[float(cell or "nan") for cell in line.split(",")] for line in told.splitlines()]
        return np.array(found)


@pytest.fixture(scope="module")
def postgres():
    if programs() is None:
        missing("PostgreSQL is not installed: apt-get install postgresql")
    # Not in pytest's folder, which another user cannot enter; a socket's path must be short, too.
    folder = Path(tempfile.mkdtemp(prefix="pg"))
    try:
        with Postgres(folder) as server:
            yield server
    finally:
        shutil.rmtree(folder)


def drawn(rows, classes, seed):
    random = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(rows, classes, generator=random, dtype=torch.float64)
    target = torch.multinomial(logits.softmax(1), 1, generator=random)[:, 0]
    return logits.softmax(1).numpy(), target.numpy()


def fitted(method, classes=3, rows=500):
    probs, target = drawn(rows, classes, 0)
    frame = {f'the "{k}"': column for k, column in enumerate(probs.T)} | {"y": target}
    return fedlas.calibrate(frame, method=method, probs="the *", target="y")


def statement(calibration, dialect, folder):
    export(calibration, folder / "cal.sql", form="sql", dialect=dialect)
    return (folder / "cal.sql").read_text()


def check(calibration, rows, after):
    """The scores come back, and behind them what ``apply`` gives."""
    width = len(calibration.scores)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CalibrationWarning)
        applied = calibration.apply(
            dict(zip(calibration.scores, rows.T, strict=True)), missing="empty"
        )
    wanted = np.stack([applied[name] for name in calibration.added], axis=1)
    np.testing.assert_array_equal(after[:, :width], rows)
    np.testing.assert_allclose(after[:, width:], wanted, rtol=0, atol=1e-9, equal_nan=True)


@pytest.mark.parametrize("method", METHODS)
def test_postgres_gives_what_apply_gives(postgres, method, tmp_path):
    calibration = fitted(method)
    rows = np.concatenate([drawn(200, 3, 1)[0], [[1.0, 0.0, 0.0], [1e-300, 1.0, 0.0]], MISSING])
    after = postgres.select(statement(calibration, "postgres", tmp_path), calibration.scores, rows)
    check(calibration, rows, after)


@pytest.mark.parametrize("dialect", ["duckdb", "postgres"])
def test_postgres_runs_what_the_command_exports(postgres, dialect, tmp_path):
    """The file of ``fedlas export``, in the default dialect too, as it is."""
    calibration = fitted("auto")
    calibration.save(tmp_path / "cal.json")
    options = ["--dialect", dialect] if dialect != "duckdb" else []
    out = tmp_path / "cal.sql"
    command = ["export", str(tmp_path / "cal.json"), "--format", "sql", *options, "--out", str(out)]
    assert main(command) == 0
    rows = drawn(50, 3, 1)[0]
    check(calibration, rows, postgres.select(out.read_text(), calibration.scores, rows))


def test_postgres_takes_auto_of_nineteen_classes(postgres, tmp_path):
    calibration = fitted("auto", 19, 2000)
    rows = drawn(50, 19, 1)[0]
    after = postgres.select(statement(calibration, "postgres", tmp_path), calibration.scores, rows)
    check(calibration, rows, after)


@pytest.mark.filterwarnings("ignore")  # of Spark
def test_spark_gives_what_apply_gives(tmp_path, monkeypatch):
    SparkSession = pytest.importorskip("pyspark.sql").SparkSession
    if shutil.which("java") is None:
        pytest.skip("no Java runtime")
    monkeypatch.setenv("PYSPARK_PYTHON", sys.executable)
    rows = np.concatenate([drawn(100, 3, 1)[0], [[1.0, 0.0, 0.0], [1e-300, 1.0, 0.0]], MISSING])
    spark = (
        SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false").getOrCreate()
    )
    try:
        for method in ("isotonic", "auto"):
            calibration = fitted(method)
            schema = ", ".join(f"`{name}` double" for name in calibration.scores)
            live = spark.createDataFrame([[*map(float, row)] for row in rows], schema)
            live.createOrReplaceTempView("predictions")
            found = spark.sql(statement(calibration, "spark", tmp_path)).collect()
            after = [[np.nan if cell is None else cell for cell in row] for row in found]
            check(calibration, rows, np.array(after))
    finally:
        spark.stop()
