"""Rows with covariates unlike those of the fit: counted, noted with the columns they lie farthest out in."""

import re

import numpy as np
import pytest
import torch

import fedlas
from fedlas.calibrated import apply_to_files
from fedlas.errors import CalibrationWarning


def table(rows, seed):
    """Scores that ignore what the first of six columns knows."""
    random = np.random.default_rng(seed)
    columns = random.normal(size=(6, rows))
    score = random.normal(size=rows)
    happens = random.random(rows) < 1 / (1 + np.exp(-score - 2 * columns[0]))
    frame = {f"x{number}": column for number, column in enumerate(columns)}
    return {"p": 1 / (1 + np.exp(-score)), "y": happens.astype(int), **frame}


@pytest.fixture(scope="module")
def calibration():
    return fedlas.calibrate(table(600, 0), probs="p", target="y", covariates="x*")


def test_a_usual_table_is_not_remarked_on(calibration):
    live = table(2000, 1)
    calibration.apply(live)  # no warning
    edge = calibration.edge_count()
    edge.add({"features": features(live)})
    assert 0.03 < edge.beyond / edge.rows < 0.1


def features(frame):
    return torch.tensor(np.stack([frame[f"x{number}"] for number in range(6)], axis=1))


def test_a_column_that_moved_is_named(calibration):
    live = table(500, 1)
    live["x3"] = live["x3"] + 8
    with pytest.warns(CalibrationWarning) as caught:
        calibration.apply(live)
    unit, edge = (str(each.message) for each in caught)
    assert "far outside the range of the fit; check the unit of 'x3' (" in unit
    assert re.search(r"500 of 500 rows .*'x3' \(500\)", edge)


def test_files_have_the_note_and_the_counts(calibration, tmp_path):
    live = table(500, 1)
    live["x3"] = live["x3"] + 8
    names = [name for name in live if name != "y"]
    lines = [
        ",".join(names),
        *map(",".join, zip(*[live[n].astype(str) for n in names], strict=True)),
    ]
    (tmp_path / "live.csv").write_text("\n".join(lines) + "\n")
    applied = apply_to_files(calibration, [tmp_path / "live.csv"], tmp_path / "out.csv").to_dict()
    counts = applied["edge"].pop("columns")
    assert applied["edge"] == {"rows": 500, "beyond": 500}
    assert list(counts) == ["x3", *list(counts)[1:]]
    assert counts["x3"] == 500 > 50 > max([*counts.values()][1:])
    assert any("500 of 500 rows (100 %)" in note for note in applied["notes"])


def test_each_column_that_moved_is_counted(calibration):
    """A row counted for its farthest column alone, so that a second one did not show."""
    live = table(500, 1)
    live["x3"] = live["x3"] + 8
    live["x4"] = live["x4"] + 6
    edge = calibration.edge_count()
    edge.add({"features": features(live)})
    assert edge.to_dict()["columns"]["x3"] == 500
    assert edge.to_dict()["columns"]["x4"] > 450
