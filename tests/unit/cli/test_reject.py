import json

import pytest
import torch

from fedlas import Predictions
from fedlas.calibrators import TemperatureScaling
from fedlas.cli import main
from fedlas.stats import reject_option


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    random = torch.Generator().manual_seed(0)
    logits = torch.randn(4000, 3, generator=random, dtype=torch.float64)
    target = torch.multinomial(logits.softmax(1), 1, generator=random)[:, 0]
    parts = (
        Predictions(3 * logits[:2000], target[:2000]),
        Predictions(3 * logits[2000:], target[2000:]),
    )
    for name, part in zip(("val", "test"), parts, strict=True):
        part.save(f"{name}.npz")
    return parts


def evaluate(capsys, *options):
    status = main(["evaluate", "test.npz", "--replicates", "0", *options])
    said = capsys.readouterr()
    return status, said.out + said.err


def test_thresholds_from_held_out_numbers_from_file(files, capsys):
    val, test = files
    status, said = evaluate(capsys, "--on", "val.npz", "--reject", "0.3", "0.0001", "--json")
    assert status == 0
    rows = json.loads(said)["reject"]
    assert rows == {
        "as predicted": [reject_option(val, test, risk=risk).to_dict() for risk in (0.3, 0.0001)]
    }
    assert rows["as predicted"][1]["threshold"] is None


def test_a_run_folder_has_its_validation_part(files, capsys):
    val, test = files
    for name, part in (("val", val), ("test", test)):
        part.save(f"run/predictions/{name}.npz")
    assert main(["evaluate", "run", "--replicates", "0", "--reject", "0.3", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["reject"]
    assert found == {"as predicted": [reject_option(val, test, risk=0.3).to_dict()]}


def test_a_calibrator_is_applied_to_both_parts(files, capsys):
    val, test = files
    _, said = evaluate(
        capsys, "--on", "val.npz", "--reject", "0.3", "--method", "temperature", "--json"
    )
    scaling = TemperatureScaling().fit(val)
    expected = reject_option(scaling.transform(val), scaling.transform(test), risk=0.3).to_dict()
    assert json.loads(said)["reject"]["after temperature"] == [expected]


def test_the_bound_is_claimed_only_where_it_holds(files, capsys):
    """After a calibrator fitted on the same samples, 6 of 22 thresholds broke it."""
    broken = "The bound does not hold after a calibrator that was fitted on the same predictions."
    for options, holds in (((), True), (("--method", "temperature"), False)):
        _, said = evaluate(capsys, "--on", "val.npz", "--reject", "0.3", *options)
        text = " ".join(said.split())
        assert (
            "Thresholds as predicted are chosen on held-out predictions; the risk bound holds with 95% confidence."
            in text
        )
        assert (broken not in text) is holds


def test_reject_table_fits_terminal_and_explains_none(files, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    found = reject_option(*files, risk=0.3)
    status, said = evaluate(capsys, "--on", "val.npz", "--reject", "0.3", "0.0001")
    assert status == 0
    assert "Reject option, as predicted" in said
    row = next(line.split() for line in said.splitlines() if line.split()[:1] == ["30"])
    upper = f"{100 * found.upper:.2f}"
    assert row == [
        "30",
        f"{found.threshold:.4f}",
        f"{100 * found.coverage:.1f}",
        f"{100 * found.risk:.2f}",
        upper,
    ]
    assert "Even without an error, 52,981 accepted samples would be needed." in " ".join(
        said.split()
    )
    assert max(map(len, said.splitlines())) <= 80


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--reject", "0.1"), "--reject requires held-out predictions; got no --on"),
        (("--reject", "0", "--on", "val.npz"), "reject must be a finite number in (0, 1)"),
        (("--reject", "nan", "--on", "val.npz"), "reject must be a finite number in (0, 1)"),
        (
            ("--reject", "0.1", "--on", "val.npz", "--method", "all"),
            "--reject requires a single calibrator",
        ),
    ],
)
def test_what_cannot_be_meant_is_said(files, capsys, options, message):
    status, said = evaluate(capsys, *options)
    assert status == 2
    assert message in said


def test_clusters_have_a_bound_of_their_own(tmp_path, monkeypatch, capsys):
    """Leaving --clusters out printed a threshold whose bound does not hold."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    rows = [
        f"{0.5 + row // 4 % 50 / 100},{int(row // 4 % 7 > 0)},q{row // 4}" for row in range(2000)
    ]
    for name, part in (("val.csv", rows[:1000]), ("test.csv", rows[1000:])):
        (tmp_path / name).write_text("\n".join(["c,ok,question", *part]) + "\n")
    columns = [
        "--confidence",
        "c",
        "--correct",
        "ok",
        "--clusters",
        "question",
        "--replicates",
        "0",
    ]
    words = ["evaluate", "test.csv", "--on", "val.csv", *columns, "--reject", "0.4"]
    assert main(words) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "holds with 95% confidence for a sample drawn from a new cluster" in shown
    assert main([*words, "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["reject"]["as predicted"]
    assert (row["clusters"], row["test"]["coverage"]) == (250, 1.0)


def test_the_next_command_keeps_the_risks(files, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    words = [
        "evaluate",
        "test.npz",
        "--on",
        "val.npz",
        "--reject",
        "0.3",
        "0.1",
        "--replicates",
        "99",
    ]
    assert main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    start = next(n for n, line in enumerate(lines) if line.startswith("next: "))
    command = " ".join(line.removesuffix("\\").strip() for line in lines[start:])
    assert command == "next: fedlas evaluate test.npz --on val.npz --method auto --reject 0.3 0.1"
