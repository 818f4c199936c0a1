"""The ``auto`` calibrator: a mixture of calibrators, weighted by their likelihood on held-out samples."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Self

from fedlas._core.check import InputError, check_count, describe
from fedlas._core.kinds import check_argument_types
from fedlas.calibrators._fit.state import buffers_to_dict, load_map, require_valid
from fedlas.calibrators.base import CALIBRATORS, Calibrator, registry_name
from fedlas.calibrators.mixture import CalibratedMixture, Share
from fedlas.predictions import Predictions, TopLabel

if TYPE_CHECKING:
    from torch import Tensor, nn

    from fedlas.calibrators._fit.folds import OutOfFold
    from fedlas.calibrators.fit_mixture import Members

__all__ = ["AutoCalibration", "CalibratedMixture"]


@CALIBRATORS.register(
    "auto",
    paper="Super Learner",
    year=2007,
    url="https://doi.org/10.2202/1544-6115.1309",
)
class AutoCalibration(Calibrator):
    """Mixture of calibrators whose weights maximize the likelihood of held-out labels; nothing has to be tuned.

    A last map matches the confidence of the mixture to its accuracy, and classes without a sample keep a small share.

    Members are the predictions as they are, temperature scaling, structured vector and matrix scaling, isotonic and
    spline calibration. From 20 classes on vector scaling with a given prior, an offset for each class and two
    confusions are in place of the structured vector, and splines drawn from a common distribution join. Each is fitted
    on four fifths of the validation samples and gives probabilities of the last fifth, in turn. Weights on the simplex
    maximize the likelihood of these held-out labels; with 2,000 or fewer the search ends after 500 steps from equal
    weights, often before the maximum. The members are then fitted on all samples and mixed.

    A mixture of calibrated predictions is less sure than it should be, so a map follows, fitted on the held-out
    mixture: a temperature and an offset for each class. It begins to count at 100 samples and counts in full from 400
    on. With many classes it is a map of the top label's log-odds, from 100 samples on where left-out folds show a gain;
    the other classes keep their ratios there, and the top label stays.

    Classes without a validation sample keep the mean of what temperature scaling and the mixture give them, at odds
    times one factor, with which their mean share of held-out samples is at most ``3/N`` together (rule of three). It is
    ``(n + 1.645 sqrt(n + 2m))/N`` where that is more, n classes have one sample and m have two (the upper bound of Good
    and Turing's estimate), and 1 % where as many are absent. ``notes`` says so.

    Where predictions hold features (the input of the classifier head, a model's inputs, groups), regressions of the
    labels on them join the mixture: ``softmax(e^a z / T + U phi(h) + c)``, where ``phi`` are features as they are,
    whitened, or of a Gaussian kernel, and ``T`` is one number or depends on the sample. Each has a ridge penalty from
    weak to strong. What the features know and the logits do not, they add.

    Args:
        keep_class: Never change the predicted class: the class predicted before is lifted above the others where it is
            not the highest. This costs what the change of class would have gained, in accuracy, NLL and Brier score.
        num_folds: Folds, at least 2.
        features: Whether to use features of the predictions.
        members: Names of calibrators, or calibrators, in place of the usual members; "as predicted" always joins.

    Raises:
        InputError: For a ``num_folds`` below 2, or members without a map.

    Note:
        Temperature scaling counts two samples more than the held-out ones give it, so that with few samples the
        mixture stays near it. Members of a weight below 0.001 are left out.

        Where ``N C`` exceeds 2^19, isotonic, splines and matrix scaling are fitted on a random sample of rows of that
        size, which ``notes`` says, or dropped if it has fewer than ten rows a class. Matrix scaling is dropped beyond
        32 classes. ``dropped`` names them. Beyond 2^22 not every fifth is held out.

        Equal rows of logits are copies of one sample and are held out together, unless their labels show that the
        scores have few values, such as stated confidences or votes. Copies and weights say how often a sample counts,
        not how much is known: the weights are scaled to sum to as many samples as they are worth
        (:func:`~fedlas.stats.effective_sample_size`).

        With clusters (patients, images) whole clusters are held out together. Their samples are worth fewer
        independent ones, by Kish's design effect of the labels' residuals. What the mixture gains over temperature
        scaling, and features over logits, counts as far as it exceeds its standard error over clusters.

        Where features are unlike those of the validation samples, the mixture of logits alone takes over: it has the
        weight ``1 - 0.95 / max(1, d)^2``, where ``d`` is the squared Mahalanobis distance over that which 95 % of the
        validation samples keep. It takes over where the regressions together have a weight below 0.01 as well;
        ``num_features`` is None then, and :meth:`transform` needs none. With fewer than 100 held-out samples features
        count as far as their gain exceeds its standard error. Features of many columns are reduced to principal
        directions, and many rows to a random sample, so that a fit of 10,000 samples, 10 classes and 512 features
        takes seconds.

        Neighboring columns of zeros and ones, of which a row has at most one 1, are groups, such as regions. Each has
        an offset for each class and a factor of its own, which a ridge pulls to the map that all share: the fewer
        samples a group has, the more. A row of no group, zeros in all these columns, has the common map.

        Choose ``temperature`` instead where one number must explain the calibration, or where the predicted class must
        stay and its order too.

        Warns (:class:`CalibrationWarning`) when a member fails, when features lower the held-out NLL by more than half,
        and when the fit changes nothing.

    Example:
        >>> import torch
        >>> logits = torch.randn(500, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        >>> target = torch.multinomial(logits.softmax(1), 1, generator=torch.Generator().manual_seed(1))[:, 0]
        >>> auto = AutoCalibration().fit(Predictions(3 * logits, target))  # three times too sure
        >>> max(auto.weights, key=auto.weights.get)
        'temperature'

    Source:
        van der Laan, Polley and Hubbard 2007 (the weights); Ranjan and Gneiting, "Combining probability forecasts"
        (2010), for the recalibration of a mixture.
    """

    wants = frozenset({"features"})
    per_class = False
    enough = (60, 0)

    @check_argument_types
    def __init__(
        self,
        keep_class: bool = False,
        num_folds: int = 5,
        *,
        features: bool = True,
        members: Sequence[str | Calibrator] | None = None,
    ) -> None:
        self.keep_class = keep_class
        self.features = features
        self.num_folds = check_count("num_folds", num_folds, low=2)
        self.members = None if members is None else list(members)
        self._own = None if members is None else _name_members(members)

    def __repr__(self) -> str:
        shown: dict[str, Any] = {"keep_class": self.keep_class, "num_folds": self.num_folds}
        shown |= {} if self.features else {"features": False}
        shown |= {} if self.members is None else {"members": self.members}
        text = f"AutoCalibration({', '.join(f'{name}={value!r}' for name, value in shown.items())})"
        if self._map is None:
            return text
        parts = ", ".join(
            f"{name} {weight:.2f}"
            for name, weight in sorted(self.weights.items(), key=lambda w: -w[1])
        )
        return f"{text}  # {parts}"

    @property
    def weights(self) -> dict[str, float]:
        """Weight of each member by name; ``"features"`` is the total of all regressions on features. They sum to 1.

        Raises:
            InputError: Before ``fit``.
        """
        weights: dict[str, float] = self.map.weights
        return weights

    @property
    def dropped(self) -> tuple[str, ...]:
        """Names of the members left out because they are too expensive or their fit failed.

        Raises:
            InputError: Before ``fit``.
        """
        dropped: tuple[str, ...] = self.map.dropped
        return dropped

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes on the rows that the fit used, where some members were fitted on a random sample.

        Raises:
            InputError: Before ``fit``.
        """
        notes: tuple[str, ...] = self.map.notes
        return notes

    def fit(self, val: Predictions | TopLabel | Tensor, target: Tensor | None = None) -> Self:
        """Fit the members, their weights and the last map; return ``self``. See :meth:`Calibrator.fit`.

        Raises:
            InputError: As there, and for a :class:`~fedlas.TopLabel` with ``keep_class``: its two classes are wrong and
                right, and to keep them would hold each confidence on its side of 1/2.
        """
        if self.keep_class and isinstance(val, TopLabel):
            fix = "Leave keep_class out: the predicted class of a TopLabel never changes."
            raise InputError(
                "keep_class requires Predictions of several classes", "a TopLabel", fix
            )
        return super().fit(val, target)

    def fit_map(self, val: Predictions, start: nn.Module | None = None) -> CalibratedMixture:
        """Fit the mixture to ``val``; with regressions on features, if there are features and they gain enough."""
        return self._fit_mixture(val)

    def _fit_out_of_fold(self, val: Predictions | TopLabel) -> list[OutOfFold]:
        if self.keep_class or isinstance(val, TopLabel):
            return super()._fit_out_of_fold(val)
        left_out: list[OutOfFold] = []
        self._fit_with(partial(self._fit_mixture, left_out=left_out), val)
        return left_out

    def _fit_mixture(
        self, val: Predictions, left_out: list[OutOfFold] | None = None
    ) -> CalibratedMixture:
        from fedlas.calibrators.fit_mixture import fit_calibrated_mixture

        if not self.features and val.features is not None:
            val = val._replace_fields(features=None)
        return fit_calibrated_mixture(
            val, self._own, self.num_folds, keep_class=self.keep_class, left_out=left_out
        )

    def _saveable_arguments(self) -> dict[str, Any]:
        # Members that carry weight are in the state.
        return {**self._arguments(), "members": None}

    def _saveable_state(self) -> dict[str, Any]:
        mixture = self.map
        texts = {"dropped": list(mixture.dropped), "notes": list(mixture.notes)}
        return {"members": mixture.kinds, **texts, "numbers": buffers_to_dict(mixture)}

    def _read_state(self, state: Any) -> nn.Module:
        from torch import nn

        require_valid(
            isinstance(state["members"], dict), "members must map names to registry names"
        )
        registry_names = {
            name: kind and CALIBRATORS[kind].name for name, kind in state["members"].items()
        }
        map_types = [kind and CALIBRATORS[kind].value.map_type for kind in registry_names.values()]
        module_names = [f"members.{number}" for number in range(len(map_types))]
        texts: Any = {name: tuple(map(str, state[name])) for name in ("dropped", "notes")}
        parts = {**dict(zip(module_names, map_types, strict=True)), "share": Share}
        # Only what the file holds is imported.
        saved = {name.partition(".")[0] for name in state["numbers"]}
        if saved & {"side", "side_share"}:
            from fedlas.calibrators._fit.side_maps import SideInformation

            parts |= {"side": SideInformation, "side_share": Share}
        if "absent" in saved:
            from fedlas.calibrators._fit.absent_share import AbsentShare

            parts |= {"absent": AbsentShare}

        def mixture(**modules: Any) -> nn.Module:
            members = [
                nn.Identity() if kind is None else modules.pop(place)
                for place, kind in zip(module_names, map_types, strict=True)
            ]
            return CalibratedMixture(
                registry_names, members, **modules, keep_class=self.keep_class, **texts
            )

        return load_map(mixture, state["numbers"], self.num_classes or 0, self.num_features, parts)


def _name_members(members: Sequence[str | Calibrator]) -> Members:
    """Return calibrators by name, each with its registry name; raise InputError for other members."""
    named: Members = {}
    for member in members:
        calibrator = CALIBRATORS[member].value() if isinstance(member, str) else member
        is_map = isinstance(calibrator, Calibrator) and calibrator.map_type is not None
        if not is_map or calibrator.needs:
            fix = 'Pass names such as "temperature", or calibrators with fit_map.'
            expected = "members must be registered names, or calibrators that need logits alone"
            raise InputError(expected, describe(member), fix)
        calibrator._saveable_arguments()
        kind = registry_name(calibrator)
        named[kind if kind not in named else f"{kind} {len(named) + 1}"] = (kind, calibrator)
    return named
