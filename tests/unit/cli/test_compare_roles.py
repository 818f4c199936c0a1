"""``fedlas compare`` reads weights, clusters and groups of samples as ``fedlas evaluate`` does."""

import json

import numpy as np
import pandas as pd
import pytest

import fedlas
from fedlas.cli import main
from fedlas.errors import InputError

OPTIONS = ["--probs", "p", "--target", "y", "--replicates", "199", "--json"]


def written(folder, frame, change):
    frame.to_csv(folder / "a.csv", index=False)
    frame.assign(p=change(frame)).to_csv(folder / "b.csv", index=False)


@pytest.fixture(scope="module")
def frame():
    random = np.random.default_rng(0)
    logit = random.normal(size=400) - 1
    p = 1 / (1 + np.exp(-logit))
    y = (random.random(400) < p).astype(int)
    site = np.repeat(["north", "south"], 200)
    return pd.DataFrame(
        {"p": p, "y": y, "site": site, "w": random.integers(1, 4, 400), "patient": np.arange(400)}
    )


def sharper(frame):
    return 1 / (1 + ((1 - frame.p) / frame.p) ** 3)


def compared(capsys, folder, *options):
    assert main(["compare", str(folder / "a.csv"), str(folder / "b.csv"), *OPTIONS, *options]) == 0
    return json.loads(capsys.readouterr().out)


def test_weights_count(tmp_path, capsys, frame):
    written(tmp_path, frame, sharper)
    plain, weighted = (compared(capsys, tmp_path, *more) for more in ((), ("--weights", "w")))
    repeated = frame.loc[frame.index.repeat(frame.w)]
    expected = ((repeated.p - repeated.y) ** 2).mean()
    assert weighted["brier"]["a"] == pytest.approx(expected, rel=1e-6)
    assert plain["brier"]["a"] != pytest.approx(expected, rel=1e-4)


def test_rows_of_one_cluster_are_drawn_together(tmp_path, capsys, frame):
    written(tmp_path, frame.loc[frame.index.repeat(9)], sharper)
    widths = []
    for more in ((), ("--clusters", "patient")):
        nll = compared(capsys, tmp_path, *more)["nll"]
        widths.append(nll["high"] - nll["low"])
    assert widths[1] / widths[0] == pytest.approx(3, rel=0.25)


def test_groups_are_compared_each(tmp_path, capsys, frame, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "site").mkdir()  # a folder that has the name of a column is no folder of runs
    written(
        tmp_path,
        frame,
        lambda f: np.where(f.site == "north", sharper(f.assign(p=sharper(f))), f.p * 0.999),
    )
    content = compared(capsys, tmp_path, "--groups", "site")
    assert set(content["groups"]) == {"north", "south"}
    assert content["groups"]["north"]["nll"]["better"] == "a"
    assert content["groups"]["south"]["nll"]["better"] is None
    files = [str(tmp_path / name) for name in ("a.csv", "b.csv")]
    assert main(["compare", *files, *OPTIONS[:-1], "--groups", "site"]) == 0
    shown = capsys.readouterr().out
    assert "A - B in groups" in shown
    assert next(line for line in shown.split("\n") if line.strip().startswith("north")).count("*")


def test_mismatched_groups_are_rejected(frame):
    a = fedlas.Predictions.from_probs(frame.p, frame.y)
    b = fedlas.Predictions.from_probs(sharper(frame), frame.y)
    found = fedlas.compare(a, b, ["nll"], replicates=99, groups=frame.site)
    assert found.groups["north"].samples == 200
    with pytest.raises(InputError, match=r"one entry per sample.*400.*got 3"):
        fedlas.compare(a, b, ["nll"], replicates=99, groups=["n", "s", "n"])
    tables = [
        fedlas.read_predictions(frame.assign(site=order), probs="p", target="y", groups="site")
        for order in (frame.site, frame.site[::-1].to_numpy())
    ]
    with pytest.raises(InputError, match="different groups"):
        fedlas.compare(*tables, replicates=99)


def test_untestable_groups_are_never_starred(tmp_path, capsys, frame):
    """One cluster had an interval of no width, one sample was left out, and weights of 0 stopped the command."""
    site = np.repeat(["one cluster", "clusters", "one sample", "no weight"], [200, 190, 1, 9])
    patient = np.where(site == "one cluster", 0, frame.patient)
    changed = frame.assign(site=site, patient=patient, w=np.where(site == "no weight", 0.0, 1.0))
    written(tmp_path, changed, lambda f: sharper(f.assign(p=sharper(f))))
    roles = ["--groups", "site", "--clusters", "patient", "--weights", "w"]
    groups = compared(capsys, tmp_path, *roles)["groups"]
    assert {name: len(each) for name, each in groups.items()} == {
        "one cluster": 4,
        "clusters": 4,
        "one sample": 3,
        "no weight": 4,
    }
    assert groups["clusters"]["nll"]["better"] == "a"
    for name in ("one cluster", "one sample", "no weight"):
        for each in groups[name].values():
            assert each["better"] is None
            assert each["p"] == 1.0
            assert "low" not in each
            assert "high" not in each
    assert groups["one sample"]["nll"]["a"] > 0.0
    assert "a" not in groups["no weight"]["nll"]
    # They count in no correction.
    nll = groups["clusters"]
    assert nll["nll"]["p"] <= 4 * nll["nll"]["p_value"]
    files = [str(tmp_path / name) for name in ("a.csv", "b.csv")]
    assert main(["compare", *files, *OPTIONS[:-1], *roles]) == 0
    shown = capsys.readouterr().out
    assert "not testable" in " ".join(shown.split())
    assert "nan" not in shown


def test_rows_of_weight_0_are_told(tmp_path, capsys, frame):
    written(tmp_path, frame.assign(w=frame.w - 1), sharper)
    files = [str(tmp_path / name) for name in ("a.csv", "b.csv")]
    assert main(["compare", *files, *OPTIONS, "--weights", "w"]) == 0
    none = int((frame.w == 1).sum())
    assert f"note: {none} rows of weight 0 are ignored." in capsys.readouterr().err


def test_two_scores_of_one_file_are_those_of_two(tmp_path, capsys, frame):
    written(tmp_path, frame, sharper)
    expected = compared(capsys, tmp_path)
    both = frame.assign(old=frame.p, new=sharper(frame))
    both.drop(columns="p").to_csv(tmp_path / "both.csv", index=False)
    command = ["compare", str(tmp_path / "both.csv"), "--probs", "old", "--against", "new"]
    assert main([*command, *OPTIONS[2:]]) == 0
    assert json.loads(capsys.readouterr().out) == expected


@pytest.mark.parametrize(
    "arguments",
    [
        ["a.csv", "b.csv", "--probs", "p", "--against", "p"],
        ["a.csv", "--against", "p"],
        ["a.csv", "--with", "b.csv", "--probs", "p", "--against", "p"],
    ],
)
def test_against_requires_one_file_and_scores(arguments, tmp_path, capsys, frame, monkeypatch):
    monkeypatch.chdir(tmp_path)
    written(tmp_path, frame, sharper)
    assert main(["compare", *arguments, "--target", "y"]) == 2
    assert "--against" in capsys.readouterr().err
