"""What calibrate reads, apply reads from the same file: all formats, kinds of columns and sources."""

import gzip
import io
import json
import shlex

import numpy as np
import pytest

import fedlas
from fedlas.calibrated import apply_to_files
from fedlas.cli import main
from fedlas.predictions.tables.files import FORMATS, STANDARD_STREAM, local_table_files
from fedlas.predictions.tables.formats.by_suffix import open_format
from fedlas.predictions.tables.formats.json_lines import value_at_path

# A contributor of a metric may have none of these.
pd = pytest.importorskip("pandas")
pl = pytest.importorskip("polars")
pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")
zstandard = pytest.importorskip("zstandard")

RANDOM = np.random.default_rng(5)
COUNT = 240
P = RANDOM.uniform(0.05, 0.95, COUNT).round(5)
SITE = np.array(["north", "south"])[RANDOM.integers(0, 2, COUNT)]
AGE = RANDOM.normal(50, 12, COUNT).round(2)
Y = np.where(RANDOM.random(COUNT) < P, "yes", "no")
OK = (RANDOM.random(COUNT) < P).astype(int)
FLAT = {
    "id": [f"{k:03d}" for k in range(COUNT)], "p_no": 1 - P, "p_yes": P, "z": np.log(P / (1 - P)), "y": Y,
    "c": P, "ok": OK, "age": AGE, "site": SITE, "percent": [f"{100 * p:.3f}%" for p in P],
}  # fmt: skip
KINDS = {
    "probabilities": {"probs": "p_no,p_yes", "target": "y"},
    "a pattern": {"probs": "p_*", "target": "y"},
    "one probability": {"probs": "p_yes", "target": "ok"},
    "percent signs": {"probs": "percent", "target": "ok"},
    "one logit": {"logits": "z", "target": "ok"},
    "confidences": {"confidence": "c", "correct": "ok"},
    "covariates": {"probs": "p_*", "target": "y", "covariates": "age,site"},
    "groups": {"confidence": "c", "correct": "ok", "groups": "site"},
}
WRITERS = {
    ".csv": lambda path, frame: frame.to_csv(path, index=False),
    ".tsv": lambda path, frame: frame.to_csv(path, index=False, sep="\t"),
    ".jsonl": lambda path, frame: frame.to_json(path, orient="records", lines=True, double_precision=12),
    ".parquet": lambda path, frame: frame.to_parquet(path, index=False),
    ".npz": lambda path, frame: np.savez(path, **{k: np.array(v.tolist()) for k, v in frame.items()}),
}  # fmt: skip
READERS = {
    ".csv": lambda path: pd.read_csv(path, dtype={"id": str}),
    ".tsv": lambda path: pd.read_csv(path, dtype={"id": str}, sep="\t"),
    ".jsonl": lambda path: pd.read_json(path, lines=True, dtype={"id": str}),
    ".parquet": pd.read_parquet,
    ".npz": lambda path: pd.DataFrame(dict(np.load(path))),
}


def test_every_format_has_a_line_here():
    """A new format is written and read above by another program; the tests below then ask about it."""
    assert {FORMATS[suffix] for suffix in WRITERS} == set(FORMATS.values()), "add it to WRITERS"
    assert WRITERS.keys() == READERS.keys(), "add it to READERS"


@pytest.mark.parametrize("suffix", WRITERS)
def test_standard_input_is_told_by_its_first_bytes(suffix, tmp_path, monkeypatch):
    WRITERS[suffix](tmp_path / f"val{suffix}", pd.DataFrame(FLAT))
    content = (tmp_path / f"val{suffix}").read_bytes()
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))
    with local_table_files([STANDARD_STREAM]) as files:
        assert open_format(files[0]).names == [*FLAT], "add its first bytes to `_MAGIC` of files.py"


def command(words, columns):
    return words + [
        text for name, value in columns.items() for text in (f"--{name.replace('_', '-')}", value)
    ]


def follow(shown, live):
    """Run the ``next:`` line that calibrate printed, on a file."""
    text = " ".join(shown.split()).split("next: ")[1]
    suffix = live.suffix
    words = shlex.split(text.replace(f"LIVE{suffix} ", f"{live.name} ").replace("LIVE.", "live."))
    assert words[0] == "fedlas"
    assert main(words[1:]) == 0


@pytest.mark.parametrize("suffix", WRITERS)
@pytest.mark.parametrize("kind", KINDS)
def test_what_calibrate_reads_apply_reads_from_the_same_file(
    kind, suffix, tmp_path, monkeypatch, capsys
):
    if (kind, suffix) == ("percent signs", ".npz"):
        pytest.skip("arrays hold numbers")
    monkeypatch.chdir(tmp_path)
    columns = KINDS[kind]
    frame = pd.DataFrame(FLAT)
    WRITERS[suffix](tmp_path / f"val{suffix}", frame)
    uses_columns = "covariates" in columns or "groups" in columns
    method = (
        ["--method", "auto", "--method-set", "num_folds=2"]
        if uses_columns
        else ["--method", "temperature"]
    )
    assert main(command(["calibrate", f"val{suffix}", "--out", "cal.json", *method], columns)) == 0
    follow(capsys.readouterr().out, tmp_path / f"val{suffix}")
    after = READERS[suffix](tmp_path / f"live.calibrated{suffix}")
    calibration = fedlas.TableCalibration.load("cal.json")
    assert set(calibration.added) == set(after.columns) - set(frame.columns)
    assert after["id"].tolist() == FLAT["id"]
    if kind != "percent signs":
        for live in (frame, pl.DataFrame(frame), pa.Table.from_pandas(frame), dict(frame)):
            applied = calibration.apply(live)
            for name in calibration.added:
                np.testing.assert_allclose(np.asarray(applied[name]), after[name], atol=1e-9)


def token(p):
    return {"token": "a", "logprob": float(np.log(p))}


def openai(p):
    message = {"content": f"It is so. Confidence: {100 * p:.2f}%"}
    return {"choices": [{"message": message, "logprobs": {"content": [token(p)]}}]}


def vllm(p):
    return {"outputs": [{"token_ids": [7], "logprobs": [{"7": {"logprob": float(np.log(p))}}]}]}


def rows_of(answer):
    return [answer(float(p)) | {"ok": int(ok)} for p, ok in zip(P, OK, strict=True)]


LOGS = {
    "a nested number": (lambda p: {"r": {"conf": p}}, "r.conf", "number"),
    "OpenAI's log-probabilities": (openai, "choices.0.logprobs.content", "mean"),
    "places in brackets": (openai, "choices[0].logprobs.content", "mean"),
    "an answer in brackets": (vllm, "outputs[0]", "sum"),
    "OpenAI's answers": (openai, "choices.0.message.content", "words"),
    "vLLM's log-probabilities": (vllm, "outputs.0", "sum"),
    "a response as text": (
        lambda p: {"response": json.dumps({"conf": p})},
        "response.conf",
        "number",
    ),
}


@pytest.mark.parametrize("case", LOGS)
def test_logs_get_their_confidences_back(case, tmp_path, monkeypatch, capsys):
    """``calibrate --confidence r.conf`` printed a line that apply refused."""
    monkeypatch.chdir(tmp_path)
    answer, path, form = LOGS[case]
    rows = rows_of(answer)
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = [
        "calibrate",
        "log.jsonl",
        "--confidence",
        path,
        "--correct",
        "ok",
        "--confidence-as",
        form,
    ]
    assert main([*words, "--method", "isotonic", "--out", "cal.json"]) == 0
    follow(capsys.readouterr().out, tmp_path / "log.jsonl")
    after = [
        json.loads(line) for line in (tmp_path / "live.calibrated.jsonl").read_text().splitlines()
    ]
    beside = dict.fromkeys(("outputs.0", "outputs[0]"), "calibrated_outputs.0")
    beside |= {"response.conf": "calibrated_response.conf"}
    head, _, tail = path.rpartition(".")
    values = [value_at_path(row, beside.get(path, f"{head}.calibrated_{tail}")) for row in after]
    calibration = fedlas.TableCalibration.load("cal.json")
    applied = calibration.apply(pd.DataFrame(rows))
    np.testing.assert_allclose(values, applied[f"calibrated_{path}"], atol=1e-12)
    inside = json.loads(
        json.dumps(after),
        object_hook=lambda d: {k: v for k, v in d.items() if not k.startswith("calibrated_")},
    )
    assert inside == rows
    again = fedlas.calibrate(
        pd.DataFrame(rows), confidence=path, correct="ok", confidence_as=form, method="isotonic"
    )
    assert again.calibrator.to_dict() == calibration.calibrator.to_dict()
    assert main(["apply", "cal.json", "live.calibrated.jsonl", "--out", "twice.jsonl"]) == 2


MISSING = {
    ".csv": ("p,y\n0.9,1\n,0\nNA,1\n0.2,0\n", "calibrated_p"),
    ".jsonl": ('{"p": 0.9}\n{"p": null}\n{"q": 1}\n{"p": 0.2}\n', "calibrated_p"),
    ".parquet": (pa.table({"p": [0.9, None, None, 0.2]}), "calibrated_p"),
    ".npz": ({"p": np.array([0.9, np.nan, np.nan, 0.2])}, "calibrated_p"),
}


def write(path, content):
    if isinstance(content, str):
        path.write_text(content)
    elif isinstance(content, dict):
        np.savez(path, **content)
    else:
        pq.write_table(content, path)


@pytest.fixture(scope="module")
def single():
    return fedlas.calibrate({"p": P, "y": OK}, probs="p", target="y", method="temperature")


@pytest.mark.parametrize("out", WRITERS)
@pytest.mark.parametrize("suffix", MISSING)
def test_rows_without_a_score(single, suffix, out, tmp_path, monkeypatch, capsys):
    if ".npz" in (suffix, out) and suffix != out:
        pytest.skip("arrays stay arrays")
    monkeypatch.chdir(tmp_path)
    single.save("cal.json")
    write(tmp_path / f"live{suffix}", MISSING[suffix][0])
    words = ["apply", "cal.json", f"live{suffix}", "--out", f"out{out}", "--summary", "done.json"]
    assert main(words) == 2
    assert json.loads((tmp_path / "done.json").read_text())["status"] == "refused"
    assert main([*words, "--missing", "empty", "--max-missing", "25%"]) == 2
    assert "2 of 4 (50 %)" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / f"out{out}").exists()
    assert main([*words, "--missing", "empty", "--max-missing", "0.5"]) == 0
    assert "2 of 4 rows have no score and get empty calibrated cells: rows 2, 3." in " ".join(
        capsys.readouterr().err.split()
    )
    cells = READERS[out](tmp_path / f"out{out}")["calibrated_p"]
    assert np.isnan(cells.to_numpy(float)).tolist() == [False, True, True, False]
    done = json.loads((tmp_path / "done.json").read_text())
    assert (done["status"], done["rows"], done["missing"]) == (
        "complete",
        4,
        {"count": 2, "first": ["2", "3"]},
    )


def test_rows_without_a_score_in_frames(single):
    live = {"p": [0.9, np.nan, 0.2]}
    for frame in (live, pd.DataFrame(live), pl.DataFrame(live), pa.table(live)):
        with pytest.raises(fedlas.errors.InputError, match="row 2"):
            single.apply(frame)
        with pytest.raises(fedlas.errors.InputError, match=r"at most 10 % .* 1 of 3"):
            single.apply(frame, missing="empty", max_missing=0.1)
        with pytest.warns(
            fedlas.errors.CalibrationWarning, match=r"1 of 3 rows has no score.* row 2\."
        ):
            after = single.apply(frame, missing="empty")
        assert np.isnan(np.asarray(after["calibrated_p"], float)).tolist() == [False, True, False]
    with pytest.raises(fedlas.errors.InputError, match="at least one row must have a score"):
        single.apply({"p": [np.nan]}, missing="empty")


def test_a_refusal_does_not_stop_the_night(tmp_path):
    answer, path, form = LOGS["OpenAI's answers"]
    rows = rows_of(answer)
    calibration = fedlas.calibrate(
        pd.DataFrame(rows), confidence=path, correct="ok", confidence_as=form, method="isotonic"
    )
    silent = {"choices": [{"message": {"content": "I cannot say."}}]}
    (tmp_path / "live.jsonl").write_text(
        "".join(json.dumps(row) + "\n" for row in (rows[0], silent, {"choices": []}, rows[1]))
    )
    done = apply_to_files(calibration, [tmp_path / "live.jsonl"], tmp_path / "out.jsonl")
    assert done.missing == {"count": 2, "first": ["2", "3"]}
    assert done.columns == ("choices.0.message.calibrated_content",)
    after = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert after[1]["choices"][0]["message"] == {
        "content": "I cannot say.",
        "calibrated_content": None,
    }
    assert isinstance(after[3]["choices"][0]["message"]["calibrated_content"], float)


def test_lazy_frames_and_relations(single):
    duckdb = pytest.importorskip("duckdb")
    columns = {"p": P, "y": OK}
    wanted = single.apply(columns)["calibrated_p"]
    lazy = single.apply(pl.DataFrame(columns).lazy())
    assert isinstance(lazy, pl.LazyFrame)
    assert lazy.collect()["calibrated_p"].to_list() == wanted.tolist()
    relation = duckdb.from_arrow(pa.table(columns)).filter("p > 0.5")
    assert single.apply(relation)["calibrated_p"].to_pylist() == wanted[P > 0.5].tolist()
    for frame in (pl.DataFrame(columns).lazy(), duckdb.from_arrow(pa.table(columns))):
        again = fedlas.calibrate(frame, probs="p", target="y", method="temperature")
        assert again.calibrator.to_dict() == single.calibrator.to_dict()


@pytest.mark.parametrize("packed", [".gz", ".zst"])
@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_packed_files_are_read_and_written(suffix, packed, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    frame = pd.DataFrame(FLAT)
    WRITERS[suffix](tmp_path / f"val{suffix}", frame)
    opened = {".gz": gzip.open, ".zst": zstandard.open}[packed]
    with opened(f"val{suffix}{packed}", "wb") as file:
        file.write((tmp_path / f"val{suffix}").read_bytes())
    named = ["--probs", "p_*", "--target", "y", "--method", "temperature", "--out", "cal.json"]
    assert main(["calibrate", f"val{suffix}{packed}", *named]) == 0
    assert f"LIVE{suffix}{packed} --out LIVE.calibrated{suffix}{packed}" in capsys.readouterr().out
    assert main(["apply", "cal.json", f"val{suffix}{packed}"]) == 0
    assert main(["apply", "cal.json", f"val{suffix}{packed}", "--out", f"plain{suffix}"]) == 0
    with opened(f"val.calibrated{suffix}{packed}", "rb") as file:
        assert file.read() == (tmp_path / f"plain{suffix}").read_bytes()
    lines = (tmp_path / f"val{suffix}").read_bytes().splitlines(keepends=True)
    with opened(f"long{suffix}{packed}", "wb") as file:
        file.write(b"".join([*lines[: suffix == ".csv"], *lines[1:] * 60]))
    path = tmp_path / f"long{suffix}{packed}"
    content = path.read_bytes()
    for share in (0.3, 0.9):
        path.write_bytes(content[: int(share * len(content))])
        assert main(["apply", "cal.json", path.name, "--out", f"torn{suffix}"]) == 2
        assert "runcated" in capsys.readouterr().err
    assert not (tmp_path / f"torn{suffix}").exists()


def test_a_partitioned_folder_is_one_table(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    frame = pd.DataFrame(FLAT)
    for number, month in enumerate(("11", "12")):
        folder = tmp_path / "scores" / "year=2026" / f"month={month}"
        folder.mkdir(parents=True)
        for part in range(2):
            start = 120 * number + 60 * part
            frame[start : start + 60].to_parquet(folder / f"part-{part}.parquet", index=False)
        (folder / "_metadata").write_bytes(b"")
    named = ["--probs", "p_*", "--target", "y", "--groups", "month", "--out", "cal.json"]
    assert main(["calibrate", "scores", *named]) == 0
    assert "LIVE --out LIVE.calibrated.parquet" in capsys.readouterr().out
    for live in ("scores", "scores/*/*/*.parquet"):
        assert main(["apply", "cal.json", live, "--out", "all.parquet"]) == 0
        after = pd.read_parquet("all.parquet")
        assert after["id"].tolist() == FLAT["id"]
        assert after["month"].tolist() == ["11"] * 120 + ["12"] * 120
        assert set(after["year"]) == {"2026"}
        assert after["calibrated_p_yes"].between(0, 1).all()
    assert main(["apply", "cal.json", "scores"]) == 0
    assert (tmp_path / "scores.calibrated.parquet").exists()
    (tmp_path / "empty").mkdir()
    assert main(["apply", "cal.json", "empty", "--out", "no.parquet"]) == 2
    assert "must hold Parquet files" in capsys.readouterr().err


def test_the_folders_of_a_single_file_are_no_columns(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "year=2026"
    folder.mkdir()
    pd.DataFrame(FLAT).to_parquet(folder / "val.parquet", index=False)
    named = ["--probs", "p_*", "--target", "y", "--method", "temperature", "--out", "cal.json"]
    assert main(["calibrate", "year=2026/val.parquet", *named]) == 0
    assert main(["apply", "cal.json", "year=2026/val.parquet", "--out", "one.parquet"]) == 0
    assert "year" not in pq.read_schema("one.parquet").names
    assert main(["apply", "cal.json", "year=2026/*.parquet", "--out", "all.parquet"]) == 0
    assert pd.read_parquet("all.parquet")["year"].unique().tolist() == ["2026"]


@pytest.fixture
def store():
    fsspec = pytest.importorskip("fsspec")
    store = fsspec.filesystem("memory")
    yield store
    store.rm("/", recursive=True)


@pytest.mark.parametrize("suffix", [*WRITERS, ".csv.gz"])
def test_stores_are_read_and_written(suffix, store, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    frame = pd.DataFrame(FLAT).drop(columns=["percent"])
    WRITERS[suffix.removesuffix(".gz")](tmp_path / f"val{suffix}", frame)  # pandas packs it
    store.put_file(str(tmp_path / f"val{suffix}"), f"/bucket/val{suffix}")
    address = f"memory://bucket/val{suffix}"
    columns = {"probs": "p_no,p_yes", "target": "y"}
    fit = ["--method", "temperature", "--out", "cal.json"]
    assert main(command(["calibrate", address, *fit], columns)) == 0
    assert "fedlas apply cal.json LIVE" in capsys.readouterr().out
    there = fedlas.calibrate(address, **columns, method="temperature")
    here = fedlas.calibrate(f"val{suffix}", **columns, method="temperature")
    assert there.calibrator.to_dict() == here.calibrator.to_dict()
    read = [fedlas.read_predictions(name, **columns) for name in (address, f"val{suffix}")]
    assert fedlas.evaluate(read[0].predictions) == fedlas.evaluate(read[1].predictions)
    assert main(command(["evaluate", address, "--replicates", "0"], columns)) == 0
    assert main(["apply", "cal.json", address]) == 2
    assert "--out is required" in capsys.readouterr().err
    assert main(["apply", "cal.json", address, "--out", address]) == 2
    assert main(["apply", "cal.json", address, "--out", f"memory://bucket/out{suffix}"]) == 0
    assert main(["apply", "cal.json", f"val{suffix}", "--out", f"out{suffix}"]) == 0
    names = [f"/bucket/out{suffix}", f"/bucket/val{suffix}"]
    assert sorted(store.ls("/bucket", detail=False)) == names
    if suffix != ".csv.gz":
        assert store.cat_file(names[0]) == (tmp_path / f"out{suffix}").read_bytes()


def test_folders_of_stores_are_one_table(store, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    frame = pd.DataFrame(FLAT)
    for number, month in enumerate(("2026-11", "2026-12")):
        year, number_of_month = month.split("-")
        frame[120 * number : 120 * number + 120].to_parquet("part.parquet", index=False)
        place = f"/scores/year={year}/month={number_of_month}/part.parquet"
        store.put_file("part.parquet", place)
    named = ["--probs", "p_*", "--target", "y", "--groups", "month", "--out", "cal.json"]
    assert main(["calibrate", "memory://scores", *named]) == 0
    for live in ("memory://scores", "memory://scores/*/*/*.parquet"):
        assert main(["apply", "cal.json", live, "--out", "memory://scored/all.parquet"]) == 0
        store.get_file("/scored/all.parquet", "all.parquet")
        after = pd.read_parquet("all.parquet")
        assert after["id"].tolist() == FLAT["id"]
        assert after["month"].tolist() == ["11"] * 120 + ["12"] * 120
    one = ["--probs", "p_*", "--target", "y", "--method", "temperature", "--out", "one.json"]
    assert main(["calibrate", "memory://scores", "--since", "2026-12", *one]) == 0
    assert fedlas.TableCalibration.load("one.json").rows == 120


def test_a_store_that_fails_leaves_what_was_there(single, store, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    single.save("cal.json")
    (tmp_path / "live.csv").write_text("p\n0.2\n0.7\n")
    before = b"p,calibrated_p\n0.5,0.4\n"  # of apply
    store.pipe_file("/bucket/out.csv", before)
    for address in ("memory://none/live.csv", "nothing://none/live.csv", "memory://none/*.csv"):
        assert main(["apply", "cal.json", address, "--out", "out.csv"]) == 2
        assert address in capsys.readouterr().err or "*" in address
    words = ["apply", "cal.json", "live.csv", "--out", "memory://bucket/out.csv"]
    with monkeypatch.context() as patch:

        def fails(*_, **__):
            raise PermissionError("no access")

        patch.setattr(type(store), "mv", fails)
        assert main(words) == 2
    assert "memory://bucket/out.csv (no access)" in " ".join(capsys.readouterr().err.split())
    assert store.ls("/bucket", detail=False) == ["/bucket/out.csv"]
    assert store.cat_file("/bucket/out.csv") == before
    assert main(words) == 0
    assert store.cat_file("/bucket/out.csv").startswith(b"p,calibrated_p\n0.2,")


SOURCES = {
    "a file": "live.csv",
    "a packed file": "live.csv.gz",
    "several files": "part-*.csv",
    "a folder": "year=2026",
    "a file in a store": "memory://bucket/live.csv",
    "a folder in a store": "memory://bucket/year=2026",
}


@pytest.mark.parametrize("source", SOURCES)
def test_rows_without_a_score_of_every_source(source, single, store, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    single.save("cal.json")
    frame = pd.DataFrame({"p": [0.9, np.nan, np.nan, 0.2]})
    frame.to_csv("live.csv", index=False)
    frame.to_csv("live.csv.gz", index=False)
    (tmp_path / "year=2026").mkdir()
    for number, rows in enumerate((frame[:2], frame[2:])):
        rows.to_csv(f"part-{number}.csv", index=False)
        rows.to_parquet(f"year=2026/{number}.parquet", index=False)
    store.put("live.csv", "/bucket/live.csv")
    store.put("year=2026", "/bucket/year=2026", recursive=True)
    words = ["apply", "cal.json", SOURCES[source], "--out", "out.csv", "--summary", "done.json"]
    assert main(words) == 2
    assert not (tmp_path / "out.csv").exists()
    assert main([*words, "--missing", "empty", "--max-missing", "25%"]) == 2
    assert not (tmp_path / "out.csv").exists()
    assert main([*words, "--missing", "empty"]) == 0
    cells = pd.read_csv("out.csv")["calibrated_p"]
    assert cells.isna().tolist() == [False, True, True, False]
    done = json.loads((tmp_path / "done.json").read_text())
    assert (done["rows"], done["missing"]["count"]) == (4, 2)
