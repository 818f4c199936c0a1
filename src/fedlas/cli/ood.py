"""What ``fedlas ood`` does once its arguments are parsed."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fedlas._core.check import InputError, check_choice, suggestion
from fedlas._core.terminal import say, show, status
from fedlas.lab.recipes.recipe import parse_options
from fedlas.lab.report.ood_files import write_files
from fedlas.lab.report.ood_summary import MAIN, SELECTION, OodSummary, method_tables, score_tables, statement, verdicts
from fedlas.lab.report.page import require_page_packages
from fedlas.lab.report.table import terminal
from fedlas.lab.runs.comparable import is_derived
from fedlas.lab.runs.folder import check_alike, finished, leave_out, read_config, run_like
from fedlas.lab.runs.load import load_plan
from fedlas.lab.studies.ood.measure import measure_run
from fedlas.lab.studies.ood.outputs import Chosen
from fedlas.lab.studies.ood.sets import parse_sets
from fedlas.ood import OOD_SCORES, options_of
from fedlas.stats.intervals import check_bootstrap

_OWNER = "fedlas ood"


def ood(
    folders: Sequence[Path],
    *,
    data: Sequence[str] = (),
    scores: Sequence[str] = (),
    options: Iterable[str] = (),
    out: Path | None = None,
    run_data: str | None = None,
    replicates: int = 1000,
    details: bool = False,
) -> int:
    """Measure how well runs distinguish their test images from others, write the results and print the tables.

    Args:
        folders: Run folders, or folders of benches, all runs of which are taken.
        data: Other data sets, each ``NAME``, ``NAME:ROOT`` or ``LABEL=NAME:ROOT``.
        scores: Registry names; none means all that can be computed.
        options: Options of scores as ``SCORE.KEY=VALUE``.
        out: Where the files go; None is the run folder, or the folder that all runs are in.
        run_data: Where the runs' own data is; None searches the usual places.
        replicates: Of each bootstrap interval.
        details: Print every table, and how to read them.

    Returns:
        0.

    Raises:
        InputError: For an unknown data set, score or option, runs that cannot be compared, and whatever the runs or
            the data sets lack.
    """
    require_page_packages()
    named = parse_sets(data)
    chosen = choose(scores, parse_options(options))
    check_bootstrap(_OWNER, level=0.95, replicates=replicates, seed=0, method="percentile")
    runs, skipped = run_folders(folders)
    target = out or _common_folder(runs)
    with status() as tell:
        measured = []
        for run in runs:
            try:
                measured.append(
                    measure_run(
                        run, named, chosen, data=run_data, replicates=replicates, strict=bool(scores), show=tell
                    )
                )
            except InputError as error:
                # What is wrong with one run of a bench is no reason not to measure the others.
                if run in folders or (run == runs[-1] and not measured):
                    raise
                skipped.append(leave_out(run.name, error))
    losses = list(dict.fromkeys(result.loss for result in measured))
    measured.sort(key=lambda result: (losses.index(result.loss), result.seed))
    summary = OodSummary(measured, chosen, replicates, skipped)
    command = shlex.join(["fedlas", *sys.argv[1:]])
    written = write_files(target, summary, command=command)
    say(*verdicts(summary), wrap=True)
    compared = method_tables(summary) if len(losses) > 1 else []
    tables = [*compared, *score_tables(summary)] if details else compared[::2] or score_tables(summary, MAIN[:1])
    for table in tables:
        show(terminal(table))
    say(SELECTION, *(statement(summary) if details else summary.skipped), wrap=True)
    say(f"report: {written.html}")
    if details:
        say(f"        {written.markdown}  {written.csv}  {written.json}")
    return 0


def choose(scores: Sequence[str], options: Mapping[str, Any]) -> Chosen:
    """The scores to compute, their names and options checked.

    Args:
        scores: Registry names; none means all.
        options: Options by score.

    Raises:
        InputError: For an unknown score or option (the nearest is named), a score named twice, or options of one that
            is not computed.
    """
    names = list(scores) or list(OOD_SCORES)
    for name in names:
        check_choice(_OWNER, "--scores", name, OOD_SCORES)
    if len(set(names)) != len(names):
        raise InputError(_OWNER, "--scores must differ from each other", " ".join(names), "Name each once.")
    for name, given in options.items():
        if name not in names or not isinstance(given, Mapping):
            raise InputError(
                _OWNER,
                "--set must be SCORE.KEY=VALUE of a score that is computed",
                name,
                suggestion(name, names) if name not in names else f"Write e.g. --set {name}.KEY=VALUE.",
            )
        known = options_of(OOD_SCORES[name])
        for key in given:
            if key not in known:
                fix = suggestion(str(key), known) if known else "Leave it out: it has none."
                raise InputError(f"OOD score {name}", "options must be its own", repr(key), fix)
    return Chosen(names, options)


def run_folders(folders: Sequence[Path]) -> tuple[list[Path], list[str]]:
    """Finished runs among ``folders``, or in those that are benches; and why others there are left out.

    Raises:
        InputError: If there is none, one comes twice or is not finished, or they differ in more than loss and seed.
    """
    found: list[Path] = []
    skipped: list[str] = []
    for folder in folders:
        if (folder / "config.yaml").exists() or not folder.is_dir():
            found.append(folder)
            continue
        inside = 0
        for path in run_like(folder):
            try:
                config = read_config(path)
                if config is None:
                    continue
                inside += 1
                if is_derived(config):
                    skipped.append(f"{path.name} was left out: it is made of other runs and has no model of its own.")
                elif finished(load_plan(path)) is None:
                    skipped.append(f"{path.name} was left out: it is not finished.")
                else:
                    found.append(path)
            except InputError as error:
                skipped.append(leave_out(path.name, error))
        if not inside and not skipped:
            raise InputError(_OWNER, "RUN must be the folder of a run or of a bench", folder, "Check the path.")
    if not found:
        raise InputError(_OWNER, "there must be a finished run", *_nothing(folders, skipped))
    places = [folder.resolve() for folder in found]
    if len(set(places)) != len(places):
        raise InputError(_OWNER, "each run must be named once", ", ".join(map(str, found)), "Leave one out.")
    plans = [load_plan(folder) for folder in found]
    for run in plans:
        if finished(run) is None:
            raise InputError(_OWNER, "runs must be finished", run.folder, "Rerun its fedlas command: it resumes.")
    fix = "Name only runs of one recipe with the same settings; measure others in a call of their own."
    check_alike(_OWNER, [(run.folder.name, run.config()) for run in plans], fix)
    pairs = [(run.loss, run.seed) for run in plans]
    if len(set(pairs)) != len(pairs):
        raise InputError(_OWNER, "runs must differ in loss or seed", ", ".join(map(str, found)), "Leave one out.")
    return found, skipped


def _nothing(folders: Sequence[Path], skipped: Sequence[str]) -> tuple[str, str]:
    return f"{', '.join(map(str, folders))}: {' '.join(skipped)}", "Rerun its fedlas command: it resumes."


def _common_folder(runs: Sequence[Path]) -> Path:
    if len(runs) == 1:
        return runs[0]
    parents = {run.resolve().parent for run in runs}
    if len(parents) > 1:
        raise InputError(
            _OWNER, "runs must lie in one folder", ", ".join(sorted(map(str, parents))), "Say where to with --out."
        )
    return runs[0].parent
