"""What a card does not vouch for: sentences that follow from the run and its numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fedlas.deploy.calibration import FITTED_ON
from fedlas.stats import ALPHA
from fedlas.stats.noise_floor import p_said

_FEW = 30
"""Samples of a class below which nothing is known about its calibration."""


def known_limits(content: Mapping[str, Any], samples_of: Sequence[int], *, notes: Sequence[str]) -> list[str]:
    """Sentences, the most general first.

    Args:
        content: The card so far.
        samples_of: Test samples of each class ``(C,)``; empty where only confidences are known.
        notes: What the calibrator's fit warned of.
    """
    return [*_general(content), *_numbers(content, samples_of), *_training(content), *notes]


def _general(content: Mapping[str, Any]) -> Iterator[str]:
    data, samples = content["data"], content["data"]["samples"]
    yield (
        f"All numbers are for inputs drawn like the {samples['test']:,} test samples of {data['name']}. On other "
        "inputs neither the metrics nor the thresholds hold; fedlas monitor reports when something has changed."
    )
    trained = "seed" in content["model"]
    chosen = (
        "the epoch and the calibration as well as the thresholds, whose risk on them is therefore slightly optimistic"
    )
    if not trained:
        fitted = content["calibration"].get("fitted on") == FITTED_ON
        chosen = chosen.replace("the epoch and ", "") if fitted else "the thresholds"
    yield (
        f"The {samples['val']:,} validation samples chose {chosen}. The test part had no part in it: its column is the "
        "check."
    )
    if trained:
        yield "It is one training run: another seed gives another model with other numbers."


def _numbers(content: Mapping[str, Any], samples_of: Sequence[int]) -> Iterator[str]:
    # Calibration as a whole.
    ece = content["metrics"]["calibrated"].get("ece", {})
    if "p" in ece:
        value, floor = f"{100 * ece['value']:.2f} %", f"{100 * ece['floor']:.2f} %"
        p = p_said(ece["p"], ece.get("least_p"))
        if ece["p"] > ALPHA:
            yield (
                f"An ECE of {value} is not distinguishable from that of a perfectly calibrated model, which has "
                f"{floor} on average on so few samples ({p}): errors smaller than chance makes are neither "
                "shown nor excluded."
            )
        else:
            yield (
                f"The ECE of {value} is more than chance: a perfectly calibrated model would have {floor} on average "
                f"({p}). Confidences are not exactly probabilities."
            )
    # Single classes.
    few = sum(count < _FEW for count in samples_of)
    if few:
        classes = len(samples_of)
        yield f"{few} of {classes} classes have fewer than {_FEW} test samples: about them alone nothing is known."
    # Thresholds that could not be found, and those that the test part contradicts.
    missed = [row for row in content["selective"]["thresholds"] if row["threshold"] is None]
    if missed:
        risks = ", ".join(f"{100 * row['risk']:g} %" for row in missed)
        most = max(row["needed"] for row in missed)
        yield (
            f"No threshold can be vouched for a risk of {risks}: the validation part is too small, or the model is "
            f"wrong too often where it is most confident. Even without a mistake the smallest risk needs {most:,} "
            "accepted samples."
        )
    for row in content["selective"]["thresholds"]:
        risk = row.get("test", {}).get("risk")
        if risk is not None and risk > row["risk"]:
            actual = f"{100 * risk:.2f} %"
            yield f"The threshold for a risk of {100 * row['risk']:g} % has {actual} on the test part."


def _training(content: Mapping[str, Any]) -> Iterator[str]:
    data = content["data"].get("settings") or {}
    for key, text in (
        ("label_noise", "Some training labels were made wrong on purpose, validation labels may be too."),
        ("long_tail", "Training and validation classes were made rare on purpose, test classes were not."),
        ("corruption", "The test images were corrupted on purpose."),
        ("hold_out_classes", "Some classes were held out: inputs of unknown classes get a confidence like any other."),
        ("test_mean", "The test images were not normalized as the training images."),
    ):
        if data.get(key):
            yield text
    if content["model"].get("dirty"):
        yield "The run was made from sources that differ from their commit."
