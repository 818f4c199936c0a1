"""Rows of probabilities as people write them."""

import warnings

import numpy as np
import pytest
import torch

from fedlas import Predictions
from fedlas.calibrators import CalibrationWarning
from fedlas.errors import InputError
from fedlas.predictions import Columns, read_predictions


def probs_of(samples=200, classes=10, seed=0, scale=2.0):
    rng = np.random.default_rng(seed)
    powers = np.exp(rng.normal(size=(samples, classes)) * scale)
    return powers / powers.sum(1, keepdims=True), rng.integers(0, classes, samples)


def table(tmp_path, probs, target=None, fmt="%.9g"):
    header = ",".join([*(f"p_{k}" for k in range(probs.shape[1])), "y"])
    rows = np.column_stack([probs, np.zeros(len(probs)) if target is None else target])
    np.savetxt(tmp_path / "t.csv", rows, delimiter=",", header=header, comments="", fmt=fmt)
    return tmp_path / "t.csv"


def read(path, **options):
    return read_predictions(path, Columns(probs="p_*", target="y", **options))


@pytest.mark.filterwarnings("ignore:.*rounded to 2 decimals")
@pytest.mark.parametrize(
    ("values", "are_rounded"),
    [
        ([[0.125, 0.874]], True),
        ([[0.125, 0.873]], False),
        ([[0.1, 0.89], [0.33, 0.67]], True),
        ([[0.1, 0.88], [0.33, 0.67]], False),
        ([[0.12345, 0.87654]], True),
        ([[1 / 3, 2 / 3 - 1e-3]], False),
        (np.array([[0.123, 0.876]], np.float32), True),
        (np.array([[1 / 3, 2 / 3 - 1e-3]], np.float32), False),
    ],
)
def test_row_sum_tolerance_covers_rounding(values, are_rounded):
    probs = torch.from_numpy(np.asarray(values))
    if are_rounded:
        assert Predictions.from_probs(probs).num_samples == len(values)
    else:
        with pytest.raises(InputError, match="sum to 1"):
            Predictions.from_probs(probs)


@pytest.mark.parametrize("classes", [2, 10, 200])
def test_rounded_rows_are_normalized_with_note(classes, tmp_path):
    probs, target = probs_of(classes=classes)
    found = read(table(tmp_path, np.round(probs, 3), target))
    kept = np.round(probs, 3)
    divided = int((np.abs(kept.sum(1) - 1) > 1e-6).sum())
    assert found.predictions.probs == pytest.approx(kept / kept.sum(1, keepdims=True), abs=1e-9)
    if classes > 2:
        assert any(
            f"{divided} of 200 rows were divided by their sums" in note for note in found.notes
        )
        assert any("rounded to 3 decimals" in note for note in found.notes)
    lost = np.abs(kept.sum(1) - 1).max()
    assert any("write more decimals" in note for note in found.notes) is bool(lost > 0.01)


@pytest.mark.parametrize("miss", [2e-5, 9e-4])
def test_nearly_normalized_rows_are_divided_with_note(miss, tmp_path):
    probs, target = probs_of()
    found = read(table(tmp_path, probs * (1 + miss), target))
    assert found.predictions.probs == pytest.approx(probs, abs=1e-8)
    assert any(
        f"200 of 200 rows were divided by their sums, which differ from 1 by at most {miss:.2g}."
        in n
        for n in found.notes
    )


def test_rounding_does_not_excuse_what_it_cannot_explain(tmp_path):
    probs, target = probs_of(classes=4)
    kept = np.round(probs, 3)
    # 0.003 less than 1, where rounding four numbers loses 0.002 at most
    kept[7] = [0.5, 0.25, 0.125, 0.122]
    with pytest.raises(InputError, match=r"sum to 1; got a sum of 0\.997 in row 8 .*normalize="):
        read(table(tmp_path, kept, target))
    kept[7] = [0.0, 0.0, 0.5, 0.502]  # two numbers above 0 add 0.001 at most
    with pytest.raises(InputError, match=r"sum to 1; got a sum of 1\.002 in row 8"):
        read(table(tmp_path, kept, target))


@pytest.mark.parametrize("scale", [100.0, 7.0, 0.01])
def test_normalize_takes_any_rows_and_counts_them(scale, tmp_path):
    probs, target = probs_of()
    found = read(table(tmp_path, probs * scale, target), normalize=True)
    assert found.predictions.probs == pytest.approx(probs, abs=1e-7)
    assert any("200 of 200 rows were divided by their sums, from" in note for note in found.notes)
    with pytest.raises(InputError, match=r"negative; got -1 in row 3.*'p_1'.*logits"):
        read(
            table(tmp_path, np.where(np.arange(40).reshape(4, 10) == 21, -1.0, 1.0)), normalize=True
        )
    with pytest.raises(InputError, match="positive sum; got a sum of 0 in row 2"):
        read(table(tmp_path, np.array([[1.0, 1.0], [0.0, 0.0]])), normalize=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda p: 100 * p,
            r"must be in \[0, 1\]; got .* in row 1, column 'p_0'.*look like percentages",
        ),
        (np.log, r"must be in \[0, 1\]; got .*These look like logits: .*name them by logits="),
        (lambda p: 5 * p, r"must be in \[0, 1\]; got .*pass normalize=.*name them by logits="),
        (
            lambda p: 0.5 * p,
            r"must sum to 1; got a sum of 0.5 in row 1 of t.csv .200 such rows among 200.*pass normalize=",
        ),
    ],
)
def test_what_is_no_probability_is_recognized(change, message, tmp_path):
    probs, target = probs_of()
    with pytest.raises(InputError, match=message):
        read(table(tmp_path, change(probs), target))


def test_percentages_of_two_classes(tmp_path):
    probs, target = probs_of(classes=2)
    path = table(tmp_path, 100 * probs[:, 1:], target)
    with pytest.raises(InputError, match=r"look like percentages"):
        read_predictions(path, Columns(probs="p_0", target="y"))


def test_incomplete_rows_are_dropped_and_counted(tmp_path):
    (tmp_path / "t.csv").write_text(
        "p_0,p_1,y\n0.5,0.5,0\n,0.5,1\n0.2,NA,1\n0.9,0.1,\n0.1,0.9,1\n0.3,nan,0\n"
    )
    found = read(tmp_path / "t.csv", drop_missing=True)
    assert found.predictions.target.tolist() == [0, 1]
    assert (
        found.notes[0]
        == "4 of 6 rows lack a value and were left out: 'p_1' (2), 'p_0' (1), 'y' (1)."
    )
    with pytest.raises(InputError, match=r"numbers; got 'NA' in row 3.*'p_1'.*drop_missing="):
        read(tmp_path / "t.csv")
    (tmp_path / "t.csv").write_text("p_0,p_1,y\n,0.5,1\n0.5,0.4,1\n")
    with pytest.raises(InputError, match=r"no number in row 1.*'p_0'.*drop_missing="):
        read(tmp_path / "t.csv")
    with pytest.raises(InputError, match=r"got a sum of 0\.9 in row 2"):  # rows keep their numbers
        read(tmp_path / "t.csv", drop_missing=True)
    (tmp_path / "t.csv").write_text("p_0,p_1,y\n,0.5,1\n")
    with pytest.raises(InputError, match="at least one row"):
        read(tmp_path / "t.csv", drop_missing=True)
    np.savez(tmp_path / "t.npz", p=[[0.5, 0.5], [np.nan, 1]], y=[0, 1])
    found = read_predictions(tmp_path / "t.npz", Columns(probs="p", target="y", drop_missing=True))
    assert found.predictions.num_samples == 1


def test_from_probs():
    probs, target = probs_of(classes=3)
    p = Predictions.from_probs(probs, target)
    assert p.probs == pytest.approx(probs)
    assert (
        Predictions.from_probs(torch.tensor(probs, dtype=torch.float16), target)
        .tensors()
        .logits.dtype
        == torch.float32
    )
    binary = Predictions.from_probs(probs[:, 1], target % 2)
    assert binary.tensors().probs[:, 1].numpy() == pytest.approx(probs[:, 1])
    assert Predictions.from_probs(10 * probs, target, normalize=True).probs == pytest.approx(probs)
    assert torch.isfinite(Predictions.from_probs([[1.0, 0.0]], [1]).tensors().logits).all()
    bfloat = torch.tensor(probs, dtype=torch.bfloat16)
    assert Predictions.from_probs(bfloat, target).num_samples == 200


@pytest.mark.parametrize(
    ("probs", "message"),
    [
        ([[60.0, 40.0]], "percentages: divide by 100"),
        ([97.0, 3.0], "percentages: divide by 100"),
        ([[-1.0, 2.0]], r"look like logits: pass Predictions\(logits, target\)"),
        ([[0.5, 0.4]], r"sum to 1; got a sum of 0.9 in row 0.*pass normalize=True"),
        ([[float("nan"), 0.4]], "probs must be finite"),
        ([[1, 0]], "probs must be floats"),
        ([[[0.5, 0.5]]], "probs must be floats"),
    ],
)
def test_from_probs_refuses(probs, message):
    with pytest.raises(InputError, match=message):
        Predictions.from_probs(probs, [0] * len(probs))


def test_from_probs_warns_where_rounding_took_much():
    probs, target = probs_of(classes=200)
    with pytest.warns(CalibrationWarning, match=r"Rounding .*more decimals"):
        Predictions.from_probs(np.round(probs, 3), target)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Predictions.from_probs(np.round(probs, 6), target)
