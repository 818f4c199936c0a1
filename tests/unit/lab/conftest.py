"""Runs of tests have few replicates of their intervals: what a bench does with them is all that counts."""

from functools import partial

import pytest

from fedlas.lab.benches import run_all
from fedlas.lab.benches.executors import base


@pytest.fixture(scope="module", autouse=True)
def _few_replicates():
    with pytest.MonkeyPatch.context() as patch:
        for module, name in ((base, "keep_estimates"), (run_all, "lacks_estimates")):
            patch.setattr(module, name, partial(getattr(module, name), replicates=39))
        yield


@pytest.fixture
def write(tmp_path):
    """``write(text)``: the path of a YAML file that holds the text."""

    def write(text):
        path = tmp_path / "mine.yaml"
        path.write_text(text)
        return str(path)

    return write
