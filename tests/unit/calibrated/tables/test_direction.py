"""A live column about the other class than that of the fit stops apply where labels show it, else a note says so."""

import numpy as np
import pandas as pd
import pytest

import fedlas
from fedlas.calibrated import apply_to_files
from fedlas.errors import InputError


@pytest.fixture(scope="module")
def frame():
    random = np.random.default_rng(0)
    p = 1 / (1 + np.exp(2.5 - random.normal(size=600)))
    y = np.where(random.random(600) < p, "yes", "no")
    return pd.DataFrame({"p": p.round(6), "y": y})


@pytest.fixture(scope="module")
def calibration(frame):
    return fedlas.calibrate(frame[:300], probs="p", target="y", method="temperature")


def test_labels_stop_it(calibration, frame):
    live = frame[300:].assign(p=1 - frame.p)
    with pytest.raises(InputError, match=r"scores must rank 'yes'.*AUROC 0\..*probability of 'no'"):
        calibration.apply(live)
    right = calibration.apply(frame[300:])
    assert right.calibrated_p.corr(frame.p[300:], method="spearman") > 0.99


def test_the_file_stops_it_too(tmp_path, frame, calibration):
    frame[300:].assign(p=1 - frame.p).to_csv(tmp_path / "live.csv", index=False)
    with pytest.raises(InputError) as caught:
        apply_to_files(calibration, [tmp_path / "live.csv"], tmp_path / "out.csv")
    said = "looks like the probability of 'no'; pass the score column of the fit"
    assert said in str(caught.value)
    assert not (tmp_path / "out.csv").exists()


def test_without_labels_a_note_says_so(calibration, frame):
    live = frame[["p"]][300:]
    with pytest.warns(UserWarning, match=r"p may hold the probability of 'no': the median is 0\.9"):
        calibration.apply(1 - live)
    calibration.apply(live)  # a warning would be an error


def test_labels_that_cannot_be_read_do_not_matter(calibration, frame):
    for labels in ("", "later", None):
        assert len(calibration.apply(frame[300:].assign(y=labels))) == 300


def test_fit_scores_are_saved_in_the_file(tmp_path, calibration):
    assert fedlas.calibrated.TableCalibration.load(
        calibration.save(tmp_path / "cal.json")
    ).fit_scores == (calibration.fit_scores)
