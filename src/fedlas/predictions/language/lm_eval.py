"""Sample logs of lm-evaluation-harness as a table."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from fedlas._core.check import Argument, InputError
from fedlas._core.files import parse_json
from fedlas._core.ops import softmax
from fedlas.predictions.language.log_probabilities import AnswerCounter
from fedlas.predictions.language.phrases import read_stated
from fedlas.predictions.language.stated import LABEL
from fedlas.predictions.language.votes import self_consistency
from fedlas.predictions.tables.formats.format import Writer
from fedlas.predictions.tables.formats.frame import Frame
from fedlas.predictions.tables.formats.json_lines import iter_json_rows, value_at_path
from fedlas.predictions.tables.formats.lines import open_lines
from fedlas.predictions.tables.words import Words

if TYPE_CHECKING:
    from fedlas.predictions.tables.roles import Columns

_RIGHT = ("acc", "exact_match", "em", "contains", "pass@1")
"""Metrics that are 1 for a correct answer and 0 for a wrong one; the first that is logged is used."""
_KEYS = {"doc_id", "filtered_resps"}
_TASK = re.compile(r"samples_(?P<task>.+?)(?:_\d{4}-\d\d-\d\dT[\d.:-]+)?")
_SPEAKS_OF_IT = re.compile(rf"{LABEL.pattern}|\b(?:sure|certain|confident|chance)\b", re.IGNORECASE)
"""Words that show that a number in a free answer is a confidence, not the answer itself."""


def starts_with_lm_eval_sample(path: Path) -> bool:
    """Return whether the first line of a file is a sample of lm-evaluation-harness."""
    try:
        with open_lines(path) as file:
            sample = parse_json(next(filter(str.strip, file), "{}"), finite=False)
    except (OSError, ValueError):
        return False
    return isinstance(sample, dict) and sample.keys() >= _KEYS


@dataclass(frozen=True)
class _LoggedSample:
    """Logged sample: one line of a log."""

    fields: Mapping[str, Any]
    row: int
    path: Path
    choices: list[float] | None
    right: bool | None

    @property
    def location(self) -> str:
        return f"row {self.row} of {self.path.name}"


class SampleLogWriter(Writer):
    """Writer that adds calibrated confidences to the samples of a log and keeps all other fields.

    ``calibrated_confidence`` is that of the answer, None where none can be read and for samples of further filters. In
    multiple choice ``calibrated_probs`` is an object of the probability of each choice, by its text.
    """

    def __init__(
        self, file: IO[bytes], source: Any, scores: Sequence[str], prefix: str, suffix: str
    ) -> None:
        super().__init__(file, source, scores, prefix, suffix)
        self._log = source
        self._confidence = f"{prefix}confidence"
        self._probs = f"{prefix}probs"
        self._values: list[np.ndarray[Any, Any]] = []
        names = {self._confidence, self._probs}
        if there := next(
            (each for row in source.samples for each in row.fields.keys() & names), ""
        ):
            raise InputError(
                "the log must not contain calibrated scores already",
                f"field {there!r} in {source.label}",
                "Apply the calibration to the original log of the harness.",
            )

    @property
    def added(self) -> tuple[str, ...]:
        """Names of the additional fields."""
        of_choices = bool(self._values) and self._values[0].ndim > 1
        return (self._confidence, *[self._probs] * of_choices)

    def write(self, source: object, rows: object, arrays: Sequence[np.ndarray[Any, Any]]) -> None:  # noqa: ARG002
        """Keep the calibrated values of some samples for :meth:`close`."""
        self._values.append(arrays[0])

    def close(self) -> None:
        """Write all logs, one after another."""
        samples = self._log.samples
        fields = {
            (sample.path, sample.row): self._calibrated_fields(values, sample)
            for values, sample in zip(np.concatenate(self._values), samples, strict=True)
        }
        for path in self._log.paths:
            for row, sample in iter_json_rows(path):
                more = fields.get((path, row), {self._confidence: None})
                self.file.write(json.dumps({**sample, **more}).encode() + b"\n")

    def _calibrated_fields(self, values: Any, sample: _LoggedSample) -> dict[str, Any]:
        """Return the additional fields of a sample from its confidence ``()`` or logits ``(C,)``."""
        if not values.ndim:
            return {self._confidence: float(values)}
        probs = softmax(values[None])[0].tolist()
        scores = sample.choices or []
        texts = tuple(text.strip() for text in _request_arguments(sample.fields, 1))
        named = len({*texts}) == len(texts) == len(scores) and all(texts)
        names = texts if named else tuple(map(str, range(len(scores))))
        # The harness takes the choice of the highest score, also where calibration prefers another.
        answer = probs[scores.index(max(scores))]
        return {self._confidence: answer, self._probs: dict(zip(names, probs, strict=True))}


class SampleLog(Frame):
    """Table of the samples that lm-evaluation-harness logs with ``--log_samples``.

    Multiple choice: the column ``logits`` holds the log-likelihoods of the choices, ``target`` the right one; where
    their number differs between questions, or the labels cannot be read, ``confidence`` is the highest of their softmax
    and ``correct`` the outcome. Free answers: ``confidence`` is the one that the scored answer states. Other columns:
    ``task`` (from the name of the file), ``length`` (words of the answer, or of a question with choices; as groups
    four ranges), the fields of the samples and of their documents.

    A task of free answers that state no confidence is left out beside tasks that have scores, which a note says.

    Args:
        paths: ``samples_*.jsonl`` of one model.
        columns: Columns that are asked for; with ``drop_missing``, answers without a confidence are left out, and
            questions without log-likelihoods.
        live: What the samples are read for without labels, ``"logits"`` or ``"confidence"``; None: with labels, as
            what they can be.

    Raises:
        InputError: If a line is no such sample, free answers state no confidence, or questions have no log-likelihoods.
    """

    needs_names = False
    writer = SampleLogWriter

    def __init__(self, paths: Sequence[Path], columns: Columns, live: str | None = None) -> None:
        notes: list[str] = []
        self.answers = AnswerCounter()
        is_vote = columns.confidence_as == "vote"
        logs = {path: _read_samples(path, notes, self.answers) for path in paths}
        if not is_vote:
            logs = _leave_out_silent_tasks(logs, live, notes, columns.words)
        samples = [sample for log in logs.values() for sample in log]
        where = next(iter(logs)).name if len(logs) == 1 else f"{len(logs)} files"
        scores = (
            _vote_shares(samples, notes, live)
            if is_vote
            else _read_scores(samples, self.answers, notes, live, columns.words)
        )
        self.answers.check("filtered_resps", where, drop=columns.drop_missing)
        if "confidence" in scores:
            stated = ~np.isnan(scores["confidence"])
            samples = [
                sample for sample, is_stated in zip(samples, stated, strict=True) if is_stated
            ]
            scores = {name: values[stated] for name, values in scores.items()}
        self.paths = paths
        self.samples = samples
        self.left_out = self.answers.rows
        lengths = [_word_count(sample) for sample in samples]
        fields = _collect_fields([sample.fields for sample in samples])
        fields["task"] = [_task_name(sample.path) for sample in samples]
        if None not in lengths:
            fields["length"] = _length_quarters(lengths) if columns.groups == "length" else lengths
        super().__init__({**fields, **scores})
        self.label = where
        self.notes = notes

    def expand_paths(self, names: Sequence[str], mixed: Collection[str] = ()) -> None:  # noqa: ARG002 (no column is)
        """Expand nested fields of the samples, given by their paths, into columns."""
        for name in names:
            values = [value_at_path(sample.fields, name) for sample in self.samples]
            if name not in self.names and any(value is not None for value in values):
                self.names = [*self.names, name]
                self._columns[name] = values


def _read_samples(path: Path, notes: list[str], answers: AnswerCounter) -> list[_LoggedSample]:
    """Return the samples of the first filter in a file, without questions that have no log-likelihoods."""
    samples = []
    for row, fields in _iter_lines(path):
        if not fields.keys() >= _KEYS:
            raise InputError(
                "every line must be a sample of lm-evaluation-harness",
                f"row {row} lacks {', '.join(sorted(_KEYS - fields.keys()))} in {path.name}",
                "Write the log with lm_eval --log_samples, or name the columns of another table.",
            )
        samples.append(
            _LoggedSample(fields, row, path, _log_likelihoods(fields), _is_right(fields))
        )
    filters = list(dict.fromkeys(str(sample.fields.get("filter")) for sample in samples))
    if len(filters) > 1:
        samples = [sample for sample in samples if str(sample.fields.get("filter")) == filters[0]]
        others = ", ".join(filters[1:])
        notes.append(f"Only samples of filter {filters[0]!r} are used; other filters: {others}.")
    if not samples:
        raise InputError(
            "there must be at least one sample", f"none in {path.name}", "Check the file."
        )
    free = [sample for sample in samples if _has_free_answer(sample.fields)]
    questions = [sample for sample in samples if sample.choices is not None]
    if free and questions:
        first, second = sorted((free[0], questions[0]), key=lambda sample: sample.row)
        raise InputError(
            "samples must be either all multiple choice or all free answers",
            f"both, first in {first.location} and row {second.row}",
            "Put multiple choice and free answers into separate tables.",
        )
    if free:
        return samples
    if not questions:
        raise InputError(
            "samples must have answers, or finite log-likelihoods of two or more choices",
            f"neither in {samples[0].location}",
            "Check the output type of the task.",
        )
    for sample in samples:
        answers.add(sample.row, "", unread=sample.choices is None)
    return questions


def _leave_out_silent_tasks(
    logs: Mapping[Path, list[_LoggedSample]], live: str | None, notes: list[str], words: Words
) -> dict[Path, list[_LoggedSample]]:
    """Return the logs without tasks whose free answers give no score, and note each; all logs if none has scores."""

    def has_scores(samples: Sequence[_LoggedSample]) -> bool:
        if samples[0].choices is not None:
            return True
        return live != "logits" and any(_states_confidence(sample, words) for sample in samples)

    scored = {path: samples for path, samples in logs.items() if has_scores(samples)}
    for path, samples in logs.items() if scored else ():
        if path not in scored:
            why = "are no choices" if live == "logits" else "state no confidence"
            notes.append(
                f"Task {_task_name(path)} is left out: its {len(samples):,} free answers {why} ({path.name})."
            )
    return scored or dict(logs)


def _states_confidence(sample: _LoggedSample, words: Words) -> bool:
    """Return whether a free answer states a confidence."""
    return not math.isnan(_read_stated_confidence(_scored_answer(sample.fields), words))


def _read_stated_confidence(answer: str, words: Words) -> float:
    """Return the confidence that a free answer states, or NaN: a number alone is the answer itself."""
    values, _ = read_stated([answer if _SPEAKS_OF_IT.search(answer) else ""], words)
    return float(values[0])


def _has_free_answer(fields: Mapping[str, Any]) -> bool:
    """Return whether the answer is free text rather than log-likelihoods of choices."""
    answers = fields["filtered_resps"]
    return any(
        isinstance(each, str) for each in (answers if isinstance(answers, list) else [answers])
    )


def _iter_lines(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    try:
        yield from iter_json_rows(path)
    except (OSError, UnicodeError) as error:
        raise InputError(
            "every line must be a sample of lm-evaluation-harness",
            f"{path.name} ({error})",
            "Write the log with lm_eval --log_samples, or name the columns of another table.",
        ) from error


def _read_scores(
    samples: Sequence[_LoggedSample],
    answers: AnswerCounter,
    notes: list[str],
    live: str | None,
    words: Words,
) -> dict[str, np.ndarray[Any, Any]]:
    """Return logits and labels of all samples, or confidences and correctness; NaN if no confidence is stated."""
    unlabeled = (None, False)
    chosen = [
        None if not sample.choices else _label_and_outcome(sample) if live is None else unlabeled
        for sample in samples
    ]
    targets = [None if pair is None else pair[0] for pair in chosen]
    sizes = {len(sample.choices or ()) for sample in samples}
    if live == "logits" and (len(sizes) > 1 or 0 in sizes):
        counts = " and ".join(
            f"{size} choices" if size else "free answers" for size in sorted(sizes)
        )
        sizes -= {len(samples[0].choices or ())} if len(sizes) > 1 else set()
        other = next(sample for sample in samples if len(sample.choices or ()) in sizes)
        raise InputError(
            "all questions must have as many choices as the questions of the fit",
            f"{counts}, as in {other.location}",
            "Fit a calibration on a log of questions with this number of choices.",
        )
    if live == "logits" or (live is None and None not in targets and len(sizes) == 1):
        notes.append("Logits are the log-likelihoods of the choices.")
        logits = {"logits": np.array([sample.choices for sample in samples])}
        return logits if live else logits | {"target": np.array(targets)}
    if any(pair is not None for pair in chosen):
        notes.append(
            "Each confidence is the largest softmax probability over the log-likelihoods of the choices."
        )
    if None in chosen:
        notes.append("Each confidence is the one that the answer states.")
    confidence = []
    correct = []
    for sample, pair in zip(samples, chosen, strict=True):
        if pair is not None:
            confidence.append(float(softmax(np.array([sample.choices], np.float64)).max()))
            correct.append(pair[1])
            continue
        if sample.right is None and live is None:
            raise InputError(
                f"free answers must have one of the metrics {', '.join(_RIGHT)}",
                f"none in {sample.location}",
                ("Name fields by ", Argument("confidence"), " and ", Argument("correct"), "."),
            )
        answer = _scored_answer(sample.fields)
        value = _read_stated_confidence(answer, words)
        answers.add(sample.row, answer, unread=math.isnan(value))
        confidence.append(value)
        correct.append(bool(sample.right))
    confidences = {"confidence": np.array(confidence)}
    return confidences if live else confidences | {"correct": np.array(correct)}


def _vote_shares(
    samples: Sequence[_LoggedSample], notes: list[str], live: str | None
) -> dict[str, np.ndarray[Any, Any]]:
    """Return the majority share among repeated answers per question, and with targets whether it is correct."""
    for sample in samples:
        lacks_target = live is None and sample.fields.get("target") is None
        if sample.choices is not None or lacks_target:
            raise InputError(
                "counting votes requires free answers with a target",
                f"{'choices' if sample.choices else 'no target'} in {sample.location}",
                (
                    "Leave ",
                    Argument("confidence_as"),
                    " out, or log a task with repeated free answers.",
                ),
            )
    votes = self_consistency([_repeated_answers(sample.fields) or [""] for sample in samples])
    confidence = {"confidence": votes.confidence}
    right = votes.matches([sample.fields.get("target") for sample in samples])
    notes += votes.notes(right if live is None else ())
    return confidence | {"correct": right} if live is None else confidence


def _repeated_answers(fields: Mapping[str, Any]) -> list[str]:
    """Return all answers to a question: the filtered ones, or the unfiltered if only one is left."""
    passed = _flatten_texts(fields["filtered_resps"])
    return passed if len(passed) > 1 else _flatten_texts(fields.get("resps")) or passed


def _label_and_outcome(sample: _LoggedSample) -> tuple[int | None, bool]:
    """Return the label of a multiple-choice question (None if unreadable), and whether the answer is correct.

    The harness may say which answer is right, the label, or both.
    """
    choices = sample.choices or []
    best = choices.index(max(choices))
    readings = [
        each
        for each in _target_candidates(sample.fields, len(choices))
        if sample.right in (None, each == best)
    ]
    if len(readings) != 1 and sample.right is None:
        raise InputError(
            "each question must have the correct choice in target, or 0 or 1 in acc",
            f"neither in {sample.location}",
            "Remove questions that were not scored; only fedlas apply accepts them.",
        )
    target = readings[0] if len(readings) == 1 else None
    return target, readings[0] == best if sample.right is None else sample.right


def _log_likelihoods(fields: Mapping[str, Any]) -> list[float] | None:
    """Return the log-likelihood of each choice, or None for a free answer."""
    answers = fields["filtered_resps"]
    try:
        pairs = [(float(value), str(greedy)) for value, greedy in answers]
    except (TypeError, ValueError):
        return None
    whole = len(pairs) > 1 and all(
        math.isfinite(value) and greedy in ("True", "False") for value, greedy in pairs
    )
    return [value for value, _ in pairs] if whole else None


def _target_candidates(fields: Mapping[str, Any], num_choices: int) -> set[int]:
    """Return the possible indices of the correct choice: the target read as an index, and as a choice text."""
    target = str(fields.get("target")).strip()
    texts = [text.strip() for text in _request_arguments(fields, 1)]
    named = (
        {texts.index(target)}
        if texts.count(target) == 1 and type(fields.get("target")) is not int
        else set()
    )
    return named | {n for n in range(num_choices) if str(n) == target}


def _request_arguments(fields: Mapping[str, Any], index: int) -> list[str]:
    """Return the prompt of each request (``location`` 0), or the continuation that was scored (1)."""
    arguments = fields.get("arguments")
    requests = arguments.values() if isinstance(arguments, dict) else arguments or ()
    return [
        str(
            (
                each.get(f"arg_{index}")
                if isinstance(each, dict)
                else each[min(index, len(each) - 1)]
            )
            or ""
        )
        for each in requests
    ]


def _is_right(fields: Mapping[str, Any]) -> bool | None:
    """Return whether the logged metric says that the answer is correct, or None if it does not."""
    value = next((fields[name] for name in _RIGHT if name in fields), None)
    return bool(value) if value in (0, 1) else None


def _scored_answer(fields: Mapping[str, Any]) -> str:
    """Return the answer that was scored: the first that contains the filtered text."""
    passed = next(iter(_flatten_texts(fields["filtered_resps"])), "")
    answers = _flatten_texts(fields.get("resps")) or [passed]
    if passed in answers or not passed.strip():
        return passed if passed in answers else answers[0]
    whole = re.compile(rf"(?<!\w){re.escape(passed.strip())}(?!\w)")
    # an extraction that failed was that of the first
    return next(filter(whole.search, answers), answers[0])


def _flatten_texts(value: object) -> list[str]:
    """Return the texts in nested lists as a flat list."""
    if isinstance(value, list | tuple):
        return [text for each in value for text in _flatten_texts(each)]
    return [value] if isinstance(value, str) else []


def _task_name(path: Path) -> str:
    """Return the task name in the name of a log file."""
    match = _TASK.fullmatch(path.stem.removesuffix(".jsonl"))
    return match["task"] if match else path.stem


def _word_count(sample: _LoggedSample) -> int | None:
    """Return the word count of the answer, or of the question if there are choices; None if not logged."""
    text: str | None = _scored_answer(sample.fields)
    if sample.choices is not None:
        text = next(iter(_request_arguments(sample.fields, 0)), None)
    return None if text is None else len(text.split())


def _length_quarters(lengths: Sequence[Any]) -> list[str]:
    """Return the quartile range of each length as a name, such as ``13 to 20 words``."""
    ends = (
        np.unique(np.quantile(lengths, [0.25, 0.5, 0.75, 1.0], method="higher"))
        .astype(int)
        .tolist()
    )
    quarter = np.searchsorted(ends, lengths)
    starts = [min(lengths), *(end + 1 for end in ends[:-1])]
    names = [f"{start} to {end} words" for start, end in zip(starts, ends, strict=True)]
    return [names[place] for place in quarter.tolist()]


def _collect_fields(samples: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Return the scalar fields of samples and of their documents as columns; sample fields take precedence."""
    whole = [
        {**(sample["doc"] if isinstance(sample.get("doc"), dict) else {}), **sample}
        for sample in samples
    ]
    keys = dict.fromkeys(
        key for each in whole for key, value in each.items() if isinstance(value, str | int | float)
    )
    return {key: [each.get(key) for each in whole] for key in keys}
