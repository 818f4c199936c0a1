import pytest

from fakes_tuning import TINY, Exploding, Touchy
from fedlas.cli.tune import tune
from fedlas.lab.tune.plan import plan_tuning
from fedlas.losses import LOSSES


@pytest.fixture
def touchy(monkeypatch):
    monkeypatch.setattr(LOSSES, "_entries", dict(LOSSES._entries))
    LOSSES.add("touchy", Touchy, tune={"alpha": "0.1:0.9"})
    LOSSES.add("exploding", Exploding)


@pytest.fixture
def study(tmp_path):
    """Plans, and runs unless told otherwise; returns the plan."""

    def start(*, out=tmp_path / "out", run=True, keep=False, overrides=(), **options):
        tuning = plan_tuning("synthetic", [*TINY, *overrides], out=out, **options)
        if run:
            tune(tuning, keep=keep)
        return tuning

    return start
