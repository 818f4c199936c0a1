"""Two models on the same samples: who is better in what, in a sentence and a table."""

from __future__ import annotations

from collections.abc import Mapping

from fedlas._core.text import listed
from fedlas.present.table import Column, Table, column, table_of
from fedlas.stats.noise_floor import p_said
from fedlas.stats.two_models import ModelDifference

CAPTION = (
    "95 % interval: over the test samples, the same for both. p: of no difference, paired (accuracy: exact McNemar "
    "test, else bootstrap), Holm-corrected. Two models, not two methods, which only seeds can compare."
)


def better_in(compared: Mapping[str, ModelDifference], names: tuple[str, str]) -> list[str]:
    """Return sentences: which model is better in what, and where they are not distinguishable."""
    lines = []
    for side, first, second in (("a", *names), ("b", *reversed(names))):
        parts = [_by(each) for each in compared.values() if each.better == side]
        if parts:
            lines.append(f"{first} is better than {second} in {listed(parts)}.")
    same = [column(name).title for name, each in compared.items() if each.better is None]
    if same and lines:
        lines.append(f"Not distinguishable: {listed(same)}.")
    elif same:
        lines.append(f"{names[0]} and {names[1]} are not distinguishable in {listed(same)}.")
    return lines


def differences_of_models(compared: Mapping[str, ModelDifference], *, title: str) -> Table:
    """Return a row for each metric."""
    rows = []
    for each in compared.values():
        about = column(each.metric)
        interval = f"[{_signed(about, each.low)}, {_signed(about, each.high)}]"
        values = (
            about.format(each.a),
            about.format(each.b),
            _signed(about, each.difference),
            interval,
        )
        rows.append(
            [about.head, *values, p_said(each.p, None).removeprefix("p ").removeprefix("= ")]
        )
    heads = ("metric", "A", "B", "A - B", "95 % interval", "p")
    return table_of(heads, rows, title=title, notes=[CAPTION])


def _by(each: ModelDifference) -> str:
    about = column(each.metric)
    unit = " points" if about.unit else ""
    return f"{about.title} by {about.format(abs(each.difference))}{unit} ({p_said(each.p, None)})"


def _signed(about: Column, value: float) -> str:
    text = about.format(abs(value))
    return f"{'-' if value < 0 and text.strip('0.') else '+'}{text}"
