"""Reading a bench folder into a summary of its runs, and packing the finished ones."""

from __future__ import annotations

import io
import math
import os
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from fedlas._core.check import InputError, error_reason
from fedlas._core.files import require_no_device, write_atomically
from fedlas._core.terminal import Console
from fedlas.lab.runs.begin import check_metrics
from fedlas.lab.runs.bench_folder import run_folders, warn_skipped
from fedlas.lab.runs.folder import PACK_FILE, PACK_MARK, RunFolder, is_derived
from fedlas.lab.runs.intervals import with_estimates
from fedlas.lab.runs.summary import NUMBERS, STAGES, FinishedRun, Problem, Summary
from fedlas.lab.train.checkpoint import config_differences
from fedlas.losses import LOSSES
from fedlas.stats.estimates import REPLICATES


def collect_runs(folder: str | Path) -> Summary:
    """Read all runs of a bench folder.

    Args:
        folder: The bench folder. Children whose name starts with a dot, and folders without any file of a run, are
            ignored.

    Returns:
        The runs. A run whose files cannot be used is listed in ``unreadable`` with the reason, and a warning names it.

    Raises:
        InputError: If the folder does not exist, no run in it has finished, or its runs differ in more than
            loss and seed: in recipe, configuration or data. A missing
            ``config.yaml`` or ``data.json`` is not compared. Derived results must be of the same data; a note names
            settings in which their member runs differ from the runs of the folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError("the bench folder must exist", folder, "Pass the --out of a fedlas bench.")
    # Sort the runs. One that cannot be read is listed, so that it does not hide the results of the others.
    runs: list[FinishedRun] = []
    failed: list[Problem] = []
    unreadable: list[Problem] = []
    unfinished: list[str] = []
    for child in run_folders(folder):
        try:
            run = _inspect_folder(child)
        except (ValueError, OSError) as error:
            warn_skipped(child.name, why := error_reason(error))
            unreadable.append(Problem(child.name, why))
            continue
        if isinstance(run, FinishedRun):
            # A seed that counts twice would make a test believe in more independent runs than there are.
            twin = next((r for r in runs if (r.loss, r.seed) == (run.loss, run.seed)), None)
            if twin is None:
                runs.append(run)
            else:
                same = "name and lowest seed" if run.made_by else "loss and seed"
                unreadable.append(
                    Problem(child.name, f"not counted: {twin.name} has the same {same}")
                )
        elif isinstance(run, Problem):
            failed.append(run)
        elif run:
            unfinished.append(child.name)
    if not runs:
        raise _no_finished_run_error(folder, failed, unfinished, unreadable)
    # Runs share a table only if they differ in nothing but loss and seed.
    recipes = {run.recipe: run.name for run in runs if not run.made_by}
    if len(recipes) > 1:
        raise InputError(
            "all runs of one folder must come from the same recipe",
            ", ".join(f"{recipe} ({name})" for recipe, name in recipes.items()),
            "Move the runs of each recipe into a folder of their own.",
        )
    fix = "Move the runs of each configuration into a folder of their own."
    folders = [run.folder for run in runs]
    trained = [(each.name, each.config) for each in folders if each.config and not each.is_derived]
    derived = [(each.name, each.config) for each in folders if each.config and each.is_derived]
    check_same_settings(trained, fix)
    check_same_data_settings([*trained, *derived], fix)
    # Which images a seed chose differs from seed to seed; the data set they are chosen from must not.
    check_same_settings(
        [(each.name, {"data": {**each.data, "split": None}}) for each in folders if each.data], fix
    )
    for index, run in enumerate(runs):
        config = run.folder.config
        if (
            config
            and trained
            and run.folder.is_derived
            and (note := settings_note(config, *trained[0]))
        ):
            runs[index] = replace(run, notes=(*run.notes, note))
    # The table has the order in which papers print losses, not that of the names of the folders.
    order = {
        method: i
        for i, method in enumerate(_sort_methods(list(dict.fromkeys(run.loss for run in runs))))
    }
    runs.sort(key=lambda run: (order[run.loss], run.seed))
    return Summary(folder, tuple(runs), tuple(failed), tuple(unfinished), tuple(unreadable))


def _inspect_folder(folder: RunFolder) -> FinishedRun | Problem | bool:
    """Return the finished run or the failure in a folder, else whether a run was started there."""
    names = {path.name for path in folder.path.iterdir()} if folder.path.exists() else set()
    if folder.has_file(folder.metrics_path):
        run = read_finished_run(folder)
        check_config(folder.config or {})
        _ = folder.data  # read now, so that a damaged one is found here
        if unreadable := [
            name
            for name in folder.files
            if name in names and not os.access(folder.path / name, os.R_OK)
        ]:
            raise ValueError(f"{unreadable[0]} cannot be read (Permission denied)")
        return run
    if folder.error_path.name in names:
        text = (
            require_no_device(folder.error_path)
            .read_text(encoding="utf-8", errors="replace")
            .strip()
        )
        return Problem(folder.name, text.splitlines()[-1].strip() if text else "no message")
    start_files = (
        folder.config_path,
        folder.environment_path,
        folder.log_path,
        folder.checkpoint_path,
        folder.lock_path,
    )
    return not names or any(path.name in names for path in start_files)


def _sort_methods(methods: list[str]) -> list[str]:
    """Return the methods by year of publication, cross-entropy first and unregistered methods last."""

    def key(method: str) -> tuple[float, int, str]:
        if method not in LOSSES:
            return math.inf, methods.index(method), ""
        return float(LOSSES[method].metadata["year"] or math.inf), 0, method

    return sorted(methods, key=key)


def _no_finished_run_error(
    folder: Path, failed: list[Problem], unfinished: list[str], unreadable: list[Problem]
) -> InputError:
    counts = {"failed": len(failed), "unfinished": len(unfinished), "unreadable": len(unreadable)}
    got = (
        ", ".join(f"{count} {kind}" for kind, count in counts.items() if count)
        or "no run folder at all"
    )
    fix = "Rerun the same fedlas bench command: it resumes."
    if RunFolder(folder).metrics_path.exists():
        fix = f"This is a run folder; pass its parent, {folder.resolve().parent}."
    elif failed:
        fix = f"Read {RunFolder(folder / failed[0].name).error_path} ({failed[0].reason}). {fix}"
    elif unreadable:
        fix = f"{unreadable[0].name}: {unreadable[0].reason}. Delete that folder. {fix}"
    return InputError("the folder must hold at least one finished run", f"{folder} with {got}", fix)


def read_finished_run(folder: RunFolder) -> FinishedRun:
    """Return the finished run in a folder, or raise ValueError with a short reason."""
    if not folder.is_finished:
        raise ValueError("metrics.json is missing")
    content = folder.metrics
    check_metrics(content)
    loss = content.get("loss")
    seed = content.get("seed")
    recipe = content.get("recipe", "")
    if not (isinstance(loss, str) and loss and type(seed) is int and isinstance(recipe, str)):
        raise ValueError("metrics.json lacks the loss, the seed or the recipe")
    measured = {
        stage: {
            name: value
            for name, value in content.get(stage, {}).items()
            if _finite_or_none(value) is not None
        }
        for stage in ("val", *STAGES)
    }
    if not measured["test"]:
        raise ValueError("metrics.json holds no test metrics")
    selected_by, made_by = (
        value if isinstance(value := content.get(key), str) else None
        for key in ("selected_by", "uncertainty")
    )
    numbers: dict[str, Any] = {name: _finite_or_none(content.get(name)) for name in NUMBERS}
    notes = tuple(content.get("notes", ()))
    return FinishedRun(
        folder,
        recipe,
        loss,
        seed,
        measured,
        selected_by=selected_by,
        notes=notes,
        made_by=made_by,
        **numbers,
    )


def _finite_or_none(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


Config = Mapping[str, Any]


def check_config(config: Config) -> None:
    """Raise ValueError if a configuration does not have the structure of a run's.

    Raises:
        ValueError: If a section is missing or not a mapping.
    """
    runs = config.get("runs") if is_derived(config) else {"": {"config": config}}
    for run in runs.values() if isinstance(runs, dict) else [None]:
        inner = run.get("config") if isinstance(run, dict) else None
        if not isinstance(inner, dict) or not isinstance(inner.get("data") or {}, dict):
            raise ValueError("config.yaml is not the configuration of a run")


def check_same_settings(configs: Iterable[tuple[str, Mapping[str, Any]]], fix: str) -> None:
    """Raise InputError if runs differ in more than loss and seed, or runs of one loss in more than the seed.

    Args:
        configs: Name and configuration of each run.
        fix: Fix to suggest.

    Raises:
        InputError: For the first run that differs otherwise; every difference is named.
    """
    first: dict[str, tuple[str, dict[str, Any]]] = {}
    for name, config in configs:
        loss = config.get("loss")
        of_loss = str(loss.get("name") if isinstance(loss, dict) else loss)
        for group, part in (("", _shared_settings(config)), (f"loss {of_loss}", {"loss": loss})):
            other, settings = first.setdefault(group, (name, part))
            if changes := config_differences(settings, part):
                raise InputError(
                    "all runs of one folder must have the same configuration except for loss and seed",
                    f"{name}, which differs from {other} in {'; '.join(changes)}",
                    fix,
                )


def check_same_data_settings(configs: Iterable[tuple[str, Config]], fix: str) -> None:
    """Raise InputError if the data settings of runs, or of their member runs, differ.

    All other settings may differ, as they do for a hyper-ensemble or MC dropout.

    Args:
        configs: Name and configuration of each folder.
        fix: Fix to suggest.

    Raises:
        InputError: For the first folder that differs; every difference is named.
    """
    sections: list[tuple[str, Config]] = []
    for name, config in configs:
        for run in _member_configs(config):
            data = dict(run.get("data") or {})
            if data.get("test_size") is None:
                # the test set is the same whatever the validation part
                data.pop("split_seed", None)
            sections.append((name, {"data": data}))
    check_same_settings(sections, fix)


def settings_note(config: Config, reference_name: str, reference_config: Config) -> str | None:
    """Return a note on settings in which the member runs differ from a trained run, or None if they agree.

    Args:
        config: Configuration of a derived result.
        reference_name: Name of a trained run in the same folder.
        reference_config: Configuration of the trained run.
    """
    changes: dict[str, None] = {}
    for run in _member_configs(config):
        changes |= dict.fromkeys(
            config_differences(
                _shared_settings(reference_config), _shared_settings(run), words=("there", "here")
            )
        )
    return f"its runs differ from {reference_name} in {'; '.join(changes)}" if changes else None


def _member_configs(config: Config) -> list[Config]:
    """Return the configurations of the member runs, or of the run itself if it was trained."""
    if not is_derived(config):
        return [config]
    return [run["config"] for run in config["runs"].values()]


def _shared_settings(config: Config) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key not in ("loss", "seed")}


def pack_runs(
    bench: Path, *, replicates: int = REPLICATES, console: Console | None = None
) -> tuple[Path, Summary]:
    """Pack the finished runs of a bench folder into ``runs.zip``, including runs that are packed already.

    A packed run keeps the files that reports, comparisons and resuming a bench need: configuration, data fingerprint,
    environments, metrics, intervals, log, metrics after calibrators and results of ``fedlas runs shift``. Checkpoint
    and predictions stay in the run folder, which is not removed.

    Args:
        bench: The bench folder.
        replicates: Replicates for missing intervals, which cannot be computed from a pack; 0 computes none.
        console: A ``rich.console.Console`` for the progress bar; None makes one on standard error.

    Returns:
        Path of ``runs.zip``, and the summary of the bench folder.

    Raises:
        InputError: As :func:`~fedlas.lab.runs.collection.collect_runs`, or if the file cannot be written.
    """
    summary = with_estimates(collect_runs(bench), replicates=replicates, console=console)
    texts: dict[str, dict[str, str]] = {}
    for folder in (run.folder for run in summary.runs):
        small = (folder.config_path, folder.data_path, folder.environment_path, folder.metrics_path)
        paths = (
            *small,
            folder.intervals_path,
            folder.calibrated_path,
            folder.shift_path,
            folder.log_path,
        )
        texts[folder.name] = {
            path.name: text for path in paths if (text := folder.text(path)) is not None
        }
    return write_pack(bench, texts), summary


def write_pack(bench: Path, runs: Mapping[str, Mapping[str, str]]) -> Path:
    """Write ``runs.zip`` atomically; the same texts give the same bytes.

    Args:
        bench: The bench folder.
        runs: For each run the text of its files, by name of the file.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        archive.comment = PACK_MARK
        for run, files in runs.items():
            for name, text in files.items():
                about = zipfile.ZipInfo(f"{run}/{name}")  # without the time of today
                about.external_attr = 0o644 << 16
                archive.writestr(about, text, zipfile.ZIP_DEFLATED, 9)
    return write_atomically(bench / PACK_FILE, lambda file: file.write(buffer.getvalue()))
