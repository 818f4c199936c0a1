"""Methods that do not train the network: a calibrator on its logits, or a Bayesian head on its features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from fedlas._core.ranks import new_accelerator
from fedlas._core.streams import derive
from fedlas.calibrators import CALIBRATORS
from fedlas.calibrators.base import fit_with_notes
from fedlas.features import find_head
from fedlas.lab.runs.build import Trained, load_trained
from fedlas.lab.runs.execute import held_out_predictions, predictions_of
from fedlas.lab.runs.folder import RunFolder
from fedlas.lab.studies.run_parts import run_held_out
from fedlas.lab.studies.uncertainty.base import Result, method
from fedlas.zoo.uncertainty.last_layer_laplace import LastLayerLaplace, Link, Structure


@method("post-hoc", "Post-hoc calibration", "On Calibration of Modern Neural Networks", 2017, "1706.04599")
def post_hoc(runs: Sequence[RunFolder], *, calibrator: str = "temperature") -> Result:
    """A calibrator fitted on the run's validation part: what a loss is up against that should need none.

    Args:
        runs: One finished run.
        calibrator: Registry name, see ``fedlas list calibrators``.

    Returns:
        The calibrated predictions; those on validation are what the calibrator was fitted on.

    Raises:
        InputError: For an unknown calibrator, or one that needs what the run has not saved.
        MissingExtraError: If it needs a package that is not installed.
    """
    entry = CALIBRATORS[calibrator]
    held_out = run_held_out(runs[0].path, data=runs[0].data_root)
    fitted, notes = fit_with_notes(entry.value(), held_out.predictions(entry, alone=True))
    val, test = (replace(fitted.transform(runs[0].predictions(part)), features=None) for part in ("val", "test"))
    return Result(test, val, notes)


@method(
    "last-layer-laplace", "Last-layer Laplace", "Laplace Redux - Effortless Bayesian Deep Learning", 2021, "2106.14806"
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
    result = _fitted(trained, laplace)
    details = {"prior_precision": laplace.prior_precision, "log_marginal_likelihood": laplace.log_marginal_likelihood}
    return replace(result, details=details)


def _fitted(trained: Trained, head: Any, **options: Any) -> Result:
    """Fit ``head`` on the features of a run's training part, without augmentation; predict the other parts."""
    splits, size = trained.splits, trained.run.recipe.train.batch_size
    train = predictions_of(trained.objective, splits, splits.train, batch_size=size, features=True)
    parts = held_out_predictions(trained.run, splits, trained.objective, features=True)
    head.fit(train, **options)
    # The new logits are no linear function of the features, so the features are left out.
    val, test = (replace(head.predict(part), features=None) for part in parts)
    parameters = sum(parameter.numel() for parameter in trained.objective.model.parameters()) + head.num_kept
    return Result(test=test, val=val, parameters=parameters)
