"""``fedlas shift``: finished runs under common corruptions of their test images."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from fedlas._core.check import InputError
from fedlas._core.extras import require
from fedlas._core.files import write_json
from fedlas.bench.load import Trained, load_trained
from fedlas.bench.run import as_tested, predictions_of
from fedlas.calibrators import CalibrationWarning, TemperatureScaling
from fedlas.data import Part, Splits
from fedlas.data.corrupted import corrupted
from fedlas.data.corruptions import CORRUPTIONS, SEVERITIES, Corruption
from fedlas.metrics import evaluate
from fedlas.predictions import Predictions
from fedlas.train.ranks import new_accelerator

_SHOWN = ("accuracy", "ece", "nll")


def shift(
    runs: Sequence[Path],
    *,
    corruptions: Sequence[str] = (),
    severities: Sequence[int] = (),
    seed: int = 0,
    data: str | None = None,
    save: bool = False,
) -> int:
    """Measure finished runs on corrupted test images, write ``shift.json`` into each, and print their means.

    Args:
        runs: Run folders.
        corruptions: Names; none means all fifteen.
        severities: None means 1 to 5.
        seed: Of what the corruptions draw; the same for all runs, so that all see the same images.
        data: Where the data is; None searches the usual places.
        save: Keep the predictions too, ``predictions/test-NAME-SEVERITY.npz``.

    Returns:
        0.

    Raises:
        InputError: For an unknown corruption or severity, a run that is not finished, or data that is not its own.
            Nothing is measured then.
    """
    chosen = [
        Corruption(name, severity, seed)
        for name in dict.fromkeys(corruptions or CORRUPTIONS)
        for severity in dict.fromkeys(severities or SEVERITIES)
    ]
    loaded = [load_trained(folder, data=data) for folder in runs]
    console = require("rich.console", extra="bench").Console()
    stderr = require("rich.console", extra="bench").Console(stderr=True)
    for folder, trained in zip(runs, loaded, strict=True):
        with require("rich.progress", extra="bench").Progress(
            console=stderr, transient=True, disable=not stderr.is_terminal
        ) as progress:
            task = progress.add_task(folder.name, total=len(chosen))

            def step(task: Any = task, progress: Any = progress) -> None:
                progress.advance(task)

            found = measure_shift(trained, chosen, on_step=step, save_to=folder / "predictions" if save else None)
        write_json(folder / "shift.json", found)
        console.print(_table(folder, found))
        for note in found["notes"]:
            console.print(note, highlight=False, markup=False)
        console.print(f"all figures: {folder / 'shift.json'}", highlight=False, markup=False, soft_wrap=True)
    return 0


def measure_shift(
    trained: Trained,
    corruptions: Sequence[Corruption],
    *,
    on_step: Callable[[], None] | None = None,
    save_to: Path | None = None,
) -> dict[str, Any]:
    """Metrics of a run on its test images under each corruption, before and after the temperature of its validation.

    Args:
        trained: The run.
        corruptions: Each at one severity.
        on_step: Called after each.
        save_to: Folder for the predictions; None keeps none.

    Returns:
        ``clean`` and ``corrupted`` (one entry each, with ``corruption``, ``severity`` and ``seed``), both with ``test``
        and ``test_scaled``; ``temperature``, and ``notes``, what its fit warned of.

    Raises:
        InputError: If the run's test images are corrupted already.
    """
    run = trained.run
    if run.recipe.data.corruption is not None:
        got = f"{run.name} with data.corruption={run.recipe.data.corruption.name}"
        raise InputError("fedlas shift", "the run must be one on clean test images", got, "Train one without it.")
    device = new_accelerator().device
    model, splits = trained.objective.to(device), trained.splits.to(device)
    scaling = TemperatureScaling()
    bins = run.recipe.train.num_bins

    tested = as_tested(run, splits)

    def predicted(by: Splits, part: Part) -> Predictions:
        return predictions_of(model, by, part, batch_size=run.recipe.train.batch_size, features=False)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", CalibrationWarning)
        scaling.fit(predicted(splits, splits.val))

    def measured(predictions: Predictions) -> dict[str, Any]:
        return {
            "test": evaluate(predictions, num_bins=bins),
            "test_scaled": evaluate(scaling.transform(predictions), num_bins=bins),
        }

    def each() -> Iterator[dict[str, Any]]:
        for corruption in corruptions:
            predictions = predicted(tested, corrupted(splits.test, corruption))
            if save_to is not None:
                predictions.save(save_to / f"test-{corruption.name}-{corruption.severity}.npz")
            if on_step is not None:
                on_step()
            about = {"corruption": corruption.name, "severity": corruption.severity, "seed": corruption.seed}
            yield {**about, **measured(predictions)}

    return {
        "temperature": scaling.temperature,
        "notes": [str(warning.message) for warning in caught],
        "clean": measured(predicted(tested, splits.test)),
        "corrupted": list(each()),
    }


def _table(folder: Path, found: Mapping[str, Any]) -> Any:
    """Means over corruptions, a row each severity; percent but for NLL."""
    table = require("rich.table", extra="bench").Table(
        title=f"{folder.name}: test images under corruption, means over "
        f"{len({row['corruption'] for row in found['corrupted']})} corruptions"
    )
    table.add_column("severity")
    for name in ("accuracy, %", "ECE, %", "NLL", "ECE after, %", "NLL after"):
        table.add_column(name, justify="right")
    rows = {"clean": [found["clean"]]}
    for row in found["corrupted"]:
        rows.setdefault(str(row["severity"]), []).append(row)
    for severity, entries in rows.items():
        before, after = (
            {name: fmean(entry[key][name] for entry in entries) for name in _SHOWN} for key in ("test", "test_scaled")
        )
        table.add_row(
            severity, f"{before['accuracy']:.2%}".rstrip("%"), f"{before['ece']:.2%}".rstrip("%"),
            f"{before['nll']:.3f}", f"{after['ece']:.2%}".rstrip("%"), f"{after['nll']:.3f}",
        )  # fmt: skip
    return table
