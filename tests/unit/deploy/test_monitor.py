import json

import numpy as np
import pytest
import torch

from fedlas._core.check import InputError
from fedlas.deploy.monitor import ALARM, monitor
from fedlas.lab.report.card import CELLS, FORMAT
from fedlas.predictions import Columns, Predictions
from fedlas.stats.drift import GapSums

COLUMNS = Columns(logits="z_*", target="y")
UNLABELLED = Columns(logits="z_*")


def live(seed, samples, *, factor=1.0, raw=1.0):
    """Logits that are ``factor`` times too large for the labels drawn from them, and then ``raw`` times larger."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(samples, 3, generator=generator)
    target = torch.multinomial((logits / factor).softmax(1), 1, generator=generator).squeeze(1)
    return Predictions(logits * raw, target)


def write(path, predictions):
    lines = ["z_0,z_1,z_2,y"] + [
        ",".join(map(repr, row)) + f",{y}"
        for row, y in zip(predictions.logits.tolist(), predictions.target.tolist(), strict=True)
    ]
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="module")
def card(tmp_path_factory):
    """A card as far as the monitor reads it, of a calibrated model whose raw logits are twice as large."""
    test = live(99, 4000)
    confidence, correct = test.confidence.double().numpy(), test.correct.numpy()
    cells = [0.0, *np.quantile(confidence, np.arange(1, CELLS) / CELLS), 1.0]
    bins = np.array([0.0, *np.quantile(confidence, np.arange(1, 50) / 50), 1.0])
    content = {
        "format": FORMAT,
        "model": {"run": "mine-s0", "num_classes": 3, "classes": None},
        "calibration": {"method": "temperature", "temperature": 2.0},
        "reference": {
            "gaps": GapSums.of(cells, confidence, correct).plain(),
            "bin_edges": bins.tolist(),
            "bin_counts": np.histogram(confidence, bins)[0].tolist(),
        },
    }
    path = tmp_path_factory.mktemp("card") / "card.json"
    path.write_text(json.dumps(content))
    return path


def test_without_drift_there_is_no_alarm(card, tmp_path, capsys):
    file = write(tmp_path / "a.csv", live(0, 3000))
    assert monitor(card, [file], columns=COLUMNS) == 0
    assert "no alarm: no drift of calibration" in capsys.readouterr().out
    assert monitor(card, [file], columns=UNLABELLED) == 0
    said = capsys.readouterr().out
    assert "no alarm: confidences are distributed as on the card" in said
    assert "weaker test" in said


def test_drift_of_calibration_needs_labels(card, tmp_path, capsys):
    """The same confidences, no longer true: without labels nobody can see it."""
    file = write(tmp_path / "a.csv", live(0, 3000, factor=3.0))
    assert monitor(card, [file], columns=COLUMNS, as_json=True) == ALARM
    found = json.loads(capsys.readouterr().out)
    assert found["alarm"]
    assert 0 < found["alarm_after"] < 3000
    assert found["cells"][0]["gap"] < found["cells"][0]["card_interval"][0]
    assert found["log_evidence"] > found["log_threshold"]
    assert sum(cell["samples"] for cell in found["cells"][1:]) == 3000
    assert monitor(card, [file], columns=UNLABELLED) == 0


def test_other_confidences_are_seen_without_labels(card, tmp_path, capsys):
    file = write(tmp_path / "a.csv", live(0, 1000, raw=0.5))
    assert monitor(card, [file], columns=UNLABELLED) == ALARM
    said = capsys.readouterr().out
    assert "ALARM: confidences are not distributed as on the card" in said
    assert "weaker test" in said


def test_raw_predictions_go_through_the_cards_calibration(card, tmp_path, capsys):
    found = []
    for name, raw in (("calibrated", 1.0), ("raw", 2.0)):
        path = live(0, 500, raw=raw).save(tmp_path / f"{name}.npz")
        monitor(card, [path], raw=raw != 1.0, as_json=True)
        found.append(json.loads(capsys.readouterr().out))
    assert found[0]["confidence"]["live"] == pytest.approx(found[1]["confidence"]["live"], rel=1e-6)
    assert found[0]["log_evidence"] == pytest.approx(found[1]["log_evidence"], abs=1e-4)


def test_with_a_state_many_calls_are_one(card, tmp_path, capsys):
    whole = live(0, 1200, factor=2.0)
    parts = [Predictions(*pair) for pair in zip(whole.logits.split(300), whole.target.split(300), strict=True)]
    files = [write(tmp_path / f"{number}.csv", part) for number, part in enumerate(parts)]
    at_once = monitor(card, files, columns=COLUMNS, as_json=True)
    expected = json.loads(capsys.readouterr().out)
    statuses = []
    for file in files:
        statuses.append(monitor(card, [file], columns=COLUMNS, as_json=True, state=tmp_path / "state.json"))
        found = json.loads(capsys.readouterr().out)
    assert at_once == statuses[-1] == ALARM
    assert statuses == sorted(statuses)  # an alarm stays
    assert found["looks"] == 4
    assert found["alarm_after"] == expected["alarm_after"]
    assert found["log_evidence"] == pytest.approx(expected["log_evidence"])
    assert found["accuracy"] == expected["accuracy"]
    size = (tmp_path / "state.json").stat().st_size
    monitor(card, files, columns=COLUMNS, state=tmp_path / "state.json")
    assert (tmp_path / "state.json").stat().st_size < 1.2 * size  # it does not grow with the stream


def test_looks_share_the_rate_of_false_alarms(card, tmp_path, capsys):
    levels = []
    for look in range(3):
        file = write(tmp_path / f"{look}.csv", live(look, 200))
        monitor(card, [file], columns=UNLABELLED, as_json=True, state=tmp_path / "state.json", false_alarm=0.05)
        levels.append(json.loads(capsys.readouterr().out)["confidence_distribution"]["level"])
    assert levels == pytest.approx([0.05 * 6 / np.pi**2 / look**2 for look in (1, 2, 3)])


def test_a_run_folder_stands_for_its_card(card, tmp_path):
    assert monitor(card.parent, [live(0, 300).save(tmp_path / "a.npz")]) == 0


def test_nonsense(card, tmp_path):
    good = write(tmp_path / "a.csv", live(0, 50))
    two = tmp_path / "two.csv"
    two.write_text("z_0,z_1,y\n1,2,0\n")
    empty = tmp_path / "empty.csv"
    empty.write_text("z_0,z_1,z_2,y\n")
    for files, options, message in (
        ([two], {}, "card's 3 classes"),
        ([empty], {}, "at least one sample"),
        ([tmp_path / "none.csv"], {}, "must exist"),
        ([good], {"columns": None}, "which columns hold the scores"),
        ([good], {"false_alarm": 0.0}, "false_alarm"),
    ):
        with pytest.raises(InputError, match=message):
            monitor(card, files, **{"columns": COLUMNS, **options})
    state = tmp_path / "state.json"
    monitor(card, [good], columns=COLUMNS, state=state)
    before = state.read_text()
    with pytest.raises(InputError, match="must go on so"):
        monitor(card, [good], columns=UNLABELLED, state=state)
    with pytest.raises(InputError, match=r"false_alarm 0\.01 instead of 0\.1"):
        monitor(card, [good], columns=COLUMNS, state=state, false_alarm=0.1)
    assert state.read_text() == before
    for text in ("no json", "{}", "[]"):
        state.write_text(text)
        with pytest.raises(InputError, match="a file that it wrote"):
            monitor(card, [good], columns=COLUMNS, state=state)


def test_the_command_line_says_it_by_its_status(card, tmp_path, capsys):
    from fedlas.cli import main

    good, bad = (write(tmp_path / f"{factor}.csv", live(0, 2000, factor=factor)) for factor in (1.0, 3.0))
    options = ["--logits", "z_*", "--target", "y", "--false-alarm", "0.05"]
    assert main(["monitor", str(card), str(good), *options]) == 0
    assert main(["monitor", str(card), str(good), str(bad), *options]) == 3
    assert "shown after sample 2," in capsys.readouterr().out  # in the second file
    assert main(["monitor", str(card), str(good), "--target", "y"]) == 2
    assert "--target goes with --logits or --probs" in capsys.readouterr().err
