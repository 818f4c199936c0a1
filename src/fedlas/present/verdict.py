"""Verdicts on the calibration of predictions, as sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from fedlas._core.text import join_words
from fedlas.metrics import accuracy
from fedlas.predictions.any_predictions import AnyPredictions, require_predictions
from fedlas.predictions.event import event_index, quoted_class
from fedlas.present.metric_tables import metric_noise, top_label_ece
from fedlas.present.positive_class import titled_values
from fedlas.present.table import metric_column
from fedlas.resample.effective import effective_sample_size
from fedlas.stats import ALPHA, SpiegelhalterTest
from fedlas.stats.draws import has_several_units
from fedlas.stats.estimates import CONFIDENCE_LEVEL, Estimate, EstimateTable
from fedlas.stats.intervals import min_replicates
from fedlas.stats.noise_floor import format_p, is_significant

if TYPE_CHECKING:
    from fedlas.calibrated.calibration import Calibration
    from fedlas.predictions import Predictions

ByName = Mapping[str, Estimate]
_MAX_TESTS_NAMED = 2
"""Tests that a sentence names."""
PRE_SPECIFIED = ("observed_to_expected", "slope", "confidence")
"""Tests that a headline names where they reject and the joint test does not: of an event, then of the predicted class.
"""
MIN_REPLICATES = min_replicates(CONFIDENCE_LEVEL)
"""Replicates of a paired test at least."""


@dataclass(frozen=True)
class Evidence:
    """Result of one calibration test.

    Attributes:
        text: The number and what it is compared with.
        p: P-value of the test.
    """

    text: str
    p: float


@dataclass(frozen=True)
class Verdict:
    """Verdict on whether predictions are calibrated, with the tests behind it.

    Attributes:
        text: A sentence or two.
        tests: Every test of calibration that a table shows, by name.
        direction: ``"over-confident"``, ``"under-confident"``, or of two classes such as ``"under-predicted"``; empty
            without one.
        joint_p: P-value of all tests together; None without a test.
        least_joint_p: The smallest that its replicates can give.
        claim: What the predictions claim and what occurs, as in ``"expects 'ill' in 4.1 % and 3.9 % occur"``.
        is_reversed: Whether the scores rank the other class of two above the event, beyond chance.
        joint_tests: Number of tests that the joint test combines.
    """

    text: str
    tests: Mapping[str, Evidence]
    direction: str = ""
    joint_p: float | None = None
    least_joint_p: float | None = None
    claim: str = ""
    is_reversed: bool = False
    joint_tests: int = 0

    @property
    def rejected(self) -> list[str]:
        """Texts of the tests with a p-value of at most 0.05, the smallest p-value first."""
        ordered = sorted(self.tests.values(), key=lambda each: each.p)
        return [each.text for each in ordered if is_significant(each.p, ALPHA)]

    @property
    def rejects_calibration(self) -> bool:
        """Whether the joint test rejects calibration."""
        return self.joint_p is not None and is_significant(self.joint_p, ALPHA)

    @property
    def rejects_alone(self) -> str:
        """Name of a test that rejects calibration where the joint test does not; empty without one.

        A pre-specified one comes first, else that with the smallest p-value.
        """
        if self.rejects_calibration:
            return ""
        below = [name for name, each in self.tests.items() if is_significant(each.p, ALPHA)]
        return next(
            (name for name in PRE_SPECIFIED if name in below),
            min(below, key=lambda name: self.tests[name].p, default=""),
        )

    @property
    def alone_clause(self) -> str:
        """Clause on that test, to follow a joint test that does not reject; empty without one."""
        name = self.rejects_alone
        return f"; alone, {self.tests[name].text} rejects it" if name else ""

    @property
    def joint_clause(self) -> str:
        """Clause that the joint test does not reject, to follow a single test that does."""
        return f"the {self.joint_tests} tests together do not reject ({self.joint})"

    @property
    def joint(self) -> str:
        """Joint p-value as text, such as ``"joint p = 0.31"``; empty without a joint test."""
        return "" if self.joint_p is None else f"joint {format_p(self.joint_p, self.least_joint_p)}"


def make_verdict(
    values: Mapping[str, float],
    estimates: ByName,
    measures: ByName | None,
    predictions: AnyPredictions,
    *,
    z: SpiegelhalterTest | None = None,
    event: str = "class 1",
    scores: Sequence[str] = (),
) -> Verdict:
    """Return the verdict on predictions by the joint calibration test, with the direction of miscalibration.

    Args:
        values: Metrics by registry name; accuracy, ``o_ece``, ``u_ece`` and ``ece`` among them.
        estimates: Their estimates, with the tests of calibration; empty if there were no replicates.
        measures: Measures of the event; None if the predicted class is the subject.
        predictions: The predictions themselves.
        z: Spiegelhalter's test of the confidences, if it was made.
        event: Name of the class that is the event.
        scores: Columns of the scores, as :class:`~fedlas.predictions.PredictionTable` has them; empty of arrays.
    """
    table = estimates if measures is None else measures
    joint_p = getattr(table, "joint_p", None)
    draft = Verdict(
        "",
        {},
        joint_p=joint_p,
        least_joint_p=getattr(table, "least_joint_p", None),
        joint_tests=len(table.tests) if isinstance(table, EstimateTable) else 0,
    )
    tests = _metric_tests(estimates) if measures is None else _event_tests(measures)
    if z is not None and joint_p is not None:
        tests["spiegelhalter"] = Evidence(
            f"Spiegelhalter's z {z.z:.2f} ({format_p(z.p_value, None)})", z.p_value
        )
    draft = replace(draft, tests=tests)
    if measures is not None:
        return _event_verdict(draft, measures, require_predictions(predictions), event, scores)
    gap = table.tests.get("confidence") if isinstance(table, EstimateTable) else None
    return _top_label_verdict(draft, values, estimates, predictions.num_samples, gap)


def _metric_tests(estimates: ByName) -> dict[str, Evidence]:
    tests = {}
    for name, each in estimates.items():
        if each.p is not None:
            about = metric_column(name)
            unit = f" {about.unit}" if about.unit else ""
            text = (
                f"{about.title} {about.format(each.value)}{unit} ({format_p(each.p, each.least_p)})"
            )
            tests[name] = Evidence(text, each.p)
    return tests


def _event_tests(measures: ByName) -> dict[str, Evidence]:
    return {
        name: Evidence(f"{title} {text} ({format_p(each.p, each.least_p)})", each.p)
        for name, (title, text) in titled_values(measures).items()
        if (each := measures[name]).p is not None
    }


def _top_label_verdict(
    judged: Verdict,
    values: Mapping[str, float],
    estimates: ByName,
    samples: int,
    gap_p: float | None,
) -> Verdict:
    """Return the verdict on the predicted class; ``gap_p`` is the p-value of mean confidence minus accuracy."""
    accuracy = values["accuracy"]
    confidence = accuracy + values["o_ece"] - values["u_ece"]
    claim = f"it claims {100 * confidence:.1f} % on average and is right in {100 * accuracy:.1f} %"
    judged = replace(judged, claim=claim)
    if judged.joint_p is None:
        text = f"It{claim[2:]} ({samples:,} samples). No calibration test was run."
        return replace(judged, text=text)
    tests = dict(judged.tests)
    direction = ""
    if gap_p is not None:
        difference = (
            f"mean confidence {100 * confidence:.1f} % with accuracy {100 * accuracy:.1f} %"
        )
        tests["confidence"] = Evidence(difference, gap_p)
        direction = (
            ("over" if confidence > accuracy else "under") + "-confident"
            if is_significant(gap_p, ALPHA)
            else ""
        )
    judged = replace(judged, tests=tests, direction=direction)
    claim = f"{claim} ({samples:,} samples; {judged.joint})"
    if judged.rejects_calibration and direction:
        text = f"{direction.capitalize()}: {claim}."
    elif judged.rejects_calibration:
        by = f" by {_truncated_list(judged.rejected)}" if judged.rejected else ""
        text = f"Miscalibrated{by}: {claim}."
    elif judged.rejects_alone == "confidence":
        way = "Over" if confidence > accuracy else "Under"
        about_gap = f"{format_p(tests['confidence'].p, None)}; {samples:,} samples"
        text = f"{way}-confident: {judged.claim} ({about_gap}); {judged.joint_clause}."
    else:
        about = metric_column(top_label_ece(values))
        noise = metric_noise(estimates, about)
        shown = f": {about.title} {about.format(values[about.metric])} %, floor {noise.floor} %"
        floor = shown if noise.floor else ""
        shows = "No miscalibration shows" + _joint_test_words(judged)
        text = f"{shows}: {claim}{floor}{_alone_list(judged)}."
    return replace(judged, text=text)


def _event_verdict(
    judged: Verdict,
    measures: ByName,
    predictions: Predictions,
    event: str,
    scores: Sequence[str],
) -> Verdict:
    """Return the verdict on the event, from its expected and its observed frequency."""
    from fedlas.binary.discrimination import reversed_auroc

    expected = 100 * measures["expected"].value
    observed = 100 * measures["observed"].value
    claim = (
        f"Expects {event} in {format_percent(expected)} % and {format_percent(observed)} % occur"
    )
    judged = replace(judged, claim=claim.replace("E", "e", 1))
    samples = f"{predictions.num_samples:,} samples{_left_out_of_slope(measures, predictions)}"
    area = measures["auroc"].value if "auroc" in measures else 0.5
    if area < 0.5 and reversed_auroc(predictions) is not None:
        question = _reversed_scores_question(predictions, scores)
        joint = f"; {judged.joint}" if judged.joint else ""
        text = f"Ranks the other class higher (AUROC {area:.3f}): {question} {claim} ({samples}{joint})."
        return replace(judged, text=text, is_reversed=True)
    if judged.joint_p is None:
        return replace(judged, text=f"{claim} ({samples}). {_separate_tests_sentence(judged)}")
    if judged.rejects_alone:
        return replace(judged, text=_single_test_sentence(judged, measures, claim, samples))
    words = []
    if "in_the_large" in judged.tests and is_significant(judged.tests["in_the_large"].p, ALPHA):
        words.append("over-predicted" if expected > observed else "under-predicted")
    if "slope" in judged.tests and is_significant(judged.tests["slope"].p, ALPHA):
        extreme = "too extreme" if measures["slope"].value < 1 else "too close to each other"
        words.append(extreme)
    about = f"({samples}; {judged.joint})"
    if judged.rejects_calibration and words:
        kind = " and ".join(words)
        slope = f", slope {titled_values(measures)['slope'][1]}" if "too" in kind else ""
        return replace(judged, text=f"{claim}: {kind}{slope} {about}.", direction=kind)
    if judged.rejects_calibration:
        return replace(
            judged, text=f"{claim}: miscalibrated by {_truncated_list(judged.rejected)} {about}."
        )
    return replace(judged, text=f"{claim}: no miscalibration shows {about}.")


def _left_out_of_slope(measures: ByName, predictions: Predictions) -> str:
    """Return a clause on the samples that the slope leaves out, or an empty string."""
    from fedlas.binary.positive import positive_class

    count = measures["slope"].left_out if "slope" in measures else None
    if not count:
        return ""
    ones = positive_class(predictions, None).count_ones()
    kinds = {"1": ones, "0": count - ones}
    parts = [f"{number:,} with probability {value}" for value, number in kinds.items() if number]
    verb = "is" if count == 1 else "are"
    return f", of which {join_words(parts)} {verb} left out of the slope"


def _single_test_sentence(judged: Verdict, measures: ByName, claim: str, samples: str) -> str:
    """Return the sentence on an event where a single test rejects calibration, and the joint test does not."""
    name = judged.rejects_alone
    if name not in PRE_SPECIFIED:
        together = f"no miscalibration shows{_joint_test_words(judged)}"
        return f"{claim}: {together} ({samples}; {judged.joint}){_alone_list(judged)}."
    p = format_p(judged.tests[name].p, measures[name].least_p)
    kind = ""
    if name == "slope":
        way = "too extreme" if measures[name].value < 1 else "too close to each other"
        kind = f": {way}, slope {titled_values(measures)[name][1]}"
    return f"{claim}{kind} ({p}; {samples}); {judged.joint_clause}."


def _joint_test_words(judged: Verdict) -> str:
    """Return by which tests no miscalibration shows, where single ones say otherwise."""
    return f" in the {judged.joint_tests} tests together" if judged.rejects_alone else ""


def _alone_list(judged: Verdict) -> str:
    """Return the tests that reject calibration alone, to follow the joint test."""
    return f", but alone in {_truncated_list(judged.rejected)}" if judged.rejects_alone else ""


def _reversed_scores_question(predictions: Predictions, scores: Sequence[str]) -> str:
    """Return a question on whether the scores are probabilities of the other class."""
    # A single column is of the second class; two columns are of one class each.
    place = event_index(predictions) if len(scores) == 2 else 1
    other = quoted_class(predictions, 1 - place)
    if not scores:
        return (
            f"are these scores those of {quoted_class(predictions, 1 - event_index(predictions))}?"
        )
    return f"is {scores[place if len(scores) == 2 else 0]} the probability of {other}?"


def _separate_tests_sentence(judged: Verdict) -> str:
    """Return a sentence on the separate tests, Bonferroni-corrected, for a verdict without a joint test."""
    if not judged.tests:
        return "No calibration test was run."
    number = len(judged.tests)
    least = min(judged.tests.values(), key=lambda test: test.p)
    joint = "no joint test was run, because it needs replicates"
    if is_significant(number * least.p, ALPHA):
        return f"Miscalibrated by {least.text}, Bonferroni for {number} tests; {joint}."
    return f"None of {number} tests rejects calibration after Bonferroni{judged.alone_clause}; {joint}."


def effect_sentence(
    name: str,
    calibration: Calibration | None,
    before: StageSummary,
    after: StageSummary,
    *,
    replicates: int,
) -> str:
    """Return a sentence on the effect of a calibrator; it claims better or worse only if error and NLL agree.

    Args:
        name: Registry name of the calibrator, as in the heads of the tables.
        calibration: The fitted one; None if it is not known.
        before: Test predictions as predicted.
        after: The same, calibrated.
        replicates: Number for the paired test of the NLL; 0 makes none.
    """
    from fedlas.calibrators._fit.rowwise import to_predictions
    from fedlas.stats.two_models import compare

    calibrator = None if calibration is None else calibration.calibrator
    temperature = getattr(calibrator, "temperature", None)
    subject = f"After {name}" + (f" {temperature:.3g}" if isinstance(temperature, float) else "")
    after_verdict = after.verdict
    subject = f"{subject}: {after_verdict.claim}; " if after_verdict.claim else f"{subject}: "
    losses = (before.nll, after.nll)
    paired = None
    if replicates and has_several_units(before.predictions):
        a, b = (to_predictions(stage.predictions) for stage in (before, after))
        paired = compare(a, b, ["nll"], replicates=max(replicates, MIN_REPLICATES))["nll"]
        losses = (paired.a, paired.b)
    change = f"{before.measure} {100 * before.error:.2f} -> {100 * after.error:.2f} %"
    improved = after.error < before.error
    old, new = losses
    if old is not None and new is not None:
        change = f"NLL {old:.4f} -> {new:.4f}, {change}"
        improved = improved and new < old
    if paired is not None and paired.better == "a" and paired.p is not None:
        numbers = f"{change}; NLL: {format_p(paired.p, None)}"
        return f"{subject}this makes it worse ({numbers}): omit the calibrator, or fit it on other held-out data."
    if after_verdict.joint_p is None or before.verdict.is_reversed:
        return f"{subject}{change}."
    if not improved:
        alone = after_verdict.alone_clause
        return f"{subject}{change}; {after_verdict.joint} of calibration after it{alone}."
    if after_verdict.rejects_calibration:
        kind = (
            after_verdict.direction or f"miscalibrated by {_truncated_list(after_verdict.rejected)}"
        )
        return f"{subject}this helps: {change}, not yet calibrated: {kind} ({after_verdict.joint})."
    alone = after_verdict.alone_clause
    joint = f"({after_verdict.joint}){alone}"
    together = " by all tests together" if alone else ""
    if not before.verdict.rejects_calibration:
        neither = f"neither is distinguishable from calibrated{together}"
        return f"{subject}{change}; {neither} (after it {joint.removeprefix('(')}."
    repairs = "helps" if after_verdict.rejects_alone in PRE_SPECIFIED else "repairs it"
    return f"{subject}this {repairs}: {change}, no longer distinguishable from calibrated{together} {joint}."


@dataclass(frozen=True)
class StageSummary:
    """Predictions before or after calibration, with their verdict and errors, as input of :func:`effect_sentence`.

    Attributes:
        predictions: The predictions.
        verdict: Whether they are calibrated.
        measure: ``"ECE"``, or ``"ICI"`` where an event is the subject.
        error: Its value as a fraction.
        nll: Their NLL; None where confidences alone are known.
    """

    predictions: AnyPredictions
    verdict: Verdict
    measure: str
    error: float
    nll: float | None = None


def training_data_warning(val: AnyPredictions, test: AnyPredictions) -> str:
    """Return a warning if the held-out predictions look like predictions on training data, else an empty string."""
    (right, n), (hits, m) = ((accuracy(each), _effective_samples(each)) for each in (val, test))
    spread = (right * (1 - right) / n + hits * (1 - hits) / m) ** 0.5
    if right - hits < 0.02 or right - hits < 4 * spread:
        return ""
    return (
        f"Accuracy is {100 * right:.1f} % on the held-out predictions and {100 * hits:.1f} % on these: if the held-out "
        "samples were trained on, over-confidence remains after calibration."
    )


def _effective_samples(predictions: AnyPredictions) -> float:
    return (
        predictions.num_samples
        if predictions.weights is None
        else effective_sample_size(predictions.tensors().weights)
    )


def _truncated_list(texts: Sequence[str]) -> str:
    more = f" and {len(texts) - _MAX_TESTS_NAMED} more" if len(texts) > _MAX_TESTS_NAMED else ""
    return ", ".join(texts[:_MAX_TESTS_NAMED]) + more


def format_percent(percent: float) -> str:
    """Return a percentage as text: one decimal, or two significant digits below 1.

    Example:
        >>> format_percent(6.44), format_percent(0.2137), format_percent(0.0)
        ('6.4', '0.21', '0.0')
    """
    return f"{percent:.1f}" if percent >= 1 or percent == 0 else f"{percent:.2g}"
