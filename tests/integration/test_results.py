"""The pages of ``results/`` say what the packed runs hold."""

import csv
import importlib.util
import re
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "results"
PAGES = sorted(RESULTS.rglob("*.md"))
STUDIES = sorted(path.parent.relative_to(RESULTS).as_posix() for path in RESULTS.rglob("runs.zip"))


@pytest.fixture(scope="module")
def tools():
    pytest.importorskip("matplotlib")
    spec = importlib.util.spec_from_file_location("results_pages", ROOT / "docs" / "results.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.system
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(RESULTS).as_posix())
def test_leaderboard_and_tables_are_up_to_date(tools, page):
    text = page.read_text(encoding="utf-8")
    assert text == tools.filled(text), "run make results"


def test_a_changed_number_is_noticed(tools):
    text = (RESULTS / "LEADERBOARD.md").read_text(encoding="utf-8")
    assert text.count("89.78 ± 0.23") == 1
    assert tools.filled(text.replace("89.78 ± 0.23", "98.78 ± 0.23")) == text


@pytest.mark.parametrize("study", STUDIES)
def test_results_csv_is_what_a_report_writes(tools, study):
    text = tools.table_to_csv(tools.results_table(tools.model_of(study).summary))
    assert (RESULTS / study / "results.csv").read_text(encoding="utf-8") == text, "run make results"
    runs = {row["run"] for row in csv.DictReader(text.splitlines())}
    with zipfile.ZipFile(RESULTS / study / "runs.zip") as archive:
        assert runs == {name.partition("/")[0] for name in archive.namelist()}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(RESULTS).as_posix())
def test_links_and_figures_lead_somewhere(page):
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target


def test_every_page_and_study_can_be_reached_from_the_index():
    found, todo = set(), [RESULTS / "README.md"]
    while todo:
        page = todo.pop().resolve()
        if page not in found:
            found.add(page)
            text = page.read_text(encoding="utf-8") if page.suffix == ".md" else ""
            links = [page.parent / link for link in re.findall(r"\]\((?!https?:|#)([^)#]+)", text)]
            todo += [path for path in links if RESULTS in path.resolve().parents]
    assert set(PAGES) <= found
    folders = {folder for path in found for folder in (path, path.parent)}
    assert all(RESULTS / Path(study).parts[0] in folders for study in STUDIES)


def test_a_figure_shows_the_methods_and_follows_the_theme(tools):
    drawn, kept = (
        tools.draw("cifar100-45000"),
        (RESULTS / "cifar100-45000" / "figure.svg").read_text(encoding="utf-8"),
    )
    for svg in (drawn, kept):
        assert "prefers-color-scheme:dark" in svg
        assert {"ce", "ls", "fedlas+", "a seed", "noise floor"} <= set(
            re.findall(r">([^<>]+)</text>", svg)
        )
        assert not re.findall(r"(?:fill|stroke): #", svg)


def test_the_figure_of_the_published_network_shows_every_calibrator_and_follows_the_theme(tools):
    kept = (RESULTS / "published-network" / "figure.svg").read_text(encoding="utf-8")
    for svg in (tools.draw_shift("published-network"), kept):
        assert "prefers-color-scheme:dark" in svg
        assert {"as predicted", "temperature", "structured"} <= set(
            re.findall(r">([^<>]+)</text>", svg)
        )


def test_the_interval_over_halves_allows_for_their_overlap(tools):
    """Of ten halves the variance is 1.1 times that of one, not a tenth (Nadeau and Bengio 2003); by hand."""
    mean, half, p_value = tools._resampled([1.0, 3.0])
    assert (mean, half) == pytest.approx((2.0, 12.706205 * 2**0.5 * 1.5**0.5), rel=1e-6)
    # twice the tail of Cauchy beyond 2 / 3**0.5
    assert p_value == pytest.approx(0.454371, rel=1e-5)


def test_runs_are_packed_and_not_in_folders():
    assert not list(RESULTS.rglob("metrics.json"))
