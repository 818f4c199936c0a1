"""``fedlas monitor``: has calibration drifted since the card was written? Reads a stream in ``O(bins)`` memory."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fedlas._core.check import InputError
from fedlas._core.terminal import say
from fedlas.deploy.card import Card, read_card
from fedlas.deploy.monitor_state import FORMAT, OWNER, Watched, locked, read_state
from fedlas.predictions import Columns, open_table
from fedlas.stats.drift import ConfidenceDrift, GapDrift, confidence_drift, spent
from fedlas.stats.gap_sums import GapSums
from fedlas.stats.rows import Floats

ALARM = 3
"""Exit status of an alarm."""
_WEAKER = "It is the weaker test: it sees other inputs, not whether the model is right about them; labels would tell."


def monitor(
    card_file: Path,
    files: Sequence[Path],
    *,
    false_alarm: float = 0.01,
    columns: Columns | None = None,
    raw: bool = False,
    state: Path | None = None,
    as_json: bool = False,
) -> int:
    """Compare live predictions with a calibration card and say whether calibration has drifted.

    With labels, a sequential test of accuracy less confidence, over all samples and in cells of confidence
    (:class:`~fedlas.stats.drift.GapDrift`). Without, a test of the distribution of confidences, which is weaker.

    Args:
        card_file: The card's JSON, or the run folder that holds ``card.json``.
        files: Predictions in the order of time.
        false_alarm: Largest probability of an alarm while nothing has drifted: over the whole stream, and with
            ``state`` over all calls together.
        columns: Which columns hold what; None for ``.npz`` with ``logits`` (and ``target``).
        raw: The predictions have not been through the card's calibration, which is applied first.
        state: File to resume from and to write; None starts afresh and leaves nothing. Calls that share it wait for one
            another, each from before it reads the state until it has written it.
        as_json: Print JSON instead of sentences.

    Returns:
        0, or 3 on an alarm. With ``state`` an alarm stays until that file is removed.

    Raises:
        InputError: If the card, a file or the state cannot be used.
    """
    path = card_file / "card.json" if card_file.is_dir() else card_file
    card = read_card(path)
    test = GapDrift(card.gaps, false_alarm=false_alarm)
    stream = _stream(files, columns, card, raw=raw)
    if state is None:
        seen = Watched.nothing(card, test)
        distribution = _take(seen, stream, card, test, kept=False)
    else:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        identity = {"format": FORMAT, "card": digest, "false_alarm": false_alarm}
        with locked(state):
            seen = read_state(state, identity, card, test) if state.exists() else Watched.nothing(card, test)
            distribution = _take(seen, stream, card, test, kept=True)
            seen.write(state, identity)
    found = _findings(card, seen, test, distribution, kept=state is not None)
    say(*(json.dumps(found, indent=2).split("\n") if as_json else _sentences(card, seen, test, found)))
    return ALARM if seen.alarm is not None else 0


def _take(
    seen: Watched,
    stream: Iterator[tuple[Floats, NDArray[np.bool_] | None]],
    card: Card,
    test: GapDrift,
    *,
    kept: bool,
) -> ConfidenceDrift:
    """Add the stream to what has been seen, and look: at the labels' test in ``test``, and at the confidences."""
    test.log_wealth = seen.log_wealth.copy()
    before = seen.samples
    for confidence, correct in stream:
        labeled = correct is not None
        if seen.labeled is None:
            seen.labeled = labeled
        if seen.labeled is not labeled:
            had, has = (("labels", "none")) if seen.labeled else ("no labels", "some")
            raise InputError(OWNER, f"a stream with {had} must go on so", has, "Watch it apart, with another --state.")
        # Both tests take sums: nothing grows with the length of the stream.
        seen.counts = seen.counts + np.histogram(confidence, card.bin_edges)[0]
        if correct is not None:
            place = test.observe(confidence, correct)
            seen.gaps = seen.gaps + GapSums.of(card.gaps.edges, confidence, correct)
            if place is not None and seen.alarm is None:
                seen.alarm = seen.samples + place + 1
        seen.samples += len(confidence)
    if seen.samples == before:
        raise InputError(OWNER, "there must be at least one sample", "none", "Check the files.")
    seen.looks, seen.log_wealth = seen.looks + 1, test.log_wealth
    # Each look at the weaker test spends a part of the allowed false alarms.
    distribution = confidence_drift(card.bin_counts, seen.counts)
    if not seen.labeled and distribution.p_value <= spent_at(test.false_alarm, seen.looks, kept=kept):
        seen.alarm = seen.alarm or seen.samples
    return distribution


def spent_at(false_alarm: float, look: int, *, kept: bool) -> float:
    """Level of the test of confidences at a look: all of it where there is only one, else a share of it."""
    return spent(false_alarm, look) if kept else false_alarm


def _stream(
    files: Sequence[Path], columns: Columns | None, card: Card, *, raw: bool
) -> Iterator[tuple[Floats, NDArray[np.bool_] | None]]:
    """Confidences, and whether they were right, block by block."""
    for file in files:
        for logits, target in open_table(file, columns).blocks():
            if logits.shape[1] != card.num_classes:
                got = f"{logits.shape[1]} in {file.name}"
                fix = "Pass predictions of the model that the card is about."
                raise InputError(OWNER, f"predictions must have the card's {card.num_classes} classes", got, fix)
            scores = logits.double()
            scores = card.calibration(scores) if raw else scores
            confidence, predicted = scores.softmax(dim=1).max(dim=1)
            correct = None if target is None else torch.eq(predicted, target).numpy()
            yield confidence.clamp(0.0, 1.0).numpy(), correct


def _findings(
    card: Card, seen: Watched, test: GapDrift, distribution: ConfidenceDrift, *, kept: bool
) -> dict[str, Any]:
    """Everything as plain values."""
    found: dict[str, Any] = {
        "card": card.name,
        "samples": seen.samples,
        "looks": seen.looks,
        "false_alarm": test.false_alarm,
        "alarm": seen.alarm is not None,
        "alarm_after": seen.alarm,
        "test": "calibration" if seen.labeled else "confidence distribution (weaker)",
        "confidence_distribution": {"distance": distribution.distance, "p_value": distribution.p_value},
    }
    if not seen.labeled:
        # Without labels there is only the distribution to speak of.
        found["confidence_distribution"]["level"] = spent_at(test.false_alarm, seen.looks, kept=kept)
        return found
    live, then = seen.gaps, card.gaps
    edges, evidence = card.gaps.edges, test.log_evidence_by_cell()
    found |= {
        "log_evidence": test.log_evidence,
        "log_threshold": float(np.log(test.threshold)),
        "accuracy": {"live": live.right[0] / live.count[0], "card": then.right[0] / then.count[0]},
        "confidence": {"live": live.confidence[0] / live.count[0], "card": then.confidence[0] / then.count[0]},
        "cells": [
            {
                "confidence": [edges[max(k - 1, 0)], edges[k] if k else edges[-1]],
                "samples": live.count[k],
                "gap": live.gap[k] if live.count[k] else None,
                "card": then.gap[k] if then.count[k] else None,
                "card_interval": [test.low[k], test.high[k]],
                "log_evidence": evidence[k],
            }
            for k in range(len(live.count))
        ],
    }
    plain: dict[str, Any] = json.loads(json.dumps(found, default=float))
    return plain


def _sentences(card: Card, seen: Watched, test: GapDrift, found: dict[str, Any]) -> list[str]:
    kind = "with labels" if seen.labeled else "without labels"
    known = f"{int(card.gaps.count[0]):,} test samples"
    lines = [f"{seen.samples:,} live samples {kind}, against the card of {card.name} ({known})"]
    distribution = found["confidence_distribution"]
    said = f"distance {distribution['distance']:.3f}, p = {distribution['p_value']:.2g}"
    if not seen.labeled:
        level = distribution["level"]
        verdict = (
            "ALARM: confidences are not distributed as on the card"
            if seen.alarm is not None
            else "no alarm: confidences are distributed as on the card, as far as can be told"
        )
        return [*lines, f"{verdict}: {said}, alarm at p <= {level:.2g}.", _WEAKER]
    lines += [
        f"  {name:10} {100 * found[name]['live']:6.2f} %   card {100 * found[name]['card']:6.2f} %"
        for name in ("accuracy", "confidence")
    ]
    lines.append("  accuracy less confidence, in points:")
    for number, cell in enumerate(found["cells"]):
        low, high = cell["confidence"]
        where = "all" if number == 0 else f"{low:.5g} to {high:.5g}"
        live = "     —" if cell["gap"] is None else f"{100 * cell['gap']:+6.2f}"
        known = f"[{100 * cell['card_interval'][0]:+.2f}, {100 * cell['card_interval'][1]:+.2f}]"
        lines.append(f"  {where:18} {live}   card {known:18} {int(cell['samples']):,} samples")
    evidence = f"evidence {_power(test.log_evidence)}, alarm at {test.threshold:g}"
    if seen.alarm is not None:
        lines.append(f"ALARM: calibration has drifted, shown after sample {seen.alarm:,} ({evidence}).")
    else:
        lines.append(f"no alarm: no drift of calibration is shown ({evidence}).")
    rate = f"{100 * test.false_alarm:g} %"
    lines.append(f"False alarms: at most {rate} over the whole stream, however often one looks.")
    other = distribution["p_value"] <= test.false_alarm
    verdict = (
        "other than on the card, so other inputs come in" if other else "not distinguishable from that on the card"
    )
    lines.append(f"For information, which raises no alarm: the distribution of confidences is {verdict} ({said}).")
    return lines


def _power(logarithm: float) -> str:
    """``exp(logarithm)``, short."""
    return f"{np.exp(logarithm):.3g}" if logarithm < 20 else f"10^{logarithm / np.log(10):.0f}"
