"""The commands for tables of several labels: measured, judged by a gate, calibrated, applied each night, compared."""

import json

import pytest
import torch

from fedlas.cli import main
from fedlas.deploy.monitor import ALARM_EXIT_STATUS

pytestmark = pytest.mark.filterwarnings("ignore::fedlas.errors.CalibrationWarning")
NAMES = ("edema", "mass", "nodule")
COLUMNS = ["--probs", "p_*", "--labels", "y_*"]


def write(path, seed, *, slope=0.4, labeled=True):
    """Write probabilities of three labels whose log-odds are too large, and the labels."""
    random = torch.Generator().manual_seed(seed)
    logits = torch.randn(400, 3, generator=random) - 1
    target = torch.bernoulli((slope * logits).sigmoid(), generator=random)
    names = [f"p_{name}" for name in NAMES] + [f"y_{name}" for name in NAMES] * labeled
    rows = torch.cat([logits.sigmoid(), target], dim=1)[:, : len(names)].tolist()
    lines = [",".join(f"{value:.6g}" for value in row) for row in rows]
    path.write_text("\n".join([",".join(names), *lines, ""]))
    return str(path)


@pytest.fixture
def val(tmp_path):
    return write(tmp_path / "val.csv", 1)


def test_a_nightly_run(val, tmp_path, capsys):
    live, night = write(tmp_path / "live.csv", 2, labeled=False), tmp_path / "night.csv"
    cal = str(tmp_path / "cal.json")
    assert main(["calibrate", val, *COLUMNS, "--out", cal]) == 0
    assert "labels edema, mass, nodule" in capsys.readouterr().out
    assert main(["apply", cal, live, "--out", str(night)]) == 0
    head = night.read_text().splitlines()[0]
    assert head.split(",")[3:] == [f"calibrated_p_{name}" for name in NAMES]
    assert main(["export", cal, "--format", "sql", "--out", str(tmp_path / "cal.sql")]) == 0
    (tmp_path / "live.csv").write_text("p_edema,p_mass\n0.1,0.2\n")
    assert main(["apply", cal, live, "--out", str(night)]) == 2
    assert "no 'p_nodule'" in capsys.readouterr().err


def test_evaluate_prints_labels_and_gates_on_them(val, tmp_path, capsys):
    test = write(tmp_path / "test.csv", 2)
    words = ["evaluate", test, *COLUMNS, "--replicates", "99"]
    assert main([*words, "--require", "macro_ece<=0.03"]) == 3
    said = capsys.readouterr().out
    assert "Miscalibrated:" in said
    assert "next: fedlas evaluate" in said
    assert "Fails: macro ECE" in said
    assert main([*words, "--on", val, "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["after partial-pooling"]["macro_ece"] < content["as predicted"]["macro_ece"]
    for option in (["--reject", "0.05"], ["--target", "y_edema"]):
        assert main([*words, *option]) == 2
        error = capsys.readouterr().err
        assert option[0] in error
        assert "one label" in error


def test_groups_are_measured_and_not_fitted(val, tmp_path, capsys):
    head, *rows = (tmp_path / "val.csv").read_text().splitlines()
    sites = [f"{row},{'ab'[place % 2]}" for place, row in enumerate(rows)]
    write(tmp_path / "test.csv", 2)
    (tmp_path / "sites.csv").write_text("\n".join([f"{head},site", *sites, ""]))
    words = ["evaluate", str(tmp_path / "sites.csv"), *COLUMNS, "--replicates", "99"]
    words += ["--groups", "site", "--on", str(tmp_path / "test.csv")]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "Groups by site, as predicted" in said
    assert "next: fedlas calibrate" in said
    assert "--groups" not in said
    assert main([*words, "--covariates", "site"]) == 2
    assert "measure each of its values by --groups" in " ".join(capsys.readouterr().err.split())


def test_compare_gates_on_means_over_labels(val, tmp_path, capsys):
    lines = (tmp_path / "val.csv").read_text().splitlines()
    worse = tmp_path / "worse.csv"
    rows = [line.split(",") for line in lines[1:]]
    flat = [[*(f"{float(cell) ** 2:.6g}" for cell in row[:3]), *row[3:]] for row in rows]
    worse.write_text("\n".join([lines[0], *map(",".join, flat), ""]))
    words = [*COLUMNS, "--replicates", "99", "--fail-if-worse", "macro_nll"]
    assert main(["compare", val, str(worse), *words, "macro_ece"]) == 0
    assert "macro ECE" in capsys.readouterr().out
    assert main(["compare", str(worse), val, *words]) == 3


def test_card_and_monitor_of_a_nightly_job(val, tmp_path, capsys):
    """What is watched, and how a state goes on, is tested in deploy/test_several_labels.py."""
    test, night, broken = (tmp_path / f"{name}.csv" for name in ("test", "night", "broken"))
    write(test, 2)
    write(night, 3, labeled=False)
    write(broken, 4, slope=-1.0)
    card, state, page = (str(tmp_path / name) for name in ("card.json", "state.json", "page.html"))
    command = ["card", val, str(test), *COLUMNS, "--out", card, "--replicates", "39"]
    assert main([*command, "--require", "macro_ece<=0.2", "worst_label_ece<=20%"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "Labels, calibrated" in said
    assert "macro ECE" in said
    written = (tmp_path / "card.json").read_bytes()
    assert main([*command, "--require", "ece<=0.1"]) == 2
    assert (tmp_path / "card.json").read_bytes() == written
    watch = ["monitor", card]
    assert main([*watch, str(night), "--probs", "p_*", "--state", state]) == 0
    capsys.readouterr()
    command = [*watch, str(broken), *COLUMNS, "--state", state, "--page", page, "--json"]
    assert main(command) == ALARM_EXIT_STATUS
    assert json.loads(capsys.readouterr().out)["samples"] == 800
    assert "All watched means" in (tmp_path / "page.html").read_text()
    history = tmp_path / "history.json"
    command = [*watch, str(broken), *COLUMNS, "--history", str(history)]
    assert main(command) == ALARM_EXIT_STATUS
    out = capsys.readouterr().out
    assert "Labels" in out
    assert all(len(line) <= 80 for line in out.partition("history:")[0].splitlines())
    period = json.loads(history.read_text())["periods"][0]
    assert any("calibration of " in alarm for alarm in period["alarms"])
    assert "prevalence by period" in history.with_suffix(".html").read_text()
    options = ["--probs", "p_edema,p_mass,p_nodule", "--target", "y_mass"]
    assert main([*watch, str(broken), *options]) == 2
    assert "--target must be left out for a multi-label card" in " ".join(
        capsys.readouterr().err.split()
    )
