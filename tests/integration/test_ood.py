"""``fedlas runs ood`` as a stranger meets it."""

import csv
import shutil
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from fedlas.cli import main
from fedlas.lab.studies.ood import measure as ood_outputs
from fedlas.predictions import Predictions
from fedlas.zoo.ood import DETECTION, OOD_SCORES, Outputs

TINY = [
    "train.epochs=2", "train.batch_size=50", "data.train_size=120", "data.val_size=50", "data.test_size=60",
    "model.hidden=[8]",
]  # fmt: skip
FAST = ["--replicates", "39", "--set", "knn.k=10"]


@pytest.fixture(scope="session")
def finished_bench(runs, tmp_path_factory):
    """Two losses, two seeds; tests copy it to change it."""
    return shutil.copytree(
        runs("shared"),
        tmp_path_factory.mktemp("ood") / "bench",
        ignore=shutil.ignore_patterns("*-s2"),
    )


@pytest.fixture(scope="session")
def finished_open_set(runs):
    return runs("open-set") / "ce-s0"


@pytest.fixture
def bench(finished_bench, tmp_path):
    return shutil.copytree(finished_bench, tmp_path / "bench")


@pytest.fixture
def run(bench):
    return bench / "ce-s0"


@pytest.fixture
def open_set_run(finished_open_set, tmp_path):
    return shutil.copytree(finished_open_set, tmp_path / "open")


@pytest.fixture(autouse=True)
def _no_figures(request, monkeypatch):
    """Drawing takes longer than all else here; one test looks at the page."""
    if request.node.name != "test_one_run":
        monkeypatch.setattr("fedlas.lab.report.ood._score_figures", lambda *_args: ("", [], ""))


def call(capsys, *arguments):
    """Exit status, standard output and standard error."""
    try:
        status = main([str(argument) for argument in arguments])
    except SystemExit as ended:
        status = ended.code
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    return status, captured.out, captured.err


def results(folder):
    with (folder / "ood.csv").open() as file:
        return list(csv.DictReader(file))


def test_one_run(capsys, run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    status, out, _ = call(capsys, "runs", "ood", run, "--data", "digits", "--details", *FAST)
    assert status == 0
    for part in (
        "synthetic vs digits",
        "AUPR-out %",
        "Relative Mahalanobis",
        "Energy, after T",
        "60 test images",
    ):
        assert part in out
    assert all(len(line) <= 100 for line in out.splitlines() if "│" in line or "─" in line)
    rows = results(run)
    assert {row["score"] for row in rows} == set(OOD_SCORES)
    for row in rows:
        for metric in DETECTION:
            low, value, high = (float(row[metric + end]) for end in ("-low", "", "-high"))
            assert 0 <= low <= value + 0.2
            assert value <= 1
            assert high <= 1 + 1e-9
    assert (run / "ood.html").read_text().count("<svg") == 1 + len(OOD_SCORES)


def test_values_are_those_of_the_saved_predictions(capsys, run):
    call(capsys, "runs", "ood", run, "--data", "digits", "--scores", "msp", *FAST[:2])
    found = results(run)
    test = Predictions.load(run / "predictions" / "test.npz")
    other, _ = Outputs.load(run / "predictions" / "ood-digits.npz")
    assert other.num_samples == 600
    own, theirs = (
        1 - test.tensors().probs.double().amax(1),
        1 - other.logits.double().softmax(1).amax(1),
    )
    auroc = (theirs[:, None] > own).double().mean() + 0.5 * (theirs[:, None] == own).double().mean()
    assert float(found[0]["auroc"]) == pytest.approx(float(auroc), abs=1e-6)


def test_predictions_are_made_once(capsys, run, monkeypatch):
    command = ("runs", "ood", run, "--data", "digits", "--scores", "odin", "knn", *FAST)
    call(capsys, *command)
    files = {path.name: path.stat().st_mtime_ns for path in (run / "predictions").glob("*.npz")}
    assert set(files) == {"val.npz", "test.npz", "in-test.npz", "in-train.npz", "ood-digits.npz"}
    with monkeypatch.context() as patch:
        patch.setattr(ood_outputs, "predict", None)
        assert call(capsys, *command)[0] == 0
    assert files == {
        path.name: path.stat().st_mtime_ns for path in (run / "predictions").glob("*.npz")
    }
    call(capsys, *command, "--set", "odin.temperature=10")
    changed = {
        p.name for p in (run / "predictions").glob("*.npz") if p.stat().st_mtime_ns != files[p.name]
    }
    assert changed == {"in-test.npz", "ood-digits.npz"}
    damaged = run / "predictions" / "ood-digits.npz"
    damaged.write_bytes(b"damaged, or a user's own")
    code, _, err = call(capsys, *command)
    assert code == 2
    assert "Remove the file" in err
    assert damaged.read_bytes() == b"damaged, or a user's own"
    damaged.unlink()
    assert call(capsys, *command)[0] == 0
    assert Outputs.load(damaged)[0].num_samples == 600


def test_features_are_computed_if_none_are_saved(capsys, run):
    command = ("runs", "ood", run, "--data", "digits", "--scores", "knn", *FAST)
    call(capsys, *command)
    saved = results(run)
    for part in ("val", "test"):
        path = run / "predictions" / f"{part}.npz"
        replace(Predictions.load(path), features=None).save(path)
    for path in (run / "predictions").glob("*-*.npz"):
        path.unlink()
    assert call(capsys, *command)[0] == 0
    assert [row["auroc"] for row in results(run)] == [row["auroc"] for row in saved]


def test_changed_images_of_same_name_are_repredicted(capsys, run, tmp_path):
    random = np.random.default_rng(0)
    for count in (30, 40):
        arrays = {
            f"{part}_images": random.integers(0, 256, (count, 9, 9, 3), dtype=np.uint8)
            for part in ("train", "test")
        }
        arrays |= {f"{part}_target": np.arange(count) % 2 for part in ("train", "test")}
        np.savez(tmp_path / f"{count}.npz", **arrays)
        status, out, _ = call(
            capsys,
            "runs",
            "ood",
            run,
            "--data",
            f"mine=npz:{tmp_path}/{count}.npz",
            "--scores",
            "energy",
            *FAST[:2],
        )
        assert status == 0
        assert "color converted to gray" in out
        assert "scaled from 9 x 9 to 8 x 8 pixels" in out
        assert Outputs.load(run / "predictions" / "ood-mine.npz")[0].num_samples == count


def test_a_bench_is_compared_over_seeds(capsys, bench, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    status, out, _ = call(
        capsys,
        "runs",
        "ood",
        bench,
        "--data",
        "digits",
        "--scores",
        "msp",
        "knn",
        "--details",
        *FAST,
    )
    assert status == 0
    assert "Mean ± sample standard deviation over seeds (n = 2)" in out
    assert "Fewer than 5 seeds" in out
    rows = results(bench)
    runs = list(dict.fromkeys((row["loss"], int(row["seed"])) for row in rows))
    assert runs == [("ce", 0), ("ce", 1), ("ls", 0), ("ls", 1)]
    chosen = [
        row for row in rows if (row["loss"], row["score"], row["stage"]) == ("ls", "msp", "before")
    ]
    values = [100 * float(row["auroc"]) for row in chosen]
    assert f"{np.mean(values):.2f} ±{np.std(values, ddof=1):.2f}" in out
    assert "Losses compared" in (bench / "ood.html").read_text()


def test_seeds_of_one_loss(capsys, bench, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    _, out, _ = call(
        capsys,
        "runs",
        "ood",
        bench / "ce-s0",
        bench / "ce-s1",
        "--data",
        "digits",
        "--scores",
        "msp",
        "energy",
        *FAST[:2],
    )
    assert "ce, 2 seeds: synthetic vs digits" in out
    assert " ±" in out
    assert (bench / "ood.csv").is_file()


def test_unusable_bench_runs_are_named(capsys, bench):
    (bench / "ls-s1" / "metrics.json").unlink()
    _, out, _ = call(capsys, "runs", "ood", bench, "--data", "digits", "--scores", "msp", *FAST[:2])
    assert "ls-s1 is left out: it is not finished." in out


def test_open_set(capsys, open_set_run):
    run = open_set_run
    test = Predictions.load(run / "predictions" / "test.npz")
    assert test.num_classes == 7
    saved = (run / "predictions" / "ood-held-out.npz").stat().st_mtime_ns
    unknown, _ = Outputs.load(run / "predictions" / "ood-held-out.npz")
    assert unknown.logits.shape[1] == 7
    status, out, _ = call(
        capsys, "runs", "ood", run, "--scores", "max-logit", "feature-norm", *FAST[:2]
    )
    assert status == 0
    assert "synthetic vs held-out" in out
    assert "test images of the classes held out: 7, 8, 9" in out
    assert (run / "predictions" / "ood-held-out.npz").stat().st_mtime_ns == saved
    _, out, _ = call(capsys, "runs", "ood", run, "--data", "digits", "--scores", "msp", *FAST[:2])
    assert "held-out" in out
    assert "synthetic vs digits" in out


def test_runs_without_held_out_classes_are_unchanged(run):
    assert "hold_out" not in (run / "config.yaml").read_text()
    assert not (run / "predictions" / "ood-held-out.npz").exists()


def test_score_that_cannot_run_is_named(capsys, run, monkeypatch):
    """Unless it was asked for, with --scores or with an option of its own."""
    monkeypatch.setattr(
        OOD_SCORES, "_entries", {name: OOD_SCORES._entries[name] for name in ("msp", "knn")}
    )
    monkeypatch.setattr(
        "fedlas.zoo.ood.fitted_scores.check_train_features",
        lambda *_args, **_more: torch.zeros(9, 8),
    )
    status, out, _ = call(capsys, "runs", "ood", run, "--data", "digits", "--replicates", "39")
    assert status == 0
    assert "ce-s0: knn was not computed. compute_score: k must be at most 9" in out
    for asked in (["--scores", "knn"], ["--set", "knn.k=10"]):
        status, _, err = call(
            capsys, "runs", "ood", run, "--data", "digits", "--replicates", "39", *asked
        )
        assert status == 2
        assert "at most 9" in err


def test_without_the_extra_the_other_scores_run(capsys, run, monkeypatch):
    for module in ("pytorch_ood", "pytorch_ood.detector"):
        monkeypatch.setitem(sys.modules, module, None)
    status, out, _ = call(capsys, "runs", "ood", run, "--data", "digits", "--replicates", "39")
    assert status == 0
    assert "Feature norm" in out
    assert "odin was not computed. fedlas[ood]: this needs the package 'pytorch_ood'" in out
    status, _, err = call(
        capsys, "runs", "ood", run, "--data", "digits", "--replicates", "39", "--scores", "odin"
    )
    assert status == 2
    assert "pip install '.[ood]'" in err


def test_the_same_images_are_refused(capsys, run, tmp_path):
    from fedlas.lab.runs import load_trained_run

    own = load_trained_run(run).splits.test
    arrays = {f"{part}_images": own.images[:, 0].numpy() for part in ("train", "test")}
    arrays |= {f"{part}_target": own.target.numpy() for part in ("train", "test")}
    np.savez(tmp_path / "own.npz", **arrays)
    command = ["runs", "ood", run, "--data", f"own=npz:{tmp_path}/own.npz", "--scores", "msp"]
    status, _, err = call(capsys, *command, "--replicates", "39")
    assert status == 2
    assert "run's own test images" in err
    arrays["test_images"] = arrays["test_images"].copy()
    arrays["test_images"][5:] += 1
    np.savez(tmp_path / "own.npz", **arrays)
    _, out, _ = call(capsys, *command, "--replicates", "39")
    assert "5 of 60 images are among the run's own test images" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "required: RUN"),
        (["nowhere", "--data", "digits"], "the folder must be a run folder"),
        (["{run}"], "no --data, and a run without held-out classes"),
        (["{run}", "--data", "digit"], "Did you mean 'digits'?"),
        (["{run}", "--data", "digits", "digits"], "labels of data sets must be unique"),
        (["{run}", "--data", "cifar10:"], "NAME:ROOT"),
        (["{run}", "--data", "held-out=digits"], "NAME:ROOT"),
        (["{run}", "--data", "../x=digits"], "a label of letters"),
        (["{run}", "--data", "npz:/nowhere.npz"], "does not exist"),
        (["{run}", "--data", "digits:/tmp"], "needs no files"),
        (["{run}", "--data", "digits", "--scores", "mps"], "Did you mean 'msp'?"),
        (["{run}", "--data", "digits", "--scores", "msp", "msp"], "--scores must be distinct"),
        (["{run}", "--data", "digits", "--set", "knn.n=3"], "Choose one of: k"),
        (["{run}", "--data", "digits", "--set", "msp.k=3"], "Leave it out"),
        (["{run}", "--data", "digits", "--set", "kn.k=3"], "Did you mean 'knn'?"),
        (["{run}", "--data", "digits", "--set", "knn=3"], "SCORE.KEY=VALUE"),
        (
            ["{run}", "--data", "digits", "--scores", "msp", "--set", "knn.k=3"],
            "SCORE.KEY=VALUE for a computed score",
        ),
        (["{run}", "--data", "digits", "--replicates", "3"], "replicates must be at least 39"),
        (["{run}", "{run}", "--data", "digits"], "runs must differ in loss or seed"),
        (
            ["{run}/predictions", "--data", "digits"],
            "each folder must be a run folder, or hold finished runs",
        ),
        (
            ["{run}", "{open}", "--data", "digits"],
            "the same configuration except for loss and seed",
        ),
    ],
)
def test_invalid_arguments_are_refused(
    capsys, finished_bench, finished_open_set, monkeypatch, arguments, message
):
    monkeypatch.setattr(ood_outputs, "predict", None)  # it is refused before anything is predicted
    words = [a.format(run=finished_bench / "ce-s0", open=finished_open_set) for a in arguments]
    status, out, err = call(capsys, "runs", "ood", *words)
    assert status == 2
    assert message in err, err
    assert out == ""
    assert not (finished_bench / "ce-s0" / "ood.csv").exists()


def test_an_option_that_its_score_refuses(capsys, run):
    status, out, err = call(
        capsys,
        "runs",
        "ood",
        run,
        "--data",
        "digits",
        "--scores",
        "energy",
        "--set",
        "energy.temperature=hot",
    )
    assert (status, out) == (2, "")
    assert "temperature must be" in err
    assert not (run / "ood.csv").exists()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("[0,1,2,3,4,5,6,7,8]", "leave at least two"),
        ("[ten]", "names of classes"),
        ("3", "hold_out_classes"),
        ("[]", ""),
    ],
)
def test_classes_that_cannot_be_held_out(capsys, tmp_path, value, message):
    words = [w for s in (*TINY, f"data.hold_out_classes={value}") for w in ("--set", s)]
    status, _, err = call(
        capsys, "runs", "train", "synthetic", "--loss", "ce", *words, "--out", tmp_path / "x"
    )
    assert status == (2 if message else 0)
    assert message in err
    if message:
        assert not (tmp_path / "x").exists()
