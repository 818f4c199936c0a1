"""Diagnosis of a finished run: the indicator against held-out predictions, and the gate's decisions on them."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fedlas._core.arrays import open_arrays
from fedlas._core.check import InputError
from fedlas.diagnose import (
    Associations,
    GateReport,
    IndicatorReport,
    associations,
    binned_scores,
    failure_cases,
    find_gated_loss,
    gate_report,
    indicator_report,
)
from fedlas.diagnose.indicator import FailureCases, ScoreBins
from fedlas.diagnose.monitor import alarm_kind, gate_outputs
from fedlas.lab.recipes.planning import Run, build_loss
from fedlas.lab.runs.begin import require_finished
from fedlas.lab.runs.data import with_test_normalization
from fedlas.lab.runs.folder import RunFolder
from fedlas.lab.runs.load import load_trained_run
from fedlas.lab.train.checkpoint import load_checkpoint, restore_module
from fedlas.losses.nci import NormConfidenceIndicator, feature_norms
from fedlas.objective.predict import predict
from fedlas.predictions import Predictions


@dataclass(frozen=True)
class RunDiagnosis:
    """Diagnosis of one run.

    Attributes:
        run: As planned.
        metrics: Contents of its ``metrics.json``.
        predictions: Predictions of its test part.
        score: ``Z (N,)`` of each test sample.
        score_source: Source of the score, as text.
        indicator: Correlations of the score with confidence and correctness.
        bins: Signed gap in groups of equal size by score.
        failures: Samples on which indicator and correctness disagree most.
        psi: The gate's directions ``(N,)``; None for a loss without a gate.
        alpha_i: Strengths ``(N,)``; None likewise.
        alpha: Strength at the mean norm; None likewise.
        gate: Summary of directions and strengths; None likewise.
        strength: Association of strength and correctness; None likewise.
        history: Log of the run.
    """

    run: Run
    metrics: dict[str, Any]
    predictions: Predictions
    score: Tensor
    score_source: str
    indicator: IndicatorReport
    bins: ScoreBins
    failures: FailureCases
    psi: Tensor | None
    alpha_i: Tensor | None
    alpha: float | None
    gate: GateReport | None
    strength: Associations | None
    history: list[dict[str, Any]]

    @property
    def alarms(self) -> list[tuple[int, str]]:
        """Epoch and text of every alarm in the log."""
        return [
            (record["epoch"], alarm)
            for record in self.history
            for alarm in record.get("alarms", ())
        ]

    @property
    def alarms_by_kind(self) -> list[str]:
        """A sentence per kind of alarm: the epochs, and the text of the latest alarm."""
        kinds: dict[str, list[tuple[int, str]]] = {}
        for epoch, alarm in self.alarms:
            kinds.setdefault(alarm_kind(alarm), []).append((epoch, alarm))
        sentences = []
        for alarms in kinds.values():
            first = alarms[0][0]
            last = alarms[-1][0]
            epochs = (
                f"epoch {first}"
                if first == last
                else f"{len(alarms)} epochs from {first} to {last}"
            )
            sentences.append(f"{epochs}: {alarms[-1][1]}")
        return sentences

    @property
    def samples(self) -> dict[str, Tensor]:
        """Columns ``(N,)`` of the test samples: score, confidence, correctness, and direction and strength if gated."""
        columns = {
            "score": self.score,
            "confidence": self.predictions.tensors().confidence,
            "correct": self.predictions.tensors().correct,
        }
        decided = {"psi": self.psi, "alpha_i": self.alpha_i}
        return columns | {name: value for name, value in decided.items() if value is not None}

    def as_dict(self) -> dict[str, Any]:
        """Return the diagnosis as values for JSON."""
        content = {
            "run": self.run.name,
            "recipe": self.run.recipe.name,
            "data": self.run.recipe.data.name,
            "loss": self.run.loss,
            "seed": self.run.seed,
            "samples": self.predictions.num_samples,
            "score": self.score_source,
            "indicator": asdict(self.indicator),
            "bins": asdict(self.bins),
            "gate": None if self.gate is None else self.gate.as_dict(),
            "strength_and_correctness": None if self.strength is None else asdict(self.strength),
            "failure_cases": asdict(self.failures),
            "alarms": [{"epoch": epoch, "alarm": alarm} for epoch, alarm in self.alarms],
        }
        return dict(to_json_values(content))


def diagnose_run(folder: RunFolder, *, num_bins: int = 10, cases: int = 12) -> RunDiagnosis:
    """Diagnose a finished run on its test predictions; its data is needed only if the loss reads feature maps.

    Args:
        folder: A run folder with ``predictions/{val,test}.npz`` and ``checkpoint.pt``.
        num_bins: Groups of samples by score.
        cases: Failure cases of each kind.

    Returns:
        The diagnosis. A loss with gate and indicator computes the score itself, in its state at the best epoch. For any
        other loss the score is the L1 norm of the features, standardized by mean and standard deviation over the
        validation part.

    Raises:
        InputError: If the run is not finished, or its predictions hold no features.
    """
    metrics = require_finished(folder)
    run = folder.run
    test, features = _predictions_with_features(folder, "test")
    criterion = find_gated_loss(_load_criterion(folder, test.num_classes))
    # The indicator: the run's own at the best epoch, or the plain norm for a loss that has none.
    psi = alpha_i = alpha = gate = strength = None
    if criterion is None:
        score = _standardized_norms(features, _predictions_with_features(folder, "val")[1])
        source = "L1 feature norm, standardized on the validation part"
    else:
        if run.features == "head":
            criterion.eval()
            score, psi, alpha_i = gate_outputs(criterion, test.tensors().logits, features)
        else:
            score, psi, alpha_i = _gate_outputs_on_maps(folder)
        alpha = float(criterion.alpha)
        gate = gate_report(psi, alpha_i, test.tensors().correct, alpha=alpha)
        strength = associations(alpha_i, test.tensors().correct)
        source = "Z of the run's own indicator, at the best epoch"
        if not isinstance(criterion.nci, NormConfidenceIndicator):
            source = "what this loss has in place of the indicator, which is no feature norm"
    return RunDiagnosis(
        run=run,
        metrics=metrics,
        predictions=test,
        score=score,
        score_source=source,
        indicator=indicator_report(score, test),
        bins=binned_scores(score, test, num_bins=min(num_bins, test.num_samples)),
        failures=failure_cases(score, test, count=cases),
        psi=psi,
        alpha_i=alpha_i,
        alpha=alpha,
        gate=gate,
        strength=strength,
        history=folder.log,
    )


def reason_not_diagnosable(folder: RunFolder) -> str:
    """Return the reason why a finished run cannot be diagnosed, or an empty string."""
    parts = [folder.part_path(part) for part in ("val", "test")]
    for path in (*parts, folder.splits_path, folder.checkpoint_path):
        if not path.is_file():
            return f"no {path.relative_to(folder.path)}"
    for path in parts:
        try:
            with open_arrays(path) as arrays:
                if "features" in arrays:
                    continue
        except (OSError, ValueError) as error:
            return f"{path.relative_to(folder.path)} cannot be read ({error})"
        return f"{path.relative_to(folder.path)} without features (train.save_features=true)"
    return ""


def _predictions_with_features(folder: RunFolder, part: str) -> tuple[Predictions, Tensor]:
    """Return the predictions on a part, and their features."""
    path = folder.part_path(part)
    if not path.is_file():
        raise InputError(f"the run must have {part} predictions", f"no {path}", "Train it again.")
    predictions = folder.predictions(part)
    features = predictions.tensors().features
    if features is None:
        raise InputError(
            "the predictions must include features, which the indicator reads",
            f"none in {path}",
            "Train the run with train.save_features=true.",
        )
    return predictions, features


def _load_criterion(folder: RunFolder, num_classes: int) -> nn.Module:
    """Return the loss with its state at the best epoch."""
    state = load_checkpoint(folder.checkpoint_path, folder.run.config())["best"]["objective"]
    prefix = "criterion."
    weights = {
        key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)
    }
    criterion = build_loss(
        folder.run, num_classes=num_classes, num_samples=len(folder.splits["train"])
    )
    restore_module(criterion, weights, folder.checkpoint_path)
    return criterion


def _gate_outputs_on_maps(folder: RunFolder) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gate's outputs for a loss that reads feature maps, which are not saved with predictions."""
    trained = load_trained_run(folder)
    splits = with_test_normalization(trained.run, trained.splits)
    objective = trained.objective
    parts = list[tuple[Tensor, Tensor, Tensor]]()
    criterion = find_gated_loss(objective.criterion.eval())
    predict(
        objective,
        splits.batches(splits.test, batch_size=trained.run.recipe.train.batch_size),
        head=objective.find_feature_module(objective.model),
        observe=lambda logits, maps: parts.append(gate_outputs(criterion, logits, maps)),
    )
    score, psi, alpha_i = (torch.cat(part) for part in zip(*parts, strict=True))
    return score, psi, alpha_i


def _standardized_norms(features: Tensor, reference: Tensor) -> Tensor:
    norms = feature_norms(features)
    usual = feature_norms(reference)
    spread = float(usual.std()) or 1.0  # a collapsed network has equal norms: then Z is 0
    return (norms - usual.mean()) / spread


def to_json_values(value: object) -> Any:
    """Return ``value`` with NaN replaced by None, as JSON requires."""
    if isinstance(value, dict):
        return {key: to_json_values(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [to_json_values(entry) for entry in value]
    return None if isinstance(value, float) and math.isnan(value) else value


@dataclass(frozen=True)
class RunGroup:
    """Diagnoses of runs that differ only in the seed.

    Attributes:
        place: Prefix that distinguishes it from groups of the same loss, with a space; empty if none is needed.
        studies: At least one, each of another seed.
    """

    place: str
    studies: tuple[RunDiagnosis, ...]

    @property
    def name(self) -> str:
        """Display name of the group: prefix and loss."""
        return self.place + self.studies[0].run.loss

    def run_label(self, study: RunDiagnosis) -> str:
        """Return the display name of one run of the group: prefix and name of the run."""
        return self.place + study.run.name


def group_by_settings(studies: Sequence[RunDiagnosis]) -> list[RunGroup]:
    """Group the diagnoses of runs that differ only in the seed, in order of first appearance.

    A group is named by the first of these that is unique: the loss (only if all runs have one recipe), recipe and loss,
    bench folder and loss, a number. A second run with the same settings and seed starts another group, because a mean
    over both would not be a mean over two seeds.
    """
    members: dict[tuple[str, int], list[RunDiagnosis]] = {}
    for study in studies:
        key = _config_without_seed(study.run)
        copy = 0
        while any(member.run.seed == study.run.seed for member in members.get((key, copy), ())):
            copy += 1
        members.setdefault((key, copy), []).append(study)
    groups = [tuple(group) for group in members.values()]
    places = _group_prefixes([group[0].run for group in groups])
    return [RunGroup(place, group) for place, group in zip(places, groups, strict=True)]


def _config_without_seed(run: Run) -> str:
    return json.dumps(
        {key: value for key, value in run.config().items() if key != "seed"},
        sort_keys=True,
        default=str,
    )


def _group_prefixes(runs: Sequence[Run]) -> list[str]:
    ways: list[Callable[[Run], str]] = [
        lambda run: f"{run.recipe.name} ",
        lambda run: f"{run.folder.resolve().parent.name} ",
    ]
    if len({run.recipe.name for run in runs}) == 1:
        ways.insert(0, lambda _run: "")
    for way in ways:
        if len({(way(run), run.loss) for run in runs}) == len(runs):
            return [way(run) for run in runs]
    return [f"#{number} " for number in range(1, len(runs) + 1)]
