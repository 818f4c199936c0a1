"""What the terminal shows; a full disk or a reader that has gone ends no command whose results are elsewhere."""

import errno
import io
import os
import sys
import unicodedata

import pytest
from rich.console import Console

from fedlas._core import progress
from fedlas._core.progress import ProgressBar, show_status, track
from fedlas._core.terminal import (
    LostOutputError,
    SafeStream,
    print_lines,
    replace_standard_streams,
    rich_table,
)
from fedlas._core.text import comment_line, printable, quote_path, wrap_command
from fedlas.errors import InputError
from hostile import TERMINAL, TERMINAL_SHOWN


def screen(**options):
    return Console(file=io.StringIO(), width=200, **options)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "plain",
        "grün 猫 Ελλάδα ± 2 — p ≤ 0.05",
        "👩\u200d🔬",
        "क्\u200cष",
        "a\u00a0b",
        "[red] $x$ \\n :smile:",
    ],
)
def test_ordinary_text_is_left_alone(text):
    assert printable(text) == text


def test_what_a_terminal_would_obey_is_written_out():
    assert printable(TERMINAL) == TERMINAL_SHOWN
    assert (
        printable("\u2028\u2066\ufeff\U000e0041\udcff\x00\x7f\t")
        == r"\u2028\u2066\ufeff\U000e0041\udcff\x00\x7f\t"
    )
    every = "".join(map(chr, range(0x110000)))
    left = {
        c for c in printable(every) if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp")
    }
    assert left == {"\u200c", "\u200d"}


def test_errors_are_one_line_without_commands():
    error = InputError(f"{TERMINAL} must be", TERMINAL, TERMINAL)
    assert str(error) == f"{TERMINAL_SHOWN} must be; got {TERMINAL_SHOWN}. {TERMINAL_SHOWN}"


def test_lines_are_said_as_they_are_written(capsys):
    on = screen()
    print_lines(TERMINAL, "", ":smile: [link=x]", on=on)
    assert on.file.getvalue() == f"{TERMINAL_SHOWN}\n\n:smile: [link=x]\n"
    print_lines("out")
    print_lines("err", stderr=True)
    assert capsys.readouterr() == ("out\n", "err\n")


def test_long_lines_are_wrapped_only_if_asked():
    on = Console(file=io.StringIO(), width=10)
    print_lines("four and five", on=on)
    print_lines("four and five", wrap=True, on=on)
    assert on.file.getvalue() == "four and five\nfour and \nfive\n"


def test_only_the_main_process_speaks(capsys, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    print_lines("x")
    print_lines("x", stderr=True)
    with show_status() as show:
        show("x")
    assert list(track([1, 2], "x", on=screen(force_terminal=True))) == [1, 2]
    assert capsys.readouterr() == ("", "")


def test_table_shows_text_literally():
    on = screen(force_terminal=True, color_system="standard")
    made = rich_table(
        [TERMINAL, "n"],
        [(TERMINAL, ["1", ("\n[0, 2]\x1b", "dim")])],
        title=TERMINAL,
        caption=[TERMINAL, "below"],
        right=[1],
    )
    on.print(made)
    text = on.file.getvalue()
    assert text.count(TERMINAL_SHOWN) == 4
    assert r"[0, 2]\x1b" in text
    assert "below" in text
    for sign in ("\x1b]", "\x07", "\x9b", "\u202e"):
        assert sign not in text


def test_bars_and_status_show_names_literally():
    on = screen(force_terminal=True, color_system=None)
    with ProgressBar(TERMINAL, total=2, on=on) as bar:
        bar.update(done=1, text=TERMINAL)
        bar.progress.refresh()
    assert list(track("ab", TERMINAL, on=on)) == ["a", "b"]
    with show_status(on) as show:
        show(TERMINAL)
    text = on.file.getvalue()
    assert text.count(TERMINAL_SHOWN) >= 4
    for sign in ("\x1b]", "\x07", "\x9b", "\u202e"):
        assert sign not in text


def test_a_bar_is_for_terminals():
    on = screen()
    with ProgressBar("x", total=2, on=on) as bar:
        assert not bar.live
        bar.update(done=2)
    assert not on.file.getvalue()


@pytest.mark.parametrize(("after", "times"), [(0.0, True), (1e9, False)])
def test_bar_appears_only_after_delay(after, times):
    on = screen(force_terminal=True, color_system=None)
    with ProgressBar("fitting auto", total=None, on=on, delay=after):
        pass
    assert ("fitting auto" in on.file.getvalue()) == times


def test_status_is_rare_in_logs_transient_on_terminals(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    log = Console(file=io.StringIO())
    with show_status(log) as show:
        for second in range(31):
            now[0] = second
            show(f"at {second}")
    assert log.file.getvalue().split("\n") == ["at 11", "at 22", ""]
    live = Console(file=io.StringIO(), force_terminal=True, width=60)
    with show_status(live) as show:
        show("[bold]fitting")
    assert "[bold]fitting" in live.file.getvalue()


def test_without_a_terminal_steps_are_lines(monkeypatch):
    monkeypatch.setattr(progress, "_LOG_INTERVAL", -1.0)
    screen = Console(file=io.StringIO())
    with progress.show_progress("intervals", 4, on=screen) as advance:
        advance("a\x1b", 1)
        advance("b", 2)
    assert screen.file.getvalue() == "intervals: 25%, a\\x1b\nintervals: 75%, b\n"


@pytest.mark.parametrize(
    ("encoding", "shown"),
    [
        ("ascii", "0.8 \\xb1 0.1 \\u2192 p \\u2264 1\\u732b\\xfc"),
        ("latin-1", "0.8 ± 0.1 \\u2192 p \\u2264 1\\u732bü"),
        ("utf-8", "0.8 ± 0.1 → p ≤ 1猫ü"),
    ],
)
def test_narrow_encodings(monkeypatch, encoding, shown):
    content = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(content, encoding=encoding))
    print_lines("0.8 ± 0.1 → p ≤ 1猫ü")
    sys.stdout.flush()
    assert content.getvalue().decode(encoding).split("\n")[0] == shown


class Full(io.StringIO):
    """A file on a disk that is full."""

    def write(self, text):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_streams_drop_or_stop():
    full = Full()
    kept = SafeStream(full)
    assert kept.write("abc") == 3
    kept.flush()
    assert kept.error.errno == errno.ENOSPC
    with pytest.raises(LostOutputError):
        SafeStream(full, keep_going=False).write("abc")
    before = sys.stdout
    with pytest.raises(KeyError), replace_standard_streams(keep_going=True):
        raise KeyError
    assert sys.stdout is before


@pytest.mark.parametrize("mark", ["#", "--"])
def test_comment_of_any_characters_has_one_line(mark):
    # all that some reader takes for the end of a line, and all that moves a cursor
    ends = [chr(code) for code in (*range(32), 0x7F, *range(0x80, 0xA0), 0x2028, 0x2029, 0xFEFF)]
    comment = comment_line(f"a{'b'.join(ends)}", mark)
    assert comment.startswith(f"{mark} a")
    assert len(comment.splitlines()) == 1
    assert comment.isprintable()


def test_option_inside_quotes_stays_whole():
    command = "fedlas calibrate 'a --b.csv' --probs \"it's --x\" --target 'a long name --z'"
    assert wrap_command(f"{command} --out cal.json") == [f"{command} \\", "  --out cal.json"]


@pytest.mark.parametrize(
    ("path", "quoted"),
    [("a.csv", "a.csv"), ("-a.csv", "./-a.csv"), ("-", "-"), ("-a b", "'./-a b'")],
)
def test_quoted_path_is_no_option(path, quoted):
    assert quote_path(path) == quoted
