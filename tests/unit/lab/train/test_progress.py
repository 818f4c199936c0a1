import io

import pytest
from rich.console import Console

from fedlas.lab.train import TrainingProgress, alarm_epochs

RECORD = {"train": {"loss": 1.25, "accuracy": 0.5}, "val": {"accuracy": 0.876, "ece": 0.0345}}


def test_terminal_shows_loss_accuracy_ece_and_time_left():
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=140, color_system=None)
    progress = TrainingProgress("[1/6] fedlas-s0", epochs=3, steps=10, console=console)
    with progress:
        progress.epoch({"epoch": 1, **RECORD})
        assert not progress.due()
        progress.shown -= 1
        assert progress.due()
        progress.step(2, 4, 0.987)
        progress.progress.refresh()
        text = out.getvalue()
    assert "[1/6] fedlas-s0" in text  # not taken for markup
    assert "epoch 2/3" in text
    assert "loss 0.987" in text
    assert "val accuracy 87.6%  ECE 3.45%" in text
    assert ":" in text.split("ECE 3.45%")[-1]  # time left
    assert "\n" not in out.getvalue().rstrip("\n").split("\r")[-1]  # one line that is redrawn


def test_a_resumed_run_starts_at_its_share():
    console = Console(file=io.StringIO(), force_terminal=True)
    progress = TrainingProgress("x", epochs=4, steps=10, done=3, console=console)
    assert progress.progress.tasks[0].percentage == 75


def test_elsewhere_lines_are_sparse_and_plain():
    out = io.StringIO()
    progress = TrainingProgress(
        "[1/6] ce-s0", epochs=4, steps=10, console=Console(file=out, force_terminal=False)
    )
    with progress:
        progress.shown -= 20
        for epoch in (1, 2, 3, 4):
            assert not progress.due()
            progress.step(epoch, 10)
            progress.epoch({"epoch": epoch, **RECORD})
    first, last = out.getvalue().splitlines()
    assert first.startswith("[1/6] ce-s0  epoch 1/4  loss 1.250  val accuracy 87.6%  ECE 3.45%")
    assert first.endswith("s left")
    assert last.startswith("[1/6] ce-s0  epoch 4/4")
    assert "left" not in last
    assert "\x1b" not in out.getvalue()


@pytest.mark.parametrize("terminal", [True, False])
def test_quiet_shows_nothing(terminal):
    out = io.StringIO()
    progress = TrainingProgress(
        "x", epochs=1, steps=1, quiet=True, console=Console(file=out, force_terminal=terminal)
    )
    with progress:
        progress.shown -= 20
        assert not progress.due()
        progress.step(1, 1)
        progress.epoch({"epoch": 1, **RECORD})
    assert not out.getvalue()


def test_the_cursor_comes_back_after_an_error():
    out = io.StringIO()
    progress = TrainingProgress(
        "x", epochs=1, steps=1, console=Console(file=out, force_terminal=True)
    )
    with pytest.raises(KeyboardInterrupt), progress:
        raise KeyboardInterrupt
    assert out.getvalue().rfind("\x1b[?25h") > out.getvalue().rfind("\x1b[?25l")


def test_alarms_count_after_the_warm_up():
    texts = ["gate stuck on +1 for 3 epochs", "indicator saturated: 22% of the samples"]
    log = [{"epoch": epoch, "alarms": texts[: 1 + (epoch == 3)]} for epoch in range(1, 5)]
    assert alarm_epochs(log, epochs=10) == {
        "gate stuck on +1": [2, 3, 4],
        "indicator saturated": [3],
    }
    assert alarm_epochs(log, epochs=30) == {"gate stuck on +1": [4]}
    assert alarm_epochs(log, epochs=10, warmup_epochs=4) == {}
