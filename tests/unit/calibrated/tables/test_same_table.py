"""What a fit read, an application reads: rows of lazy frames, names beside a pattern, rows without a list."""

import numpy as np
import polars as pl
import pytest

import fedlas

N = 400
RANDOM = np.random.default_rng(0)
P = RANDOM.uniform(0.05, 0.95, N)
LABEL = np.where(RANDOM.random(N) < P, "bee", "ant")


class Shuffled:
    """A lazy frame whose rows come in another order each time that it is computed."""

    def __init__(self, frame):
        self.frame, self.times = frame, 0
        self.lazy = frame.lazy

    def collect_schema(self):
        return self.frame.schema

    def collect(self):
        self.times += 1
        return self.frame.sample(fraction=1, shuffle=True, seed=self.times)


def test_lazy_frame_is_collected_once(monkeypatch):
    val = pl.DataFrame({"p": P, "y": LABEL})
    calibration = fedlas.calibrate(val, probs="p", target="y", event="bee", method="temperature")
    want = dict(zip(P.tolist(), calibration.apply(val)["calibrated_p"].to_list(), strict=True))
    lazy = Shuffled(val)
    monkeypatch.setattr(
        "fedlas.calibrated.tables.apply.collect_lazy", lambda frame: frame.collect()
    )
    got = calibration.apply(lazy).collect()
    assert lazy.times == 1
    assert dict(zip(got["p"].to_list(), got["calibrated_p"].to_list(), strict=True)) == want


@pytest.mark.parametrize("role", ["clusters", "groups", "time"])
def test_pattern_excludes_columns_of_other_roles(role):
    table = {"p_ant": 1 - P, "p_bee": P, "label": LABEL, "p_id": np.arange(N) // 20}
    fit = {"probs": "p_*", "target": "label", "method": "auto", role: "p_id"}
    after = fedlas.calibrate(table, **fit).apply(table)
    assert {"calibrated_p_ant", "calibrated_p_bee"} <= set(after)
    assert "calibrated_p_id" not in after


@pytest.mark.parametrize("kind", ["polars", "pandas"])
def test_a_row_without_its_list_lacks_a_score(kind):
    lists = [[1 - p, p] for p in P.tolist()]
    table = {"s": lists, "y": (LABEL == "bee").astype(int).tolist()}
    calibration = fedlas.calibrate(table, probs="s", target="y", method="temperature")
    frame = pl.DataFrame({"s": [*lists[:5], None, *lists[5:9]]})
    frame = frame.to_pandas() if kind == "pandas" else frame
    with pytest.warns(UserWarning, match="1 of 10 rows has no score"):
        after = list(calibration.apply(frame, missing="empty")["calibrated_s"])
    want = calibration.apply({"s": lists[:9]})["calibrated_s"]
    rows = [row for place, row in enumerate(after) if place != 5]
    np.testing.assert_allclose(np.array(rows, float), np.array(list(want)), rtol=1e-6)
    missing = after[5]
    assert missing is None or np.isnan(np.array(missing, float)).all()
