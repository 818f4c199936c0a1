"""The forms of a table: what a cell says reaches each of them, and no content breaks its form."""

import csv
import io
import math
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedlas.metrics import METRICS
from fedlas.present.table import (
    DASH,
    Cell,
    Column,
    Note,
    Table,
    blocks_to_text,
    bullet_list,
    code_block,
    escape_markdown,
    html_table,
    latex_table,
    make_table,
    markdown_table,
    metric_column,
    strip_markup,
    table_to_csv,
    to_cell,
)

HOSTILE = ["a|b", "[x](http://e)", "*b* `c`", "<img src=x>", "line\nbreak", "\x1b[31mred"]
HOSTILE += ["50 % & $5", "\\end{x}"]


def a_table(**options):
    cells = [Cell("1.5", "0.2", "best", "(0.9)", ("[1.3, 1.7]", "p = 0.010"), number=1.5)]
    cells += [Cell("2.5", "0.1", "same", number=2.4999)]
    heads = (Column("loss", words=True), Column("ECE", "%", "↓"), Column("NLL", "", "↓"))
    rows = ((Cell("ls"), *cells), (Cell("ce"), Cell("3", mark="worse"), Cell()))
    return Table(heads, rows, "Title", ("A note.",), **options)


@pytest.mark.parametrize(
    ("unit", "places", "value", "text"),
    [
        ("%", 4, 0.12345, "12.35"),
        ("", 2, 0.5, "0.50"),
        ("", 2, -0.001, "0.00"),
        ("%", 4, -0.00001, "0.00"),
        ("", 2, -0.006, "-0.01"),
        ("", 4, None, DASH),
        ("%", 4, math.nan, DASH),
        ("", 0, 3.2, "3"),
    ],
)
def test_column_formats_a_number_in_its_unit(unit, places, value, text):
    assert Column("x", unit, places=places).format(value) == text


@pytest.mark.parametrize("metric", METRICS)
def test_column_of_a_metric_is_its_record(metric):
    entry, shown = METRICS[metric], metric_column(metric)
    assert (shown.title, shown.metric, shown.places) == (entry.title, metric, entry.places)
    assert (shown.unit == "%") == entry.percent
    assert shown.head.startswith(entry.title)
    assert shown.arrow or entry.subject == "event"
    assert "`" not in shown.about


def test_unknown_metric_column_has_no_direction():
    assert metric_column("mine", places=1) == Column("mine", metric="mine", places=1)


def test_event_columns_differ_where_measures_differ():
    assert metric_column("slope", event=True).arrow == "→ 1"
    assert metric_column("ece", event=True).about != metric_column("ece").about
    assert metric_column("prevalence", event=True).arrow == ""


def test_terminal_shows_details_when_asked():
    short, long = (blocks_to_text([a_table()], details=details) for details in (False, True))
    assert "1.5 ±0.2★ (0.9)" in short
    assert "2.5 ±0.1≈" in short
    assert "[1.3, 1.7]" not in short
    assert {"[1.3, 1.7]", "p = 0.010"} <= {line.strip() for line in long.split("\n")}
    assert short.rstrip().endswith("A note.")


def test_narrow_table_is_narrower():
    wide, narrow = (blocks_to_text([a_table(narrow=narrow)]) for narrow in (False, True))
    assert max(map(len, narrow.split("\n"))) < max(map(len, wide.split("\n")))


def test_markdown_table_has_best_in_bold():
    head, rule, first, second = markdown_table(a_table()).split("\n")
    assert len({len(line) for line in (head, rule, first, second)}) == 1
    assert [cell.strip() for cell in head.strip("|").split("|")] == ["loss", "ECE % ↓", "NLL ↓"]
    assert rule.split("|")[1].strip("- ") == ""
    assert rule.split("|")[2].strip().endswith(":")
    assert "**1.5 ± 0.2** ★ (0.9)<br>[1.3, 1.7]<br>p = 0.010" in first
    assert "2.5 ± 0.1 ≈" in first


@given(st.lists(st.text(max_size=8) | st.sampled_from(HOSTILE), min_size=2, max_size=6))
def test_no_text_breaks_a_markdown_table(texts):
    table = make_table([texts[0], "n"], [[text, 1] for text in texts])
    lines = markdown_table(table).split("\n")
    assert len(lines) == len(texts) + 2
    for line in lines:
        assert line.replace("\\\\", "").replace("\\|", "").count("|") == 3


class _Texts(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.texts = set(), []

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)

    def handle_data(self, data):
        self.texts.append(data)


@pytest.mark.parametrize("text", HOSTILE)
def test_html_escapes_each_text(text):
    parser = _Texts()
    parser.feed(html_table(make_table([text], [[text]], title=text)))
    assert parser.tags == {"p", "b", "table", "thead", "tr", "th", "tbody", "td"}
    shown = "".join(parser.texts)
    assert "\x1b" not in shown
    assert shown.count("<img src=x>") == 3 * (text == "<img src=x>")


def test_latex_explains_the_marks_that_occur():
    alone, floating = (
        latex_table(a_table()),
        latex_table(a_table(), caption="Of losses & seeds", label="a b_c"),
    )
    assert alone.startswith("\\begin{tabular}{lrr}\n\\toprule\nloss & ECE \\% $\\downarrow$")
    assert "\\textbf{1.5 $\\pm$ 0.2} (0.9) & \\underline{2.5 $\\pm$ 0.1}" in alone
    assert alone in floating
    assert "\\label{tab:a-b-c}" in floating
    assert "\\label{tab:Losses}" in latex_table(replace(a_table(), title="Losses"), caption="x")
    caption = next(line for line in floating.split("\n") if line.startswith("\\caption"))
    assert caption == (
        "\\caption{Of losses \\& seeds \\textbf{Bold}: best mean. "
        "\\underline{Underlined}: not distinguishable from it.}"
    )


@pytest.mark.parametrize("text", HOSTILE)
def test_latex_escapes_each_text(text):
    row = latex_table(make_table(["n"], [[text]])).split("\n")[4]
    body = row.removesuffix(" \\\\").replace("\\textbackslash{}", "")
    for sign in "&%$#_{}":
        assert body.count(sign) == body.count(f"\\{sign}")


def test_csv_has_numbers_at_full_precision():
    rows = list(csv.reader(io.StringIO(table_to_csv(a_table()))))
    assert rows == [["loss", "ECE", "NLL"], ["ls", "1.5", "2.4999"], ["ce", "3", ""]]


@pytest.mark.parametrize("text", ["=1+1", "@x", "+a1", "-x", "\t=1"])
def test_no_cell_of_csv_is_a_formula(text):
    row = list(csv.reader(io.StringIO(table_to_csv(make_table(["n"], [[text]])))))[1]
    assert row[0][0] not in "=+-@\t"
    assert row[0].endswith(text.strip())


def test_cells_of_plain_values():
    assert to_cell(2.5) == Cell("2.5", number=2.5)
    assert to_cell(None) == Cell("")
    assert to_cell("x") == Cell("x")
    assert to_cell(cell := Cell("y", mark="best")) is cell


def test_columns_can_be_chosen():
    table = a_table().where([0, 2])
    assert [each.title for each in table.columns] == ["loss", "NLL"]
    assert [cell.value for cell in table.rows[0]] == ["ls", "2.5"]
    assert (table.title, table.notes) == ("Title", ("A note.",))


def test_blocks_are_printed_in_their_order():
    lines = blocks_to_text(["First.", a_table(), Note("Last.")]).split("\n")
    assert (lines[0], lines[-1]) == ("First.", "Last.")
    assert any("ECE % ↓" in line for line in lines)


def test_markup_of_markdown_is_escaped_but_not_intervals():
    assert escape_markdown("ECE [0.1, 0.2] of [x] a|b") == r"ECE [0.1, 0.2] of \[x\] a\|b"
    assert escape_markdown("[1, 2](http://e)") == r"\[1, 2\](http://e)"
    assert bullet_list(["a*", "b"]) == "- a\\*\n- b"
    assert code_block(["a\nb"]) == "    a\n    b"
    assert strip_markup("Of :class:`~fedlas.x.Name` and ``y``") == "Of Name and y"
