"""Auto: a mixture of calibrators, whose weights held-out samples choose."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from fedlas._core.check import InputError, check_count, check_kinds
from fedlas.calibrators._fit.doubts import when
from fedlas.calibrators._fit.folds import canonical_order, equal_rows, sample_numbers, stratified_folds, worth
from fedlas.calibrators._fit.mixture import mixture_weights
from fedlas.calibrators._fit.parameters import read_numbers
from fedlas.calibrators._fit.rowwise import double_rows, weights_of
from fedlas.calibrators._fit.softmax_regression import AffineMap, bias_corrected_temperature
from fedlas.calibrators._fit.temperature_search import BestTemperature, nearby_temperature, nll_temperature
from fedlas.calibrators.affine import read_map
from fedlas.calibrators.base import CALIBRATORS, Calibrator, MappedCalibrator
from fedlas.calibrators.isotonic import IsotonicCalibration
from fedlas.calibrators.spline import SplineCalibration
from fedlas.calibrators.structured import StructuredScaling
from fedlas.calibrators.temperature import Divided, TemperatureScaling
from fedlas.predictions import Predictions, TopLabel

__all__ = ["AutoCalibration", "CalibratedMixture"]

RAW = "as predicted"
PRIOR = {RAW: 2.0, "temperature": 2.0}
"""Samples that members count in addition: those that cannot over-fit."""
_STEPS = 500
"""Most steps from equal weights. They often end before the maximum, where other samples gain no more."""
_SMALLEST = 1e-3
"""Members of a smaller weight are left out."""
_NEVER = 1e-9
"""Least probability of a held-out label, so that one member cannot lose everything on one sample."""
_FLEXIBLE = 2**19
"""Most logits (N x C) of the rows that members with a curve or a row of numbers for each class are fitted on: about a
second each."""
_FEWEST_ROWS = 10
"""Rows a class that these members must have."""
_ENOUGH_HELD_OUT = 2000
"""Folds are left out until they have this many distinct samples together: the weights need no more."""
_MATRIX_CLASSES = 32
_FEWEST_TO_SHARPEN = 200
"""Held-out samples from which on the last map is fitted; with fewer it does more harm than good."""


class CalibratedMixture(nn.Module):
    """``log sum_k w_k softmax(m_k(z))``, then a factor and an offset for each class.

    Attributes:
        members: The maps ``m_k`` of logits ``(n, C)``.
        shares: ``w (K,)``, float64, summing to 1.
        last: The affine map of the mixture's log-probabilities.
        keep_class: Whether the class with the largest logit gets the largest probability.
    """

    shares: Tensor

    def __init__(self, members: Mapping[str, nn.Module], shares: Tensor, last: AffineMap, *, keep_class: bool) -> None:
        super().__init__()
        self.names = tuple(members)
        self.members = nn.ModuleList(members.values())
        self.last, self.keep_class = last, keep_class
        self.has_steps = any(getattr(member, "has_steps", False) for member in self.members)
        self.register_buffer("shares", shares, persistent=False)

    def mixture(self, rows: Tensor) -> Tensor:
        """Return log-probabilities of the mixture for logits ``(n, C)``, before the last map."""
        shares = self.shares.log()
        parts = [member(rows).log_softmax(dim=1) + shares[place] for place, member in enumerate(self.members)]
        return torch.stack(parts).logsumexp(dim=0)

    def forward(self, rows: Tensor) -> Tensor:
        """Return calibrated logits of logits ``(n, C)``."""
        result = self.last(self.mixture(rows)).log_softmax(dim=1)
        if self.keep_class:
            top, highest = rows.argmax(dim=1, keepdim=True), result.amax(dim=1, keepdim=True)
            lifted = result.scatter(1, top, highest + _LIFT)
            result = torch.where(result.argmax(dim=1, keepdim=True) == top, result, lifted)
            # The top is 0, near which half precision tells the lift.
            result = result - result.amax(dim=1, keepdim=True)
        return result


_LIFT = 1e-4
"""How far, in nats, the predicted class is lifted above the others; float32 and half precision still show it."""


@CALIBRATORS.register(
    "auto",
    title="Auto",
    paper="Super Learner",
    year=2007,
    url="https://doi.org/10.2202/1544-6115.1309",
)
class AutoCalibration(MappedCalibrator[CalibratedMixture]):
    """A mixture of calibrators, weighted by how well each predicts held-out labels; nothing has to be chosen.

    Members are the predictions as they are, temperature scaling, structured vector and matrix scaling, isotonic and
    spline calibration. Each is fitted on four fifths of the validation samples and gives probabilities of the last
    fifth, in turn until 2,000 samples have some. Weights on the simplex maximize the likelihood of these held-out
    labels, by expectation maximization. The members are then fitted on all samples and mixed. A temperature and an
    offset for each class, fitted on the held-out mixture, follow where there are 200 samples: a mixture of calibrated
    predictions is less sure than it should be.

    Args:
        keep_class: Never change the predicted class: the class predicted before is lifted above the others where it is
            not the highest. This costs what the change of class would have gained, in accuracy, NLL and Brier score.
        num_folds: Folds, at least 2.

    Raises:
        InputError: For a ``num_folds`` below 2.

    Note:
        "As predicted" and temperature scaling count two samples more than the held-out ones give them, so that with few
        samples the mixture stays near them. Members of a weight below 0.001 are left out.

        Where ``N C`` exceeds 2^19, isotonic, spline and matrix scaling are fitted on a random sample of rows of that
        size, or dropped if it has fewer than ten rows a class. Matrix scaling is dropped beyond 32 classes. ``dropped``
        names them.

        Equal rows of logits are copies of one sample and are held out together, unless their labels show that the
        scores have few values, such as stated confidences or votes. Copies and weights say how often a sample counts,
        not how much is known: the weights are scaled to sum to as many samples as they are worth
        (:func:`~fedlas.stats.effective_samples`).

        Choose ``temperature`` instead where one number must explain the calibration, or where the predicted class must
        stay and its order too.

        Warns (:class:`CalibrationWarning`) when a member fails, when a class has no sample, and when the fit changes
        nothing.

    Example:
        >>> logits = torch.randn(500, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        >>> target = torch.multinomial(logits.softmax(1), 1, generator=torch.Generator().manual_seed(1))[:, 0]
        >>> auto = AutoCalibration().fit(Predictions(3 * logits, target))  # three times too sure
        >>> max(auto.weights, key=auto.weights.get)
        'temperature'

    Source:
        van der Laan, Polley and Hubbard 2007 (the weights); Ranjan and Gneiting, "Combining probability forecasts"
        (2010), for the recalibration of a mixture.
    """

    keeps_argmax = False
    _per_class = False
    _fewest = 50
    _dropped: tuple[str, ...] = ()

    @check_kinds
    def __init__(self, keep_class: bool = False, num_folds: int = 5) -> None:
        self.keep_class = keep_class
        self.num_folds = check_count(self._owner, "num_folds", num_folds, low=2)
        self._members: dict[str, Calibrator | None] = {}

    def __repr__(self) -> str:
        if self._map is None:
            return super().__repr__()
        parts = ", ".join(f"{name} {weight:.2f}" for name, weight in sorted(self.weights.items(), key=lambda w: -w[1]))
        return f"{super().__repr__()}  # {parts}"

    @property
    def weights(self) -> dict[str, float]:
        """Weight of each member, by name; they sum to 1.

        Raises:
            InputError: Before ``fit``.
        """
        mixture = self._fitted("weights")
        return dict(zip(mixture.names, mixture.shares.tolist(), strict=True))

    @property
    def dropped(self) -> tuple[str, ...]:
        """Members that were left out because of their cost, or because their fit failed."""
        return self._dropped

    def fit(self, val: Predictions | TopLabel | Tensor, target: Tensor | None = None) -> Self:
        """Fit the members, their weights and the last map; return ``self``. See :meth:`Calibrator.fit`.

        Raises:
            InputError: As there, and for a :class:`~fedlas.TopLabel` with ``keep_class``: its two classes are wrong and
                right, and to keep them would hold each confidence on its side of 1/2.
        """
        if self.keep_class and isinstance(val, TopLabel):
            fix = "Leave keep_class out: the predicted class of a TopLabel never changes."
            raise InputError(f"{self._owner}.fit", "keep_class needs classes", "a TopLabel", fix)
        return super().fit(val, target)

    def _fitted_map(self, val: Predictions) -> tuple[CalibratedMixture, list[str | None]]:
        folds = stratified_folds(val.logits, val.target, self.num_folds, val.weights)
        # Weights and copies say how often a sample counts, not how much is known.
        number = sample_numbers(val.logits, val.target)
        samples = worth(number, weights_of(val))
        weights = weights_of(val) * (samples / weights_of(val).sum())
        val = val._replaced(weights=None if bool((weights == 1).all()) else weights)
        candidates, dropped = _candidates(val)
        best = nll_temperature(val)

        # Every member on all samples, dear ones on as many as they may have.
        rows = _thinned(val)
        members: dict[str, Calibrator | None] = {}
        failed = []
        for name, make in candidates.items():
            try:
                members[name] = make and _fit_whole(make(), val.rows(rows) if name in _DEAR else val, best)
            except (InputError, RuntimeError) as error:
                failed.append(f"{name} ({str(error).splitlines()[0]})")

        # Weights and the last map from samples left out; those of little weight go.
        shares, last = [1.0] + [0.0] * (len(members) - 1), _identity(val.num_classes)
        if val.num_classes > 1 and int(folds.max()) > 0:
            # Distinct rows: where scores have few values, one fold holds them all and says little.
            distinct = np.unique(equal_rows(val.logits), return_index=True)[1]
            sizes = torch.bincount(folds[distinct]).cumsum(0) * (samples / len(np.unique(number)))
            enough = int((sizes < _ENOUGH_HELD_OUT).sum()) + 1
            shares, last = _mixed(val, members, best, folds, range(min(enough, int(folds.max()) + 1)), rows)
        used = {name: weight for name, weight in zip(members, shares, strict=True) if weight >= _SMALLEST}
        self._members, self._dropped = {name: members[name] for name in used}, (*dropped, *failed)
        total = sum(used.values())
        return self._mixture([weight / total for weight in used.values()], last), [
            when(failed, f"without {', '.join(failed)}, whose fit failed.")
        ]

    def _mixture(self, weights: list[float], last: AffineMap) -> CalibratedMixture:
        shares = torch.tensor(weights, dtype=torch.float64, device="cpu")
        maps = {name: _row_map(member) for name, member in self._members.items()}
        return CalibratedMixture(maps, shares, last, keep_class=self.keep_class)

    def _state(self) -> dict[str, Any]:
        mixture = self._fitted("save")
        members = [
            {"name": name, "weight": weight, "calibrator": member and member.plain()}
            for (name, weight), member in zip(self.weights.items(), self._members.values(), strict=True)
        ]
        last = {"weight": mixture.last.weight.tolist(), "bias": mixture.last.bias.tolist()}
        return {"members": members, "last": last, "dropped": list(self._dropped)}

    def _restore(self, state: dict[str, Any]) -> None:
        members, shares = {}, []
        for entry in state["members"]:
            content = entry["calibrator"]
            members[str(entry["name"])] = None if content is None else Calibrator.from_plain(content)
            shares.append(float(read_numbers(entry, "weight")))
        wrong = any(member is not None and member.num_classes != self.num_classes for member in members.values())
        if not shares or min(shares) <= 0 or abs(sum(shares) - 1) > 1e-6 or len(members) != len(shares) or wrong:
            raise ValueError("members must have names, weights above 0 that sum to 1, and the number of classes")
        last = read_map(state["last"], self.num_classes)
        self._members, self._dropped = members, tuple(map(str, state.get("dropped", ())))
        self._map = self._mixture(shares, last)


Member = TemperatureScaling | StructuredScaling | IsotonicCalibration | SplineCalibration
_DEAR = ("isotonic", "spline", "matrix")


def _candidates(val: Predictions) -> tuple[dict[str, Callable[[], Member] | None], tuple[str, ...]]:
    """Return members by name, and the names of those that cost too much."""
    everything: dict[str, Callable[[], Member] | None] = {
        RAW: None,
        "temperature": TemperatureScaling,
        "vector": lambda: StructuredScaling("vector"),
        "matrix": lambda: StructuredScaling("matrix"),
        "isotonic": IsotonicCalibration,
        "spline": SplineCalibration,
    }
    dear: tuple[str, ...] = ()
    if _most_rows(val) < val.num_samples and _most_rows(val) < _FEWEST_ROWS * val.num_classes:
        dear = _DEAR
    elif val.num_classes > _MATRIX_CLASSES:
        dear = ("matrix",)
    return {name: make for name, make in everything.items() if name not in dear}, dear


def _most_rows(val: Predictions) -> int:
    return _FLEXIBLE // val.num_classes


def _thinned(val: Predictions) -> Tensor:
    """Return a mask of the rows that dear members are fitted on: all, or a random sample with the shares of classes."""
    most = _most_rows(val)
    mask = torch.full((val.num_samples,), most >= val.num_samples, device="cpu")
    if 0 < most < val.num_samples:
        place = torch.arange(most, device="cpu") * val.num_samples // most
        mask[canonical_order(val.logits, val.target)[place]] = True
    return mask


def _fit_whole(member: Member, val: Predictions, best: BestTemperature) -> Member:
    """Return the member fitted on all samples, without what its own fit would check and warn of."""
    if isinstance(member, TemperatureScaling):
        member._temperature = best.value
    elif isinstance(member, StructuredScaling):
        member._map = member.fit_map(val, best)
    elif isinstance(member, SplineCalibration):
        member._map, _ = member.fit_map(val)
    else:
        member._map, _ = member._fitted_map(val)
    member.num_classes = val.num_classes
    return member


def _fit_part(member: Member | None, part: Predictions, best: BestTemperature) -> nn.Module:
    """Return the member's map of a part of the samples; its fit to all samples is the start."""
    if isinstance(member, TemperatureScaling):
        return Divided(nearby_temperature(part, best))
    if isinstance(member, StructuredScaling):
        return member.fit_map(part, best, near=member.map)
    if isinstance(member, SplineCalibration):
        return member.fit_map(part, near=member.map)[0]
    return nn.Identity() if member is None else member._fitted_map(part)[0]


def _row_map(member: Calibrator | None) -> nn.Module:
    return nn.Identity() if member is None else member._row_map()


def _identity(classes: int) -> AffineMap:
    one = torch.ones(classes, dtype=torch.float64, device="cpu")
    return AffineMap(one, 0 * one)


def _mixed(
    val: Predictions, members: Mapping[str, Any], best: BestTemperature, folds: Tensor, which: range, thinned: Tensor
) -> tuple[list[float], AffineMap]:
    """Return the members' weights and the map behind the mixture, from predictions for folds left out of the fits."""
    # Log-probabilities of each member (K, n, C) for each fold, from a fit to all other samples.
    logits, target, weights = val.logits.cpu(), val.target.cpu(), weights_of(val)
    parts, rows = [], []
    for fold in which:
        test = folds == fold
        train = {
            dear: Predictions(logits[rows], target[rows], weights=None if val.weights is None else weights[rows])
            for dear, rows in ((False, ~test), (True, ~test & thinned))
            if bool(rows.any())
        }
        maps = [_fit_part(member, train[name in _DEAR], best) for name, member in members.items()]
        chunks = [torch.stack([row_map(rows) for row_map in maps]) for _, rows in double_rows(logits[test])]
        parts.append(torch.cat(chunks, dim=1).log_softmax(dim=2))
        rows.append(test.nonzero().squeeze(1))
    log_probs, order = torch.cat(parts, dim=1), torch.cat(rows)
    target, weights = target[order], weights[order]

    # The weights, and where samples are enough the map of the mixture.
    label = log_probs.gather(2, target.expand(len(log_probs), -1).unsqueeze(2)).squeeze(2).T
    prior = torch.tensor([PRIOR.get(name, 0.0) for name in members], dtype=torch.float64, device="cpu")
    equal = torch.full_like(prior, 1 / len(prior))
    shares, _ = mixture_weights(label.exp().clamp(min=_NEVER), weights, prior, start=equal, most_steps=_STEPS)
    mixture = (log_probs + shares.log().view(-1, 1, 1)).logsumexp(dim=0)
    if float(weights.sum()) < _FEWEST_TO_SHARPEN:
        return shares.tolist(), _identity(val.num_classes)
    scale = 1 / nll_temperature(Predictions(mixture, target, weights=weights)).value
    last = bias_corrected_temperature(mixture, target, weights, scale=scale, width=scale, prior=float(val.num_classes))
    return shares.tolist(), last
