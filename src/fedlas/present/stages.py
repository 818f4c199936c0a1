"""Stages of test predictions (raw, and after each calibrator), their reject options and their estimates.

Calibrators and thresholds are fitted on held-out predictions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from fedlas._core.check import (
    Argument,
    InputError,
    check_choice,
    check_count,
    check_number,
    describe,
)
from fedlas._core.defaults import METHOD
from fedlas._core.extras import MissingExtraError
from fedlas._core.progress import show_progress
from fedlas.predictions import Predictions, TopLabel
from fedlas.present.table import DASH, Block, Note, make_table
from fedlas.stats.draws import has_several_units
from fedlas.stats.estimates import (
    CONFIDENCE_LEVEL,
    EstimateTable,
    available_metrics,
    check_replicates,
    metric_and_class_estimates,
)

if TYPE_CHECKING:
    from torch import Tensor

    from fedlas._core.registry import Entry
    from fedlas.binary import Rule
    from fedlas.calibrated.calibration import Calibration
    from fedlas.calibrators import Calibrator
    from fedlas.predictions.any_predictions import AnyPredictions
    from fedlas.stats.selective_risk import RejectOption

RAW = "as predicted"
"""The stage before any calibrator."""
ALL_CALIBRATORS = "all"
"""In place of a name: every calibrator that can run."""
DEFAULT = METHOD
SEED = 0
"""Seed of all replicates: runs on the same test set are resampled alike."""


@dataclass(frozen=True)
class HeldOut:
    """Held-out predictions that calibrators are fitted on.

    Args:
        val: Predictions of the validation part; None if there are none.
        named: Whether the user named them: then they are for the one calibrator, whatever part it asks for.
        parts: By name of another part, makes its predictions with the fields that the calibrator needs.
        show: Called with what is being done, where that may take long; see :func:`fedlas._core.progress.show_status`.
    """

    val: AnyPredictions | None
    named: bool = True
    parts: Mapping[str, Callable[[frozenset[str]], Predictions]] = field(default_factory=dict)
    show: Callable[[str], None] = lambda _text: None

    def validation(self) -> AnyPredictions:
        """Return the validation predictions.

        Raises:
            InputError: If there are none.
        """
        if self.val is None:
            raise InputError(
                "held-out predictions are required",
                ("no ", Argument("on")),
                ("Pass ", Argument("on"), " with validation predictions."),
            )
        return self.val

    def fit_predictions(
        self, entry: Entry[type[Calibrator]], *, only: bool
    ) -> tuple[AnyPredictions, str]:
        """Return the predictions to fit a calibrator on, and the name of these samples.

        Args:
            entry: The calibrator.
            only: Whether it is the only one.

        Raises:
            InputError: If there are none for it, or they cannot be made.
        """
        from fedlas.calibrated.calibration import FITTED_ON

        part = str(entry.metadata.get("part", "val"))
        if part == "val" or (self.named and only):
            return self.validation(), FITTED_ON
        if part not in self.parts:
            raise InputError(
                f"the calibrator {entry.name} must be fitted on predictions of the part {part!r}",
                "other predictions",
                (
                    "Evaluate the run folder, or pass ",
                    Argument("method", entry.name),
                    f" with predictions of the part {part!r} as ",
                    Argument("on"),
                    ".",
                ),
            )
        return self.parts[part](entry.value.needs), f"{part}.npz"


@dataclass
class CalibratedStages:
    """Test predictions after each calibrator, with the fitted calibrators and errors.

    Attributes:
        predictions: By registry name.
        fitted: The calibrators with the notes of their fits, by registry name.
        errors: Why the others did not run, by registry name.
    """

    predictions: dict[str, AnyPredictions] = field(default_factory=dict)
    fitted: dict[str, Calibration] = field(default_factory=dict)
    errors: dict[str, InputError | MissingExtraError] = field(default_factory=dict)

    @property
    def notes(self) -> list[str]:
        """Notes of all fits."""
        return [note for each in self.fitted.values() for note in each.notes]

    def remarks(self, *, short: bool = False) -> list[str]:
        """Return notes for below a table: calibrators fitted on another part, and calibrators that did not run.

        Args:
            short: Whether to leave out what to do about those that did not run.
        """
        lines = [
            f"{name} is fitted on {self.fitted[name].fitted_on}, not on val.npz."
            for name in self.predictions
            if not self.fitted[name].is_fitted_on_validation
        ]
        for name, error in self.errors.items():
            brief = f": {error.parts[0]}." if isinstance(error, InputError) else f": {error}."
            lines.append(f"{name} did not run{brief if short else f'. {error}'}")
        return lines


def have_equal_scores(a: AnyPredictions, b: AnyPredictions) -> bool:
    """Return whether two predictions have equal logits, or equal confidences and outcomes."""
    import torch

    pairs = zip(_score_tensors(a), _score_tensors(b), strict=False)
    return type(a) is type(b) and all(torch.equal(one, other) for one, other in pairs)


def _score_tensors(predictions: AnyPredictions) -> tuple[Tensor, ...]:
    if isinstance(predictions, Predictions):
        return (predictions.tensors().logits,)
    return predictions.tensors().confidence, predictions.tensors().correct


def check_options(
    *,
    replicates: int,
    num_bins: int,
    risks: Sequence[float],
    classes: Any,
    name: str,
    risk_argument: str = "risk",
    confidence_level: float = CONFIDENCE_LEVEL,
) -> None:
    """Check the types and ranges of options that :func:`fedlas.report` and :func:`fedlas.card` share.

    Raises:
        InputError: For a wrong type or a number out of range.
    """
    check_count("replicates", replicates, low=0)
    check_replicates(replicates, confidence_level)
    check_count("num_bins", num_bins)
    for what, value, kind, words in (
        ("risks", risks, list | tuple, "a list of numbers"),
        (
            "classes",
            list(classes) if isinstance(classes, tuple) else classes,
            list | None,
            "a list of names",
        ),
        ("name", name, str, "text"),
    ):
        if not isinstance(value, kind):
            raise InputError(f"{what} must be {words}", describe(value), f"Pass {words}.")
    for each in classes or ():
        if not isinstance(each, str):
            raise InputError("classes must be strings", describe(each), "Pass a name per class.")
    for each in risks:
        check_number(risk_argument, each, low=0, high=1, low_open=True, high_open=True)


def check_stage_arguments(
    predictions: AnyPredictions,
    held_out: HeldOut | None,
    calibrate: str | None,
    reject: Sequence[float],
    groups: Sequence[Any] | None,
) -> None:
    """Raise InputError if arguments of :func:`fedlas.report` contradict each other."""
    if calibrate is not None and not isinstance(calibrate, str):
        raise InputError(
            "must be a calibrator's name",
            describe(calibrate),
            ("Pass e.g. ", Argument("method", "temperature"), "."),
            argument="method",
        )
    if held_out is not None and not isinstance(held_out, HeldOut):
        raise InputError(
            "must be predictions", describe(held_out), "Pass held-out Predictions.", argument="on"
        )
    if held_out is None:
        if calibrate is not None or reject:
            raise _missing_held_out_error(
                "method" if calibrate is not None else "reject", calibrate
            )
        return
    confidences = isinstance(predictions, TopLabel)
    if calibrate == ALL_CALIBRATORS:
        got = Argument("method", ALL_CALIBRATORS)
        fix = ("Name one calibrator, or omit ", Argument("method"), ".")
        if reject:
            raise InputError("requires a single calibrator", got, fix, argument="reject")
        if groups is not None:
            fix = ("Name one calibrator, or omit ", Argument("groups"), ".")
            raise InputError("requires at most one calibrator", got, fix, argument="groups")
        if confidences:
            raise InputError(
                (got, " requires probabilities of all classes"), "top-label confidences", fix
            )
    if held_out.val is not None and isinstance(held_out.val, TopLabel) != confidences:
        raise InputError(
            "must be of the same kind as the predictions",
            "probabilities of all classes and top-label confidences",
            "Pass probabilities of all classes for both, or confidences for both.",
            argument="on",
        )
    if held_out.val is not None and have_equal_scores(held_out.val, predictions):
        raise same_predictions_error()


def same_predictions_error() -> InputError:
    """Return the error for held-out predictions that equal the measured predictions."""
    return InputError(
        "must differ from the evaluated predictions",
        "the same",
        "Pass held-out predictions, such as of a validation set: fitted on the test set, results are too good.",
        argument="on",
    )


def _missing_held_out_error(argument: str, value: str | None = None) -> InputError:
    """Return the error for an argument that needs held-out predictions when there are none."""
    return InputError(
        (Argument(argument, value), " requires held-out predictions"),
        ("no ", Argument("on")),
        ("Pass ", Argument("on"), " with held-out predictions, not those of the test set."),
    )


def check_decision_rules(rules: Sequence[Rule], *, event: bool, has_val: bool) -> None:
    """Raise InputError for decision rules without an event, or without held-out predictions to choose thresholds on."""
    if rules and not event:
        fix = ("Omit it; ", Argument("reject"), " sets thresholds on the confidence.")
        raise InputError(
            "requires an event of two classes", "the predicted class", fix, argument=rules[0].name
        )
    for rule in rules:
        if rule.name != "cost_ratio" and not has_val:
            raise _missing_held_out_error(rule.name)


def apply_calibrators(name: str, test: AnyPredictions, held_out: HeldOut) -> CalibratedStages:
    """Fit the calibrator ``name``, or every calibrator for ``"all"``, and return the calibrated test predictions.

    Raises:
        InputError: For an unknown name; if the named calibrator cannot be fitted or applied; or if none of all can.
        MissingExtraError: If the named calibrator needs a package that is not installed.
    """
    from fedlas.calibrated.calibration import Calibration
    from fedlas.calibrators import CALIBRATORS
    from fedlas.calibrators.fit_notes import fit_with_notes

    check_choice("method", name, (*CALIBRATORS, ALL_CALIBRATORS))
    outcome = CalibratedStages()
    entries = CALIBRATORS.entries() if name == ALL_CALIBRATORS else [CALIBRATORS[name]]
    # One that cannot run does not stop the others; alone it is the answer.
    for number, entry in enumerate(entries, start=1):
        held_out.show(f"{entry.name} ({number} of {len(entries)})")
        notes: list[str] = []
        try:
            val, fitted_on = held_out.fit_predictions(entry, only=name != ALL_CALIBRATORS)
            if (
                "features" in entry.value.wants
                and val.features is not None
                and test.features is None
            ):
                val = replace(val, features=None)
                notes.append(
                    f"{entry.name} is fitted without features, because the evaluated predictions have none."
                )
            calibrator, fit_notes = fit_with_notes(entry.value(), val, unlabeled=test)
            outcome.predictions[entry.name] = calibrator.transform(test)
            # Warnings about the held-out predictions themselves were shown when they were made.
            notes += [
                each for each in dict.fromkeys(fit_notes) if not each.startswith("Predictions:")
            ]
            outcome.fitted[entry.name] = Calibration(calibrator, tuple(notes), fitted_on)
        except (InputError, MissingExtraError) as error:
            outcome.errors[entry.name] = error
    # Nothing to compare: the first reason is the error.
    if not outcome.predictions:
        raise next(iter(outcome.errors.values()))
    return outcome


Rejections = Mapping[str, Sequence["RejectOption"]]
"""The reject option by stage, one for each risk."""


def reject_options_by_stage(
    stages: Mapping[str, AnyPredictions],
    risks: Sequence[float],
    val: AnyPredictions,
    fitted: Mapping[str, Calibration],
) -> Rejections:
    """Return the reject option of each stage and risk: the threshold chosen on ``val``, and its result on test.

    Args:
        stages: Test predictions by stage.
        risks: Shares of wrong among accepted predictions, each in (0, 1).
        val: Held-out predictions.
        fitted: The calibrator of each stage but the first. They are fitted on these very samples, so that the bound
            on the risk does not hold for thresholds after them.
    """
    from fedlas.stats.selective_risk import reject_option

    held_out = {stage: fitted[stage].transform(val) if stage in fitted else val for stage in stages}
    return {
        stage: [reject_option(held_out[stage], test, risk=risk) for risk in risks]
        for stage, test in stages.items()
    }


def rejection_blocks(rejected: Rejections) -> list[Block]:
    """Return a table of reject options per stage, and sentences that explain the numbers."""
    heads = ("risk %", "accept from", "accepted %", "wrong %", "at most %")
    blocks: list[Block] = []
    needed: dict[float, int] = {}
    clusters = any(each.chosen.clusters for row in rejected.values() for each in row)
    for stage, options in rejected.items():
        rows = [[f"{100 * each.chosen.risk:g}", *_reject_option_cells(each)] for each in options]
        blocks.append(make_table(heads, rows, title=f"Reject option, {stage}"))
        needed |= {
            each.chosen.risk: each.chosen.needed for each in options if each.threshold is None
        }
    blocks += [
        f"No threshold reaches a risk of {100 * risk:g} % on the held-out predictions. Even without an error, "
        f"{samples:,} accepted {'clusters' if clusters else 'samples'} would be needed."
        for risk, samples in needed.items()
    ]
    if rejected:
        chosen = next(iter(rejected.values()))[0].chosen
        level = f"{chosen.confidence_level:.0%}"
        first, *after = rejected
        of = " for a sample drawn from a new cluster" if clusters else ""
        texts = [
            f"Thresholds {first} are chosen on held-out predictions; the risk bound holds with {level} confidence{of}."
        ]
        texts += ["Shares are means over clusters of equal weight."] * bool(of)
        # What a calibrator was fitted on is no new sample to it: its confidences there are too good.
        texts += [
            "The bound does not hold after a calibrator that was fitted on the same predictions."
        ] * bool(after)
        texts += [
            f"The other columns are on test predictions; 'at most' holds with {level} confidence."
        ]
        blocks.append(Note(" ".join(texts)))
    return blocks


def _reject_option_cells(each: RejectOption) -> list[str]:
    if each.threshold is None:
        return ["none", *[DASH] * 3]
    wrong = DASH if each.risk is None else f"{100 * each.risk:.2f}"
    accept = "all" if each.coverage == 1 == each.chosen.coverage else f"{each.threshold:.4f}"
    return [accept, f"{100 * each.coverage:.1f}", wrong, f"{100 * each.upper:.2f}"]


class DeferredEstimates(Mapping[str, EstimateTable]):
    """Estimates by stage, computed at the first access.

    State:
        The tables, once they are computed.
    """

    def __init__(
        self, stages: Iterable[str], compute: Callable[[], Mapping[str, EstimateTable]]
    ) -> None:
        self._stages = tuple(stages)
        self._compute = compute

    @cached_property
    def _tables(self) -> Mapping[str, EstimateTable]:
        return self._compute()

    def __getitem__(self, stage: str) -> EstimateTable:
        if stage not in self._stages:
            raise KeyError(stage)
        return self._tables[stage]

    def __iter__(self) -> Iterator[str]:
        return iter(self._stages)

    def __len__(self) -> int:
        return len(self._stages)


def estimates_by_stage(
    stages: Mapping[str, AnyPredictions],
    metrics: Sequence[str],
    *,
    num_bins: int,
    replicates: int,
    confidence_level: float = CONFIDENCE_LEVEL,
    values: Mapping[str, Mapping[str, float]] | None = None,
) -> dict[str, EstimateTable]:
    """Return estimates by stage, then by registry name, showing a progress bar.

    Args:
        stages: Predictions by stage.
        metrics: Metrics to compute, where they can be.
        num_bins: Bins of the metrics that have any.
        replicates: 0 computes nothing; nor are intervals of a single sample, or of one cluster.
        confidence_level: Level of the intervals.
        values: The metrics by stage, if they have been computed.
    """
    if not replicates:
        return {}
    results = {stage: EstimateTable() for stage in stages}
    many = {stage: each for stage, each in stages.items() if has_several_units(each)}
    options: dict[str, Any] = {"num_bins": num_bins, "replicates": replicates, "seed": SEED}
    options["confidence_level"] = confidence_level
    with show_progress("intervals", len(many)) as advance:
        for stage, each in many.items():
            options |= {
                "values": None if values is None else values[stage],
                "advance": partial(advance, stage),
            }
            results[stage] = metric_and_class_estimates(
                each, available_metrics(metrics, each), **options
            )[0]
    return results
