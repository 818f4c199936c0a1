import json
import multiprocessing

import filelock
import numpy as np
import pytest
import torch

from fedlas._core.check import InputError
from fedlas.deploy.card import FORMAT
from fedlas.deploy.make_card import CELLS
from fedlas.deploy.monitor import ALARM, monitor
from fedlas.predictions import Columns, Predictions, open_table
from fedlas.stats.gap_sums import GapSums

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


ROUNDS, WATCHERS = 4, 2


def watch(card, folder, number, together):
    """Add a batch in each round, at the same time as the others do."""
    for _ in range(ROUNDS):
        together.wait()
        monitor(card, [folder / f"{number}.csv"], columns=COLUMNS, state=folder / "made" / "state.json")


@pytest.mark.system
def test_processes_that_share_a_state_lose_no_batch(card, tmp_path):
    context = multiprocessing.get_context("spawn")
    together = context.Barrier(WATCHERS)
    for number in range(WATCHERS):
        write(tmp_path / f"{number}.csv", live(number, 50 + number))
    processes = [context.Process(target=watch, args=(card, tmp_path, number, together)) for number in range(WATCHERS)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * WATCHERS
    content = json.loads((tmp_path / "made" / "state.json").read_text())
    assert content["looks"] == ROUNDS * WATCHERS
    assert content["samples"] == sum(content["counts"]) == content["gaps"]["count"][0] == ROUNDS * (50 + 51)


def test_the_state_is_locked_while_the_stream_is_read(card, tmp_path, monkeypatch):
    """Between what was read of it and what is written nobody else writes."""
    state, tried = tmp_path / "state.json", []

    def table(*args):
        with pytest.raises(filelock.Timeout):
            filelock.FileLock(tmp_path / ".state.json.lock").acquire(timeout=0)
        tried.append(args)
        return open_table(*args)

    monkeypatch.setattr("fedlas.deploy.monitor.open_table", table)
    good = write(tmp_path / "a.csv", live(0, 50))
    monitor(card, [good], columns=COLUMNS, state=state)
    with pytest.raises(InputError, match="must exist"):
        monitor(card, [good, tmp_path / "none.csv"], columns=COLUMNS, state=state)
    assert len(tried) == 3
    with filelock.FileLock(tmp_path / ".state.json.lock").acquire(timeout=0):  # released, after an error too
        pass
    assert json.loads(state.read_text())["samples"] == 50


def damaged(content, path, value):
    """A copy of JSON with another value somewhere; ``...`` removes it."""
    content = json.loads(json.dumps(content))
    *folders, last = path.split(".")
    place = content
    for name in folders:
        place = place[name]
    if value is ...:
        del place[last]
    else:
        place[last] = value(place[last]) if callable(value) else value
    return json.dumps(content)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("model", ...),
        ("model.run", 3),
        ("model.num_classes", 0),
        ("model.num_classes", 3.5),
        ("model.num_classes", True),
        ("model.classes", ["a", "b"]),
        ("model.classes", "abc"),
        ("model.classes", [1, 2, 3]),
        ("calibration", []),
        ("calibration.temperature", 0),
        ("calibration.temperature", "warm"),
        ("calibration.temperature", True),
        ("calibration.temperature", float("inf")),
        ("calibration", {"method": "temperature", "temperature": 1e-320}),
        ("calibration", {"method": "vector", "weight": [1, 1, float("nan")], "bias": [0, 0, 0]}),
        ("calibration", {"method": "vector", "weight": [1, 1, 10**400], "bias": [0, 0, 0]}),
        ("reference", None),
        ("reference.gaps", ...),
        ("reference.gaps.squares", lambda v: [-n for n in v]),
        ("reference.bin_edges", lambda v: v[::-1]),
        ("reference.bin_edges", lambda v: [v[0], v[2], v[1], *v[3:]]),
        ("reference.bin_edges", lambda v: [*v[:-1], float("inf")]),
        ("reference.bin_edges", lambda v: [v]),
        ("reference.bin_edges", lambda v: [n / 2 for n in v]),
        ("reference.bin_counts", lambda v: v[:-1]),
        ("reference.bin_counts", lambda v: [float("nan"), *v[1:]]),
        ("reference.bin_counts", lambda v: [v[0] + 1000, -1000 + v[1], *v[2:]]),
        ("reference.bin_counts", lambda v: [v[0] + 0.5, v[1] - 0.5, *v[2:]]),
        ("reference.bin_counts", lambda v: [2 * n for n in v]),
        ("reference.bin_counts", lambda v: [10**400, *v[1:]]),
        ("reference.bin_counts", lambda v: [0 for _ in v]),
    ],
)
def test_a_damaged_card_raises_no_false_peace(card, tmp_path, path, value):
    """Without these checks most of them say that there is no alarm."""
    text = damaged(json.loads(card.read_text()), path, value)
    for bad in {text, text.replace("Infinity", "1e999")}:
        (tmp_path / "bad.json").write_text(bad)
        with pytest.raises(InputError, match=r"card: .*bad\.json"):
            monitor(tmp_path / "bad.json", [write(tmp_path / "a.csv", live(0, 50))], columns=COLUMNS)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("labeled", None),
        ("labeled", "no"),
        ("samples", -1),
        ("samples", 50.5),
        ("samples", 49),
        ("looks", 0),
        ("looks", float("inf")),
        ("counts", lambda v: [float("nan"), *v[1:]]),
        ("counts", lambda v: [-n for n in v]),
        ("counts", lambda v: v[1:]),
        ("gaps.edges", lambda v: [0.0, 0.01, *v[2:]]),
        ("gaps.count", lambda v: [2 * n for n in v]),
        ("gaps.confidence", lambda v: [float("inf"), *v[1:]]),
        ("log_wealth", lambda v: (np.array(v) + float("nan")).tolist()),
        ("log_wealth", lambda v: v[1:]),
        ("alarm", 0),
        ("alarm", 51),
        ("alarm", "yes"),
        ("alarm", ...),
    ],
)
def test_a_damaged_state_is_refused_and_left_alone(card, tmp_path, path, value):
    good, state = write(tmp_path / "a.csv", live(0, 50)), tmp_path / "state.json"
    monitor(card, [good], columns=COLUMNS, state=state)
    bad = damaged(json.loads(state.read_text()), path, value)
    state.write_text(bad)
    with pytest.raises(InputError, match=r"a file that it wrote; got .*state\.json"):
        monitor(card, [good], columns=COLUMNS, state=state)
    assert state.read_text() == bad


def test_a_state_that_cannot_be_locked(card, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="folder that can be written to"):
        monitor(card, [write(tmp_path / "a.csv", live(0, 50))], columns=COLUMNS, state=tmp_path / "file" / "state.json")


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
    assert "it must be said which columns hold the scores" in capsys.readouterr().err
