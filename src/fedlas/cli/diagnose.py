"""``fedlas runs diagnose``: reports how the indicator and the gate of FedLAS behaved in finished runs."""

from __future__ import annotations

import argparse
import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

from fedlas._core.check import InputError
from fedlas._core.files import write_atomically, write_json, write_text
from fedlas._core.progress import track
from fedlas._core.terminal import print_lines, print_renderable
from fedlas.cli.arguments import AddSubcommand, add_data_folder, add_flag, add_path
from fedlas.predictions.tables.outputs import check_report_files

if TYPE_CHECKING:
    from fedlas.lab.runs.folder import RunFolder
    from fedlas.lab.studies.diagnose import RunDiagnosis, RunGroup
    from fedlas.present.table import Table
    from fedlas.stats.intervals import Interval


def add_diagnose(add: AddSubcommand) -> None:
    """Add the subcommand ``fedlas runs diagnose``."""
    parser = add(_run, "RUN [RUN ...]")
    add_path(parser, "runs", "RUN", "run folders, or the folder of a bench", nargs="+")
    add_path(parser, "--out", "FOLDER", "folder of diagnose.html, .json, .npz (default: the runs')")
    add_data_folder(parser, "folder of the images")
    add_flag(parser, "--details", "also print the gate and every alarm (default: the indicator)")


def _run(args: argparse.Namespace) -> int:
    import numpy as np

    from fedlas.lab.report.diagnosis import diagnose_page
    from fedlas.lab.runs.bench_folder import find_runs, warn_skipped
    from fedlas.lab.studies.diagnose import diagnose_run, group_by_settings
    from fedlas.present.page import DIAGNOSE_PAGE, require_page_packages
    from fedlas.present.table import terminal_table

    require_page_packages()
    content = "finished runs with predictions and features"
    folders, left_out = find_runs(args.runs, _reason_to_skip, content=content, data=args.data)
    # A run that is named twice, alone and by its bench, is studied once.
    runs = list({folder.path: folder for folder in folders}.values())
    target = args.out or (runs[0].path if len(runs) == 1 else runs[0].path.parent)
    check_report_files(target, "diagnose.html", DIAGNOSE_PAGE, ("diagnose.json", "diagnose.npz"))
    studies: list[RunDiagnosis] = []
    for folder in track(runs, "studying runs"):
        try:
            studies.append(diagnose_run(folder))
        except InputError as error:
            # A damaged run does not keep the others from being studied.
            if folder.path in args.runs or (folder == runs[-1] and not studies):
                raise
            left_out.append(warn_skipped(folder.name, error))
    groups = group_by_settings(studies)
    whole = summary_table(groups)
    print_lines(*_verdict_sentences(groups), wrap=True)
    print_renderable(
        terminal_table(whole if args.details else replace(whole.where(_NARROW_COLUMNS), notes=()))
    )
    print_lines(*left_out, *_alarm_lines(groups, details=args.details), style="yellow")
    # Files are written after the verdict is shown, so a full disk does not hide it.
    written = (
        write_json(target / "diagnose.json", [study.as_dict() for study in studies]),
        write_text(target / "diagnose.html", diagnose_page(groups, data=args.data)),
        write_atomically(
            target / "diagnose.npz",
            lambda file: np.savez_compressed(file, **_sample_arrays(groups)),
        ),
    )
    print_lines(*(f"written: {path}" for path in written))
    return 0


def _reason_to_skip(folder: RunFolder) -> str | None:
    from fedlas.lab.studies.diagnose import reason_not_diagnosable

    return reason_not_diagnosable(folder) if folder.has_file(folder.metrics_path) else None


def _verdict_sentences(groups: Sequence[RunGroup]) -> list[str]:
    """Return a sentence per group on whether the indicator follows confidence and correctness."""
    lines = []
    for group in groups:
        confidence, right, baseline, _ = zip(*map(_indicator_intervals, group.studies), strict=True)
        follows = sum(each.low > 0 for each in confidence), sum(each.low > 0.5 for each in right)
        runs = f"{len(group.studies)} run{'s' * (len(group.studies) != 1)}"
        lines.append(
            f"{group.name}: Z rises with the confidence in {follows[0]} and separates right from wrong in {follows[1]} "
            f"of {runs} (AUROC {fmean(each.value for each in right):.2f}, confidence alone "
            f"{fmean(each.value for each in baseline):.2f})."
        )
    return lines


def _alarm_lines(groups: Sequence[RunGroup], *, details: bool) -> list[str]:
    alarms = {
        group.run_label(study): study.alarms_by_kind
        for group in groups
        for study in group.studies
        if study.alarms_by_kind
    }
    if not details and alarms:
        count = sum(map(len, alarms.values()))
        return [
            f"{count} alarm{'s' * (count != 1)} in {len(alarms)} of the runs: --details and the page list them."
        ]
    from fedlas.diagnose.monitor import alarm_kind

    # What most runs have stands first; those of one kind stand together.
    lines = [(name, *text.split(": ", 1)) for name, texts in alarms.items() for text in texts]
    counts = Counter(alarm_kind(alarm) for _, _, alarm in lines)
    lines.sort(key=lambda line: (-counts[alarm_kind(line[2])], alarm_kind(line[2])))
    return [": ".join(line) for line in lines]


def _sample_arrays(groups: Sequence[RunGroup]) -> dict[str, Any]:
    """Return arrays of per-sample values by ``RUN/NAME``."""
    return {
        f"{group.run_label(study)}/{name}": value.cpu().numpy()
        for group in groups
        for study in group.studies
        for name, value in study.samples.items()
    }


_DECIMALS = (2, 2, 2, 2, 0, 1, 3)
"""Decimals of the columns after the run's name."""
_CAPTION = (
    "~ Spearman's correlation, right? AUROC for right predictions; conf is the confidence, gap it minus right; "
    "± half of the 95 % interval over the test samples (diagnose.json has both ends); flips at the last epoch. "
    "A row with x is the mean ± standard deviation over seeds."
)


_NARROW_COLUMNS = (0, 1, 2, 3, 4)
"""Columns of the indicator; those after them are of the gate."""


def summary_table(groups: Sequence[RunGroup]) -> Table:
    """Return a table with a row per run, and a row of mean and spread per group of several seeds."""
    from fedlas.present.table import make_table

    heads = ("run", "Z~conf", "Z right?", "conf right?", "Z~gap", "+1 %", "flips %", "alpha_i")
    rows: list[Sequence[str]] = []
    for group in groups:
        members = group.studies
        for study in members:
            intervals = map(_format_interval, _indicator_intervals(study))
            gate = map(_format_value, _gate_values(study), _DECIMALS[4:])
            rows.append((group.run_label(study), *intervals, *gate))
        if len(members) > 1:
            columns = zip(
                *(
                    [i.value for i in _indicator_intervals(s)] + list(_gate_values(s))
                    for s in members
                ),
                strict=True,
            )
            rows.append((f"{group.name} x {len(members)}", *map(_format_mean, columns, _DECIMALS)))
    return make_table(heads, rows, title="Indicator Z and gate on the test set", notes=[_CAPTION])


def _indicator_intervals(study: RunDiagnosis) -> tuple[Interval, Interval, Interval, Interval]:
    indicator = study.indicator
    right = indicator.correctness.auroc
    baseline = indicator.baseline.auroc
    if right is None or baseline is None:
        raise TypeError("correctness is boolean, so it has an AUROC")
    return indicator.confidence.spearman, right, baseline, indicator.gap.spearman


def _gate_values(study: RunDiagnosis) -> tuple[float, float, float]:
    """Return percentages of +1 and of flips in the last epoch, and the mean strength; NaN without a gate."""
    if study.gate is None:
        return (math.nan,) * 3
    flips = [record["gate"]["train_flips"] for record in study.history if record.get("gate")]
    last = flips[-1] if flips and flips[-1] is not None else math.nan
    return 100 * study.gate.plus, 100 * last, study.gate.alpha


def _format_interval(interval: Interval) -> str:
    from fedlas.present.table import DASH

    if math.isnan(interval.value):
        return DASH
    return _drop_leading_zeros(f"{interval.value:.2f}±{(interval.high - interval.low) / 2:.2f}")


def _drop_leading_zeros(text: str) -> str:
    """Remove the zero before decimal points, to save width."""
    return re.sub(r"(?<!\d)0\.", ".", text)


def _format_value(value: float, places: int) -> str:
    from fedlas.present.table import DASH

    return DASH if math.isnan(value) else _drop_leading_zeros(f"{value:.{places}f}")


def _format_mean(values: Sequence[float], places: int) -> str:
    measured = [value for value in values if not math.isnan(value)]
    if len(measured) < 2:
        return _format_value(measured[0] if measured else math.nan, places)
    return _drop_leading_zeros(f"{fmean(measured):.{places}f}±{stdev(measured):.{places}f}")
