"""Monte Carlo dropout on a finished run that was trained with dropout (Gal and Ghahramani 2016)."""

from __future__ import annotations

from collections.abc import Sequence

from fedlas._core.check import check_count
from fedlas._core.ranks import new_accelerator
from fedlas._core.streams import derive
from fedlas._core.terminal import track
from fedlas.lab.runs.data import held_out
from fedlas.lab.runs.folder import RunFolder
from fedlas.lab.runs.load import load_trained
from fedlas.lab.runs.measure import predictions_of
from fedlas.lab.studies.uncertainty.base import UNCERTAINTY, Result
from fedlas.zoo.uncertainty.mc_dropout import DropoutSamples, active_dropout

_NAME = "mc-dropout"


@UNCERTAINTY.register(
    _NAME,
    title="MC dropout",
    paper="Dropout as a Bayesian Approximation",
    year=2016,
    url="https://arxiv.org/abs/1506.02142",
    least=1,
    most=1,
)
def mc_dropout(runs: Sequence[RunFolder], *, samples: int = 20) -> Result:
    """MC dropout: the mean of the probabilities over passes with dropout on; nothing is trained.

    Args:
        runs: One finished run of a model with dropout (``model.dropout``).
        samples: Passes; more only make the mean steadier.

    Returns:
        Log of the mean probabilities.

    Raises:
        InputError: For a number out of range, or a model whose dropout is 0.
    """
    check_count(_NAME, "samples", samples)
    trained = load_trained(runs[0]).to(new_accelerator().device)
    run, splits = trained.run, trained.splits
    model = DropoutSamples(trained.objective.model, samples=samples, seed=derive(run.seed, _NAME))
    val, test = (
        predictions_of(model, by, part, batch_size=run.recipe.train.batch_size, features=False)
        for by, part in track(held_out(run, splits), f"{samples} passes")
    )
    layers = len(active_dropout(trained.objective.model))
    return Result(test, val, notes=[f"{samples} passes, {layers} layer{'s' * (layers != 1)} of dropout"])
