"""Finished runs under common corruptions of their test images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fedlas._core.check import InputError
from fedlas._core.ranks import new_accelerator
from fedlas.calibrators import TemperatureScaling
from fedlas.calibrators.base import fit_with_notes
from fedlas.lab.data import Splits
from fedlas.lab.data.base import Part
from fedlas.lab.data.shift import Corruption
from fedlas.lab.data.shift.variants import corrupted
from fedlas.lab.runs.build import Trained
from fedlas.lab.runs.data import as_tested
from fedlas.lab.runs.execute import predictions_of, recorded
from fedlas.predictions import Predictions
from fedlas.stats.estimates import estimates

REPLICATES = 199
"""Replicates of interval and noise floor: few, since there are seventy-five sets of corrupted images."""


def measure_shift(
    trained: Trained,
    corruptions: Sequence[Corruption],
    *,
    on_step: Callable[[], None] | None = None,
    save_to: Callable[[str], Path] | None = None,
    replicates: int = 0,
) -> dict[str, Any]:
    """Measure a run on its test images under each corruption, before and after its validation's temperature.

    Args:
        trained: The run.
        corruptions: Each at one severity.
        on_step: Called after each.
        save_to: Path for the predictions, by the name of the part; None keeps none.
        replicates: Replicates of interval and noise floor of every ECE; 0 computes none.

    Returns:
        ``clean`` and ``corrupted`` (one entry each, with ``corruption``, ``severity`` and ``seed``), both with ``test``
        and ``test_calibrated``, and, if ``replicates``, with ``noise`` (interval, floor and test of the ECE of both);
        ``temperature``, and ``notes``, the warnings of its fit.

    Raises:
        InputError: If the run's test images are corrupted already.
    """
    run = trained.run
    if run.recipe.data.corruption is not None:
        got = f"{run.name} with data.corruption={run.recipe.data.corruption.name}"
        raise InputError("fedlas shift", "the run must be one on clean test images", got, "Train one without it.")
    # The temperature of the clean validation part, as a user of the run would have it.
    trained = trained.to(new_accelerator().device)
    model, splits = trained.objective, trained.splits
    bins = run.recipe.train.num_bins

    tested = as_tested(run, splits)

    def predicted(by: Splits, part: Part) -> Predictions:
        return predictions_of(model, by, part, batch_size=run.recipe.train.batch_size, features=False)

    scaling, notes = fit_with_notes(TemperatureScaling(), predicted(splits, splits.val))

    def measured(predictions: Predictions) -> dict[str, Any]:
        stages = {"test": predictions, "test_calibrated": scaling.transform(predictions)}
        metrics: dict[str, Any] = {stage: recorded(each, bins) for stage, each in stages.items()}
        if replicates:
            ece = {
                s: estimates(each, ["ece"], num_bins=bins, replicates=replicates)["ece"] for s, each in stages.items()
            }
            metrics["noise"] = {stage: {"ece": estimate.plain()} for stage, estimate in ece.items()}
        return metrics

    rows = []
    for corruption in corruptions:
        predictions = predicted(tested, corrupted(splits.test, corruption))
        if save_to is not None:
            predictions.save(save_to(f"test-{corruption.name}-{corruption.severity}"))
        if on_step is not None:
            on_step()
        about = {"corruption": corruption.name, "severity": corruption.severity, "seed": corruption.seed}
        rows.append({**about, **measured(predictions)})
    return {
        "temperature": scaling.temperature,
        "notes": list(notes),
        "clean": measured(predicted(tested, splits.test)),
        "corrupted": rows,
    }
