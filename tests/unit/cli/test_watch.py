import pytest

from fedlas._core.check import InputError
from fedlas.cli.watch import watch


def watched(tmp_path, steps, render):
    """Run ``watch`` over a file; each of ``steps`` is done while it sleeps, then Ctrl-C."""
    file = tmp_path / "preds.csv"
    file.write_text("0")
    plan = iter(steps)

    def sleep(_seconds):
        step = next(plan, KeyboardInterrupt)
        if step is KeyboardInterrupt:
            raise KeyboardInterrupt
        if step is not None:
            file.write_text(step)

    return watch([file], lambda: render(file.read_text()), sleep=sleep)


def test_renders_now_and_after_each_change_that_has_settled(tmp_path, capsys):
    seen = []
    steps = [None, None, "1 then", "1 then more", None, None, "longer than that", None]
    assert watched(tmp_path, steps, seen.append) == 0
    assert seen == ["0", "1 then more", "longer than that"]  # not what was half written
    assert "Stopped watching" in capsys.readouterr().err


def test_a_file_that_cannot_be_read_is_waited_out_but_not_the_first_time(tmp_path, capsys):
    seen = []

    def render(text):
        if text.startswith("bad"):
            raise InputError("predictions", "they must be good", text, "Write them again.")
        seen.append(text)

    assert watched(tmp_path, ["bad one", None, "good again", None], render) == 0
    assert seen == ["0", "good again"]
    assert "they must be good; got bad one" in capsys.readouterr().err
    with pytest.raises(InputError, match="must be good"):
        watch([tmp_path / "preds.csv"], lambda: render("bad"))


def test_a_change_while_rendering_is_not_missed(tmp_path):
    file, seen = tmp_path / "preds.csv", []
    file.write_text("0")

    def render():
        seen.append(file.read_text())
        if len(seen) == 1:
            file.write_text("changed meanwhile")
        return 0

    steps = iter([None, None, None])

    def sleep(_seconds):
        if next(steps, KeyboardInterrupt) is KeyboardInterrupt:
            raise KeyboardInterrupt

    assert watch([file], render, sleep=sleep) == 0
    assert seen == ["0", "changed meanwhile"]
