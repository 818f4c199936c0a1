"""A method applied to finished runs: what it leaves, when it is done again, what is refused."""

import json

import filelock
import numpy as np
import pytest
import torch
import yaml

from fedlas._core.extras import require
from fedlas.calibrators import TemperatureScaling
from fedlas.errors import InputError, MissingExtraError
from fedlas.lab.runs import BusyError, RunFolder, load_trained_run
from fedlas.lab.studies.uncertainty import UNCERTAINTY, MethodResult, apply_method, plan_method
from fedlas.lab.studies.uncertainty.apply import open_members
from fedlas.metrics import METRICS, evaluate
from fedlas.predictions import Predictions

pytestmark = pytest.mark.system


def softmax(folder, part):
    """Probabilities of a run, from its file alone."""
    with np.load(folder / "predictions" / f"{part}.npz") as saved:
        powers = np.exp(saved["logits"].astype(np.float64))
    return powers / powers.sum(1, keepdims=True)


def saved(folder, part):
    return Predictions.load(folder / "predictions" / f"{part}.npz")


def files(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} - {
        ".lock"
    }


def register(changeable, name, method):
    """A method of one run, for the time of a test."""
    changeable(UNCERTAINTY)
    UNCERTAINTY.add(name, method, title=name, paper="", year=0, url="", least=1, most=1)


@pytest.fixture(scope="module")
def done(shared, tmp_path_factory):
    runs = [shared[f"ce-s{seed}"] for seed in (0, 1, 2)]
    derived = plan_method("deep-ensemble", runs, out=tmp_path_factory.mktemp("made") / "ensemble")
    return derived, runs, apply_method(derived)


def test_the_mean_of_the_probabilities(done):
    derived, runs, _ = done
    for part in ("val", "test"):
        expected = sum(softmax(run, part) for run in runs) / 3
        np.testing.assert_allclose(saved(derived.folder, part).probs, expected, atol=1e-6)
        assert np.array_equal(saved(derived.folder, part).target, saved(runs[0], part).target)
        assert np.array_equal(
            saved(derived.folder, part).label_probs, saved(runs[0], part).label_probs
        )


def test_what_it_leaves(done, shared):
    derived, runs, metrics = done
    names = {
        "config.yaml",
        "data.json",
        "environment.json",
        "metrics.json",
        "predictions/val.npz",
        "predictions/test.npz",
    }
    assert files(derived.folder) == names
    assert json.loads((derived.folder / "metrics.json").read_text()) == metrics
    val, test = (saved(derived.folder, part) for part in ("val", "test"))
    assert metrics["test"] == {**evaluate(test), "aurc": METRICS["aurc"].value(test)}
    assert metrics["val"].items() >= evaluate(val).items()
    scaling = TemperatureScaling().fit(val)
    assert metrics["temperature"] == scaling.temperature
    assert metrics["test_calibrated"].items() >= evaluate(scaling.transform(test)).items()
    assert (metrics["loss"], metrics["seed"], metrics["uncertainty"]) == (
        "deep-ensemble(ce)",
        0,
        "deep-ensemble",
    )
    members = [json.loads((run / "metrics.json").read_text()) for run in runs]
    assert metrics["parameters"] == 3 * members[0]["parameters"]
    assert metrics["seconds"] >= sum(member["seconds"] for member in members)
    assert metrics["notes"][0] == "made of ce-s0, ce-s1, ce-s2"
    split = json.loads((runs[0] / "data.json").read_text())
    assert json.loads((derived.folder / "data.json").read_text()) == split
    config = yaml.safe_load((derived.folder / "config.yaml").read_text())
    assert config == derived.config()
    assert config["runs"]["ce-s1"]["config"] == yaml.safe_load(
        (runs[1] / "config.yaml").read_text()
    )


def test_finished_is_not_done_again(done, monkeypatch):
    derived, runs, metrics = done
    before = {path: path.stat().st_mtime_ns for path in derived.folder.rglob("*")}
    # nothing may be measured
    monkeypatch.setattr("fedlas.lab.studies.uncertainty.apply.measure_predictions", None)
    again = plan_method("deep-ensemble", list(reversed(runs)), out=derived.folder)
    assert apply_method(again) == metrics
    assert {path: path.stat().st_mtime_ns for path in derived.folder.rglob("*")} == before


def test_another_making_is_refused_by_what_differs(done, shared):
    derived, runs, _ = done
    before = {path: path.read_bytes() for path in derived.folder.rglob("*") if path.is_file()}
    for other, message in (
        (
            plan_method("deep-ensemble", runs[:2], out=derived.folder),
            r"runs\.ce-s2: .* before, absent now",
        ),
        (
            plan_method("hyper-ensemble", runs, out=derived.folder),
            r"uncertainty\.name: 'deep-ensemble' before",
        ),
        (
            plan_method("deep-ensemble", runs, out=derived.folder, name="mine"),
            r"loss\.name: .* 'mine' now",
        ),
    ):
        with pytest.raises(InputError, match=message):
            apply_method(other)
    with pytest.raises(InputError, match="same configuration"):
        apply_method(plan_method("deep-ensemble", runs, out=shared["ls-s0"]))
    assert {
        path: path.read_bytes() for path in derived.folder.rglob("*") if path.is_file()
    } == before


def test_members_trained_again_are_other_members(shared, tmp_path):
    """The same names and settings, but another outcome."""
    copies = []
    for name in ("ce-s0", "ce-s1"):
        copies.append(tmp_path / name)
        for file in files(shared[name]):
            target = tmp_path / name / file
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((shared[name] / file).read_bytes())
    apply_method(plan_method("deep-ensemble", copies, out=tmp_path / "made"))
    test = saved(copies[0], "test")
    test.with_logits(test.logits + np.eye(10)[0]).save(copies[0] / "predictions" / "test.npz")
    with pytest.raises(InputError, match=r"runs\.ce-s0\.predictions\.test"):
        apply_method(plan_method("deep-ensemble", copies, out=tmp_path / "made"))


def test_default_folder_is_beside_first_run(shared, tmp_path):
    derived = plan_method("deep-ensemble", [shared["ce-s2"], shared["ce-s1"]])
    assert derived.folder == shared["ce-s2"].parent / "deep-ensemble-ce-s1"
    several = plan_method("hyper-ensemble", [shared["ls-s1"], shared["ce-s2"]])
    assert (several.folder.name, several.loss) == (
        "hyper-ensemble-ls+ce-s1",
        "hyper-ensemble(ls, ce)",
    )


def test_splits_that_differ_leave_the_test_part_alone(apart, tmp_path):
    runs = [apart[f"ce-s{seed}"] for seed in (0, 1, 2)]
    derived = plan_method("deep-ensemble", runs, out=tmp_path / "made")
    metrics = apply_method(derived)
    assert "predictions/val.npz" not in files(derived.folder)
    expected = sum(softmax(run, "test") for run in runs) / 3
    np.testing.assert_allclose(saved(derived.folder, "test").probs, expected, atol=1e-6)
    assert (metrics["temperature"], metrics["val"], metrics["test_calibrated"]) == (None, {}, {})
    assert "no temperature" in metrics["notes"][1]
    assert json.loads((derived.folder / "data.json").read_text())["split"] is None
    assert apply_method(derived) == metrics


def test_test_sets_that_differ_are_refused(train, tmp_path):
    runs = list(train(tmp_path, "data.test_size=40", seeds=(0, 1)).values())
    for method in ("deep-ensemble", "hyper-ensemble"):
        with pytest.raises(InputError, match=r"tested on the same.*split_seed"):
            apply_method(plan_method(method, runs, out=tmp_path / "made"))
        assert not (tmp_path / "made").exists()


def test_a_deep_ensemble_is_of_seeds_alone(shared, apart, tmp_path):
    for others, message in (
        ([shared["ls-s1"]], r"loss\.name: 'ce' before, 'ls' now"),
        ([apart["ce-s1"]], r"ce-s1, which differs from ce-s0 in data\.split_seed"),
    ):
        with pytest.raises(InputError, match=rf"only in the seed.*{message}.*hyper-ensemble"):
            apply_method(
                plan_method("deep-ensemble", [shared["ce-s0"], *others], out=tmp_path / "made")
            )
    assert not list(tmp_path.iterdir())


def test_a_hyper_ensemble_weighs_what_it_picked(shared, tmp_path):
    runs = list(shared.values())
    metrics = apply_method(
        plan_method("hyper-ensemble", runs, out=tmp_path / "made", options={"size": 3})
    )
    picked = metrics["details"]["picked"]
    assert 1 < len(picked) <= 3
    for part in ("val", "test"):
        total = sum(count * softmax(shared[name], part) for name, count in picked.items())
        found = saved(tmp_path / "made", part).probs
        np.testing.assert_allclose(found, total / sum(picked.values()), atol=1e-6)
    alone = [json.loads((run / "metrics.json").read_text())["val"]["nll"] for run in runs]
    assert metrics["val"]["nll"] < min(alone)
    parameters = json.loads((runs[0] / "metrics.json").read_text())["parameters"]
    assert metrics["parameters"] == len(picked) * parameters
    assert all(f"{name} ({count})" in metrics["notes"][1] for name, count in picked.items())


def test_a_hyper_ensemble_of_all(shared, apart, tmp_path):
    runs = [shared["ce-s0"], shared["ls-s2"]]
    apply_method(
        plan_method("hyper-ensemble", runs, out=tmp_path / "made", options={"selection": "all"})
    )
    for part in ("val", "test"):
        expected = sum(softmax(run, part) for run in runs) / 2
        np.testing.assert_allclose(saved(tmp_path / "made", part).probs, expected, atol=1e-6)
    mixed = [apart["ce-s1"], shared["ce-s1"]]
    with pytest.raises(InputError, match=r"same validation images.*split_seed"):
        apply_method(plan_method("hyper-ensemble", mixed, out=tmp_path / "other"))
    metrics = apply_method(
        plan_method("hyper-ensemble", mixed, out=tmp_path / "other", options={"selection": "all"})
    )
    # one name, so the bench's stands before it
    assert metrics["runs"] == ["apart/ce-s1", "shared/ce-s1"]
    assert metrics["val"] == {}


def test_passes_with_dropout(shared, tmp_path):
    metrics = apply_method(
        plan_method(
            "mc-dropout", [shared["ce-s1"]], out=tmp_path / "made", options={"samples": 200}
        )
    )
    assert (metrics["loss"], metrics["seed"]) == ("mc-dropout(ce)", 1)
    (member,) = open_members([shared["ce-s1"]])
    trained = load_trained_run(member)
    assert metrics["parameters"] == sum(p.numel() for p in trained.objective.model.parameters())
    part, model = trained.splits.test, trained.objective.model.eval()
    images = part.images.float() / 255
    mean, std = (
        torch.tensor(v).view(1, -1, 1, 1) for v in (trained.splits.mean, trained.splits.std)
    )
    with torch.no_grad():
        hidden = model.body[2](model.body[1](model.body[0]((images - mean) / std)))
        torch.manual_seed(0)
        passes = [model.fc(torch.dropout(hidden, 0.3, True)).softmax(1) for _ in range(2000)]
    expected = torch.stack(passes).mean(0)
    spread = torch.stack(passes).std(0) * (1 / 200 + 1 / 2000) ** 0.5
    assert (
        (saved(tmp_path / "made", "test").tensors().probs - expected).abs() < 5 * spread + 1e-6
    ).all()
    # which is not that of the run itself
    assert (saved(shared["ce-s1"], "test").tensors().probs - expected).abs().max() > 0.01


def test_invalid_option_leaves_no_files(shared, tmp_path):
    out = tmp_path / "made"
    for options, message in (({"samples": 0}, "samples"), ({"samples": "many"}, "samples")):
        with pytest.raises(InputError, match=message):
            apply_method(plan_method("mc-dropout", [shared["ce-s0"]], out=out, options=options))
        assert not out.exists()
    apply_method(plan_method("mc-dropout", [shared["ce-s0"]], out=out, options={"samples": 2}))
    with pytest.raises(InputError, match=r"samples: 2 before, 0 now"):
        apply_method(plan_method("mc-dropout", [shared["ce-s0"]], out=out, options={"samples": 0}))
    assert (out / "metrics.json").exists()


def test_no_dropout_no_passes(apart, tmp_path):
    with pytest.raises(InputError, match=r"dropout .*above 0.*model\.dropout"):
        apply_method(plan_method("mc-dropout", [apart["ce-s0"]], out=tmp_path / "made"))
    assert not list(tmp_path.iterdir())


def test_a_busy_folder_is_left_alone(shared, tmp_path):
    derived = plan_method("deep-ensemble", [shared["ce-s0"], shared["ce-s1"]], out=tmp_path)
    with filelock.FileLock(tmp_path / ".lock"), pytest.raises(BusyError) as caught:
        apply_method(derived)
    assert caught.value.owner is None  # the command names itself
    assert [path.name for path in tmp_path.iterdir()] in ([".lock"], [])


def test_killed_method_resumes_in_its_folder(shared, tmp_path, changeable):
    """What it trained is kept, and it gets the same folder again."""
    calls = []

    def method(runs, *, folder, stop=True):
        """A method."""
        calls.append(folder)
        folder.mkdir(parents=True, exist_ok=True)
        if len(calls) == 1:
            raise KeyboardInterrupt
        return MethodResult(runs[0].predictions("test"), runs[0].predictions("val"))

    register(changeable, "slow", method)
    derived = plan_method("slow", [shared["ce-s0"]], out=tmp_path / "made")
    with pytest.raises(KeyboardInterrupt):
        apply_method(derived)
    metrics = apply_method(derived)
    assert calls == [tmp_path / "made" / "work"] * 2
    assert len(json.loads((tmp_path / "made" / "environment.json").read_text())) == 2
    assert metrics["test"] == json.loads((shared["ce-s0"] / "metrics.json").read_text())["test"]
    assert (
        metrics["temperature"]
        == json.loads((shared["ce-s0"] / "metrics.json").read_text())["temperature"]
    )


@pytest.mark.parametrize(
    ("method", "names", "options", "message"),
    [
        ("deep-ensembel", ["ce-s0", "ce-s1"], {}, "Did you mean 'deep-ensemble'"),
        ("deep-ensemble", ["ce-s0"], {}, "takes at least 2 runs; got 1"),
        ("mc-dropout", ["ce-s0", "ce-s1"], {}, "takes 1 run; got 2. Apply it to each"),
        ("mc-dropout", ["ce-s0"], {"sampels": 3}, "Did you mean 'samples'"),
        ("deep-ensemble", ["ce-s0", "ce-s1"], {"size": 3}, "got 'size'. Leave it out"),
        ("mc-dropout", ["ce-s0"], {"runs": 3}, "got 'runs'"),
        ("deep-ensemble", ["ce-s0", "ce-s0"], {}, "must be distinct"),
    ],
)
def test_invalid_method_arguments_fail_before_start(
    shared, tmp_path, method, names, options, message
):
    with pytest.raises(InputError, match=message):
        plan_method(
            method, [shared[name] for name in names], out=tmp_path / "made", options=options
        )
    assert not list(tmp_path.iterdir())


def test_what_is_no_finished_run(shared, done, train, tmp_path):
    derived, *_ = done
    with pytest.raises(InputError, match="the folder must be a run folder"):
        plan_method("mc-dropout", [tmp_path])
    with pytest.raises(InputError, match="made of ce-s0, ce-s1, ce-s2"):
        _ = RunFolder(derived.folder).run
    unfinished = tmp_path / "ce-s0"
    unfinished.mkdir()
    (unfinished / "config.yaml").write_bytes((shared["ce-s0"] / "config.yaml").read_bytes())
    with pytest.raises(InputError, match="must be finished"):
        plan_method("mc-dropout", [unfinished])
    other = train(tmp_path / "other", "data.sharpness=2.0")["ce-s0"]
    with pytest.raises(InputError, match=r"same data set.*sha256"):
        plan_method("hyper-ensemble", [shared["ce-s0"], other])
    bins = train(tmp_path / "bins", "train.num_bins=10")["ce-s0"]
    with pytest.raises(InputError, match=r"number of bins.*num_bins: 15 before, 10 now"):
        plan_method("hyper-ensemble", [shared["ce-s0"], bins])


def test_a_missing_package_leaves_nothing(shared, tmp_path, changeable):
    def method(runs):
        """A method."""
        require("no_such_package", extra="uncertainty")

    register(changeable, "needy", method)
    with pytest.raises(MissingExtraError):
        apply_method(plan_method("needy", [shared["ce-s0"]], out=tmp_path / "made"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("place", ["missing", "empty folder", "link"])
def test_refused_method_removes_only_its_files(shared, tmp_path, changeable, place):
    def refuse(*, runs, folder):
        (folder.parent / "half").write_text("written")
        raise InputError("x must be 1", 2, "Pass 1.")

    register(changeable, "refuse", refuse)
    (tmp_path / "mine").mkdir()
    out = tmp_path / "out"
    if place == "empty folder":
        out.mkdir()
    elif place == "link":
        out.symlink_to(tmp_path / "mine", target_is_directory=True)
    with pytest.raises(InputError, match="x must be 1"):
        apply_method(plan_method("refuse", [shared["ce-s0"]], out=out))
    assert out.is_dir() == (place != "missing")
    assert out.is_symlink() == (place == "link")
    assert [*tmp_path.rglob("*/*")] == []
