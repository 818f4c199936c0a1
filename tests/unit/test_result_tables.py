"""Tables of pages of results against what their scripts make of the files of scores beside them."""

import argparse
import importlib
import re
import sys
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def benchmarks():
    """Modules of benchmarks by name."""
    folder = str(ROOT / "benchmarks")
    sys.path.insert(0, folder)
    yield importlib.import_module
    sys.path.remove(folder)


@pytest.fixture(scope="module")
def calibrators(benchmarks):
    return benchmarks("calibrators")


def test_page_of_many_classes_shows_the_tables_of_its_scores(benchmarks, capsys):
    many_classes = benchmarks("many_classes")
    many_classes.tables(argparse.Namespace(out=ROOT / "results/many/scores.csv"))
    page = (ROOT / "results/many/README.md").read_text("utf8")
    tables = [block for block in capsys.readouterr().out.split("\n\n") if block.startswith("|")]
    assert len(tables) == 8
    for table in tables:
        assert table.strip() in page


def test_page_of_calibrators_shows_the_tables_of_its_scores(calibrators):
    tables = calibrators.tables(ROOT / "results/calibrators")
    page = (ROOT / "results/calibrators.md").read_text("utf8")
    shown = re.findall(r"<!-- table: (.*?) -->\n\n(.*?)\n\n<!-- end -->", page, re.DOTALL)
    groups = [f"Group {group}" for group in ("a", "b", "c", "a, few samples", "b, few samples")]
    assert {title for title, _ in shown} >= {
        *groups,
        "auto against auto before",
        "Smooth ECE against raw",
        *("simulated", "cost"),
    }
    for title, text in shown:
        assert text == tables[title], title


def test_page_of_several_labels_shows_the_tables_of_its_scores(benchmarks):
    tables = benchmarks("labels").tables(ROOT / "results/labels")
    features = pd.read_csv(ROOT / "results/labels/features.csv")
    tables["features"] = benchmarks("labels_features").table(features)
    page = (ROOT / "results/labels/README.md").read_text("utf8")
    shown = re.findall(r"<!-- table: (.*?) -->\n\n(.*?)\n\n<!-- end -->", page, re.DOTALL)
    assert {title for title, _ in shown} == set(tables)
    for title, text in shown:
        assert text == tables[title], title


def test_page_of_side_information_shows_the_table_of_new_groups(benchmarks):
    table = benchmarks("groups").tables(pd.read_csv(ROOT / "results/side-information/groups.csv"))
    page = (ROOT / "results/side-information/README.md").read_text("utf8")
    assert f"<!-- table: groups -->\n\n{table}\n\n<!-- end -->" in page


def test_ranks_count_the_splits_that_all_calibrators_have_been_through(calibrators, tmp_path):
    out = tmp_path / "scores.csv"
    for split, archive in enumerate(["one", "two", "three"]):
        for name, nll in (("as predicted", 0.5), ("auto", 0.4), ("fails", None)):
            if (archive, name) != ("three", "auto"):
                scores = ["", "", ""] if nll is None else [f"{nll + split / 100:.6f}"] * 3
                calibrators.add(
                    out,
                    ("a", "all", str(split), archive, name),
                    [*scores, "0.1", "" if nll else "no"],
                )
    text = calibrators.tables(tmp_path)["Group a"]
    assert "2 archives or pairs, 2 splits, 2 calibrators" in text
    rows = [line for line in text.splitlines() if line.startswith("| a")]
    assert rows == [
        "| auto | 1.00 | 1.00 | 1.00 | 0.4050 | 0.4050 | 40.50 | -0.100 |  |",
        "| as predicted | 2.00 | 2.00 | 2.00 | 0.5050 | 0.5050 | 50.50 | +0.000 | 2 |",
    ]


def test_page_of_many_classes_shows_what_pooled_splines_change(benchmarks):
    frame = benchmarks("pandas").read_csv(ROOT / "results/many/pooled.csv")
    assert benchmarks("pooled_classes").tables(frame) in (
        ROOT / "results/many/README.md"
    ).read_text("utf8")
