"""Samples that lm-evaluation-harness logs, as predictions."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fedlas._core.check import InputError
from fedlas._core.files import parse_json
from fedlas.predictions.cells import few
from fedlas.predictions.predictions import AnyPredictions, Predictions
from fedlas.predictions.stated import LABEL, stated_confidence
from fedlas.predictions.top_label import TopLabel

_RIGHT = ("acc", "exact_match", "em", "contains", "pass@1")
"""Metrics of a sample that are 1 for a right answer and 0 for a wrong one, the first of them counts."""
_KEYS = {"doc_id", "target", "filtered_resps"}


def is_lm_eval(path: Path) -> bool:
    """Return whether the first line of a file is a sample of lm-evaluation-harness."""
    try:
        with path.open(encoding="utf-8") as file:
            sample = parse_json(next(filter(str.strip, file), "{}"), finite=False)
    except (OSError, ValueError):
        return False
    return isinstance(sample, dict) and sample.keys() >= _KEYS


def read_lm_eval(
    path: Path, groups: str | None = None
) -> tuple[AnyPredictions, tuple[str, ...] | None, list[str]]:
    """Read the samples that lm-evaluation-harness logs with ``--log_samples``.

    Multiple choice: the logits are the log-likelihoods of the choices; where their number differs between questions,
    or the labels cannot be read, the confidence is the highest of their softmax. Free answers: the confidence is the
    one that the answer states.

    Args:
        path: ``samples_*.jsonl``; files of several tasks may be joined.
        groups: Field of the sample or its document that holds the group, such as ``subject``.

    Returns:
        Predictions, the group of each sample, and sentences on how the file was read.

    Raises:
        InputError: If a line is no such sample, or a free answer states no confidence.
    """
    rows = list(_samples(path))
    names = list(dict.fromkeys(str(sample.get("filter")) for _, sample in rows))
    notes = []
    if len(names) > 1:  # each filter logs every answer again
        rows = [
            (number, sample) for number, sample in rows if str(sample.get("filter")) == names[0]
        ]
        notes.append(
            f"Only the samples of filter {names[0]!r} count; the others are {', '.join(names[1:])}."
        )
    keys = (
        None
        if groups is None
        else tuple(_group(sample, groups, number, path) for number, sample in rows)
    )
    scores = [_log_likelihoods(sample) for _, sample in rows]
    outcomes = [_is_right(sample) for _, sample in rows]
    if all(each is None for each in scores):
        notes.append("Each confidence is the one that the answer states.")
        return _stated_in(rows, outcomes, path), keys, notes
    # Multiple choice: the harness may say which answer is right, the label, or both.
    targets = []
    correct = []
    for (number, sample), choices, outcome in zip(rows, scores, outcomes, strict=True):
        best = choices.index(max(choices)) if choices else -1
        readings = [
            each for each in _targets(sample, len(choices or ())) if outcome in (None, each == best)
        ]
        if choices is None or (len(readings) != 1 and outcome is None):
            fix = "Evaluate multiple choice and free answers apart."
            raise InputError(
                "samples must be of one kind, with a label", f"row {number} of {path.name}", fix
            )
        targets.append(readings[0] if len(readings) == 1 else None)
        correct.append(readings[0] == best if outcome is None else outcome)
    if None not in targets and len({len(each or ()) for each in scores}) == 1:
        notes.append("Logits are the log-likelihoods of the choices.")
        return Predictions(np.array(scores), np.array(targets)), keys, notes
    notes.append(
        "Each confidence is the highest of the softmax over the log-likelihoods of the choices."
    )
    confidence = [
        float(torch.tensor(each, dtype=torch.float64).softmax(0).max()) for each in scores
    ]
    return TopLabel(np.array(confidence), np.array(correct)), keys, notes


def _samples(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    sample = parse_json(line, finite=False)
                    if not isinstance(sample, dict) or not sample.keys() >= _KEYS:
                        raise ValueError(f"row {number} lacks {', '.join(sorted(_KEYS))}")
                    yield number, sample
    except (OSError, ValueError) as error:
        fix = "Log them with lm_eval --log_samples, or name columns."
        got = f"{path.name} ({error})"
        raise InputError("lines must be samples of lm-evaluation-harness", got, fix) from error


def _log_likelihoods(sample: Mapping[str, Any]) -> list[float] | None:
    """Return the log-likelihood of each choice; None for a free answer."""
    answers = sample["filtered_resps"]
    try:
        pairs = [(float(value), str(greedy)) for value, greedy in answers]
    except (TypeError, ValueError):
        return None
    whole = len(pairs) > 1 and all(
        math.isfinite(value) and greedy in ("True", "False") for value, greedy in pairs
    )
    return [value for value, _ in pairs] if whole else None


def _targets(sample: Mapping[str, Any], choices: int) -> set[int]:
    """Return the number of the right choice; as text, which the harness writes, it may also be that of another."""
    target = str(sample["target"]).strip()
    arguments = sample.get("arguments")
    requests = arguments.values() if isinstance(arguments, dict) else arguments or ()
    texts = [
        str((each.get("arg_1") if isinstance(each, dict) else each[-1]) or "").strip()
        for each in requests
    ]
    named = (
        {texts.index(target)}
        if texts.count(target) == 1 and type(sample["target"]) is not int
        else set()
    )
    return named | {n for n in range(choices) if str(n) == target}


def _is_right(sample: Mapping[str, Any]) -> bool | None:
    value = next((sample[name] for name in _RIGHT if name in sample), None)
    return bool(value) if value in (0, 1) else None


def _group(sample: Mapping[str, Any], name: str, number: int, path: Path) -> str:
    document = sample.get("doc")
    fields = {**(document if isinstance(document, dict) else {}), **sample}
    if isinstance(fields.get(name), str | int | float):
        return str(fields[name])
    fix = f"Name one of {few([key for key, value in fields.items() if isinstance(value, str | int)])}."
    raise InputError(
        f"--groups must name a field of every sample, {name!r}",
        f"none in row {number} of {path.name}",
        fix,
    )


def _stated_in(
    rows: Sequence[tuple[int, Any]], right: Sequence[bool | None], path: Path
) -> TopLabel:
    """Return the confidences that free answers state behind a word such as "confidence"."""
    answers = [
        json.dumps(sample.get("resps") or sample["filtered_resps"], ensure_ascii=False)
        for _, sample in rows
    ]
    answers = [answer.replace("\\n", " ") for answer in answers]  # or n90 would be a word
    confidence = stated_confidence([answer if LABEL.search(answer) else "" for answer in answers])
    for (number, _), value, outcome in zip(rows, confidence, right, strict=True):
        if math.isnan(value) or outcome is None:
            expected = f"free answers must state a confidence, and have one of {', '.join(_RIGHT)}"
            fix = "Ask for 'Confidence: ... %' in the prompt; or name fields with --confidence and --correct."
            raise InputError(expected, f"none in row {number} of {path.name}", fix)
    return TopLabel(confidence, np.array(right, dtype=bool))
