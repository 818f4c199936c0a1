import json
import sys

import numpy as np
import pytest
import torch

from fedlas.calibrators import CALIBRATORS
from fedlas.cli import main, run
from fedlas.errors import InputError
from fedlas.lab.data import DATASETS
from fedlas.lab.models import MODELS
from fedlas.lab.recipes import recipe_names
from fedlas.losses import LOSSES
from fedlas.metrics import METRICS, evaluate
from fedlas.predictions import Predictions
from fedlas.stats import bootstrap_interval, noise_floor


def evaluate_file(file, **options):
    """``fedlas evaluate`` with options by name; raises what the command line would print."""
    words = [str(file)]
    names = {"as_json": "--json", "html": "--report"}
    for name, value in options.items():
        option = names.get(name, f"--{name.replace('_', '-')}")
        if name in {"cost_ratio", "budget", "recall", "precision"}:
            option, value = "--threshold", f"{name.replace('_', '-')}={value}"
        words += [] if value is False else [option] if value is True else [option, str(value)]
    return run(["evaluate", *words])


def predictions(classes=4, scale=4.0, seed=0, samples=200):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(samples, classes, generator=generator)
    target = torch.multinomial(logits.softmax(1), 1, generator=generator).squeeze(1)
    return Predictions(logits * scale, target)  # too confident by that factor


@pytest.fixture
def files(tmp_path):
    for name, seed in (("test", 0), ("val", 1)):
        predictions(seed=seed).save(tmp_path / "predictions" / f"{name}.npz")
    return tmp_path / "predictions" / "test.npz", tmp_path / "predictions" / "val.npz"


def test_evaluate_prints_percent_and_says_so(files, capsys):
    assert evaluate_file(files[0], replicates=0) == 0
    text = capsys.readouterr().out
    scores = evaluate(Predictions.load(files[0]))
    assert "200 samples, 4 classes, 15 bins" in text
    (line,) = [line for line in text.splitlines() if line.split()[:3] == ["ECE", "%", "↓"]]
    assert line.split()[3] == f"{100 * scores['ece']:.2f}"
    assert "top" not in text.lower()  # of four classes it says nothing


def test_evaluate_json_is_exact(files, capsys):
    assert (
        evaluate_file(
            files[0], method="temperature", on=files[1], as_json=True, num_bins=10, replicates=0
        )
        == 0
    )
    found = json.loads(capsys.readouterr().out)
    assert set(found) == {"as predicted", "after temperature", "verdict"}
    expected = evaluate(Predictions.load(files[0]), num_bins=10)
    assert found["as predicted"] == expected
    assert found["after temperature"]["accuracy"] == found["as predicted"]["accuracy"]
    assert found["after temperature"]["nll"] < found["as predicted"]["nll"]


def test_evaluate_shows_intervals_and_noise_floor_everywhere(files, tmp_path, capsys):
    options = {"method": "temperature", "on": files[1], "replicates": 60}
    assert evaluate_file(files[0], as_json=True, **options) == 0
    found = json.loads(capsys.readouterr().out)
    before, after = (
        found["intervals"][stage]["ece"] for stage in ("as predicted", "after temperature")
    )
    interval = bootstrap_interval(Predictions.load(files[0]), metric="ece", replicates=60)
    floor = noise_floor(Predictions.load(files[0]), metric="ece", replicates=60)
    assert before == {
        "value": interval.value, "low": interval.low, "high": interval.high, "replicates": 60, "floor": floor.mean,
        "p": floor.p_value, "least_p": 1 / 61, "confidence_level": 0.95, "test": "consistency resampling",
    }  # fmt: skip
    assert before["p"] < 0.05 < after["p"]
    assert "floor" not in found["intervals"]["as predicted"]["accuracy"]

    assert evaluate_file(files[0], html=tmp_path / "page.html", details=True, **options) == 0
    for text in (capsys.readouterr().out, (tmp_path / "page.html").read_text()):
        assert f"[{100 * before['low']:.2f}, {100 * before['high']:.2f}]" in text
        assert f"floor {100 * before['floor']:.2f}" in text
        assert f"~ floor {100 * after['floor']:.2f}" in text


@pytest.mark.parametrize("replicates", [-1, 1, 38])
def test_too_few_replicates_are_refused_before_anything_else(tmp_path, replicates):
    with pytest.raises(InputError, match="at least"):
        evaluate_file(tmp_path / "none.npz", replicates=replicates)
    with pytest.raises(InputError, match="at least"):
        run(["runs", "report", str(tmp_path / "none"), "--replicates", str(replicates)])


@pytest.mark.parametrize("sharpness", [1, 4])
def test_evaluate_explains_a_sign_only_where_it_stands(tmp_path, capsys, sharpness):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2000, 3, generator=generator)
    target = torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]
    path = Predictions(sharpness * logits, target).save(tmp_path / "some.npz")
    evaluate_file(path, replicates=39)
    shown = capsys.readouterr().out
    signs = {line.lstrip().startswith("~") for line in shown.splitlines() if "~" in line}
    assert signs == ({True, False} if sharpness == 1 else set())


def test_evaluate_run_folder_calibrates_on_its_validation_part(files, capsys):
    folder = files[0].parent.parent
    evaluate_file(folder, method="temperature", as_json=True, replicates=0)
    from_folder = json.loads(capsys.readouterr().out)
    evaluate_file(files[0], method="temperature", on=files[1], as_json=True, replicates=0)
    from_file = json.loads(capsys.readouterr().out)
    assert {**from_file, "verdict": 0} == {**from_folder, "verdict": 0}


@pytest.mark.system
def test_evaluate_all_compares_every_calibrator_that_can_run(files, tmp_path, capsys):
    test, val = files
    assert evaluate_file(test, method="all", on=val, as_json=True, replicates=39) == 0
    found = json.loads(capsys.readouterr().out)
    ran = {stage.removeprefix("after ") for stage in found if stage.startswith("after ")}
    assert set(found) == {
        "as predicted",
        "verdict",
        "not run",
        "ranking",
        "joint_p",
        "intervals",
        "spiegelhalter",
        *(f"after {name}" for name in ran),
    }
    ranked = [found[place["stage"]]["nll"] for place in found["ranking"]]
    assert ranked == sorted(ranked)
    assert len(ranked) == len(ran) + 1
    assert ran | set(found["not run"]) == set(CALIBRATORS)
    assert not ran & set(found["not run"])
    assert all(
        "features" in found["not run"][name]
        for name in CALIBRATORS
        if CALIBRATORS[name].value.needs
    )
    evaluate_file(test, method="temperature", on=val, as_json=True, replicates=0)
    assert json.loads(capsys.readouterr().out)["after temperature"] == found["after temperature"]

    assert evaluate_file(test, method="all", on=val, html=tmp_path / "page.html", replicates=0) == 0
    captured = capsys.readouterr()
    for name in ran:
        assert any(line.split()[:1] == [name] for line in captured.out.splitlines()), name
    page = (tmp_path / "page.html").read_text()
    assert (
        "Ranked by NLL on these samples: evaluate the one you choose on others."
        in captured.out.splitlines()
    )
    for name, reason in found["not run"].items():
        # what to do is in JSON and page
        said = f"{name} did not run: {reason.split(': ', 1)[1].split('; got')[0]}."
        assert " ".join(said.split()) in " ".join(captured.out.split())
        assert f"{name} did not run." in page
    assert page.count('<th scope="row">') == 2 * (len(ran) + 1)  # a row each, short and in full
    assert page.count("<figure>") == len(ran) + 1


def test_calibrator_warning_is_printed_as_note(files, tmp_path, capsys):
    certain = predictions(seed=2)
    Predictions(certain.tensors().logits, certain.tensors().predicted).save(
        tmp_path / "certain.npz"
    )
    assert (
        evaluate_file(
            files[0],
            method="temperature",
            on=tmp_path / "certain.npz",
            as_json=True,
            replicates=0,
        )
        == 0
    )
    captured = capsys.readouterr()
    assert "note: TemperatureScaling: " in captured.err
    json.loads(captured.out)


def test_evaluate_refuses(files, tmp_path):
    test, val = files
    np.savez(tmp_path / "wrong.npz", scores=np.zeros((3, 2)))
    np.savez(
        tmp_path / "nan.npz", logits=np.full((3, 2), np.nan), target=np.zeros(3, dtype=np.int64)
    )
    np.savez(tmp_path / "range.npz", logits=np.zeros((3, 2)), target=np.array([0, 1, 2]))
    (tmp_path / "noise.npz").write_bytes(b"PK\x03\x04 but no archive")
    predictions(classes=7).save(tmp_path / "seven.npz")
    (tmp_path / "empty").mkdir()
    for file, message in (
        ("none.npz", "must exist"),
        ("wrong.npz", "'logits' and 'target'"),
        ("nan.npz", "finite"),
        ("range.npz", r"\[0, 2\)"),
        ("noise.npz", "npz"),
        ("empty", "the folder must be a run folder"),
    ):
        with pytest.raises(InputError, match=message):
            evaluate_file(tmp_path / file)
    with pytest.raises(InputError, match="same model"):
        evaluate_file(test, method="temperature", on=tmp_path / "seven.npz")
    with pytest.raises(InputError, match="Did you mean 'temperature'"):
        evaluate_file(test, method="temprature", on=val)
    with pytest.raises(InputError, match="Pass --on"):
        evaluate_file(test, method="temperature")
    with pytest.raises(InputError, match="--num-bins"):
        evaluate_file(test, num_bins=0)


def test_evaluate_never_replaces_predictions(files, tmp_path):
    test, _ = files
    page = tmp_path / "predictions" / "odd.html"
    page.write_bytes(test.read_bytes())
    before = test.read_bytes()
    for place in (test, tmp_path / "page", tmp_path / "page.txt"):
        with pytest.raises(InputError, match=r"--report must end in \.html, \.htm or \.pdf"):
            evaluate_file(test, html=place)
    for options in ({"file": page}, {"file": test, "on": page}):
        with pytest.raises(InputError, match="--report must be another file"):
            evaluate_file(
                **options, html=tmp_path / "predictions" / ".." / "predictions" / "odd.html"
            )
    with pytest.raises(InputError, match=r"--on .*must differ from"):
        evaluate_file(test, on=test.parent / ".." / "predictions" / "test.npz")
    assert test.read_bytes() == page.read_bytes() == before
    assert evaluate_file(test, html=tmp_path / "page.HTM", replicates=0) == 0


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("losses", LOSSES), ("metrics", METRICS), ("calibrators", CALIBRATORS), ("datasets", DATASETS),
        ("models", MODELS), ("recipes", recipe_names()),
    ],
)  # fmt: skip
def test_list(kind, names, capsys):
    assert main(["list", kind]) == 0
    lines = capsys.readouterr().out.splitlines()
    for name in names:
        assert any(line.split() and line.split()[0] == name for line in lines), name


@pytest.mark.filterwarnings("default::fedlas.errors.CalibrationWarning")
def test_a_warning_about_two_files_comes_once(tmp_path, capsys):
    generator = torch.Generator().manual_seed(0)
    for name in ("a", "b"):  # probabilities given as logits
        probs = torch.rand(300, 3, generator=generator).softmax(1)
        np.savez(tmp_path / f"{name}.npz", logits=probs.numpy(), target=np.arange(300) % 3)
    assert (
        main(
            [
                "evaluate",
                str(tmp_path / "a.npz"),
                "--on",
                str(tmp_path / "b.npz"),
                "--replicates",
                "0",
            ]
        )
        == 0
    )
    assert capsys.readouterr().err.count("almost surely probabilities") == 1


def test_train_prints_where_and_what(tmp_path, capsys):
    tiny = [
        "train.epochs=1",
        "data.train_size=60",
        "data.val_size=50",
        "data.test_size=50",
        "model.hidden=[8]",
    ]
    words = [
        "runs",
        "train",
        "synthetic",
        *(word for setting in tiny for word in ("--set", setting)),
    ]
    assert run([*words, "--loss", "ls", "--seed", "3", "--out", str(tmp_path / "x")]) == 0
    text = capsys.readouterr().out
    assert "ls-s3 on synthetic, test set, epoch 1" in text
    assert f"run folder: {tmp_path / 'x'}" in text
    assert "after temperature" in text
    with pytest.raises(InputError, match="Did you mean 'fedlas'"):
        run([*words, "--loss", "fedlass", "--seed", "3", "--out", str(tmp_path / "y")])
    with pytest.raises(InputError, match="seed"):
        run([*words, "--loss", "ls", "--seed", "-3", "--out", str(tmp_path / "y")])
    assert not (tmp_path / "y").exists()


def test_evaluate_of_a_bench_names_report(tmp_path):
    (tmp_path / "bench" / "ce-s0").mkdir(parents=True)
    (tmp_path / "bench" / "ce-s0" / "config.yaml").write_text("recipe: {}\nloss: ce\nseed: 0\n")
    with pytest.raises(InputError, match="Run fedlas runs report"):
        evaluate_file(tmp_path / "bench")


@pytest.mark.parametrize(
    ("error", "cause"),
    [(MemoryError(), ""), (RuntimeError("CUDA out of memory"), " (CUDA out of memory)")],
)
def test_lack_of_memory_is_one_line(monkeypatch, capsys, error, cause):
    def fail(*_):
        raise error

    monkeypatch.setattr(sys.modules["fedlas.cli.main"], "run", fail)
    assert main(["list", "losses"]) == 2
    assert f"fedlas: error: out of memory{cause}. Use fewer columns" in capsys.readouterr().err
