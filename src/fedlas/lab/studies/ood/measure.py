"""OOD scores of one run, and how well each detects other data sets."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fedlas._core.check import InputError
from fedlas._core.extras import MissingExtraError, require
from fedlas._core.ranks import new_accelerator
from fedlas._core.types import FloatArray
from fedlas.features import find_head
from fedlas.lab.data import Splits
from fedlas.lab.data.base import Part
from fedlas.lab.runs.data import outputs_fingerprint, with_test_normalization
from fedlas.lab.runs.folder import RunFolder
from fedlas.lab.runs.load import TrainedRun, load_trained_run
from fedlas.lab.studies.ood.sets import DatasetSpec, load_ood_sets
from fedlas.objective import predict
from fedlas.predictions import Predictions
from fedlas.stats import Interval
from fedlas.zoo.ood import (
    OOD_SCORES,
    Outputs,
    Reference,
    compute_score,
    detection_intervals,
    score_options,
)
from fedlas.zoo.ood.base import depends_on_temperature, required_inputs

BEFORE = "before"
AFTER = "after"
"""Stages: with the model's own logits, and with logits divided by the temperature fitted to the validation part."""
MAX_TRAINING_SAMPLES = 50_000
"""Maximum number of training images for fitted scores; larger parts are subsampled evenly, stratified by class."""


@dataclass(frozen=True)
class ScoreSelection:
    """OOD scores to compute, and their options.

    Attributes:
        names: Registry names.
        options: Options that the user set, by score.
    """

    names: Sequence[str]
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def score_options(self, name: str) -> dict[str, Any]:
        """Return all options of a score, defaults included."""
        return score_options(OOD_SCORES[name]) | dict(self.options.get(name, {}))

    def names_requiring(self, need: str) -> list[str]:
        """Return the names of the scores that require an input, such as ``features``."""
        return [name for name in self.names if need in required_inputs(OOD_SCORES[name])]


@dataclass(frozen=True, eq=False)
class RunResult:
    """OOD detection results of one run.

    Attributes:
        folder: The run.
        temperature: Temperature of the stage :data:`AFTER`.
        num_test: Number of test images of the run.
        sets: Number of images of each OOD data set, by label.
        notes: Changes to the OOD images, and remarks, by label.
        detected: Detection metrics with intervals, by label, score and stage (:data:`BEFORE` or :data:`AFTER`).
        scores: Score of each sample before temperature, by label and score: in-distribution, OOD.
        not_run: Reason why a score could not be computed, by name.
    """

    folder: RunFolder
    temperature: float | None
    num_test: int
    sets: Mapping[str, int]
    notes: Mapping[str, Sequence[str]]
    detected: Mapping[tuple[str, str, str], Mapping[str, Interval]]
    scores: Mapping[tuple[str, str], tuple[FloatArray, FloatArray]]
    not_run: Mapping[str, str]

    @property
    def loss(self) -> str:
        """Name of the loss."""
        return self.folder.run.loss

    @property
    def seed(self) -> int:
        """Seed of the run."""
        return self.folder.run.seed

    @property
    def data(self) -> str:
        """Name of the run's data set."""
        return self.folder.run.recipe.data.name


def _missing_package_reasons(chosen: ScoreSelection) -> dict[str, str]:
    """Return the reason for each score whose packages are missing; raise if the user set options for the score."""
    reasons = {}
    for name in chosen.names:
        try:
            for package in OOD_SCORES[name].metadata.get("packages", ()):
                require(package, extra="ood")
        except MissingExtraError as error:
            if name in chosen.options:
                raise
            reasons[name] = str(error)
    return reasons


def measure_ood_detection(
    folder: RunFolder,
    specs: Sequence[DatasetSpec],
    chosen: ScoreSelection,
    *,
    replicates: int = 1000,
    strict: bool = False,
    show: Callable[[str], None] = lambda _text: None,
) -> RunResult:
    """Compute OOD scores of a finished run, and measure how well each detects other data sets.

    Args:
        folder: Run folder.
        specs: The OOD data sets; images of held-out classes are added if the run has any.
        chosen: Scores and options.
        replicates: Bootstrap replicates for each interval.
        strict: Whether to raise if a score cannot be computed, as for scores with options; otherwise it is left out
            and the reason kept.
        show: Called with a description of each step that may take long.

    Raises:
        InputError: If the run or a data set cannot be used, no score can be computed, or with ``strict`` any score
            cannot be.
    """
    trained = load_trained_run(folder)
    not_run = {} if strict else _missing_package_reasons(chosen)
    chosen = ScoreSelection([name for name in chosen.names if name not in not_run], chosen.options)
    # Outputs on the run's own test images and on every other set; one array, so that a score sees all at once.
    model = ModelOutputs(trained, chosen, show)
    others = load_ood_sets(trained.run, trained.splits, specs)
    test, outputs, reference = _run_outputs(folder, model, chosen)
    parts = [outputs, *(model.outputs(f"ood-{other.label}", other.part) for other in others)]
    sizes = [part.num_samples for part in parts]
    features = [part.features for part in parts if part.features is not None]
    by_model = {
        name: torch.cat([part.scores[name] for part in parts])
        for name in chosen.names_requiring("model")
    }
    logits = torch.cat([part.logits for part in parts])
    stacked = Outputs(
        logits, torch.cat(features) if len(features) == len(parts) else None, by_model
    )
    # Scores of logits are measured before and after the run's temperature.
    temperature = trained.metrics["temperature"]
    stages = {BEFORE: (stacked, reference)}
    if temperature is not None:
        stages[AFTER] = (
            Outputs(logits / temperature, stacked.features, by_model),
            reference.divide_logits(temperature),
        )
    # Each score at each stage, then each data set against the run's own.
    correct = test.correct
    detected: dict[tuple[str, str, str], Mapping[str, Interval]] = {}
    scores: dict[tuple[str, str], tuple[FloatArray, FloatArray]] = {}
    for score in chosen.names:
        for stage, (outputs, fitted_on) in stages.items():
            if stage == AFTER and not depends_on_temperature(OOD_SCORES[score]):
                continue
            show(f"{folder.name}: {score}, {stage} temperature")
            try:
                values = compute_score(
                    score, outputs, reference=fitted_on, options=chosen.options.get(score)
                )
            except (InputError, MissingExtraError) as error:
                if strict or score in chosen.options:
                    raise
                not_run[score] = str(error)
                break
            inside, *outside = np.split(values.numpy(), np.cumsum(sizes)[:-1])
            for other, theirs in zip(others, outside, strict=True):
                metrics = detection_intervals(
                    inside, theirs, id_correct=correct, replicates=replicates
                )
                detected[other.label, score, stage] = metrics
                if stage == BEFORE:
                    scores[other.label, score] = (inside, theirs)
    if not detected:
        reason = next(iter(not_run.values()), "none was chosen")
        raise InputError(
            "at least one score must be computable", reason, "Choose others with --scores."
        )
    counts = {other.label: size for other, size in zip(others, sizes[1:], strict=True)}
    notes = {other.label: other.notes for other in others}
    return RunResult(folder, temperature, sizes[0], counts, notes, detected, scores, not_run)


def _run_outputs(
    folder: RunFolder, model: ModelOutputs, chosen: ScoreSelection
) -> tuple[Predictions, Outputs, Reference]:
    """Return the run's test predictions, the model's outputs for them, and the reference that scores are fitted to."""
    val, test = (folder.predictions(part) for part in ("val", "test"))
    outputs = Outputs.from_predictions(test)
    if chosen.names_requiring("model") or (
        chosen.names_requiring("features") and outputs.features is None
    ):
        again = model.outputs("in-test", model.trained.splits.test)
        features = again.features if outputs.features is None else outputs.features
        outputs = Outputs(outputs.logits, features, again.scores)
    train = model.training_predictions() if chosen.names_requiring("train") else None
    head = (
        linear_head_copy(find_head(model.trained.objective.model))
        if chosen.names_requiring("head")
        else None
    )
    return test, outputs, Reference(val, train, head)


class ModelOutputs:
    """Outputs of a run's model for images, cached as files in the run's ``predictions`` folder.

    Args:
        trained: The run, on the CPU; its model is put into ``eval()`` and needs no gradient of its weights.
        chosen: Scores that will be computed, some of them by the model itself.
        show: Called with a description of each step that may take long.

    State:
        Writes ``predictions/NAME.npz``, unless it holds outputs for these images, weights and options.
    """

    def __init__(
        self,
        trained: TrainedRun,
        chosen: ScoreSelection,
        show: Callable[[str], None] = lambda _text: None,
    ) -> None:
        self.trained = trained
        self.chosen = chosen
        self.show = show
        self._device = new_accelerator().device
        self._splits = with_test_normalization(trained.run, trained.splits)
        self._model = trained.objective.model.to(self._device).eval().requires_grad_(False)

    def outputs(
        self, name: str, part: Part, *, by_model: bool = True, splits: Splits | None = None
    ) -> Outputs:
        """Return the model's outputs for a part, with features and model-based scores, from the cache if valid.

        Args:
            name: Name of the file.
            part: Images; their targets are ignored.
            by_model: Whether to compute scores that need the model itself.
            splits: Splits whose normalization to use; None for the test part's.
        """
        folder = RunFolder(self.trained.run.folder)
        path = folder.part_path(name)
        source = outputs_fingerprint(folder.path, part)
        options = {
            score: self.chosen.score_options(score)
            for score in (self.chosen.names_requiring("model") if by_model else ())
        }
        # Saved outputs count if they are of these images and weights; saved scores if they have the same options.
        try:
            outputs, about = Outputs.load(path)
            usable = {
                key: about.get(key) for key in source
            } == source and outputs.features is not None
        except InputError:
            # What is there may be somebody else's: only a missing file is made.
            if os.path.lexists(path):
                raise
            usable = False
        if not usable:
            self.show(f"{name}.npz: predictions of {len(part):,} images")
            # whose labels are other classes
            images = (inputs for inputs, *_ in self._batches(part, splits))
            outputs = Outputs.from_predictions(predict(self._model, images, features=True))
            about = {}
        saved_options = dict(about.get("scores", {}))
        missing = {
            score: values for score, values in options.items() if saved_options.get(score) != values
        }
        if usable and not missing:
            return outputs
        scores = dict(outputs.scores)
        for score, values in missing.items():
            self.show(f"{name}.npz: {score} of {len(part):,} images")
            scores[score] = self._compute_model_score(score, part, values)
        outputs = Outputs(outputs.logits, outputs.features, scores)
        outputs.save(
            folder.require_inside(path), about={**source, "scores": {**saved_options, **missing}}
        )
        return outputs

    def training_predictions(self) -> Predictions:
        """Return predictions with features on training images without augmentation."""
        part = self.trained.splits.train
        # At most MAX_TRAINING_SAMPLES positions, evenly spaced among the samples sorted by class.
        order = part.target.cpu().argsort(stable=True)
        rows = (
            torch.linspace(0, len(order) - 1, min(MAX_TRAINING_SAMPLES, len(order))).round().long()
        )
        part = part.take(order[rows].sort().values.to(part.target.device))
        outputs = self.outputs("in-train", part, by_model=False, splits=self.trained.splits)
        return Predictions(outputs.logits, part.target.cpu(), features=outputs.features)

    def _compute_model_score(self, name: str, part: Part, options: Mapping[str, Any]) -> Tensor:
        shared: dict[str, Any] = {"model": self._model, "std": self._splits.std}
        return torch.cat([
            OOD_SCORES.build(name, options, inputs=inputs.to(self._device), **shared).detach().double().cpu()
            for inputs, *_ in self._batches(part)
        ])  # fmt: skip

    def _batches(self, part: Part, splits: Splits | None = None) -> Any:
        """Return batches in fixed order, normalized like the test part or as in ``splits``."""
        return (splits or self._splits).batches(
            part.to(self._device), batch_size=self.trained.run.recipe.train.batch_size
        )


def linear_head_copy(head: nn.Module) -> nn.Linear | None:
    """Return a copy of the head on the CPU as a linear layer, or None if the head is not linear."""
    weight = getattr(head, "weight", None)
    bias = getattr(head, "bias", None)
    if not isinstance(weight, Tensor) or weight.ndim != 2:
        return None
    copy = nn.Linear(weight.shape[1], weight.shape[0])
    with torch.no_grad():
        copy.weight.copy_(weight.detach().cpu())
        copy.bias.copy_(torch.zeros(len(weight)) if bias is None else bias.detach().cpu())
    return copy
