"""Every OOD score of one run, and how well each detects other images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from fedlas._core.check import InputError
from fedlas._core.extras import MissingExtraError, require
from fedlas.features import find_head
from fedlas.lab.runs.build import load_trained
from fedlas.lab.runs.folder import RunFolder
from fedlas.lab.studies.ood.outputs import Chosen, Speaker, linear_head
from fedlas.lab.studies.ood.sets import Named, Unknown, unknown_sets
from fedlas.predictions import Predictions
from fedlas.stats import Interval
from fedlas.zoo.ood import (
    OOD_SCORES,
    Outputs,
    Reference,
    compute_score,
    detection_intervals,
)
from fedlas.zoo.ood.base import follows_temperature

Floats = NDArray[np.float64]

BEFORE, AFTER = "before", "after"
"""Stages: with the model's own logits, and with those divided by the temperature that its validation part gave."""


@dataclass(frozen=True)
class Detected:
    """How well one score of one run separates its test images and those of one other data set.

    Attributes:
        run: Name of the run folder.
        loss: Its loss.
        seed: Its seed.
        data: Label of the other data set.
        score: Registry name.
        stage: :data:`BEFORE` or :data:`AFTER` temperature.
        metrics: Value and interval by name of the metric.
    """

    run: str
    loss: str
    seed: int
    data: str
    score: str
    stage: str
    metrics: Mapping[str, Interval]


@dataclass(frozen=True, eq=False)
class RunResult:
    """One run.

    Attributes:
        run: Name of its folder.
        loss: Its loss.
        seed: Its seed.
        data: Name of its data set.
        temperature: By which logits are divided after.
        num_test: Its test images.
        sets: The others' labels with the number of images of each.
        notes: What was done to the others and what a reader must know, by label.
        detected: All results.
        scores: Score of each sample before temperature, by data set's label and name: in-distribution, OOD.
        not_run: Why a score could not be computed, by name.
    """

    run: str
    loss: str
    seed: int
    data: str
    temperature: float | None
    num_test: int
    sets: Mapping[str, int]
    notes: Mapping[str, Sequence[str]]
    detected: Sequence[Detected]
    scores: Mapping[tuple[str, str], tuple[Floats, Floats]]
    not_run: Mapping[str, str]


def measure_run(
    folder: RunFolder,
    named: Sequence[Named],
    chosen: Chosen,
    *,
    replicates: int = 1000,
    strict: bool = False,
    show: Callable[[str], None] = lambda _text: None,
) -> RunResult:
    """Compute every score of a finished run on its test images and on others, and measure how they differ.

    Args:
        folder: Run folder.
        named: The other data sets; those of held-out classes are taken too, if the run has any.
        chosen: Scores and options.
        replicates: Of each interval.
        strict: Whether a score that cannot be computed is an error; one with options always is. Else it is left out and
            the reason kept.
        show: Called with what is being done, where that may take long.

    Raises:
        InputError: If the run or a data set cannot be used, or a score cannot be computed and ``strict`` says so or
            none can.
    """
    trained = load_trained(folder)
    # Scores that cannot be computed are left out by name, unless they were asked for.
    not_run = {} if strict else _lacking(chosen)
    chosen = Chosen([name for name in chosen.names if name not in not_run], chosen.options)
    speaker = Speaker(trained, chosen, show)
    name = folder.name
    # Outputs on the known images and on every other set; one array, so that a score sees all at once.
    others = unknown_sets(trained.run, trained.splits, named)
    known, test, reference = _known(folder, speaker, chosen)
    said = {other.label: speaker.outputs(f"ood-{other.label}", other.part) for other in others}
    stacked = _stacked([known, *said.values()])
    # Scores of logits are measured before and after the run's temperature.
    temperature = trained.metrics["temperature"]
    stages = {BEFORE: (stacked, reference)}
    if temperature is not None:
        scaled = Outputs(stacked.logits / temperature, stacked.features, stacked.scores)
        stages[AFTER] = (scaled, reference.scaled(temperature))
    sizes = [known.num_samples, *(outputs.num_samples for outputs in said.values())]
    # Each score at each stage, then each data set against the known one.
    right = test.correct.cpu().numpy()
    detected: list[Detected] = []
    kept: dict[tuple[str, str], tuple[Floats, Floats]] = {}
    for score in chosen.names:
        for stage, (outputs, given) in stages.items():
            if stage == AFTER and not follows_temperature(OOD_SCORES[score]):
                continue
            show(f"{name}: {score}, {stage} temperature")
            try:
                values = compute_score(score, outputs, reference=given, options=chosen.options.get(score))
            except (InputError, MissingExtraError) as error:
                if strict or score in chosen.options:
                    raise
                not_run[score] = str(error)
                break
            own, *theirs = np.split(values.numpy(), np.cumsum(sizes)[:-1])
            for label, other in zip(said, theirs, strict=True):
                metrics = detection_intervals(own, other, id_correct=right, replicates=replicates)
                detected.append(Detected(name, trained.run.loss, trained.run.seed, label, score, stage, metrics))
                if stage == BEFORE:
                    kept[label, score] = (own, other)
    # What was measured, and why the rest was not.
    if not detected:
        reason = next(iter(not_run.values()), "none was chosen")
        raise InputError("fedlas ood", "a score must be computable", reason, "Choose others with --scores.")
    return RunResult(
        name,
        trained.run.loss,
        trained.run.seed,
        trained.run.recipe.data.name,
        temperature,
        known.num_samples,
        dict(zip(said, sizes[1:], strict=True)),
        _notes(others),
        detected,
        kept,
        not_run,
    )


def _known(folder: RunFolder, speaker: Speaker, chosen: Chosen) -> tuple[Outputs, Predictions, Reference]:
    """Outputs for the run's own images: those that are scored, and those that scores are fitted on."""
    val, test = (folder.predictions(part) for part in ("val", "test"))
    known = Outputs.of(test)
    if chosen.needing("model") or (chosen.needing("features") and known.features is None):
        again = speaker.outputs("in-test", speaker.trained.splits.test)
        known = Outputs(known.logits, again.features if known.features is None else known.features, again.scores)
    train = speaker.training() if chosen.needing("train") else None
    head = linear_head(find_head(speaker.trained.objective.model)) if chosen.needing("head") else None
    return known, test, Reference(val, train, head)


def _lacking(chosen: Chosen) -> dict[str, str]:
    """Scores whose packages are not installed, and what installs them."""
    found: dict[str, str] = {}
    for name in chosen.names:
        try:
            for package in OOD_SCORES[name].metadata.get("packages", ()):
                require(package, extra="ood")
        except MissingExtraError as error:
            if name in chosen.options:
                raise
            found[name] = str(error)
    return found


def _stacked(parts: Sequence[Outputs]) -> Outputs:
    """All samples, one part after the other, so that what a score is fitted on is looked at once."""
    features = [part.features for part in parts if part.features is not None]
    names = set.intersection(*(set(part.scores) for part in parts))
    return Outputs(
        torch.cat([part.logits for part in parts]),
        torch.cat(features) if len(features) == len(parts) else None,
        {name: torch.cat([part.scores[name] for part in parts]) for name in sorted(names)},
    )


def _notes(others: Sequence[Unknown]) -> dict[str, tuple[str, ...]]:
    return {other.label: other.notes for other in others}
