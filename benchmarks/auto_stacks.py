"""Held-out and test predictions of every member of ``auto``, kept so that its weights and last maps are fitted again.

One fit of all members serves each variant of ``auto_ablation.py`` that changes members, prior, weights or last maps:
the mixture is a small fit to these arrays. What changes the members themselves is fitted anew there.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import auto_sets
import calibrators
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import fedlas.calibrators.fit_mixture as fm
from fedlas import Predictions
from fedlas.calibrators._fit.custom_calibrators import fit_checked_map
from fedlas.calibrators._fit.rowwise import floor_log_probs, prepare_samples
from fedlas.calibrators.affine import VectorScaling
from fedlas.calibrators.base import Calibrator
from fedlas.calibrators.bcts import BiasCorrectedTemperature
from fedlas.calibrators.confusion import ConfusionCalibration
from fedlas.calibrators.isotonic import IsotonicCalibration
from fedlas.calibrators.mixture import CrossFit
from fedlas.calibrators.pooled_spline import PooledSplineCalibration
from fedlas.calibrators.spline import SplineCalibration
from fedlas.calibrators.structured import StructuredScaling
from fedlas.calibrators.temperature import TemperatureScaling

Array = NDArray[Any]
RAW = fm.RAW
MEMBERS: dict[str, Calibrator] = {
    "temperature": TemperatureScaling(),
    "structured vector": StructuredScaling("vector"),
    "matrix": StructuredScaling("matrix"),
    "isotonic": IsotonicCalibration(),
    "spline": SplineCalibration(),
    "vector": VectorScaling(freedom=1.0),
    "offsets": BiasCorrectedTemperature(prior=1.0),
    "confusion": ConfusionCalibration(1.0, "none"),
    "held confusion": ConfusionCalibration(10.0, "none"),
    "pooled spline": PooledSplineCalibration(),
}
EXPENSIVE = fm._EXPENSIVE
TEST = 3000
"""Most test rows."""
FEW = (RAW, "temperature", "structured vector", "matrix", "isotonic", "spline")
MANY = (
    *(RAW, "temperature", "vector", "matrix", "isotonic", "spline", "offsets", "confusion"),
    *("held confusion", "pooled spline"),
)
"""Members of ``auto`` with few and with many classes, in its order."""


@dataclass(frozen=True, eq=False)
class Case:
    """Log-probabilities and labels to fit and to test on."""

    group: str
    name: str
    model: str
    draw: int
    size: int
    fit: Array
    target: Array
    test: Array
    labels: Array
    inputs: Array | None = None
    test_inputs: Array | None = None
    clusters: Array | None = None
    test_clusters: Array | None = None

    @property
    def key(self) -> tuple[str, str, str, int, int]:
        """Group, set, model, draw and number of labels."""
        return self.group, self.name, self.model, self.draw, self.size

    def val(self, clusters: bool = False, features: bool = False) -> Predictions:
        """Return the samples to fit on."""
        more: dict[str, Tensor] = {}
        if clusters and self.clusters is not None:
            more["clusters"] = torch.from_numpy(self.clusters)
        if features and self.inputs is not None:
            more["features"] = torch.from_numpy(self.inputs).double()
        return Predictions(torch.from_numpy(self.fit), torch.from_numpy(self.target), **more)


@dataclass(frozen=True, eq=False)
class Stack:
    """Predictions of all members of one case.

    Attributes:
        names: Of the members; the first is "as predicted".
        held_out: Log-probabilities of held-out rows ``(K, n, C)``, in the order of ``split.rows``.
        test: Log-probabilities of test rows ``(m, K, C)``.
        split: Folds and effective weights.
        rows: Log-probabilities of test rows as the members see them, zeros raised ``(m, C)``.
        seconds: Processor seconds of each member's fits.
    """

    case: Case
    names: tuple[str, ...]
    held_out: Tensor
    test: Tensor
    split: CrossFit
    rows: Tensor
    seconds: dict[str, float]

    def of(self, names: tuple[str, ...]) -> Stack:
        """Return the stack with some of the members, in the given order."""
        at = [self.names.index(name) for name in names if name in self.names]
        chosen = tuple(self.names[index] for index in at)
        return replace(self, names=chosen, held_out=self.held_out[at], test=self.test[:, at])

    def add(self, name: str, held_out: Tensor, test: Tensor) -> Stack:
        """Return the stack with one more member: log-probabilities ``(n, C)`` and ``(m, C)``."""
        return replace(
            self,
            names=(*self.names, name),
            held_out=torch.cat([self.held_out, held_out[None]]),
            test=torch.cat([self.test, test[:, None]], dim=1),
        )


def wanted(classes: int) -> dict[str, Calibrator]:
    """Return the members that are fitted: both lists of ``auto``, as far as it would fit them."""
    others = dict(MEMBERS)
    if classes > fm._MAX_MATRIX_CLASSES:
        del others["matrix"]
    if classes > 40:
        del others["structured vector"]
    return others


def fit_stack(case: Case, clusters: bool = False, kept: Path | None = None) -> Stack:
    """Fit all members to a case, or read what was fitted before."""
    val, least, _ = prepare_samples(case.val(clusters), repeat_rows=False, raise_zeros=True)
    split, val = fm._make_cross_fit(val, 5)
    rows = floor_log_probs(Predictions(torch.from_numpy(case.test).double()), least).logits
    path = None
    if kept is not None:
        path = kept / (", ".join(map(str, (*case.key, clusters))) + ".npz")
        if path.is_file():
            arrays = np.load(path)
            names = tuple(arrays["names"].tolist())
            seconds = dict(zip(names, arrays["seconds"].tolist(), strict=True))
            held_out, test = (
                torch.from_numpy(arrays[each]).double() for each in ("held_out", "test")
            )
            return Stack(case, names, held_out, test, split, rows, seconds)
    maps: dict[str, nn.Module] = {RAW: nn.Identity()}
    fitted: dict[str, Calibrator | None] = {RAW: None}
    seconds = {RAW: 0.0}
    parts = [split.log_probs(fitted, maps, EXPENSIVE)]
    for name, member in wanted(val.num_classes).items():
        began = time.process_time()
        maps[name] = fit_checked_map(
            member, split.member_samples(name in EXPENSIVE), member.fit_map
        )
        fitted[name] = member
        parts.append(split.log_probs({name: member}, maps, EXPENSIVE))
        seconds[name] = time.process_time() - began
    with torch.no_grad():
        test = torch.stack([maps[name](rows).log_softmax(1) for name in fitted], dim=1)
    stack = Stack(case, tuple(fitted), torch.cat(parts), test, split, rows, seconds)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"part {path.name}")
        np.savez(
            part,
            names=np.array(stack.names),
            seconds=np.array([seconds[name] for name in stack.names]),
            held_out=stack.held_out.numpy().astype(np.float32),
            test=stack.test.numpy().astype(np.float32),
        )
        part.rename(path)
    return stack


# Cases.

TWO = ("phoneme", "german", "spambase", "magic", "pima", "banana", "ring", "tic-tac-toe", "chess")
SEVERAL = (
    *("contraceptive", "segment", "vowel", "led7digit", "satimage", "vehicle", "splice"),
    *("marketing", "penbased", "texture"),
)
LARGE = ("letter", "leaves", "rodents")
CLUSTERED = ("exams", "minority", "contraception", "language")


def table_cases(
    names: tuple[str, ...], draw: int, sizes: tuple[int, ...], args: Any, kinds: Any = None
) -> Iterator[Case]:
    """Cases of tables, whose models are trained once."""
    group = {
        TWO: "tables 2",
        SEVERAL: "tables several",
        LARGE: "tables many",
        CLUSTERED: "clusters",
    }
    for name in names:
        for kind in kinds or auto_sets.KINDS:
            arrays = auto_sets.predictions(
                name, kind, draw, args.packages, args.cache / "tables", args.frozen
            )
            for size in sizes:
                if size <= len(arrays["fit"]):
                    yield _case(group.get(names, "tables"), name, kind, draw, size, arrays)


def _case(group: str, name: str, kind: str, draw: int, size: int, arrays: dict[str, Array]) -> Case:
    of_clusters = "fit_clusters" in arrays
    return Case(
        *(group, name, kind, draw, size),
        *(arrays["fit"][:size], arrays["fit_target"][:size]),
        *(arrays["test"], arrays["test_target"]),
        arrays["fit_inputs"][:size] if "fit_inputs" in arrays else None,
        arrays.get("test_inputs"),
        arrays["fit_clusters"][:size] if of_clusters else None,
        arrays["test_clusters"] if of_clusters else None,
    )


def archive_cases(group: str, draw: int, sizes: tuple[int, ...], args: Any) -> Iterator[Case]:
    """Cases of published networks (``networks``), of their confidences, and of many classes (``many``)."""
    for name, probs, target in _archives(group, args):
        order = np.random.default_rng(draw).permutation(len(target))
        half = min(50_000, len(target) // 2)
        fit, test = order[:half], order[half:][:TEST]
        log_probs = np.log(calibrators.normalized(probs, calibrators.LEAST)).astype(np.float32)
        for size in sizes:
            if size <= half:
                yield Case(
                    *(group, name, "network", draw, size),
                    *(log_probs[fit[:size]], target[fit[:size]]),
                    *(log_probs[test], target[test]),
                )


def _archives(group: str, args: Any) -> Iterator[tuple[str, Array, Array]]:
    if group == "confidences":
        yield from calibrators.confidences(args.real)
        return
    if group == "many":
        for path in sorted(args.real.glob("many-*.npz")):
            arrays = np.load(path)
            yield path.stem, np.exp(arrays["log_probs"].astype(float)), arrays["target"].astype(int)
        return
    yield from calibrators.whole(args.real)
    from sklearn import datasets
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import cross_val_predict
    from sklearn.neural_network import MLPClassifier

    columns, target = datasets.load_digits(return_X_y=True)
    for name, model in (
        ("digits logistic", LogisticRegression(max_iter=300)),
        ("digits network", MLPClassifier((50,), random_state=0)),
    ):
        path = args.cache / f"{name}.npy"
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(
                path, cross_val_predict(model, columns / 16, target, cv=3, method="predict_proba")
            )
        yield name, np.load(path), target.astype(np.int64)
