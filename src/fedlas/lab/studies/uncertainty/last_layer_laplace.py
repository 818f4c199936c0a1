"""Last-layer Laplace approximation of a finished run (Daxberger et al. 2021)."""

from __future__ import annotations

from collections.abc import Sequence

from fedlas._core.ranks import new_accelerator
from fedlas._core.streams import derive
from fedlas.features import find_head
from fedlas.lab.runs.folder import RunFolder
from fedlas.lab.runs.load import load_trained
from fedlas.lab.studies.uncertainty.base import UNCERTAINTY, Result
from fedlas.lab.studies.uncertainty.features import num_parameters, parts_of
from fedlas.zoo.uncertainty.last_layer_laplace import LastLayerLaplace, Link, Structure


@UNCERTAINTY.register(
    "last-layer-laplace",
    title="Last-layer Laplace",
    paper="Laplace Redux - Effortless Bayesian Deep Learning",
    year=2021,
    url="https://arxiv.org/abs/2106.14806",
    least=1,
    most=1,
)
def last_layer_laplace(
    runs: Sequence[RunFolder],
    *,
    structure: Structure = "kron",
    link: Link = "probit",
    samples: int = 100,
    prior_precision: float | None = None,
) -> Result:
    """Laplace approximation of the last layer: a Gaussian around the head's weights, nothing is trained.

    Args:
        runs: One finished run.
        structure: Form of the curvature: ``kron``, ``full`` (for small heads) or ``diag``.
        link: From Gaussian logits to probabilities: ``probit``, ``mc`` or ``bridge``.
        samples: Draws for ``mc``.
        prior_precision: Of the weights; null maximizes the marginal likelihood of the training part.

    Returns:
        Log of the mean probabilities. The accuracy may differ from the run's.

    Raises:
        InputError: For options out of range, or a head that is not a linear layer, or too large for ``full``.
        MissingExtraError: Without laplace-torch.

    Note:
        It is fitted on the run's training part without augmentation, with dropout off. See
        :class:`~fedlas.zoo.uncertainty.LastLayerLaplace`.
    """
    trained = load_trained(runs[0]).to(new_accelerator().device)
    laplace = LastLayerLaplace(
        find_head(trained.objective.model),
        structure=structure,
        prior_precision=prior_precision,
        link=link,
        samples=samples,
        seed=derive(runs[0].run.seed, "last-layer-laplace"),
    )
    parts = parts_of(trained)
    laplace.fit(parts.train)
    test, val = parts.held_out(laplace.predict)
    return Result(
        test=test,
        val=val,
        parameters=num_parameters(trained) + laplace.num_kept,
        details={
            "prior_precision": laplace.prior_precision,
            "log_marginal_likelihood": laplace.log_marginal_likelihood,
        },
    )
