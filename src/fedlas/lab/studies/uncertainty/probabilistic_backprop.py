"""Probabilistic backpropagation on the features of a finished run (Hernández-Lobato and Adams 2015)."""

from __future__ import annotations

from collections.abc import Sequence

from fedlas._core.ranks import new_accelerator
from fedlas._core.streams import derive
from fedlas._core.terminal import track
from fedlas.lab.runs.folder import RunFolder
from fedlas.lab.runs.load import load_trained
from fedlas.lab.studies.uncertainty.base import UNCERTAINTY, Result
from fedlas.lab.studies.uncertainty.features import num_parameters, parts_of
from fedlas.zoo.uncertainty.probabilistic_backprop import Prior, ProbabilisticBackprop

_NAME = "probabilistic-backprop"


@UNCERTAINTY.register(
    _NAME,
    title="Probabilistic backpropagation",
    paper="Probabilistic Backpropagation for Scalable Learning of Bayesian Neural Networks",
    year=2015,
    url="https://arxiv.org/abs/1502.05336",
    least=1,
    most=1,
)
def probabilistic_backprop(
    runs: Sequence[RunFolder], *, hidden: int = 50, passes: int = 10, prior: Prior = "fixed"
) -> Result:
    """Probabilistic backpropagation: a new head on the run's features, its Gaussian weights updated sample by sample.

    Args:
        runs: One finished run.
        hidden: Units of the head's hidden layer; 0 for none.
        passes: Passes over the training part.
        prior: Of the weights: ``fixed``, or ``learned`` with the weights as in the paper.

    Returns:
        Log of the probabilities under the posterior; nothing is sampled.

    Raises:
        InputError: For options out of range.

    Note:
        The run's body does not change. The paper treats regression; labels enter as multinomial probit. See
        :class:`~fedlas.zoo.uncertainty.ProbabilisticBackprop`. A pass takes about half a millisecond a sample.
    """
    trained = load_trained(runs[0]).to(new_accelerator().device)
    head = ProbabilisticBackprop(hidden=hidden, passes=passes, prior=prior, seed=derive(runs[0].run.seed, _NAME))
    parts = parts_of(trained)
    head.fit(parts.train, progress=lambda passes: track(passes, _NAME))
    test, val = parts.held_out(head.predict)
    shape, rate = head.precision
    return Result(
        test=test,
        val=val,
        notes=[f"a new head on the features: {passes} passes, {hidden} hidden units"],
        parameters=num_parameters(trained) + head.num_kept,
        details={"prior_precision": shape / rate},
    )
