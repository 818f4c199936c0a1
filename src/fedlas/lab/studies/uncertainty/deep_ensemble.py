"""Deep ensemble of runs on disk that differ in their seed (Lakshminarayanan et al. 2017)."""

from __future__ import annotations

from collections.abc import Sequence

from fedlas._core.check import InputError
from fedlas.lab.runs.folder import RunFolder
from fedlas.lab.studies.uncertainty.base import UNCERTAINTY, Result
from fedlas.lab.studies.uncertainty.members import shared_predictions
from fedlas.lab.train.checkpoint import differences
from fedlas.predictions import Predictions
from fedlas.zoo.uncertainty.ensemble import average

_NAME = "deep-ensemble"

APART = (
    "no temperature: each run was validated on images of its own, which others were trained on; train them with "
    "--set data.split_seed=0, say"
)
"""Note of a result without validation part."""


@UNCERTAINTY.register(
    _NAME,
    title="Deep ensemble",
    paper="Simple and Scalable Predictive Uncertainty Estimation",
    year=2017,
    url="https://arxiv.org/abs/1612.01474",
    least=2,
    most=None,
)
def deep_ensemble(runs: Sequence[RunFolder]) -> Result:
    """Deep ensemble: the mean of the probabilities of runs that differ in their seed only.

    Args:
        runs: At least two finished runs.

    Returns:
        Log of the mean probabilities, on test and, if all runs were validated on the same images, on validation.

    Raises:
        InputError: If the runs differ in more than the seed, or were tested on different images.

    Note:
        The paper also trains on adversarial examples; its gain was small and ensembles since go without.
    """
    for member in runs[1:]:
        if found := differences(_settings(runs[0]), _settings(member)):
            raise InputError(
                _NAME,
                "runs must differ in nothing but the seed",
                f"{member.name}, which differs from {runs[0].name} in {'; '.join(found)}",
                "Use hyper-ensemble for runs of different settings.",
            )
    test, val = test_predictions(_NAME, runs), shared_predictions(runs, "val")
    if val is None:
        return Result(average(*test), notes=[APART])
    return Result(average(*test), average(*val))


def test_predictions(owner: str, runs: Sequence[RunFolder]) -> list[Predictions]:
    """Each run's predictions on the test part.

    Raises:
        InputError: If they were not tested on the same images.
    """
    found = shared_predictions(runs, "test")
    if found is None:
        raise InputError(
            owner,
            "runs must be tested on the same images",
            "different parts of the test set",
            "Leave data.test_size out, or train the runs with one data.split_seed.",
        )
    return found


def _settings(member: RunFolder) -> dict[str, object]:
    return {key: value for key, value in member.run.config().items() if key != "seed"}
