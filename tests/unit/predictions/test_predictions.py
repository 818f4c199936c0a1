"""The seam: what goes in is checked once, what comes out is what it says, files are safe and whole."""

import copy
import dataclasses
import io
import pickle
import zipfile

import numpy as np
import pytest
import torch

import fedlas
from fedlas import Predictions
from fedlas.calibrators import CALIBRATORS, CalibrationWarning
from fedlas.errors import InputError
from fedlas.metrics import METRICS

LOGITS = [[2.0, 0.0, 1.0], [0.0, 1.0, 3.0]]


def test_derived_quantities():
    p = Predictions(LOGITS, [0, 1])
    assert (p.num_samples, p.num_classes) == (2, 3)
    torch.testing.assert_close(p.tensors().probs, p.tensors().logits.softmax(1))
    assert p.predicted.tolist() == [0, 2]
    torch.testing.assert_close(p.tensors().confidence, p.tensors().probs.amax(1))
    assert p.correct.tolist() == [True, False]
    assert p.tensors().correct.dtype == torch.bool


def test_confidence_in_chunks_equals_confidence_at_once():
    p = Predictions(torch.randn(5, 2**17), torch.zeros(5, dtype=torch.int64))
    torch.testing.assert_close(p.tensors().confidence, p.tensors().logits.softmax(1).amax(1))


def test_ties_go_to_the_first_class():
    assert Predictions([[1.0, 1.0]], [0]).correct.tolist() == [True]


@pytest.mark.parametrize(
    "logits",
    [
        LOGITS,
        tuple(map(tuple, LOGITS)),
        np.array(LOGITS),
        np.array(LOGITS, dtype=np.float32),
        np.array(LOGITS, dtype=">f4"),
        np.array(LOGITS, dtype=np.float16),
        np.asfortranarray(LOGITS),
        np.array(LOGITS)[::-1],
        torch.tensor(LOGITS, requires_grad=True),
        torch.tensor(LOGITS, dtype=torch.bfloat16),
    ],
    ids=[
        "lists",
        "tuples",
        "float64",
        "float32",
        "big-endian",
        "half",
        "fortran",
        "reversed",
        "graph",
        "bfloat16",
    ],
)
def test_logits_come_in_many_ways(logits):
    p = Predictions(logits, [0, 1])
    assert p.tensors().logits.dtype in (torch.float32, torch.float64)
    assert not p.tensors().logits.requires_grad
    assert sorted(p.tensors().logits.flatten().tolist()) == sorted(np.ravel(LOGITS).tolist())


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.int64, ">i4"])
def test_integer_targets(dtype):
    assert Predictions(LOGITS, np.array([2, 1], dtype=dtype)).target.tolist() == [2, 1]
    assert Predictions(LOGITS, np.array([2, 1], dtype=dtype)).tensors().target.dtype == torch.int64


def test_read_only_arrays_do_not_warn():
    array = np.array(LOGITS)
    array.flags.writeable = False
    Predictions(array, [0, 1])


NONSENSE = {
    "one row": {"logits": [1.0, 2.0]},
    "dense": {"logits": np.zeros((2, 3, 4))},
    "no samples": {"logits": np.zeros((0, 3)), "target": np.zeros(0, dtype=int)},
    "no classes": {"logits": np.zeros((2, 0))},
    "integer logits": {"logits": [[1, 2, 3], [4, 5, 6]]},
    "complex logits": {"logits": np.zeros((2, 3), dtype=complex)},
    "text": {"logits": [["a", "b"], ["c", "d"]]},
    "ragged": {"logits": [[1.0, 2.0], [1.0]]},
    "None": {"logits": None},
    "objects": {"logits": np.array([[object()]])},
    "NaN": {"logits": [[0.0, float("nan"), 0.0], [0.0, 0.0, 0.0]]},
    "infinite": {"logits": [[0.0, float("inf"), 0.0], [0.0, 0.0, 0.0]]},
    "beyond float32": {"logits": np.full((2, 3), 1e39)},
    "as large, in float32": {"logits": np.full((2, 3), -1e31, dtype=np.float32)},
    "sparse": {"logits": torch.eye(2, 3).to_sparse()},
    "meta": {"logits": torch.zeros(2, 3, device="meta")},
    "nested": {
        "logits": torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)], layout=torch.jagged)
    },
    "meta target": {"target": torch.zeros(2, dtype=torch.int64, device="meta")},
    "short target": {"target": [0]},
    "fractions as target": {"target": [0.0, 0.5]},
    "an infinite target": {"target": [0.0, np.inf]},
    "bool target of three classes": {"target": [False, True]},
    "complex target": {"target": [0j, 1j]},
    "one-hot target": {"target": [[1, 0, 0], [0, 1, 0]]},
    "negative target": {"target": [0, -1]},
    "target too large": {"target": [0, 3]},
    "text target": {"target": ["cat", "dog"]},
    "short features": {"features": np.zeros((1, 4))},
    "dense features": {"features": np.zeros((2, 4, 2))},
    "NaN features": {"features": np.full((2, 4), np.nan)},
    "huge features": {"features": np.full((2, 4), 1e300)},
    "no features": {"features": np.zeros((2, 0))},
    "sparse features": {"features": torch.eye(2).to_sparse()},
    "text features": {"features": [["a"], ["b"]]},
    "label_probs of other classes": {"label_probs": np.full((2, 4), 0.25)},
    "label_probs not summing to 1": {"label_probs": np.full((2, 3), 0.5)},
    "label_probs in percent": {"label_probs": np.array([[50, 50, 0], [100, 0, 0]])},
    "negative label_probs": {"label_probs": [[1.5, -0.5, 0.0], [1.0, 0.0, 0.0]]},
    "NaN label_probs": {"label_probs": np.full((2, 3), np.nan)},
    "one weight too few": {"weights": [1.0]},
    "weights of classes": {"weights": np.ones((2, 3))},
    "a negative weight": {"weights": [1.0, -0.1]},
    "a NaN weight": {"weights": [1.0, np.nan]},
    "an infinite weight": {"weights": [1.0, np.inf]},
    "complex weights": {"weights": [1j, 1j]},
    "text weights": {"weights": ["a", "b"]},
    "sparse weights": {"weights": torch.ones(2).to_sparse()},
    "weights that are all 0": {"weights": [0, 0]},
    "weights that are all next to 0": {"weights": [1e-40, 1e-40]},
}


@pytest.mark.parametrize("kind", NONSENSE)
def test_invalid_arguments_are_refused(kind):
    with pytest.raises(InputError) as caught:
        Predictions(**{"logits": LOGITS, "target": [0, 1], **NONSENSE[kind]})
    owner = caught.value.owner
    expected, got, fix = caught.value.parts
    assert owner == "Predictions"
    assert expected
    assert len(got) < 300
    assert fix.endswith(".")


def test_nan_is_counted_and_placed():
    with pytest.raises(InputError, match=r"2 NaN or infinite of 6 values.*\(0, 1\)"):
        Predictions([[0.0, float("nan"), 0.0], [0.0, float("inf"), 0.0]], [0, 1])


@pytest.mark.parametrize(
    "dtype", [torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2]
)
def test_small_floats_become_float32(dtype):
    assert Predictions(torch.eye(3).to(dtype), [0, 1, 2]).tensors().logits.dtype == torch.float32


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int64])
def test_label_probs_of_any_precision(dtype):
    probs = (
        np.array([[1, 0, 0], [0, 1, 0]])
        if dtype is np.int64
        else np.full((2, 3), 1 / 3, dtype=dtype)
    )
    p = Predictions(LOGITS, [0, 1], label_probs=probs)
    assert p.tensors().label_probs.dtype in (torch.float32, torch.float64)


@pytest.mark.parametrize(
    "weights", [[1, 3], [True, False], np.array([0.5, 1e-40], np.float16), torch.ones(2)]
)
def test_weights_of_any_type_become_float64(weights):
    p = Predictions(LOGITS, [0, 1], weights=weights)
    assert p.tensors().weights.dtype == torch.float64
    assert p.tensors().weights[0] == float(weights[0])
    assert p.tensors().weights[1] == (float(weights[1]) if weights[1] > 1e-30 else 0)


@pytest.mark.parametrize(
    ("clusters", "numbers"),
    [
        ([7, -2], [7, -2]),
        (np.array([3.0, 3.0]), [3, 3]),
        (torch.tensor([1, 0], dtype=torch.int8), [1, 0]),
        (["p2", "p1"], [1, 0]),
        (np.array(["b", 7], dtype=object), [1, 0]),
    ],
)
def test_clusters_are_numbers_of_rows(clusters, numbers):
    p = Predictions(LOGITS, [0, 1], clusters=clusters)
    assert p.tensors().clusters.dtype == torch.int64
    assert p.clusters.tolist() == numbers
    assert p.rows(torch.tensor([1])).clusters.tolist() == numbers[1:]
    assert p.with_logits(p.tensors().logits / 2).clusters.tolist() == numbers
    assert (
        Predictions.from_probs(p.tensors().probs, [0, 1], clusters=clusters).clusters.tolist()
        == numbers
    )


@pytest.mark.parametrize(
    ("clusters", "message"),
    [
        ([1], r"clusters must be whole numbers or names of shape \(2,\); got list \[1\]"),
        ([0.5, 1.0], "whole numbers or names"),
        ([1, np.nan], "whole numbers or names"),
        ([[1], [2]], "whole numbers or names"),
        (["a", None], "every sample must have a cluster; got no cluster in row 1"),
    ],
)
def test_what_are_no_clusters(clusters, message):
    with pytest.raises(InputError, match=message):
        Predictions(LOGITS, [0, 1], clusters=clusters)


def test_immutable():
    p = Predictions(LOGITS, [0, 1])
    with pytest.raises(dataclasses.FrozenInstanceError):
        p.logits = torch.zeros(2, 3)


def test_with_logits_keeps_the_rest_and_checks_again():
    p = Predictions(
        LOGITS, [0, 1], features=np.ones((2, 4)), label_probs=np.full((2, 3), 1 / 3), weights=[1, 2]
    )
    _ = p.tensors().confidence
    other = p.with_logits(p.tensors().logits / 2)
    assert not torch.equal(other.tensors().confidence, p.tensors().confidence)
    assert torch.equal(other.tensors().features, p.tensors().features)
    assert torch.equal(other.tensors().label_probs, p.tensors().label_probs)
    assert torch.equal(other.tensors().weights, p.tensors().weights)
    with pytest.raises(InputError):
        p.with_logits(p.tensors().logits[:1])


EXTRAS = {
    "features": np.ones((2, 4)),
    "label_probs": np.full((2, 3), 1 / 3),
    "weights": [0.1, 2],
    "clusters": ["b", "a"],
}


@pytest.mark.parametrize("extras", [{}, EXTRAS])
def test_round_trip(tmp_path, extras):
    p = Predictions(torch.tensor(LOGITS), [0, 1], **extras)
    path = p.save(tmp_path / "new" / "folder" / "test.npz")
    back = Predictions.load(str(path))
    for name in ("logits", "target", "features", "label_probs", "weights", "clusters"):
        mine, theirs = getattr(p, name), getattr(back, name)
        assert (mine is None and theirs is None) or (
            np.array_equal(mine, theirs) and mine.dtype == theirs.dtype
        )
    assert [entry.name for entry in path.parent.iterdir()] == ["test.npz"]


def test_a_file_name_without_npz_is_kept(tmp_path):
    assert Predictions(LOGITS, [0, 1]).save(tmp_path / "plain").name == "plain"
    Predictions.load(tmp_path / "plain")


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    path = Predictions(LOGITS, [0, 1]).save(tmp_path / "test.npz")
    before = path.read_bytes()

    def fails(file, **_):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", fails)
    with pytest.raises(InputError, match="No space left"):
        Predictions(LOGITS, [1, 1]).save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_place_that_is_no_folder(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"must be writable.*Not a directory"):
        Predictions(LOGITS, [0, 1]).save(tmp_path / "file" / "test.npz")


class Bomb:
    def __reduce__(self):
        return (pytest.fail, ("a file ran code",))


def damaged(kind, good):
    buffer = io.BytesIO()
    if kind == "truncated":
        return good[: len(good) // 2]
    if kind == "flipped":
        middle = len(good) // 4
        return (
            good[:middle]
            + bytes(b ^ 0xFF for b in good[middle : middle + 40])
            + good[middle + 40 :]
        )
    if kind == "text":
        return b"logits,target\n"
    if kind == "empty":
        return b""
    if kind == "pickle":
        return pickle.dumps(Bomb())
    if kind == "npy":
        np.save(buffer, np.zeros((2, 3)))
    elif kind == "pickled array":
        np.savez(buffer, logits=np.array(LOGITS), target=np.array([Bomb(), Bomb()], dtype=object))
    elif kind == "zip of something else":
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr("logits", "not an array")
            archive.writestr("target.npy", "not an array")
    elif kind == "no logits":
        np.savez(buffer, target=np.array([0, 1]))
    elif kind == "text arrays":
        np.savez(buffer, logits=np.array([["a"]]), target=np.array([0]))
    elif kind == "records":
        np.savez(buffer, logits=np.zeros(2, dtype=[("a", "f4")]), target=np.array([0, 1]))
    return buffer.getvalue()


@pytest.mark.parametrize(
    "kind",
    [
        "truncated", "flipped", "text", "empty", "pickle", "npy", "pickled array", "zip of something else", "no logits",
        "text arrays", "records",
    ],
)  # fmt: skip
def test_damaged_and_hostile_files(tmp_path, kind):
    good = Predictions(LOGITS, [0, 1]).save(tmp_path / "good.npz").read_bytes()
    path = tmp_path / "bad.npz"
    path.write_bytes(damaged(kind, good))
    with pytest.raises(InputError, match=r"(?i)predictions"):
        Predictions.load(path)


def test_a_missing_file_and_a_folder(tmp_path):
    with pytest.raises(InputError, match="the file must exist"):
        Predictions.load(tmp_path / "none.npz")
    with pytest.raises(InputError, match=r"must be an \.npz"):
        Predictions.load(tmp_path)


def test_other_arrays_in_the_file_are_ignored(tmp_path):
    np.savez(tmp_path / "extra.npz", logits=LOGITS, target=[0, 1], names=["a", "b"])
    assert Predictions.load(tmp_path / "extra.npz").num_samples == 2


def test_probabilities_taken_for_logits_are_warned_of():
    """They gave an ECE of 0.6 in place of 0.06 without a word."""
    probs, target = torch.randn(50, 3).softmax(1), torch.randint(3, (50,))
    with pytest.warns(CalibrationWarning, match=r"surely probabilities.*Predictions\.from_probs"):
        Predictions(probs, target)
    Predictions(probs.log(), target)  # warnings are errors
    Predictions(probs + 0.01, target)
    Predictions(torch.nn.functional.one_hot(target, 3).float(), target)
    Predictions(probs[:5], target[:5])


NO_LABELS = "predictions must have labels; got 2 samples without target. Pass the labels"


def test_without_labels_all_but_them_is_there():
    p = Predictions(LOGITS, features=np.ones((2, 4)))
    assert not p.has_target
    assert Predictions(LOGITS, [0, 1]).has_target
    assert p.confidence.tolist() == Predictions(LOGITS, [0, 1]).confidence.tolist()
    assert p.predicted.tolist() == [0, 2]
    with pytest.raises(InputError, match=f"^{NO_LABELS}"):
        _ = p.target
    with pytest.raises(InputError, match=NO_LABELS):
        _ = p.correct
    assert repr(p) == "Predictions(2 samples, 3 classes, without target and features)"


def test_unlabeled_predictions_can_be_copied_and_saved(tmp_path):
    p = Predictions(LOGITS, features=np.ones((2, 4)))
    other = p.with_logits(p.tensors().logits / 2)
    assert not other.has_target
    assert torch.equal(other.tensors().features, p.tensors().features)
    for same in (
        Predictions.load(p.save(tmp_path / "p.npz")),
        pickle.loads(pickle.dumps(p)),
        copy.deepcopy(p),
    ):
        assert not same.has_target
        assert torch.equal(same.tensors().logits, p.tensors().logits)


def test_without_target_drops_label_probs():
    p = Predictions(LOGITS, [0, 1], features=np.ones((2, 4)), label_probs=np.full((2, 3), 1 / 3))
    bare = p.without_target()
    assert (bare.has_target, bare.label_probs) == (False, None)
    assert torch.equal(bare.tensors().features, p.tensors().features)
    assert p.has_target


@pytest.mark.parametrize("name", sorted(set(METRICS) - {"true_ece"}))
def test_metric_without_labels_is_refused(name):
    logits = np.array(LOGITS)[:, : 2 if METRICS[name].subject == "event" else 3]
    with pytest.raises(InputError, match=NO_LABELS):
        METRICS.build(name, predictions=Predictions(logits))


def test_labels_that_are_no_classes_are_named():
    probs = [[0.5, 0.5]] * 4
    with pytest.raises(InputError, match=r"got 'dgo', 'bird'\. Correct the labels"):
        Predictions.from_probs(probs, ["cat", "dgo", "bird", "dgo"], classes=["cat", "dog"])
    with pytest.raises(InputError, match=r"from_probs\(probs, target, classes=\['no', 'yes'\]\)"):
        Predictions.from_probs(probs, ["no", "yes", "no", "yes"])


@pytest.mark.parametrize("scores", ["logits", "probs"])
@pytest.mark.parametrize("index", [torch.tensor([4, 0, 0, 7]), torch.arange(12) % 3 == 0])
def test_rows_are_what_predictions_of_these_rows_hold(scores, index):
    logits = torch.randn(12, 2, generator=torch.Generator().manual_seed(0))
    values = {
        "target": torch.arange(12) % 2,
        "label_probs": logits.softmax(1),
        "features": logits[:, :1],
        "weights": torch.arange(12.0),
        "clusters": torch.arange(12) // 2,
        "time": torch.arange(12).flip(0),
    }
    build = Predictions if scores == "logits" else Predictions.from_probs
    array = logits if scores == "logits" else logits.softmax(1)
    named = {"classes": ("0", "1"), "event": "0"}
    rows = build(array, **values, **named).rows(index)
    again = build(array[index], **{name: value[index] for name, value in values.items()}, **named)
    assert rows.are_probs == again.are_probs == (scores == "probs")
    assert (rows.classes, rows.event) == (again.classes, again.event)
    for name in (*values, "logits", "probs", "correct"):
        assert np.array_equal(getattr(rows, name), getattr(again, name)), name


def test_rows_that_all_weigh_nothing_are_refused():
    predictions = Predictions(torch.randn(3, 2), [0, 1, 1], weights=[0, 0, 1])
    with pytest.raises(InputError, match="at least one weight must be"):
        predictions.rows(torch.tensor([0, 1]))


def test_from_probs_accepts_indices_with_class_names():
    probs = torch.tensor([[0.8, 0.2], [0.3, 0.7]])
    for names, target, numbers in (
        (("no", "yes"), torch.tensor([1, 0]), [1, 0]),
        (("no", "yes"), np.array([1, 1]), [1, 1]),
        (("yes", "no"), [True, False], [0, 1]),  # truth values are names
        (("1", "2"), [1, 2], [0, 1]),  # so are numbers among the names
    ):
        assert Predictions.from_probs(probs, target, classes=names).target.tolist() == numbers
    with pytest.raises(InputError, match=r"target must be in \[0, 2\)"):
        Predictions.from_probs(probs, [1, 2], classes=("no", "yes"))
    with pytest.raises(InputError, match="every label must be one of the classes yes, no"):
        Predictions.from_probs(probs, [1, 0], classes=("yes", "no"))  # the class yes, or number 1


def test_negative_stride_of_axis_of_one_is_read():
    """NumPy calls it contiguous, PyTorch refuses it."""
    column = np.random.default_rng(0).normal(size=(6, 3))[:, :1][:, ::-1]
    row = np.array([[1.0, 2.0, 3.0]])[::-1]
    assert min(column.strides) < 0
    assert row.flags.c_contiguous
    assert Predictions(row, [2]).logits.tolist() == row.tolist()
    assert fedlas.evaluate(np.abs(column).clip(max=1)[:, ::-1], [0, 1] * 3).keys()
    flipped = np.array([[0.2, 0.8], [0.9, 0.1], [0.4, 0.6], [0.7, 0.3]])[::-1]
    for scores in (flipped, np.log(flipped), flipped[:, 1]):
        fit = CALIBRATORS["temperature"].value().fit(scores, [0, 1, 0, 1])
        assert fit.transform(scores[::-1]).shape == scores.shape


@pytest.mark.parametrize(
    ("times", "order"),
    [
        (["14.10.2026", "02.11.2026", "03.10.2026"], [1, 2, 0]),
        (["10.01.2026", "09.02.2026", "08.03.2026"], [0, 1, 2]),  # dots: the day comes first
        (["10/14/2026", "11/02/2026", "10/03/2026"], [1, 2, 0]),
        (["14/10/2026", "2/11/2026", "03/10/2026"], [1, 2, 0]),
        (["14.10.2026 10:00", "14.10.2026 09:59", "13.10.2026 23:00:01"], [2, 1, 0]),
        (["2026-10-14T10:00:00+02:00", "2026-10-14T08:00:01Z", "2026-10-14 07:59 UTC"], [1, 2, 0]),
    ],
)
def test_dates_are_ordered_as_written(times, order):
    predictions = Predictions(torch.eye(3), [0, 1, 2], time=times)
    assert predictions.time.tolist() == order


@pytest.mark.parametrize(
    ("times", "words"),
    [
        (
            ["10/11/2026", "09/02/2026", "08/03/2026"],
            "'10/11/2026', and no part above 12.*2026-05-31",
        ),
        (["14/10/2026", "10/14/2026", "08/03/2026"], "numbers or dates"),
        (["14.10.2026", "2026-10-14", "08.03.2026"], "numbers or dates"),
    ],
)
def test_dates_of_unclear_order_are_refused(times, words):
    with pytest.raises(InputError, match=words):
        Predictions(torch.eye(3), [0, 1, 2], time=times)
