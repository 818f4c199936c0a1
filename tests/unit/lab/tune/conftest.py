import pytest

from fakes_tuning import TINY, Touchy
from fedlas.lab.tune import plan_tuning
from fedlas.losses import LOSSES


@pytest.fixture
def touchy(changeable):
    changeable(LOSSES)
    LOSSES.add("touchy", Touchy, tune={"alpha": "0.1:0.9"})


@pytest.fixture
def study(tmp_path):
    """Plans a tiny study."""

    def plan(*, overrides=(), **options):
        return plan_tuning("synthetic", [*TINY, *overrides], **{"out": tmp_path / "out", **options})

    return plan
