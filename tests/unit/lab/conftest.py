"""Files that tests of the laboratory write, and the time that its reports take."""

import pytest

from fedlas.lab.report import bench_result, read_report
from fedlas.lab.report import report as bench_page
from fedlas.lab.runs.intervals import keep_estimates, lacks_estimates, with_estimates


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
            keep_estimates,
            lacks_estimates,
            with_estimates,
            read_report,
            bench_result,
        ):
            patch.setitem(function.__kwdefaults__, "replicates", 39)
        yield


@pytest.fixture
def no_pictures(monkeypatch):
    """A report without pictures, which take nearly all of its time, for tests of what it says."""
    diagrams = bench_page._diagrams
    monkeypatch.setattr(bench_page, "_by_seed", lambda *_: [])
    monkeypatch.setattr(bench_page, "diagram", lambda *_: None)
    monkeypatch.setattr(bench_page, "_diagrams", lambda model: ([], *diagrams(model)[1:]))
    monkeypatch.setattr(bench_page, "_curves", lambda *_: [])
