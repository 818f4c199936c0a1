from io import StringIO

from rich.console import Console

from fedlas.lab.studies.uncertainty.progress import track


def test_the_same_items_and_a_bar_on_a_terminal():
    terminal = Console(file=StringIO(), force_terminal=True, width=80)
    assert list(track([1, 2, 3], "passes", console=terminal)) == [1, 2, 3]
    assert "passes" in terminal.file.getvalue()


def test_nothing_elsewhere(capsys):
    log = Console(file=StringIO(), force_terminal=False)
    assert list(track(iter("ab"), "passes", total=2, console=log)) == ["a", "b"]
    assert list(track("ab", "passes")) == ["a", "b"]
    assert not log.file.getvalue()
    assert capsys.readouterr() == ("", "")
