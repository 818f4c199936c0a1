"""``fedlas shift``: finished runs under common corruptions of their test images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from fedlas._core.check import InputError
from fedlas._core.files import write_json
from fedlas._core.ranks import new_accelerator
from fedlas._core.terminal import Bar, Cell, say, show, table
from fedlas.calibrators import TemperatureScaling
from fedlas.calibrators.notes import fit_with_notes
from fedlas.lab.data import Part, Splits
from fedlas.lab.data.shift import CORRUPTIONS, SEVERITIES, Corruption
from fedlas.lab.data.shift.corrupted import corrupted
from fedlas.lab.runs.data import as_tested
from fedlas.lab.runs.folder import RunFolder
from fedlas.lab.runs.load import Trained, load_trained
from fedlas.lab.runs.measure import predictions_of
from fedlas.metrics import evaluate
from fedlas.predictions import Predictions
from fedlas.stats.estimates import check_replicates, estimates

_SHOWN = ("accuracy", "ece", "nll")
REPLICATES = 199
"""Of interval and noise floor: there are seventy-five sets of corrupted images, before and after temperature."""
_CAPTION = (
    "In brackets and as floor the means over the corruptions of the ends of each ECE's 95 % bootstrap interval over "
    "the images, and of its noise floor, the ECE of a calibrated model with the same confidences. The images are the "
    "same in all, so an interval of the mean would be no wider. shift.json has those of every corruption, with the "
    "p-value of the calibration test."
)


def shift(
    runs: Sequence[Path],
    *,
    corruptions: Sequence[str] = (),
    severities: Sequence[int] = (),
    seed: int = 0,
    data: str | None = None,
    save: bool = False,
    replicates: int = REPLICATES,
) -> int:
    """Measure finished runs on corrupted test images, write ``shift.json`` into each, and print their means.

    Args:
        runs: Run folders.
        corruptions: Names; none means all fifteen.
        severities: None means 1 to 5.
        seed: Of what the corruptions draw; the same for all runs, so that all see the same images.
        data: Where the data is; None searches the usual places.
        save: Keep the predictions too, ``predictions/test-NAME-SEVERITY.npz``.
        replicates: Of the interval and the noise floor of every ECE, at least 39; 0 computes none.

    Returns:
        0.

    Raises:
        InputError: For an unknown corruption or severity, too few replicates, a run that is not finished, or data that
            is not its own. Nothing is measured then.
    """
    check_replicates("fedlas shift", replicates)
    chosen = [
        Corruption(name, severity, seed)
        for name in dict.fromkeys(corruptions or CORRUPTIONS)
        for severity in dict.fromkeys(severities or SEVERITIES)
    ]
    folders = [RunFolder(path, data_root=data) for path in runs]
    loaded = [load_trained(folder) for folder in folders]
    for folder, trained in zip(folders, loaded, strict=True):
        with Bar(folder.name, total=len(chosen)) as bar:
            save_to = folder.part_path if save else None
            found = measure_shift(trained, chosen, on_step=bar.advance, save_to=save_to, replicates=replicates)
        write_json(folder.shift_path, found)
        show(_table(folder, found))
        say(*([_CAPTION] if replicates else []), *found["notes"], wrap=True)
        say(f"all figures: {folder.shift_path}")
    return 0


def measure_shift(
    trained: Trained,
    corruptions: Sequence[Corruption],
    *,
    on_step: Callable[[], None] | None = None,
    save_to: Callable[[str], Path] | None = None,
    replicates: int = 0,
) -> dict[str, Any]:
    """Metrics of a run on its test images under each corruption, before and after the temperature of its validation.

    Args:
        trained: The run.
        corruptions: Each at one severity.
        on_step: Called after each.
        save_to: Path for the predictions, by the name of the part; None keeps none.
        replicates: Of interval and noise floor of every ECE; 0 computes none.

    Returns:
        ``clean`` and ``corrupted`` (one entry each, with ``corruption``, ``severity`` and ``seed``), both with ``test``
        and ``test_scaled``, and, if ``replicates``, with ``noise`` (interval, floor and test of the ECE of both);
        ``temperature``, and ``notes``, what its fit warned of.

    Raises:
        InputError: If the run's test images are corrupted already.
    """
    run = trained.run
    if run.recipe.data.corruption is not None:
        got = f"{run.name} with data.corruption={run.recipe.data.corruption.name}"
        raise InputError("fedlas shift", "the run must be one on clean test images", got, "Train one without it.")
    trained = trained.to(new_accelerator().device)
    model, splits = trained.objective, trained.splits
    bins = run.recipe.train.num_bins

    tested = as_tested(run, splits)

    def predicted(by: Splits, part: Part) -> Predictions:
        return predictions_of(model, by, part, batch_size=run.recipe.train.batch_size, features=False)

    scaling, notes = fit_with_notes(TemperatureScaling(), predicted(splits, splits.val))

    def measured(predictions: Predictions) -> dict[str, Any]:
        stages = {"test": predictions, "test_scaled": scaling.transform(predictions)}
        found: dict[str, Any] = {stage: evaluate(each, num_bins=bins) for stage, each in stages.items()}
        if replicates:
            found["noise"] = {
                stage: {"ece": estimates(each, ["ece"], num_bins=bins, replicates=replicates)["ece"].plain()}
                for stage, each in stages.items()
            }
        return found

    def each() -> Iterator[dict[str, Any]]:
        for corruption in corruptions:
            predictions = predicted(tested, corrupted(splits.test, corruption))
            if save_to is not None:
                predictions.save(save_to(f"test-{corruption.name}-{corruption.severity}"))
            if on_step is not None:
                on_step()
            about = {"corruption": corruption.name, "severity": corruption.severity, "seed": corruption.seed}
            yield {**about, **measured(predictions)}

    return {
        "temperature": scaling.temperature,
        "notes": list(notes),
        "clean": measured(predicted(tested, splits.test)),
        "corrupted": list(each()),
    }


def _table(folder: RunFolder, found: Mapping[str, Any]) -> Any:
    """Means over corruptions, a row each severity; percent but for NLL."""
    heads = ("severity", "accuracy, %", "ECE, %", "NLL", "ECE after, %", "NLL after")
    by_severity = {"clean": [found["clean"]]}
    for row in found["corrupted"]:
        by_severity.setdefault(str(row["severity"]), []).append(row)
    rows: list[Sequence[Cell]] = []
    for severity, entries in by_severity.items():
        before, after = (
            {name: fmean(entry[key][name] for entry in entries) for name in _SHOWN} for key in ("test", "test_scaled")
        )
        stages = (("test", before), ("test_scaled", after))
        ece = [_with_chance(stage["ece"], entries, key) for key, stage in stages]
        nll = [f"{stage['nll']:.3f}" for stage in (before, after)]
        rows.append((severity, _percent(before["accuracy"]), ece[0], nll[0], ece[1], nll[1]))
    corruptions = len({row["corruption"] for row in found["corrupted"]})
    title = f"{folder.name}: test images under corruption, means over {corruptions} corruptions"
    return table(heads, rows, title=title, right=range(1, 6), box="HEAVY_HEAD")


def _percent(value: float) -> str:
    return f"{100 * value:.2f}"


def _with_chance(ece: float, entries: Sequence[Mapping[str, Any]], stage: str) -> Cell:
    """A mean ECE, and below it mean ends of the intervals and mean noise floor where there are any."""
    known = [entry["noise"][stage]["ece"] for entry in entries if "noise" in entry]
    if not known:
        return _percent(ece)
    low, high, floor = (_percent(fmean(noise[name] for noise in known)) for name in ("low", "high", "floor"))
    return [_percent(ece), (f"\n[{low}, {high}]\nfloor {floor}", "dim")]
