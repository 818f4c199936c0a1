"""Checks of rows, each by what all have in common."""

import pytest

import fedlas
from fedlas._core.row_check import RowCheck
from fedlas.calibrated.tables.direction import ScoreDirection
from fedlas.calibrated.tables.edge import EdgeCount
from fedlas.predictions.tables.formats.frame import Frame
from fedlas.predictions.tables.names import NamesAgree

FRAME = {"p": [0.99, 0.8, 0.01, 0.3] * 50, "y": [1, 0, 0, 1] * 50}
CALIBRATION = fedlas.calibrate(FRAME, probs="p", target="y", method="temperature")
MADE = {
    NamesAgree: NamesAgree,
    EdgeCount: CALIBRATION.edge_count,
    ScoreDirection: lambda: ScoreDirection(CALIBRATION, Frame({"p": FRAME["p"]})),
}


def test_every_check_is_asked():
    assert set(MADE) == set(RowCheck.__subclasses__())


@pytest.mark.parametrize("kind", MADE)
def test_check_without_rows_says_nothing(kind):
    check = MADE[kind]()
    check.check("a.csv")
    assert check.notes() == []
