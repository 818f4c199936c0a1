"""Whether whole sets are unlike the validation images of a run, by the rules that they hit."""

from __future__ import annotations

from collections.abc import Mapping

from fedlas.lab.runs.folder import RunFolder
from fedlas.lab.studies.ood.outputs import Speaker
from fedlas.zoo.ood import Outputs, Reference, RuleShift
from fedlas.zoo.ood.rules import Rules

SCORE = "rules"
"""The score whose rules these are."""


def rule_shifts(
    folder: RunFolder, speaker: Speaker, reference: Reference, own: Outputs, others: Mapping[str, Outputs]
) -> dict[str | None, RuleShift]:
    """The shift of each set against the run's validation images, by its label; None is that of the own test images.

    The rules are made from training images. The network has seen these, so the sets are compared with validation
    images instead.
    """
    train, val = reference.train, folder.predictions("val").features
    if val is None:
        val = speaker.outputs("in-val", speaker.trained.splits.val, by_model=False).features
    if train is None or train.features is None or val is None:
        return {}
    rules = Rules(train.features, train.target, **speaker.chosen.of(SCORE))
    found: dict[str | None, RuleShift] = {}
    sets: list[tuple[str | None, Outputs]] = [(None, own), *others.items()]
    for label, outputs in sets:
        if outputs.features is not None:
            speaker.show(f"{folder.name}: rule hits of {label or 'the test images'} as a set")
            found[label] = rules.shift(val, outputs.features)
    return found
