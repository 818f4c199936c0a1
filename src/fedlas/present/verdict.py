"""The verdict on predictions, in sentences that the tables below them support."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import erfc, isfinite, sqrt

from fedlas.calibrators import CALIBRATORS, Calibrator
from fedlas.calibrators.base import as_predictions
from fedlas.metrics import accuracy
from fedlas.predictions import Predictions
from fedlas.predictions.predictions import AnyPredictions
from fedlas.present.metric_tables import noise_in
from fedlas.present.positive_class import described
from fedlas.present.table import column
from fedlas.stats import ALPHA, SpiegelhalterTest
from fedlas.stats.estimates import Estimate
from fedlas.stats.noise_floor import p_said, rejects
from fedlas.stats.two_models import compare
from fedlas.stats.weights import effective_samples

ByName = Mapping[str, Estimate]
_MOST = 2
"""Tests that a sentence names."""


@dataclass(frozen=True)
class Evidence:
    """A test of calibration.

    Attributes:
        text: The number and what it is compared with.
        p: P-value of the test.
    """

    text: str
    p: float


@dataclass(frozen=True)
class Verdict:
    """Whether predictions are calibrated, as far as their samples show it.

    Attributes:
        text: A sentence or two.
        tests: Every test of calibration that a table shows, by name.
        direction: ``"over-confident"``, ``"under-confident"``, ``"over-predicts"`` or ``"under-predicts"``; empty
            without one.
    """

    text: str
    tests: Mapping[str, Evidence]
    direction: str = ""

    @property
    def rejected(self) -> list[str]:
        """Evidence of the tests with a p-value of at most 0.05, the smallest first."""
        ordered = sorted(self.tests.values(), key=lambda each: each.p)
        return [each.text for each in ordered if rejects(each.p, ALPHA)]

    @property
    def is_clear(self) -> bool:
        """Whether some test rejects calibration after Bonferroni's correction for all of them."""
        return bool(self.tests) and rejects(len(self.tests) * min(each.p for each in self.tests.values()), ALPHA)


def verdict(
    values: Mapping[str, float],
    estimates: ByName,
    measures: ByName,
    predictions: AnyPredictions,
    *,
    z: SpiegelhalterTest | None = None,
    positive: str = "class 1",
) -> Verdict:
    """Judge predictions by every test that a table shows.

    Args:
        values: Metrics by registry name; accuracy, ``o_ece``, ``u_ece`` and ``ece`` among them.
        estimates: Their estimates, with the tests of calibration; empty if there were no replicates.
        measures: Measures of the positive class; empty for other than two classes.
        predictions: The predictions themselves.
        z: Spiegelhalter's test of the confidences, if it was made.
        positive: Name of the positive class.
    """
    tests = {**(_tests_of_measures(measures) if measures else {}), **_tests_of_metrics(estimates)}
    if measures and isinstance(predictions, Predictions):
        claim, direction = _of_positive_class(predictions, measures, tests, positive)
    else:
        claim, direction, gap = _of_top_label(values, estimates, predictions.num_samples)
        tests |= {"confidence": gap} if gap else {}
    if z is not None:
        tests["spiegelhalter"] = Evidence(f"Spiegelhalter's z {z.z:.2f} ({p_said(z.p_value, None)})", z.p_value)
    judged = Verdict("", tests, direction)
    if not tests:
        text = f"{claim[0].upper()}{claim[1:]}. No test was made of whether that is chance."
    elif judged.is_clear and direction:
        text = f"{direction.capitalize()}: {claim}."
    elif judged.is_clear:
        text = f"Miscalibrated by {_few(judged.rejected)}: {claim}."
    elif judged.rejected:
        text = f"No clear miscalibration: {claim}; {_chance(judged)}: {_few(judged.rejected)}."
    else:
        ece = noise_in(estimates, column("ece"))
        floor = f": ECE {column('ece').format(values['ece'])} %, floor {ece.floor} %" if ece.floor else ""
        text = f"No miscalibration shows: {claim}{floor}."
    return replace(judged, text=text)


def _tests_of_metrics(estimates: ByName) -> dict[str, Evidence]:
    tests = {}
    for name, each in estimates.items():
        if each.p is not None:
            about = column(name)
            unit = f" {about.unit}" if about.unit else ""
            text = f"{about.title} {about.format(each.value)}{unit} ({p_said(each.p, each.least_p)})"
            tests[name] = Evidence(text, each.p)
    return tests


def _tests_of_measures(measures: ByName) -> dict[str, Evidence]:
    tests = {}
    for name, (title, ideal, text) in described(measures).items():
        each = measures[name]
        if each.p is not None:
            tests[name] = Evidence(f"{title} {text} ({p_said(each.p, each.least_p)})", each.p)
        elif ideal is not None and isfinite(each.high - each.low):
            tests[name] = Evidence(f"{title} {text}, {ideal:g} if calibrated", _p_of(each, ideal))
    return tests


def _p_of(estimate: Estimate, ideal: float) -> float:
    """Return the two-sided p-value of ``ideal``, from the side of the 95 % interval on which it lies, as if normal."""
    side = estimate.value - estimate.low if ideal < estimate.value else estimate.high - estimate.value
    return erfc(abs(estimate.value - ideal) / max(side, 1e-12) * 1.96 / sqrt(2))


def _of_top_label(values: Mapping[str, float], estimates: ByName, samples: int) -> tuple[str, str, Evidence | None]:
    """Compare mean confidence with accuracy: return a clause, the direction if beyond chance, and the test."""
    accuracy, confidence = values["accuracy"], values["accuracy"] + values["o_ece"] - values["u_ece"]
    claim = (
        f"it claims {100 * confidence:.1f} % on average and is right in {100 * accuracy:.1f} % ({samples:,} samples)"
    )
    hits = estimates.get("accuracy")
    if hits is None or not hits.replicates:
        return claim, "", None
    gap = Evidence(
        f"mean confidence {100 * confidence:.1f} % with accuracy {100 * accuracy:.1f} %", _p_of(hits, confidence)
    )
    way = "over-confident" if confidence > accuracy else "under-confident"
    return claim, way if rejects(gap.p, ALPHA) else "", gap


def _of_positive_class(
    predictions: Predictions, measures: ByName, tests: Mapping[str, Evidence], name: str
) -> tuple[str, str]:
    """Return how often the positive class is expected and occurs, and the direction if it is beyond chance."""
    expected = float(predictions.probs[:, 1].double().mean())
    frequency = float((predictions.target == 1).double().mean())
    claim = (
        f"it expects {name} in {100 * expected:.1f} % and it occurs in {100 * frequency:.1f} % "
        f"({predictions.num_samples:,} samples)"
    )
    parts = []
    if "in_the_large" in tests and rejects(tests["in_the_large"].p, ALPHA):
        parts.append("over-predicts" if measures["in_the_large"].value < 0 else "under-predicts")
    if "slope" in tests and rejects(tests["slope"].p, ALPHA):
        parts.append("over-confident" if measures["slope"].value < 1 else "under-confident")
        claim += f"; {tests['slope'].text}"
    return claim, " and ".join(parts)


def effect(name: str, calibrator: Calibrator | None, before: Stage, after: Stage, *, replicates: int) -> str:
    """Return a sentence on what a calibrator does to test predictions.

    Args:
        name: Registry name of the calibrator.
        calibrator: The fitted one; None if it is not known.
        before: Test predictions as predicted.
        after: The same, calibrated.
        replicates: Of the paired test of the NLL; 0 makes none.
    """
    temperature = getattr(calibrator, "temperature", None)
    title = str(CALIBRATORS[name].metadata["title"]) if name in CALIBRATORS else name
    subject = f"A temperature of {temperature:.3g}" if isinstance(temperature, float) else title
    # The error that the positive class is judged by, or ECE.
    measure, old, new = "ECE", before.ece, after.ece
    if before.ici is not None and after.ici is not None:
        measure, old, new = "ICI", before.ici, after.ici
    change = f"{measure} {100 * old:.1f} -> {100 * new:.1f} %"
    if replicates:
        a, b = (as_predictions("report", stage.predictions) for stage in (before, after))
        nll = compare(a, b, ["nll"], replicates=replicates)["nll"]
        if nll.better == "a":
            worse = f"NLL {nll.a:.3f} -> {nll.b:.3f}, {p_said(nll.p, None)}; {change}"
            return f"{subject} makes it worse ({worse}): leave it out, or fit it on other held-out predictions."
    if not after.verdict.tests:
        return f"{subject}: {change}."
    if after.verdict.is_clear:
        kind = after.verdict.direction or f"miscalibrated by {_few(after.verdict.rejected)}"
        return f"{subject} {'helps' if new < old else 'does not help'}: {change}, not yet calibrated: {kind}."
    if not before.verdict.is_clear:
        return f"{subject}: {change}; neither is clearly distinguishable from calibrated."
    doubt = f" ({_chance(after.verdict)})" if after.verdict.rejected else ""
    word = "clearly distinguishable" if doubt else "distinguishable"
    return f"{subject} repairs it: {change}, no longer {word} from calibrated{doubt}."


@dataclass(frozen=True)
class Stage:
    """Predictions before or after a calibrator, as :func:`effect` compares them.

    Attributes:
        predictions: The predictions.
        verdict: Whether they are calibrated.
        ece: Their ECE.
        ici: Their integrated calibration index; None for other than two classes.
    """

    predictions: AnyPredictions
    verdict: Verdict
    ece: float
    ici: float | None


def training_data(val: AnyPredictions, test: AnyPredictions) -> str:
    """Return a sentence if held-out predictions look like those on training data; nothing if they do not."""
    (right, n), (hits, m) = ((accuracy(each), _samples(each)) for each in (val, test))
    spread = (right * (1 - right) / n + hits * (1 - hits) / m) ** 0.5
    if right - hits < 0.02 or right - hits < 4 * spread:
        return ""
    return (
        f"The held-out predictions are right in {100 * right:.1f} %, these in {100 * hits:.1f} %: if they are of "
        "training data, the calibrator leaves over-confidence."
    )


def _samples(predictions: AnyPredictions) -> float:
    return predictions.num_samples if predictions.weights is None else effective_samples(predictions.weights)


def _few(texts: Sequence[str]) -> str:
    more = f" and {len(texts) - _MOST} more" if len(texts) > _MOST else ""
    return ", ".join(texts[:_MOST]) + more


def _chance(judged: Verdict) -> str:
    return f"{len(judged.rejected)} of {len(judged.tests)} tests reject, as chance may do"
