"""A small bench whose runs share a split, and one whose runs do not; no test may write into either."""

import pytest

from runs import SMALL, train


def by_name(folder):
    return {path.name: path for path in sorted(folder.iterdir())}


@pytest.fixture(name="train", scope="session")
def _train():
    """``train(out, *overrides)``: more runs like those of ``apart``."""

    def more(out, *overrides, losses=("ce",), seeds=(0,)):
        return train(out, "synthetic", [*SMALL, *overrides], losses, seeds)

    return more


@pytest.fixture(scope="session")
def shared(runs):
    """Two losses, three seeds, dropout, the same validation images for all."""
    return by_name(runs("shared"))


@pytest.fixture(scope="session")
def apart(runs):
    """Three seeds, each with a split of its own."""
    return by_name(runs("apart"))
