"""Metrics of finished runs under common corruptions of their test images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from fedlas._core.check import InputError
from fedlas._core.ranks import new_accelerator
from fedlas.calibrators import TemperatureScaling
from fedlas.calibrators.fit_notes import fit_with_notes
from fedlas.lab.data import Splits
from fedlas.lab.data.base import Images, Part
from fedlas.lab.data.shift import Corruption
from fedlas.lab.data.shift.variants import corrupt_part
from fedlas.lab.runs.data import with_test_normalization
from fedlas.lab.runs.load import TrainedRun
from fedlas.lab.runs.measure import default_metrics
from fedlas.lab.runs.predict import predict_part
from fedlas.predictions import Predictions
from fedlas.stats.estimates import estimates


def measure_shift(
    runs: Sequence[TrainedRun],
    corruptions: Sequence[Corruption],
    *,
    on_step: Callable[[], None] | None = None,
    save_to: Callable[[int, str], Path] | None = None,
    replicates: int = 0,
) -> list[dict[str, Any]]:
    """Measure runs under each corruption of their test images, before and after temperature scaling.

    Args:
        runs: The runs. Runs with the same test images share the corrupted images.
        corruptions: Each at one severity.
        on_step: Called after each corruption of each run.
        save_to: Path of the predictions, given the index of the run and the name of the part; None saves none.
        replicates: Replicates of interval and noise floor of every ECE; 0 computes none.

    Returns:
        For each run ``clean`` and ``corrupted`` (one entry each, with ``corruption``, ``severity`` and ``seed``), both
        with ``test`` and ``test_calibrated``, and, if ``replicates``, with ``noise`` (interval, floor and test of the
        ECE of both); ``temperature``, and ``notes``, the warnings of its fit.

    Raises:
        InputError: If the test images of a run are corrupted already.
    """
    shifted_runs = [_ShiftedRun(trained, replicates) for trained in runs]
    results = [each.clean_result() for each in shifted_runs]
    tests = [each.trained.splits.test for each in shifted_runs]
    source_indices = [
        next(i for i, other in enumerate(tests) if _have_same_images(other, test)) for test in tests
    ]
    for corruption in corruptions:
        corrupted_parts: dict[int, Part] = {}
        about = {
            "corruption": corruption.name,
            "severity": corruption.severity,
            "seed": corruption.seed,
        }
        for index, (source, each, result) in enumerate(
            zip(source_indices, shifted_runs, results, strict=True)
        ):
            if source not in corrupted_parts:
                corrupted_parts[source] = corrupt_part(tests[source], corruption)
            predictions = each.predict(corrupted_parts[source])
            if save_to is not None:
                predictions.save(save_to(index, f"test-{corruption.name}-{corruption.severity}"))
            if on_step is not None:
                on_step()
            result["corrupted"].append({**about, **each.metrics(predictions)})
    return results


def _have_same_images(first: Part, second: Part) -> bool:
    if not (isinstance(first, Images) and isinstance(second, Images)):
        # images on disk are corrupted when they are read, so nothing is shared
        return first is second
    return torch.equal(first.images, second.images) and torch.equal(first.target, second.target)


class _ShiftedRun:
    """A run with the temperature that is fitted to its clean validation part."""

    def __init__(self, trained: TrainedRun, replicates: int) -> None:
        run = trained.run
        if run.recipe.data.corruption is not None:
            raise InputError(
                "the run must have clean test images",
                f"{run.name} with data.corruption={run.recipe.data.corruption.name}",
                "Train one without it.",
            )
        self.trained = trained.to(new_accelerator().device)
        self._replicates = replicates
        self._tested = with_test_normalization(run, trained.splits)
        validation = self._predictions(trained.splits, trained.splits.val)
        self._scaling, self._notes = fit_with_notes(TemperatureScaling(), validation)

    def _predictions(self, by: Splits, part: Part) -> Predictions:
        batch_size = self.trained.run.recipe.train.batch_size
        return predict_part(self.trained.objective, by, part, batch_size=batch_size, features=False)

    def predict(self, part: Part) -> Predictions:
        """Return the predictions on a part of test images."""
        return self._predictions(self._tested, part)

    def metrics(self, predictions: Predictions) -> dict[str, Any]:
        """Return the metrics before and after temperature scaling."""
        bins = self.trained.run.recipe.train.num_bins
        stages = {"test": predictions, "test_calibrated": self._scaling.transform(predictions)}
        metrics: dict[str, Any] = {
            stage: default_metrics(each, bins) for stage, each in stages.items()
        }
        if self._replicates:
            ece = {
                s: estimates(each, ["ece"], num_bins=bins, replicates=self._replicates)["ece"]
                for s, each in stages.items()
            }
            metrics["noise"] = {
                stage: {"ece": estimate.to_dict()} for stage, estimate in ece.items()
            }
        return metrics

    def clean_result(self) -> dict[str, Any]:
        """Return the result on clean test images, with an empty list for corrupted ones."""
        return {
            "temperature": self._scaling.temperature,
            "notes": list(self._notes),
            "clean": self.metrics(self.predict(self.trained.splits.test)),
            "corrupted": [],
        }
