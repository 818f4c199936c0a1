"""Tables: scores and labels in, a calibration out; applied to files and frames, every other value stays."""

import csv
import io
import json
import re
from concurrent.futures import Future
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import fedlas
from fedlas.calibrated import apply_to_files
from fedlas.calibrated.tables import files as table_files
from fedlas.calibrators import TemperatureScaling
from fedlas.errors import InputError
from fedlas.predictions.tables.files import local_table_files
from fedlas.predictions.tables.formats import lines


def scores(rows=300, classes=2, factor=3.0):
    """Probabilities of a model that is three times too sure, and labels."""
    random = torch.Generator().manual_seed(rows + classes)
    logits = torch.randn(rows, classes, generator=random, dtype=torch.float64)
    target = torch.multinomial(logits.softmax(1), 1, generator=random)[:, 0]
    return (factor * logits).softmax(1).numpy(), target.numpy()


def frame(rows=300):
    probs, target = scores(rows)
    names = np.array(["no", "yes"])
    return pd.DataFrame(
        {"id": range(rows), "p_no": probs[:, 0], "p_yes": probs[:, 1], "y": names[target]}
    )


@pytest.fixture(scope="module")
def calibration():
    return fedlas.calibrate(frame(), probs="p_*", target="y", method="temperature")


def expected(calibration, probs):
    logits = fedlas.Predictions.from_probs(np.asarray(probs)).tensors().logits
    return (logits / calibration.calibrator.temperature).softmax(1).numpy()


def apply(calibration, *files, out):
    return apply_to_files(calibration, files, Path(out))


def read_csv(text, **options):
    rows = list(csv.reader(io.StringIO(text), **options))
    return rows[0], rows[1:]


def test_frames_of_each_kind_get_the_same_columns(calibration):
    live = frame(40).drop(columns="y")
    live.index = [f"row {k}" for k in range(40)]
    wanted = expected(calibration, live[["p_no", "p_yes"]])
    after = calibration.apply(live)
    assert list(after.columns) == [*live.columns, "calibrated_p_no", "calibrated_p_yes"]
    pd.testing.assert_frame_equal(after[live.columns], live)
    np.testing.assert_allclose(after[["calibrated_p_no", "calibrated_p_yes"]], wanted, atol=1e-12)
    of_polars = calibration.apply(pl.DataFrame(live))
    assert isinstance(of_polars, pl.DataFrame)
    assert of_polars["calibrated_p_yes"].to_list() == after["calibrated_p_yes"].to_list()
    of_arrow = calibration.apply(pa.Table.from_pandas(live))
    assert isinstance(of_arrow, pa.Table)
    assert of_arrow["calibrated_p_yes"].to_pylist() == after["calibrated_p_yes"].to_list()
    of_mapping = calibration.apply({name: live[name].to_numpy() for name in live})
    assert of_mapping["calibrated_p_yes"].tolist() == after["calibrated_p_yes"].to_list()


def test_calibration_file_is_plain_json_and_round_trips(calibration, tmp_path):
    again = fedlas.TableCalibration.load(calibration.save(tmp_path / "cal.json"))
    assert again.to_dict() == calibration.to_dict()
    assert repr(again) == repr(calibration)
    assert "NLL" in str(again)
    assert "temperature 2.57" in str(again)
    pd.testing.assert_frame_equal(again.apply(frame(9)), calibration.apply(frame(9)))


@pytest.mark.parametrize(
    "change",
    [
        lambda plain: plain.update(format="other"),
        lambda plain: plain.update(scores=["p_no"] * 3),
        lambda plain: plain.update(scores=[]),
        lambda plain: plain.update(classes="no"),
        lambda plain: plain.pop("calibrator"),
        lambda plain: plain["columns"].clear(),
        lambda plain: plain.update(covariates={"numbers": [1], "categories": {}}),
        lambda plain: plain["cross_fitted"].update(floor="x"),
        lambda plain: plain["cross_fitted"].update(floor=10**400),
        lambda plain: plain["cross_fitted"]["after"].pop("ece"),
    ],
)
def test_a_damaged_file_is_refused(calibration, tmp_path, change):
    plain = json.loads(json.dumps(calibration.to_dict()))
    change(plain)
    (tmp_path / "cal.json").write_text(json.dumps(plain))
    with pytest.raises(InputError, match=r"cal\.json|calibrat"):
        fedlas.TableCalibration.load(tmp_path / "cal.json")


def test_there_must_be_a_file(tmp_path):
    with pytest.raises(InputError, match="must exist"):
        fedlas.TableCalibration.load(tmp_path / "none.json")


def test_cross_fitting_measures_held_out_rows(calibration):
    measured = calibration.cross_fitted
    assert measured.samples == 300
    assert measured.after.nll < measured.before.nll
    assert measured.after.ece < 0.7 * measured.before.ece
    noise = "within" if measured.after.p > 0.05 else "beyond"
    assert f"(of a calibrated model {100 * measured.after.floor:.2f}, {noise} noise)" in str(
        measured
    )
    probs, target = scores()
    raw = fedlas.evaluate(fedlas.Predictions.from_probs(probs, target))
    assert measured.before.nll == pytest.approx(raw["nll"])
    in_sample = expected(calibration, probs)
    fit = fedlas.evaluate(fedlas.Predictions.from_probs(in_sample, target))
    assert measured.after.nll > fit["nll"]


@pytest.mark.parametrize("source", ["frame", "file"])
def test_before_after_of_another_table_matches_its_predictions(calibration, tmp_path, source):
    test = frame(500).iloc[:, ::-1]  # columns have names, not places
    test.to_csv(tmp_path / "test.csv", index=False)
    measured = calibration.before_after(test if source == "frame" else tmp_path / "test.csv")
    probs, target = scores(500)
    for stage, values in ((measured.before, probs), (measured.after, expected(calibration, probs))):
        right = fedlas.evaluate(fedlas.Predictions.from_probs(values, target))
        assert stage.nll == pytest.approx(right["nll"], rel=1e-6)
        assert stage.ece == pytest.approx(right["ece"], rel=1e-6)
    assert measured.samples == 500
    assert re.fullmatch(r"\s+before .*500 samples\naccuracy .*\nNLL .*\nECE .*", str(measured))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda test: test.drop(columns="y"), "column of the frame; got 'y'"),
        (
            lambda test: test.assign(p_maybe=0.0),
            "the classes of the fit, p_no, p_yes; got also p_maybe",
        ),
        (lambda test: test.assign(p_yes=[None, *test.p_yes[1:]]), r"finite numbers.*Fill it in"),
    ],
)
def test_a_table_that_cannot_be_measured_is_refused(calibration, change, message):
    with pytest.raises(InputError, match=message) as error:
        calibration.before_after(change(frame(20)))
    assert "drop_missing" not in str(error.value)


@pytest.mark.parametrize("block", [40, 1 << 22])
@pytest.mark.parametrize(
    "text",
    [
        "id,p_no,p_yes,note\n007,0.25,0.75,a\n8,0.5,0.5,b\n",
        "id,p_no,p_yes,note\r\n007,0.25,0.75,a\r\n8,0.5,0.5,b\r\n",
        "id,p_no,p_yes,note\n007,0.25,0.75,a\n8,0.5,0.5,b",
        "\ufeffid,p_no,p_yes,note\n007,0.25,0.75,a\n8,0.5,0.5,\u00fc\n",
        '"id","p_no","p_yes","the\nnote"\n"007",0.25,0.75,"a, ""b""\nc"\n"8",0.5,"0.5",""\n',
        'id,p_no,p_yes,note\n007,0.25,0.75,5" disk\n\n8,0.5,0.5,"x ""y"""\n\n',
        'id,p_no,p_yes,note\n007,0.25,0.75,5" and "6\n8,0.5,0.5,"two\nlines"\n',
        "note,p_yes,id,p_no\nb,0.75,007,0.25\na,0.5,8,0.5\n",
    ],
)
def test_cells_of_a_csv_keep_their_text(calibration, tmp_path, monkeypatch, text, block):
    monkeypatch.setattr(lines, "BYTES", block)
    (tmp_path / "live.csv").write_bytes(text.encode())
    done = apply(calibration, tmp_path / "live.csv", out=tmp_path / "out.csv")
    assert done.rows == 2
    written = (tmp_path / "out.csv").read_bytes().decode()
    head, rows = read_csv(text.strip("\ufeff"))
    rows = [row for row in rows if row]
    got_head, got = read_csv(written.strip("\ufeff"))
    assert got_head == [*head, "calibrated_p_no", "calibrated_p_yes"]
    assert [row[:4] for row in got] == rows
    probs = [[float(row[head.index(name)]) for name in ("p_no", "p_yes")] for row in rows]
    np.testing.assert_allclose(
        [list(map(float, row[4:])) for row in got], expected(calibration, probs), atol=1e-12
    )


cells = st.text(alphabet='ab,"\n; 0\u00e4', max_size=5)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(cells, st.integers(0, 100), cells), min_size=1, max_size=12),
    st.sampled_from([17, 64, 4096]),
)
def test_any_cells_stay(calibration, tmp_path_factory, rows, block):
    folder = tmp_path_factory.mktemp("any")
    written = io.StringIO()
    writer = csv.writer(written, lineterminator="\n")
    writer.writerows([("a", "p_no", "p_yes", "b")])
    writer.writerows([(first, share / 100, 1 - share / 100, last) for first, share, last in rows])
    (folder / "live.csv").write_bytes(written.getvalue().encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lines, "BYTES", block)
        apply(calibration, folder / "live.csv", out=folder / "out.csv")
    _, got = read_csv((folder / "out.csv").read_bytes().decode())
    assert [(row[0], row[3]) for row in got] == [(first, last) for first, _, last in rows]
    probs = [[share / 100, 1 - share / 100] for _, share, _ in rows]
    np.testing.assert_allclose(
        [[float(cell) for cell in row[4:]] for row in got], expected(calibration, probs), atol=1e-9
    )


def test_decimal_commas_stay(calibration, tmp_path):
    (tmp_path / "live.csv").write_text("id;p_no;p_yes\n1;0,25;0,75\n2;0,5;0,5\n")
    apply(calibration, tmp_path / "live.csv", out=tmp_path / "out.csv")
    _, got = read_csv((tmp_path / "out.csv").read_text(), delimiter=";")
    values = [[float(cell.replace(",", ".")) for cell in row[3:]] for row in got]
    np.testing.assert_allclose(
        values, expected(calibration, [[0.25, 0.75], [0.5, 0.5]]), atol=1e-12
    )


def test_added_columns_have_the_decimal_mark_of_theirs(calibration, tmp_path):
    (tmp_path / "live.csv").write_text("id;p_no;p_yes\n1;0.25;0,75\n2;0.5;0,5\n")
    apply(calibration, tmp_path / "live.csv", out=tmp_path / "out.csv")
    _, got = read_csv((tmp_path / "out.csv").read_text(), delimiter=";")
    assert all("." in row[3] and "," in row[4] for row in got)
    values = [[float(cell.replace(",", ".")) for cell in row[3:]] for row in got]
    np.testing.assert_allclose(
        values, expected(calibration, [[0.25, 0.75], [0.5, 0.5]]), atol=1e-12
    )


@pytest.mark.parametrize("block", [40, 1 << 22])
def test_json_lines_keep_their_values(calibration, tmp_path, monkeypatch, block):
    monkeypatch.setattr(lines, "BYTES", block)
    text = (
        '{"p_yes": 0.75, "p_no": 0.25, "more": {"a": [1, "}"]}, "id": 12345678901234567890}\n\n'
        ' {"p_no": 0.5, "p_yes": 0.5, "id": "007"}  \r\n'
    )
    (tmp_path / "live.jsonl").write_text(text)
    apply(calibration, tmp_path / "live.jsonl", out=tmp_path / "out.jsonl")
    written = (tmp_path / "out.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in written]
    assert rows[0].pop("more") == {"a": [1, "}"]}
    assert [row["id"] for row in rows] == [12345678901234567890, "007"]
    assert list(rows[0]) == ["p_yes", "p_no", "id", "calibrated_p_no", "calibrated_p_yes"]
    values = [[row["calibrated_p_no"], row["calibrated_p_yes"]] for row in rows]
    np.testing.assert_allclose(
        values, expected(calibration, [[0.25, 0.75], [0.5, 0.5]]), atol=1e-12
    )


def test_columns_of_parquet_keep_their_types(calibration, tmp_path):
    live = frame(70).drop(columns="y")
    live["region"] = pd.Categorical(["a", "b"] * 35)
    live["at"] = pd.Series(pd.Timestamp("2026-01-01"), live.index, dtype="datetime64[ms]")
    pq.write_table(pa.Table.from_pandas(live), tmp_path / "live.parquet", row_group_size=20)
    apply(calibration, tmp_path / "live.parquet", out=tmp_path / "out.parquet")
    after = pd.read_parquet(tmp_path / "out.parquet")
    pd.testing.assert_frame_equal(after, calibration.apply(live))


def test_constant_text_column_is_not_expanded(calibration, tmp_path):
    """A file of 50 kB took 1.6 GB: dictionaries became text for all rows at a time."""
    live = pa.Table.from_pandas(frame(2000).drop(columns="y"), preserve_index=False)
    live = live.append_column("more", pa.array(["x" * 200_000]).take(pa.array([0] * 2000)))
    pq.write_table(live, tmp_path / "live.parquet", compression="zstd")
    with pytest.raises(InputError, match=r"column 'more' of live\.parquet\. Leave out"):
        apply(calibration, tmp_path / "live.parquet", out=tmp_path / "out.parquet")


class Late:
    """An executor that begins a task when its result is wanted, as a busy machine may."""

    def __init__(self, _workers):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *_error):
        pass

    def submit(self, function, *args):
        done = Future()
        result = done.result

        def run():
            if not done.done():
                done.set_result(function(*args))
            return result()

        done.result = run
        return done


def test_late_chunks_are_written_to_their_own_file(tmp_path, monkeypatch):
    probs, target = scores(200, 3)
    logits = np.log(probs)
    np.savez(tmp_path / "val.npz", logits=logits, target=target)
    calibration = fedlas.calibrate(tmp_path / "val.npz", method="temperature")
    for name, rows in (("a", slice(0, 50)), ("b", slice(50, 52))):
        np.savez(tmp_path / f"{name}.npz", logits=logits[rows])
    monkeypatch.setattr(table_files, "ThreadPoolExecutor", Late)
    apply(calibration, tmp_path / "a.npz", tmp_path / "b.npz", out=tmp_path / "both.npz")
    with np.load(tmp_path / "both.npz") as both:
        assert both["logits"].tolist() == logits[:52].tolist()


def test_arrays_stay_and_one_is_added(tmp_path):
    probs, target = scores(200, 3)
    logits = np.log(probs).astype("float32")
    np.savez(tmp_path / "val.npz", logits=logits, target=target)
    calibration = fedlas.calibrate(tmp_path / "val.npz", method="temperature")
    np.savez_compressed(tmp_path / "live.npz", logits=logits[:50], ids=np.arange(50))
    apply(calibration, tmp_path / "live.npz", out=tmp_path / "out.npz")
    with np.load(tmp_path / "out.npz") as after:
        first = after["calibrated_logits"].tolist()
        assert sorted(after.files) == ["calibrated_logits", "ids", "logits"]
        assert after["calibrated_logits"].dtype == np.float32
        assert after["ids"].tolist() == list(range(50))
        wanted = (torch.tensor(logits[:50]) / calibration.calibrator.temperature).softmax(1)
        np.testing.assert_allclose(
            torch.tensor(after["calibrated_logits"]).softmax(1), wanted, atol=1e-6
        )
    np.savez(tmp_path / "more.npz", ids=np.array(["50", "51"]), logits=logits[50:52])
    apply(calibration, tmp_path / "live.npz", tmp_path / "more.npz", out=tmp_path / "both.npz")
    with np.load(tmp_path / "both.npz") as both:
        assert both["ids"].tolist() == [str(number) for number in range(52)]
        assert both["logits"].tolist() == logits[:52].tolist()
        assert both["calibrated_logits"][:50].tolist() == first
        assert len(both["calibrated_logits"]) == 52
    np.savez(tmp_path / "one.npz", logits=logits[:5], names=["a", "b"])
    np.savez(tmp_path / "two.npz", logits=logits[:5], names=["a", "c"])
    parts = (tmp_path / "one.npz", tmp_path / "one.npz")
    apply(calibration, *parts, out=tmp_path / "same.npz")
    with np.load(tmp_path / "same.npz") as same:
        assert same["names"].tolist() == ["a", "b"]
    with pytest.raises(InputError, match="array 'names' must have one row per sample, or be equal"):
        apply(calibration, parts[0], tmp_path / "two.npz", out=tmp_path / "no.npz")
    with pytest.raises(InputError, match=r"an \.npz if, and only if"):
        apply(calibration, parts[0], out=tmp_path / "no.csv")


READERS = {
    ".csv": pd.read_csv,
    ".parquet": pd.read_parquet,
    ".jsonl": lambda path: pd.read_json(path, lines=True, dtype={"id": str}),
}


@pytest.mark.parametrize("suffix", READERS)
@pytest.mark.parametrize("form", READERS)
def test_one_format_becomes_another(calibration, tmp_path, form, suffix):
    """Formats in and out had to agree."""
    live = frame(60).drop(columns="y").assign(id=[f"00{number}" for number in range(60)])
    table = pa.Table.from_pandas(live, preserve_index=False)
    if form == ".csv":
        live.to_csv(tmp_path / "live.csv", index=False)
    elif form == ".parquet":
        pq.write_table(table, tmp_path / "live.parquet")
    else:
        (tmp_path / "live.jsonl").write_text("\n".join(map(json.dumps, table.to_pylist())))
    apply(calibration, tmp_path / f"live{form}", out=tmp_path / f"out{suffix}")
    after = READERS[suffix](tmp_path / f"out{suffix}")
    assert list(after.columns) == [*live.columns, *calibration.added]
    if suffix != ".csv":  # where text says that it is text
        assert after["id"].tolist() == live["id"].tolist()
    wanted = calibration.apply(live)[list(calibration.added)]
    np.testing.assert_allclose(after[wanted.columns], wanted, atol=1e-9)
    np.testing.assert_allclose(after["p_yes"], live["p_yes"], atol=1e-9)


def test_columns_that_the_other_format_lacks(calibration, tmp_path):
    live = frame(9).assign(more=[[1, 2]] * 9)
    live.to_parquet(tmp_path / "live.parquet")
    with pytest.raises(InputError, match=r"rows must be representable in \.csv"):
        apply(calibration, tmp_path / "live.parquet", out=tmp_path / "out.csv")
    assert not (tmp_path / "out.csv").exists()
    live.assign(more=[b"\xff"] * 9).to_parquet(tmp_path / "live.parquet")
    with pytest.raises(
        InputError, match=r"rows must be representable in \.jsonl; got a cell of type bytes"
    ):
        apply(calibration, tmp_path / "live.parquet", out=tmp_path / "out.jsonl")


def test_lines_may_end_with_a_return_alone(calibration, tmp_path):
    (tmp_path / "live.csv").write_bytes(b"p_no,p_yes\r0.25,0.75\r0.5,0.5\r")
    assert apply(calibration, tmp_path / "live.csv", out=tmp_path / "out.csv").rows == 2
    after = pd.read_csv(tmp_path / "out.csv")
    assert after["p_yes"].tolist() == [0.75, 0.5]
    assert len(after.columns) == 4


def test_single_column_holds_second_class_or_lists(tmp_path):
    probs, target = scores(200)
    single = fedlas.calibrate(
        {"p": probs[:, 1], "y": target}, probs="p", target="y", method="temperature"
    )
    lists = fedlas.calibrate({"p": probs, "y": target}, probs="p", target="y", method="temperature")
    one = single.apply({"p": probs[:5, 1]})["calibrated_p"]
    all_classes = lists.apply({"p": probs[:5]})["calibrated_p"]
    np.testing.assert_allclose(all_classes[:, 1], one, atol=1e-9)
    logit = np.log(probs[:, 1] / probs[:, 0])
    of_logit = fedlas.calibrate(
        {"z": logit, "y": target}, logits="z", target="y", method="temperature"
    )
    np.testing.assert_allclose(
        1 / (1 + np.exp(-of_logit.apply({"z": logit[:5]})["calibrated_z"])), one, atol=1e-6
    )
    (tmp_path / "live.jsonl").write_text(
        "\n".join(json.dumps({"p": row}) for row in probs[:5].tolist())
    )
    apply(lists, tmp_path / "live.jsonl", out=tmp_path / "out.jsonl")
    rows = [
        json.loads(line)["calibrated_p"]
        for line in (tmp_path / "out.jsonl").read_text().splitlines()
    ]
    np.testing.assert_allclose(rows, all_classes, atol=1e-12)
    with pytest.raises(InputError, match=r"one score per class of the fit \(2\)"):
        lists.apply({"p": [[0.2, 0.3, 0.5]]})


def test_confidences_with_covariates(tmp_path):
    """What a column knows about a confidence alone goes into the map, is needed to apply it, and is saved."""
    random = np.random.default_rng(0)
    hard = random.integers(0, 2, 600)
    confidence = random.uniform(0.6, 0.99, 600)
    right = random.random(600) < np.where(hard, 0.4, confidence)
    table = {"c": confidence, "ok": right.astype(int), "kind": np.where(hard, "hard", "easy")}
    columns = {"confidence": "c", "correct": "ok", "covariates": "kind"}
    calibration = fedlas.calibrate(pd.DataFrame(table), **columns)
    assert calibration.calibrator.num_features == 1
    after = calibration.apply({"c": [0.9, 0.9], "kind": ["hard", "easy"]})["calibrated_c"]
    assert float(after[0]) < 0.55 < 0.8 < float(after[1])
    loaded = fedlas.calibrated.TableCalibration.load(calibration.save(tmp_path / "c.json"))
    again = loaded.apply({"c": [0.9, 0.9], "kind": ["hard", "easy"]})["calibrated_c"]
    assert list(again) == list(after)
    with pytest.raises(InputError, match="'kind'"):
        loaded.apply({"c": [0.9]})


def test_confidences_alone(tmp_path):
    probs, target = scores(300, 3)
    table = {"c": probs.max(1), "ok": probs.argmax(1) == target}
    calibration = fedlas.calibrate(table, confidence="c", correct="ok", method="isotonic")
    after = calibration.apply({"c": table["c"]})["calibrated_c"]
    fitted = calibration.calibrator.transform(fedlas.TopLabel(table["c"], table["ok"]))
    assert after.tolist() == fitted.confidence.tolist()
    assert "NLL" not in str(calibration)


def test_several_files_are_one_table_in_order(calibration, tmp_path):
    live = frame(60).drop(columns="y")
    for name, part in (("a", live[:25]), ("b", live[25:])):
        part.to_csv(tmp_path / f"{name}.csv", index=False)
        part.to_parquet(tmp_path / f"{name}.parquet", index=False)
        part.to_json(tmp_path / f"{name}.jsonl", orient="records", lines=True, double_precision=15)
    wanted = calibration.apply(live)["calibrated_p_yes"]
    for suffix, read in ((".csv", pd.read_csv), (".parquet", pd.read_parquet)):
        apply(calibration, str(tmp_path / f"[ab]{suffix}"), out=tmp_path / f"all{suffix}")
        after = read(tmp_path / f"all{suffix}")
        assert after["id"].tolist() == live["id"].tolist()
        np.testing.assert_allclose(after["calibrated_p_yes"], wanted, atol=1e-9)
    apply(calibration, tmp_path / "a.jsonl", tmp_path / "b.jsonl", out=tmp_path / "all.jsonl")
    after = pd.read_json(tmp_path / "all.jsonl", lines=True)
    np.testing.assert_allclose(after["calibrated_p_yes"], wanted, atol=1e-9)
    parts = [tmp_path / "a.csv", tmp_path / "b.csv"]
    frame(60).to_csv(tmp_path / "val.csv", index=False)
    frame(60)[:30].to_csv(tmp_path / "v1.csv", index=False)
    frame(60)[30:].to_csv(tmp_path / "v2.csv", index=False)
    both = fedlas.calibrate(
        [tmp_path / "v1.csv", tmp_path / "v2.csv"], probs="p_*", target="y", method="temperature"
    )
    whole = fedlas.calibrate(tmp_path / "val.csv", probs="p_*", target="y", method="temperature")
    assert both.calibrator.to_dict() == whole.calibrator.to_dict()
    with pytest.raises(InputError, match="same format"):
        apply(calibration, parts[0], tmp_path / "b.jsonl", out=tmp_path / "no.csv")
    live[["p_no", "id", "p_yes"]].to_csv(tmp_path / "other.csv", index=False)
    with pytest.raises(InputError, match="same format and columns"):
        apply(calibration, parts[0], tmp_path / "other.csv", out=tmp_path / "no.csv")
    with pytest.raises(InputError, match="match at least one file"):
        apply(calibration, str(tmp_path / "z*.csv"), out=tmp_path / "no.csv")
    assert not (tmp_path / "no.csv").exists()
    parts[1].write_text("id,p_no,p_yes\n1,0.5,0.5\n2,0.2,0.9\n")
    with pytest.raises(InputError, match=r"got a sum of 1\.1 in row 2 of b\.csv"):
        apply(calibration, *parts, out=tmp_path / "no.csv")


REFUSED = {
    "a missing column": ("p_no,q\n0.5,0.5\n", "no 'p_yes'"),
    "another class": ("p_no,p_yes,p_maybe\n0.5,0.5,0\n", "also p_maybe"),
    "no number": ("p_no,p_yes\n0.5,0.5\n0.5,\n", "row 2, column 'p_yes'"),
    "nan": ("p_no,p_yes\n0.5,0.5\nnan,0.5\n", "row 2, column 'p_no'"),
    "text": ("p_no,p_yes\n0.5,0.5\n0.5,0.5\n0.5,high\n", "'high' in row 3, column 'p_yes'"),
    "percent": ("p_no,p_yes\n40,60\n", "percentages"),
    "logits": ("p_no,p_yes\n-1.5,0.5\n", "logits"),
    "no sum": ("p_no,p_yes\n0.5,0.5\n0.4,0.4\n", "sum to 1; got a sum of 0.8 in row 2"),
    "a header alone": ("p_no,p_yes\n", "at least one row"),
    "nothing": ("", "empty"),
    "calibrated already": ("p_no,p_yes,calibrated_p_yes\n0.5,0.5,0.5\n", "'calibrated_p_yes'"),
    "a short row": ("id,p_no,p_yes\n1,0.5,0.5\n2,0.5\n", "2 in row 2"),
    "an open quote": ('p_no,p_yes,n\n0.5,0.5,a\n0.5,0.5,"b\n0.5,0.5,c\n', "quote|lines"),
}


@pytest.mark.parametrize("block", [24, 1 << 22])
@pytest.mark.parametrize("case", REFUSED)
def test_unusable_table_raises_and_writes_nothing(calibration, tmp_path, monkeypatch, case, block):
    monkeypatch.setattr(lines, "BYTES", block)
    text, match = REFUSED[case]
    (tmp_path / "live.csv").write_text(text)
    (tmp_path / "out.csv").write_text("calibrated_p_yes\n0.5\n")
    with pytest.raises(InputError, match=match) as caught:
        apply(calibration, tmp_path / "live.csv", out=tmp_path / "out.csv")
    assert "=" not in caught.value.parts[2]  # there is no argument to pass
    assert (tmp_path / "out.csv").read_text() == "calibrated_p_yes\n0.5\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["live.csv", "out.csv"]


def test_probabilities_are_no_logits(tmp_path):
    probs, target = scores(100, 3)
    table = {f"z_{k}": column for k, column in enumerate(np.log(probs).T)}
    calibration = fedlas.calibrate(
        {**table, "y": target}, logits="z_*", target="y", method="temperature"
    )
    live = {f"z_{k}": column for k, column in enumerate(probs.T)}
    with pytest.raises(InputError, match="probabilities in the frame"):
        calibration.apply(live)
    with pytest.raises(InputError, match="probabilities in the frame"):
        fedlas.calibrate({**live, "y": target}, logits="z_*", target="y")


def test_a_full_disk_leaves_nothing(calibration, tmp_path):
    frame(2000).to_csv(tmp_path / "live.csv", index=False)
    with pytest.raises(InputError, match="device"):
        apply(calibration, tmp_path / "live.csv", out="/dev/full")


def test_what_a_fit_needs(tmp_path):
    with pytest.raises(InputError, match="must have labels"):
        fedlas.calibrate(frame(), probs="p_*")
    with pytest.raises(InputError, match="'target'"):
        fedlas.calibrate(frame(), probs="p_*", targets="y")
    with pytest.raises(InputError, match="must exist"):
        fedlas.calibrate(tmp_path / "none.csv", probs="p_*", target="y")
    with pytest.raises(InputError, match="drift"):
        fedlas.calibrate(frame(), probs="p_*", target="y", method="drift-temperature")
    own = fedlas.calibrate(frame(), probs="p_*", target="y", method=TemperatureScaling())
    assert str(own.fitted).startswith("temperature 2.57")


def test_a_record_batch_is_a_frame(calibration):
    batch = pa.Table.from_pandas(frame(40)).to_batches()[0]
    after = calibration.apply(batch)
    assert isinstance(after, pa.RecordBatch)
    assert (
        after["calibrated_p_yes"].to_pylist()
        == calibration.apply(frame(40))["calibrated_p_yes"].tolist()
    )


@pytest.mark.parametrize("share", ["1%", True])
def test_the_largest_missing_share_is_a_number(calibration, share):
    with pytest.raises(InputError, match="max_missing must be a finite number"):
        calibration.apply(frame(40), missing="empty", max_missing=share)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_integers_that_a_format_cannot_hold_are_refused(calibration, tmp_path, suffix):
    row = {"id": 12345678901234567890123, "p_no": 0.4, "p_yes": 0.6}
    (tmp_path / "live.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(InputError, match="rows must be representable in"):
        apply(calibration, tmp_path / "live.jsonl", out=tmp_path / f"out{suffix}")


def test_added_columns_are_named_by_output_format(calibration, tmp_path):
    """Parquet was said to have the path that JSON lines have."""
    table = frame(40).rename(columns={"p_no": "out.p_no", "p_yes": "out.p_yes"})
    fit = fedlas.calibrate(table, probs="out.p_no,out.p_yes", target="y", method="temperature")
    row = {"out": {"p_no": 0.4, "p_yes": 0.6}}
    (tmp_path / "live.jsonl").write_text(json.dumps(row) + "\n")
    done = apply(fit, tmp_path / "live.jsonl", out=tmp_path / "out.parquet")
    assert {*done.columns} < {*pq.read_schema(tmp_path / "out.parquet").names}
    done = apply(fit, tmp_path / "live.jsonl", out=tmp_path / "out.jsonl")
    assert done.columns == ("out.calibrated_p_no", "out.calibrated_p_yes")


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
@pytest.mark.parametrize("files", [1, 2])
def test_key_missing_in_first_object_is_a_column(tmp_path, suffix, files):
    """It is read, and written, whichever row lacks it."""
    table = frame(60).assign(site=["x", "y"] * 30, note=[f"n{row}" for row in range(60)])
    fit = fedlas.calibrate(table, probs="p_*", target="y", covariates="site", method="temperature")
    rows = [{**row} for row in table.drop(columns="y").to_dict("records")]
    for row in rows[:2]:
        del row["site"]
    lacking = 20 if suffix == ".parquet" else 40  # there the first file sets the type
    for row in rows[:lacking]:
        del row["note"]
    names = [tmp_path / f"live{number}.jsonl" for number in range(files)]
    for name, part in zip(names, np.array_split(rows, files), strict=True):
        name.write_text("\n".join(map(json.dumps, part)))
    out = tmp_path / f"out{suffix}"
    assert apply_to_files(fit, names, out).rows == 60
    read = {".csv": pd.read_csv, ".parquet": pd.read_parquet}
    written = read[suffix](out) if suffix in read else pd.read_json(out, lines=True)
    assert written["note"].tolist()[lacking:] == table["note"].tolist()[lacking:]
    assert written["note"].isna().sum() == lacking
    assert written["calibrated_p_yes"].notna().all()


def test_key_only_in_late_row_is_handled(tmp_path):
    rows = frame(1100).drop(columns="y").to_dict("records")
    rows[-1]["late"] = 1
    fit = fedlas.calibrate(frame(60), probs="p_*", target="y", method="temperature")
    (tmp_path / "live.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(InputError, match=r"'late' only in a later row of live\.jsonl"):
        apply_to_files(fit, [tmp_path / "live.jsonl"], tmp_path / "out.csv")
    apply_to_files(fit, [tmp_path / "live.jsonl"], tmp_path / "out.jsonl")
    assert json.loads((tmp_path / "out.jsonl").read_text().splitlines()[-1])["late"] == 1


def test_class_missing_in_first_object_is_a_class(tmp_path):
    rows = [{"p_a": 0.5, "p_b": 0.5, "y": "a"}, {"p_a": 0.2, "p_b": 0.3, "p_c": 0.5, "y": "c"}]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(InputError, match="row 1"):
        fedlas.read_predictions(tmp_path / "t.jsonl", probs="p_*", target="y")
    table = fedlas.read_predictions(
        tmp_path / "t.jsonl", probs="p_*", target="y", drop_missing=True
    )
    assert table.classes == ("a", "b", "c")


def test_output_inside_input_folder_is_refused(calibration, tmp_path):
    (tmp_path / "live").mkdir()
    frame(40).to_parquet(tmp_path / "live" / "a.parquet")
    out = tmp_path / "live" / "all.parquet"
    with pytest.raises(InputError, match="must lie outside the folder"):
        apply(calibration, tmp_path / "live", out=out)
    assert not out.exists()


def test_errors_name_folder_if_file_names_repeat(calibration, tmp_path):
    for month, gap in (("11", 0.5), ("12", np.nan)):
        folder = tmp_path / "live" / f"month={month}"
        folder.mkdir(parents=True)
        live = frame(40)
        live.loc[1, "p_yes"] = gap
        live.loc[1, "p_no"] = 0.5
        live.to_parquet(folder / "a.parquet")
    with pytest.raises(InputError, match=r"row 2.* of month=12/a\.parquet"):
        apply(calibration, tmp_path / "live", out=tmp_path / "out.parquet")


def test_unknown_store_is_refused_without_creating_a_folder(calibration, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    frame(40).to_csv("live.csv", index=False)
    before = sorted(tmp_path.iterdir())
    match = "the protocol of an address must be one of abfs,"
    with pytest.raises(InputError, match=match), local_table_files(["nostore://bucket/live.csv"]):
        pass
    with pytest.raises(InputError, match=match):
        apply_to_files(calibration, ["live.csv"], "nostore://bucket/out.csv")
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("of_fit", [",", ";", "^"])
@pytest.mark.parametrize("of_live", [",", ";", "^"])
def test_the_separator_is_that_of_each_file(tmp_path, monkeypatch, of_fit, of_live):
    monkeypatch.chdir(tmp_path)
    rows = [
        ["p a", "p,b", "y"],
        *([f"{0.2 + 0.01 * n}", f"{0.8 - 0.01 * n}", n % 2] for n in range(40)),
    ]
    for name, sign in (("val.csv", of_fit), ("live.csv", of_live)):
        with Path(name).open("w", newline="") as file:
            csv.writer(file, delimiter=sign).writerows(rows)
    named = {"probs": 'p a,"p,b"', "classes": "0,1", "target": "y", "method": "temperature"}
    fit = fedlas.calibrate("val.csv", separator=of_fit, **named)
    said = "^" if of_live == "^" != of_fit else None
    apply_to_files(fit, ["live.csv"], "out.csv", separator=said)
    with Path("out.csv").open(newline="") as file:
        assert len([row for row in csv.reader(file, delimiter=of_live) if len(row) == 5]) == 41
    assert said or fit.before_after("live.csv").samples == 40


def test_rows_with_zero_weight_are_ignored():
    draw = np.random.default_rng(0)
    scores = draw.uniform(0.05, 0.95, 300)
    frame = {"p": scores, "y": (draw.uniform(size=300) < scores**2).astype(int)}
    frame |= {"w": np.where(np.arange(300) % 3, 1.0, 0.0), "c": np.arange(300) // 4}
    some = {name: values[frame["w"] > 0] for name, values in frame.items()}
    named = {"probs": "p", "target": "y", "weights": "w", "clusters": "c"}
    one, other = (fedlas.calibrate(rows, **named) for rows in (frame, some))
    assert one.rows == other.rows == 200
    assert str(one.cross_fitted) == str(other.cross_fitted)
    assert "100 rows of weight 0 are ignored." in one.notes
    assert str(one.before_after(frame)) == str(one.before_after(some))


def test_notes_name_columns_and_classes_of_table():
    draw = np.random.default_rng(0)
    names = [f"c{number:02d}" for number in range(1, 5)]
    patient = np.repeat(np.arange(20), 10)
    frame = {
        "age": draw.normal(60, 9, 20)[patient],
        "bmi": draw.normal(25, 4, 20)[patient],
        "y": [names[number] for number in (np.arange(200) + (patient > 9)) % 2],
    } | {
        f"p_{name}": np.full(200, share)
        for name, share in zip(names, (0.4, 0.4, 0.1, 0.1), strict=True)
    }
    calibration = fedlas.calibrate(frame, probs="p_*", target="y", covariates="age,bmi")
    text = " ".join(calibration.notes)
    assert "2 classes (c03, c04) without a validation sample" in text
    assert "age and bmi repeat together: 20 combinations in 200 rows" in text


def test_apply_names_the_class_of_a_single_column(tmp_path):
    frame = {"score": [0.2, 0.7] * 100, "y": ["active", "left", "left", "left"] * 50}
    calibration = fedlas.calibrate(
        frame, probs="score", target="y", event="left", method="temperature"
    )
    pd.DataFrame(frame).to_csv(tmp_path / "live.csv", index=False)
    applied = apply_to_files(calibration, [tmp_path / "live.csv"], tmp_path / "out.csv")
    assert "score is the probability of 'left'." in applied.notes
