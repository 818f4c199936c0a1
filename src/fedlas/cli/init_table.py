"""``fedlas init FILE``: writes a shell script with the commands for a table of scores, whose columns are guessed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedlas._core.check import InputError, truncated_list
from fedlas._core.files import write_atomically
from fedlas._core.outputs import check_output_path, new_file_kind
from fedlas._core.terminal import print_lines
from fedlas._core.text import comment_line, quote_path, wrap_command
from fedlas.cli.arguments import format_column_options, format_role
from fedlas.cli.guess_columns import GuessedColumns, guess_columns
from fedlas.predictions.tables.columns import join_names
from fedlas.predictions.tables.formats.compression import full_suffix
from fedlas.predictions.tables.roles import OF_FIT, Columns

if TYPE_CHECKING:
    from fedlas.predictions import PredictionTable


def init_table(path: Path, *, out: Path | None = None, chosen: Columns | None = None) -> int:
    """Guess the columns of a table, write the commands, and print the guess; return the exit status."""
    from fedlas.predictions import Predictions
    from fedlas.predictions.event import event_note
    from fedlas.predictions.tables.read import is_lm_eval_log

    chosen = chosen or Columns()
    out = Path(f"{path.name.removesuffix(full_suffix(path))}.sh") if out is None else out
    check_output_path("--out", out, new_file_kind(".sh"))
    is_log = is_lm_eval_log(path, chosen)
    guess = GuessedColumns(chosen, {}) if is_log else guess_columns(path, chosen)
    table, guess = _read_as_guessed(path, guess)
    predictions = table.predictions
    notes = list(table.notes)
    if isinstance(predictions, Predictions) and predictions.num_classes == 2:
        notes += filter(None, [event_note(predictions)])
    if guess.unread_dates:
        notes.append(
            f"Whether day or month comes first in {truncated_list(guess.unread_dates)} is unclear: write dates as "
            "2026-10-14, then --time says that later rows are held out."
        )
    lines = _describe_guess(guess)
    if is_log:
        lines.append("samples of lm-evaluation-harness, whose columns are known")
    script = _Script(path, out, guess, predictions.num_samples)
    text = script.render([*lines, *notes])
    # a file may have a name of any bytes
    write_atomically(out, lambda file: file.write(text.encode(errors="surrogateescape")))
    print_lines(
        f"{path.name}: {predictions.num_samples:,} rows. Guessed from names and values:", wrap=True
    )
    print_lines(*(f"  {line}" for line in lines))
    print_lines(*(f"note: {note}" for note in notes), stderr=True, wrap=True)
    print_lines(f"commands: {out}", f"next:     sh {quote_path(out)}")
    return 0


def _read_as_guessed(path: Path, guess: GuessedColumns) -> tuple[PredictionTable, GuessedColumns]:
    """Return the table and the guess by which all its rows can be read: what is written has been read."""
    from fedlas.predictions import read_predictions

    for version in guess.versions:
        read_predictions(path, _select_version(guess.columns, version))
    try:
        return read_predictions(path, guess.columns), guess
    except InputError:
        # later rows may lack a date, or write it in another way
        if guess.columns.time is None or guess.reasons.get("time") == "as given":
            raise
    guess = guess.without_time()
    return read_predictions(path, guess.columns), guess


def _select_version(columns: Columns, scores: str) -> Columns:
    """Return the roles for the scores of another version of the model."""
    return replace(columns, probs=join_names([scores]))


def _describe_guess(guess: GuessedColumns) -> list[str]:
    """Return a line per role: the option, the column and the reason."""
    lines = [
        f"{format_role(role, getattr(guess.columns, role)):28} {reason}"
        for role, reason in guess.reasons.items()
    ]
    if guess.versions:
        lines.append(f"{', '.join(guess.versions):28} other versions, compared with the first")
    return lines


@dataclass(frozen=True)
class _Script:
    """The shell script for a table.

    Names and values of a stranger's table stand in it: quoted in commands, and on one line in comments.
    """

    path: Path
    out: Path
    guess: GuessedColumns
    rows: int

    def render(self, guessed: list[str]) -> str:
        """Return the text of the script; lines on what was guessed stand at its top as comments."""
        paragraphs = [
            [
                *_comments(
                    f"{self.path.name}: {self.rows:,} rows with scores and labels. Run: sh {quote_path(self.out)}",
                    "Guessed from the names and values of its columns; correct what is wrong:",
                    *(f"  {line}" for line in guessed),
                )
            ],
            self._further_columns(),
            ["set -e"],
            self._evaluate(),
            *self._compare(),
            *self._calibrate(),
        ]
        return "\n\n".join("\n".join(lines) for lines in paragraphs if lines) + "\n"

    def _further_columns(self) -> list[str]:
        if not self.guess.others:
            return []
        return _comments(
            "These say more about a row and are not used. Covariates may improve the calibration;",
            "--groups COLUMN measures each of its values; --weights COLUMN says how many samples a row",
            "stands for. Add to the command, where it is known in time:",
            f"  {format_role('covariates', join_names(self.guess.others))}",
        )

    def _evaluate(self) -> list[str]:
        first = self._evaluate_command(self.guess.columns)
        return [*_comments("Is it calibrated? The first sentence says it."), *first]

    def _evaluate_command(self, columns: Columns) -> list[str]:
        columns = _without_roles_of_fit(columns)
        return wrap_command(
            f"fedlas evaluate {quote_path(self.path)}{format_column_options(columns)}"
        )

    def _compare(self) -> list[list[str]]:
        """Return the commands for other versions of the score: each measured, and compared with the first."""
        columns = replace(_without_roles_of_fit(self.guess.columns), covariates=None)
        paragraphs = []
        for name in self.guess.versions:
            compare = f"fedlas compare {quote_path(self.path)}{format_column_options(columns)}"
            against = format_role("probs", join_names([name])).replace("--probs", "--against", 1)
            paragraphs += [
                [
                    *_comments(f"Is {name}? And which is better?"),
                    *self._evaluate_command(_select_version(columns, name)),
                    *wrap_command(f"{compare} {against}"),
                ]
            ]
        return paragraphs

    def _calibrate(self) -> list[list[str]]:
        """Return the commands that fit, check and apply a calibration."""
        suffix = full_suffix(self.path)
        calibration = quote_path(f"{self.path.name.removesuffix(suffix)}.calibration.json")
        options = format_column_options(self.guess.columns)
        command = f"fedlas calibrate {quote_path(self.path)}{options} --out {calibration}"
        return [
            [
                *_comments("Repair it; the printed check is on rows that each fit has not seen."),
                *wrap_command(command),
            ],
            _comments(
                "Then, for every new file with the same columns:",
                f"fedlas apply {calibration} LIVE{suffix} --out LIVE.calibrated{suffix}",
            ),
        ]


def _without_roles_of_fit(columns: Columns) -> Columns:
    """Return the roles for a command that fits nothing."""
    nothing: dict[str, Any] = dict.fromkeys(OF_FIT)
    return replace(columns, **nothing)


def _comments(*lines: str) -> list[str]:
    """Return a comment of the script per line."""
    return [comment_line(line) for line in lines]
