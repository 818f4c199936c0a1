"""``fedlas init FILE``: guesses the columns of a table of scores and writes commands for it."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedlas._core.check import InputError, truncated_list
from fedlas._core.files import write_atomically
from fedlas._core.outputs import check_output_path, new_file_kind
from fedlas._core.terminal import print_lines
from fedlas._core.text import comment_line, quote_path, wrap_command
from fedlas.cli.arguments import format_column_options, format_role
from fedlas.predictions.tables.columns import join_names
from fedlas.predictions.tables.formats.by_suffix import open_format
from fedlas.predictions.tables.formats.compression import full_suffix
from fedlas.predictions.tables.roles import Columns

_LABELS_PATTERN = re.compile(
    r"(y|y_?true|target|true_?label|labels?|truth|gold|class|outcome)", re.I
)
_SCORE_PATTERN = re.compile(
    r"(p|y_?pred|y_?prob|.*prob.*|.*score.*|p_.*|.*_p|risk|pred.*)", re.I | re.S
)
_CONFIDENCE_PATTERN = re.compile(r"(.*_)?conf(idence)?", re.I | re.S)
_CORRECT_PATTERN = re.compile(r"(is_?)?(correct|right)", re.I)
_PREDICTED_PATTERN = re.compile(
    r"(predicted|prediction|pred|y_?pred|answer)(_?(class|label))?", re.I
)
# A column weight may be that of a body.
_WEIGHTS_PATTERN = re.compile(r"sample_?weights?|weights", re.I)
_CLUSTERS_PATTERN = re.compile(
    r"(patient|subject|user|customer|client|person|image|document|question)([ _-]?id)?", re.I
)
_INDEX_PATTERN = re.compile(r"|Unnamed: \d+|__index_level_\d+__|(row_?)?(id|index)", re.I)
_SEPARATORS = "_.- "
_PERCENT_TOTAL = 100.0
_MAX_CATEGORIES = 256


@dataclass(frozen=True)
class GuessedColumns:
    """Guessed roles of the columns of a table.

    Attributes:
        columns: The roles.
        reasons: For each role a column or a pattern, and why.
        others: Columns without a role that a calibration may use.
    """

    columns: Columns
    reasons: Mapping[str, str]
    others: tuple[str, ...]


class _TableSample:
    """First rows of a table by column: texts, and numbers of columns where all cells are numbers."""

    def __init__(self, path: Path) -> None:
        from fedlas.predictions.tables.cells import cell_to_text, parse_number

        self.path = path
        source = open_format(path)
        self.label = source.label
        chunk = next(iter(source.chunks([], source.names)), None)
        if chunk is None:
            raise InputError("the table must have rows", path, "Check that the file is complete.")
        self.rows = len(chunk.rows)
        columns = {
            name: [cell_to_text(each) for each in chunk.values[name]] for name in source.names
        }
        self.texts = {
            name: texts for name, texts in columns.items() if not _INDEX_PATTERN.fullmatch(name)
        }
        self.numbers: dict[str, list[float]] = {}
        for name, texts in self.texts.items():
            numbers = [parse_number(text, source.decimal_point) for text in texts if text]
            if numbers and None not in numbers:
                self.numbers[name] = [each for each in numbers if each is not None]

    def values(self, name: str) -> set[str]:
        """Return the distinct values of a column."""
        return {text for text in self.texts[name] if text}

    def columns_matching(self, pattern: re.Pattern[str]) -> list[str]:
        """Return the columns whose name matches a pattern."""
        return [name for name in self.texts if pattern.fullmatch(name)]

    def is_probability(self, name: str) -> bool:
        """Return whether a column looks like probabilities: numbers in [0, 1], not only 0 and 1."""
        numbers = self.numbers.get(name, [])
        inside = all(0 <= number <= 1 for number in numbers)
        return inside and any(0 < number < 1 for number in numbers)


def guess_columns(path: Path, target: str | None = None) -> GuessedColumns:
    """Guess the columns of scores, labels, clusters and weights from names and first rows.

    Args:
        path: The table.
        target: Column of the labels; None is guessed.

    Raises:
        InputError: If the scores or the labels cannot be known; it names the candidates and the options to pass.
    """
    content = _TableSample(path)
    roles: dict[str, Any] = {}
    reasons: dict[str, str] = {}

    def add_role(role: str, name: object, reason: str) -> None:
        roles[role] = name
        reasons[role] = reason

    if target is not None:
        Columns(target=target).find_scores([*content.texts], where=content.label)
        add_role("target", target, "as given")
    pair = None if target is not None else _find_label_pair(content)
    scores = _add_label_roles(pair, add_role) if pair else _add_score_roles(content, add_role)
    if (
        not pair
        and target is None
        and (
            scores[0] not in content.columns_matching(_CONFIDENCE_PATTERN) or "correct" not in roles
        )
    ):
        labels = _find_labels(content, scores)
        add_role("target", labels, f"{len(content.values(labels)):,} different labels")
    labels = str(roles.get("target", ""))
    if (
        not pair
        and len(scores) == 1
        and labels
        and not _identifies_event(scores[0], content.values(labels))
    ):
        both = ",".join(sorted(content.values(labels)))
        raise InputError(
            "the name of a single score column must contain its class",
            f"{scores[0]!r} in {content.label}, labels {both}",
            f"Name the positive class: fedlas evaluate {quote_path(path)}"
            f"{format_column_options(Columns(probs=[scores[0]], target=labels))} "
            f"{' or '.join(format_role('event', each) for each in sorted(content.values(labels)))}.",
        )
    for name in content.columns_matching(_CLUSTERS_PATTERN):
        repeats = len(content.values(name))
        if name not in roles.values() and 1 < repeats < content.rows:
            add_role(
                "clusters", name, f"{repeats:,} of them in {content.rows:,} rows: held out whole"
            )
            break
    for name in content.columns_matching(_WEIGHTS_PATTERN)[:1]:
        if min(content.numbers.get(name, [-1])) >= 0:
            add_role("weights", name, "by its name")
    used = {*scores, *map(str, roles.values())}
    if pair:  # a calibration of several labels reads no covariates
        used.update(content.texts)
    others = [name for name in content.texts if name not in used and _is_covariate(content, name)]
    return GuessedColumns(Columns(**roles), reasons, tuple(others))


_PREFIX_PATTERN = re.compile(r"([^_.\- ]+[_.\- ])(.+)", re.S)
"""Beginning of a name, such as p_ of p_edema, and what follows it."""
_LABEL_CELLS = {"0", "1", "0.0", "1.0", "-1", "-1.0", "true", "false"}


def _find_label_pair(content: _TableSample) -> tuple[str, str, int] | None:
    """Return the prefixes of probability and label columns with equal suffixes, and their count; None if no pair."""
    families: dict[str, set[str]] = {}
    for name in content.texts:
        if match := _PREFIX_PATTERN.fullmatch(name):
            families.setdefault(match[1], set()).add(match[2])
    for scores, ends in families.items():
        names = [scores + end for end in ends]
        if len(ends) < 2 or not all(map(content.is_probability, names)):
            continue
        for labels, others in families.items():
            cells = {each.lower() for end in others for each in content.values(labels + end)}
            if labels != scores and others == ends and cells <= _LABEL_CELLS:
                return scores, labels, len(ends)
    return None


def _add_label_roles(pair: tuple[str, str, int], add_role: Any) -> list[str]:
    """Add the roles of multi-label columns; return the column prefixes."""
    scores, labels, count = pair
    add_role("probs", f"{scores}*", f"{count} labels; numbers from 0 to 1, each of its own")
    add_role(
        "labels",
        f"{labels}*",
        f"0 and 1, or empty; each belongs to the column of {scores}* that ends alike",
    )
    return [scores, labels]


def _add_score_roles(content: _TableSample, add_role: Any) -> list[str]:
    """Add the role of the score columns; return the names of the columns used."""
    for stem, names in _score_families(content).items():
        rows = list(zip(*(content.numbers[name] for name in names), strict=True))
        sums = [sum(row) for row in rows]
        option = _name_family(stem, names)
        classes = f"{len(names)} classes"
        for total in (1.0, _PERCENT_TOTAL):
            if all(abs(each - total) < 0.02 * total for each in sums) and min(map(min, rows)) >= 0:
                add_role("probs", option, f"{classes}; each row sums to {total:.0f}")
                if total != 1.0:
                    add_role("percent", True, "rows sum to 100")
                return names
        if (stem or "").lower().startswith("logit") or (stem is None and min(map(min, rows)) < 0):
            add_role("logits", option, f"{classes}; numbers of any sign")
            return names
    for name in content.columns_matching(_CONFIDENCE_PATTERN):
        if content.is_probability(name):
            add_role("confidence", name, "by its name, from 0 to 1")
            for role, pattern in (("correct", _CORRECT_PATTERN), ("predicted", _PREDICTED_PATTERN)):
                for outcome in content.columns_matching(pattern)[:1]:
                    add_role(role, outcome, "by its name")
                    return [name, outcome]
    shares = [name for name in content.numbers if content.is_probability(name)]
    likely = [name for name in shares if _SCORE_PATTERN.fullmatch(name)] or shares
    if len(likely) != 1:
        got = truncated_list(likely) if likely else f"none of {truncated_list(list(content.texts))}"
        raise InputError(
            "one column, or columns with a common prefix, must look like scores",
            f"{got} in {content.label}",
            f"Name the columns: fedlas evaluate {quote_path(content.path)} --probs p_yes,p_no --target NAME, "
            "with --percent for percentages; name a nested JSON field by its path, as --confidence answer.conf.",
        )
    add_role(
        "probs", join_names(likely), "numbers from 0 to 1: the probability of one of two classes"
    )
    return likely


def split_stem(name: str) -> tuple[str, str]:
    """Return what score columns share and the class at the end of a name: ``("p_", "yes")``, ``("p", "1")``.

    The end is what follows the last ``_ . -`` or space, or else the digits at the end; it may be empty.
    """
    start = max(map(name.rfind, _SEPARATORS)) + 1
    if not start:
        start = len(name)
        while start and name[start - 1].isdecimal():
            start -= 1
    return name[:start], name[start:]


def _name_family(stem: str | None, names: Sequence[str]) -> str | list[str]:
    """Return columns as a pattern, or one by one where their beginning is no plain text in a pattern."""
    pattern = f"{stem}*"
    if stem is None or set(stem) & set("*?[") or join_names([pattern]) != pattern:
        return join_names(names)
    return pattern


def _score_families(content: _TableSample) -> dict[str | None, list[str]]:
    """Return numeric columns grouped by a shared prefix; under None, columns named after the labels."""
    families: dict[str | None, list[str]] = {}
    whole = [name for name, each in content.numbers.items() if len(each) == content.rows]
    for name in whole:
        stem, end = split_stem(name)
        if end:
            families.setdefault(stem, []).append(name)
    for labels in content.texts:
        values = content.values(labels)
        if len(values) > 1 and values <= {*whole} and labels not in values:
            # classes that no row of the labels shows stand next to those that some row shows
            first, last = (ends(map(whole.index, values)) for ends in (min, max))
            families[None] = whole[first : last + 1]
    return {stem: names for stem, names in families.items() if stem != "" and len(names) > 1}


def _find_labels(content: _TableSample, scores: Sequence[str]) -> str:
    ends = {split_stem(name)[1] for name in scores} | {*scores}
    others = [name for name in content.texts if name not in scores]
    named = [name for name in others if _LABELS_PATTERN.fullmatch(name)]
    most = max(2, len(scores))
    fitting = [name for name in others if 1 < len(content.values(name)) <= most]
    if len(scores) == 1:
        fitting = [name for name in fitting if _identifies_event(scores[0], content.values(name))]
    by_value = [name for name in fitting if content.values(name) <= ends]
    candidates = next(filter(None, (named, by_value, fitting)), [])
    if len(candidates) == 1:
        return candidates[0]
    example = format_role("target", (candidates or ["NAME"])[-1])
    raise InputError(
        "exactly one column must look like labels",
        f"{truncated_list(candidates or others)} in {content.label}",
        f"Name the column: fedlas init {quote_path(content.path)} {example}.",
    )


def _identifies_event(column: str, labels: Collection[str]) -> bool:
    """Return whether a score column's name shows which of two labels the column is the probability of."""
    from fedlas.predictions.event import classes_from_column

    try:
        classes_from_column(column, sorted(labels), None)
    except InputError:
        return False
    return True


def _is_covariate(content: _TableSample, name: str) -> bool:
    differ = len(content.values(name))
    return differ > 1 and (name in content.numbers or differ <= _MAX_CATEGORIES)


def init_table(path: Path, *, out: Path | None = None, target: str | None = None) -> int:
    """Guess the columns of a table, write the commands, and print the guess; return the exit status."""
    from fedlas.predictions import Predictions
    from fedlas.predictions.event import event_note
    from fedlas.predictions.tables.read import is_lm_eval_log, read_predictions

    out = Path(f"{path.name.removesuffix(full_suffix(path))}.sh") if out is None else out
    check_output_path("--out", out, new_file_kind(".sh"))
    if is_lm_eval_log(path, Columns()):
        raise InputError(
            "the file must be a table of scores",
            f"{path}, samples of lm-evaluation-harness",
            f"Evaluate the samples directly: fedlas evaluate {quote_path(path)}.",
        )
    guess = guess_columns(path, target)
    # What is written has been read.
    table = read_predictions(path, guess.columns)
    predictions = table.predictions
    event = ""
    if isinstance(predictions, Predictions) and predictions.num_classes == 2:
        event = event_note(predictions)
    lines = _describe_guess(guess)
    script = _shell_script(
        path, out, guess, [*lines, *([event] if event else [])], predictions.num_samples
    )
    # a file may have a name of any bytes
    write_atomically(out, lambda file: file.write(script.encode(errors="surrogateescape")))
    print_lines(
        f"{path.name}: {predictions.num_samples:,} rows. Guessed from names and values:", wrap=True
    )
    print_lines(*(f"  {line}" for line in lines))
    print_lines(
        *(f"note: {note}" for note in (*table.notes, event) if note), stderr=True, wrap=True
    )
    print_lines(f"commands: {out}", f"next:     sh {quote_path(out)}")
    return 0


def _describe_guess(guess: GuessedColumns) -> list[str]:
    """Return a line per role: the option, the column and the reason."""
    lines = []
    for role, reason in guess.reasons.items():
        lines.append(f"{format_role(role, getattr(guess.columns, role)):28} {reason}")
    return lines


def _comments(*lines: str) -> list[str]:
    """Return a comment of the script per line; names and values of a stranger's table stand in them."""
    return [comment_line(line) for line in lines]


def _shell_script(
    path: Path, out: Path, guess: GuessedColumns, guessed: Sequence[str], rows: int
) -> str:
    """Return the shell script with the commands."""
    suffix = full_suffix(path)
    calibration = quote_path(f"{path.name.removesuffix(suffix)}.calibration.json")
    options = format_column_options(guess.columns)
    covariates = [
        "These say more about a row and are not used. Covariates may improve the calibration;",
        "--groups COLUMN measures each of its values; --weights COLUMN says how many samples a row",
        "stands for. Add to the command, where it is known in time:",
        f"  {format_role('covariates', join_names(guess.others))}",
    ]
    return "\n".join(
        [
            *_comments(
                f"{path.name}: {rows:,} rows with scores and labels. Run: sh {quote_path(out)}",
                "Guessed from the names and values of its columns; correct what is wrong:",
                *(f"  {line}" for line in guessed),
            ),
            *(["", *_comments(*covariates)] if guess.others else []),
            "",
            "set -e",
            "",
            *_comments("Is it calibrated? The first sentence says it."),
            *wrap_command(f"fedlas evaluate {quote_path(path)}{options}"),
            "",
            *_comments("Repair it; the printed check is on rows that each fit has not seen."),
            *wrap_command(f"fedlas calibrate {quote_path(path)}{options} --out {calibration}"),
            "",
            *_comments(
                "Then, for every new file with the same columns:",
                f"fedlas apply {calibration} LIVE{suffix} --out LIVE.calibrated{suffix}",
            ),
            "",
        ]
    )
