"""What a bench folder holds: finished, failed, unfinished and unreadable runs, and their numbers aligned by seed."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fedlas._core.check import InputError
from fedlas.losses import LOSSES
from fedlas.metrics import METRICS
from fedlas.stats import Comparison, compare_to_best

STAGES = {"test": "before", "test_scaled": "after"}
"""Keys of metrics.json with test-set numbers, and whether that is before or after temperature scaling."""
LEVEL = 0.05
"""Significance level of every test in a report."""
_FORMAT = 1
_SIGNS_OF_A_RUN = ("config.yaml", "environment.json", "log.jsonl", "checkpoint.pt")


@dataclass(frozen=True)
class Run:
    """One finished run: its folder and the entries of its ``metrics.json``; None where an entry is missing.

    Attributes:
        path: The run folder.
        measured: ``{"val" | "test" | "test_scaled": {metric: value}}``, fractions.
    """

    path: Path
    recipe: str
    loss: str
    seed: int
    measured: Mapping[str, Mapping[str, float]]
    epochs: float | None = None
    best_epoch: float | None = None
    selected_by: str | None = None
    parameters: float | None = None
    seconds: float | None = None
    temperature: float | None = None
    temperature_ece: float | None = None

    @property
    def name(self) -> str:
        """Name of the run folder."""
        return self.path.name


@dataclass(frozen=True)
class Problem:
    """A run without numbers: the name of its folder and what is known of the cause."""

    name: str
    reason: str


@dataclass(frozen=True)
class Summary:
    """All runs of a bench folder.

    Attributes:
        folder: The bench folder.
        runs: Finished runs, by method and then seed.
        failed: Runs that ended with an error, and its last line.
        unfinished: Names of runs that neither finished nor failed: still running, or killed.
        unreadable: Runs whose ``metrics.json`` cannot be used, and why.
    """

    folder: Path
    runs: tuple[Run, ...]
    failed: tuple[Problem, ...] = ()
    unfinished: tuple[str, ...] = ()
    unreadable: tuple[Problem, ...] = ()
    _by_key: dict[tuple[str, int], Run] = field(init=False, repr=False, compare=False, default_factory=dict)

    def __post_init__(self) -> None:
        self._by_key.update({(run.loss, run.seed): run for run in self.runs})

    @property
    def recipe(self) -> str:
        """Name of the recipe, the same for all runs."""
        return self.runs[0].recipe

    @property
    def methods(self) -> list[str]:
        """Losses with a finished run: by the year of their paper, then those that are not registered as first seen."""
        return list(dict.fromkeys(run.loss for run in self.runs))

    @property
    def seeds(self) -> list[int]:
        """Seeds of the finished runs, ascending."""
        return sorted({run.seed for run in self.runs})

    @property
    def common_seeds(self) -> list[int]:
        """Seeds that every method finished."""
        return [seed for seed in self.seeds if all((method, seed) in self._by_key for method in self.methods)]

    @property
    def metrics(self) -> list[str]:
        """Metrics that some run measured, in the order of the registry; unknown ones last."""
        found = dict.fromkeys(m for run in self.runs for stage in STAGES for m in run.measured.get(stage, {}))
        return [m for m in METRICS if m in found] + [m for m in found if m not in METRICS]

    def run(self, method: str, seed: int) -> Run | None:
        """The finished run of ``method`` with ``seed``."""
        return self._by_key.get((method, seed))

    def values(self, method: str, metric: str, stage: str = "test") -> list[float]:
        """One value per entry of ``seeds``, in that order; NaN where there is none."""
        runs = (self.run(method, seed) for seed in self.seeds)
        return [math.nan if run is None else run.measured.get(stage, {}).get(metric, math.nan) for run in runs]

    def compare(self, metric: str, stage: str = "test") -> Comparison | None:
        """The best method by ``metric`` and those that cannot be told from it, over the seeds that all have.

        Returns:
            None if the metric is not registered (then nobody knows which direction is better) or has no values.
        """
        if metric not in METRICS:
            return None
        values = {method: self.values(method, metric, stage) for method in self.methods}
        values = {method: v for method, v in values.items() if not all(map(math.isnan, v))}
        if not values:
            return None
        return compare_to_best(values, higher_is_better=bool(METRICS[metric].metadata["higher_is_better"]), level=LEVEL)


def collect(folder: str | Path) -> Summary:
    """Read a bench folder, whose direct children are run folders.

    Args:
        folder: The bench folder. Children whose name starts with a dot, and folders without any file of a run, are
            ignored.

    Returns:
        Its runs. A ``metrics.json`` that cannot be used puts its run among the ``unreadable``, with the reason.

    Raises:
        InputError: If the folder does not exist, no run in it has finished, or its runs belong to different recipes.
    """
    folder = Path(folder)
    owner = "fedlas report"
    if not folder.is_dir():
        raise InputError(owner, "the folder must exist", folder, "Pass the --out of a fedlas bench.")
    runs: list[Run] = []
    failed: list[Problem] = []
    unreadable: list[Problem] = []
    unfinished: list[str] = []
    for child in sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")):
        if (child / "metrics.json").exists():
            try:
                run = _read_run(child)
            except ValueError as error:
                unreadable.append(Problem(child.name, str(error)))
                continue
            twin = next((r for r in runs if (r.loss, r.seed) == (run.loss, run.seed)), None)
            if twin is None:
                runs.append(run)
            else:
                unreadable.append(Problem(child.name, f"not counted: {twin.name} has the same loss and seed"))
        elif (child / "error.txt").exists():
            failed.append(Problem(child.name, _last_line(child / "error.txt")))
        elif any((child / sign).exists() for sign in _SIGNS_OF_A_RUN) or not any(child.iterdir()):
            unfinished.append(child.name)
    if not runs:
        raise _nothing_finished(owner, folder, failed, unfinished, unreadable)
    recipes = {run.recipe: run.name for run in runs}
    if len(recipes) > 1:
        raise InputError(
            owner,
            "all runs of one folder must come from the same recipe",
            ", ".join(f"{recipe} ({name})" for recipe, name in recipes.items()),
            "Move the runs of each recipe into a folder of their own.",
        )
    order = {method: i for i, method in enumerate(_ordered(list(dict.fromkeys(run.loss for run in runs))))}
    runs.sort(key=lambda run: (order[run.loss], run.seed))
    return Summary(folder, tuple(runs), tuple(failed), tuple(unfinished), tuple(unreadable))


def _ordered(methods: list[str]) -> list[str]:
    """Baselines by age and the newest last, as papers print them; cross-entropy is the oldest of all."""
    registered = list(LOSSES)

    def key(method: str) -> tuple[float, int]:
        if method not in LOSSES:
            return math.inf, methods.index(method)
        return float(LOSSES[method].metadata.get("year", math.inf)), registered.index(method)

    return sorted(methods, key=key)


def _nothing_finished(
    owner: str, folder: Path, failed: list[Problem], unfinished: list[str], unreadable: list[Problem]
) -> InputError:
    counts = {"failed": len(failed), "unfinished": len(unfinished), "unreadable": len(unreadable)}
    got = ", ".join(f"{count} {kind}" for kind, count in counts.items() if count) or "no run folder at all"
    if (folder / "metrics.json").exists():
        fix = f"This is a run folder; pass its parent, {folder.resolve().parent}."
    elif failed:
        fix = f"Read {folder / failed[0].name / 'error.txt'} ({failed[0].reason}), then start the same command again."
    elif unreadable:
        fix = f"{unreadable[0].name}: {unreadable[0].reason}. Delete that folder and start the same command again."
    else:
        fix = "Start the same fedlas bench command again: it goes on where it stopped."
    return InputError(owner, "the folder must hold at least one finished run", f"{folder} with {got}", fix)


def _last_line(path: Path) -> str:
    lines = [line.strip() for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else "no message"


def _read_run(path: Path) -> Run:
    """The run in ``path``; a ValueError says in a few words why it cannot be used."""
    try:
        content: Any = json.loads((path / "metrics.json").read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"metrics.json cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise ValueError(f"metrics.json is not valid JSON ({error})") from error
    if not isinstance(content, dict):
        raise ValueError("metrics.json does not hold an object")
    if content.get("format") != _FORMAT:
        raise ValueError(f"metrics.json has format {content.get('format')!r}, this version reads {_FORMAT}")
    loss, seed, recipe = content.get("loss"), content.get("seed"), content.get("recipe", "")
    if not (isinstance(loss, str) and loss and isinstance(seed, int) and not isinstance(seed, bool)):
        raise ValueError("metrics.json lacks the loss or the seed")
    if not isinstance(recipe, str):
        raise ValueError("metrics.json: recipe is not a name")
    numbers = {
        name: _number(name, content.get(name))
        for name in ("epochs", "best_epoch", "parameters", "seconds", "temperature", "temperature_ece")
    }
    measured = {stage: _measured(stage, content.get(stage, {})) for stage in ("val", *STAGES)}
    if not measured["test"]:
        raise ValueError("metrics.json holds no test metrics")
    selected_by = content.get("selected_by")
    selected_by = selected_by if isinstance(selected_by, str) else None
    return Run(path, recipe, loss, seed, measured, selected_by=selected_by, **numbers)


def _measured(stage: str, content: object) -> dict[str, float]:
    if not isinstance(content, dict):
        raise ValueError(f"metrics.json: {stage} is not an object")
    values = {str(name): _number(f"{stage}.{name}", value) for name, value in content.items()}
    return {name: value for name, value in values.items() if value is not None}


def _number(name: str, value: object) -> float | None:
    """A finite number, or None for null, NaN and infinities: something that was not measured."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"metrics.json: {name} is not a number")
    return value if math.isfinite(value) else None
