"""Files that tests of the laboratory write, and the time that its reports take."""

import pytest

from fedlas.lab.report import read_bench_result, read_report
from fedlas.lab.report import report as bench_page
from fedlas.lab.runs.intervals import has_stale_estimates, save_missing_estimates, with_estimates


@pytest.fixture
def write(tmp_path):
    """``write(text)``: the path of a YAML file that holds the text."""

    def write(text):
        path = tmp_path / "mine.yaml"
        path.write_text(text)
        return str(path)

    return write


@pytest.fixture(scope="module")
def few_replicates():
    """Intervals of finished runs have tests of their own, which say of how many replicates they are."""
    with pytest.MonkeyPatch.context() as patch:
        for function in (
            save_missing_estimates,
            has_stale_estimates,
            with_estimates,
            read_report,
            read_bench_result,
        ):
            patch.setitem(function.__kwdefaults__, "replicates", 39)
        yield


@pytest.fixture
def no_pictures(monkeypatch):
    """A report without pictures, which take nearly all of its time, for tests of what it says."""
    diagrams = bench_page._reliability_diagrams
    monkeypatch.setattr(bench_page, "_seed_figures", lambda *_: [])
    monkeypatch.setattr(bench_page, "reliability_svg", lambda *_: None)
    monkeypatch.setattr(
        bench_page, "_reliability_diagrams", lambda model: ([], *diagrams(model)[1:])
    )
    monkeypatch.setattr(bench_page, "_validation_curves", lambda *_: [])
