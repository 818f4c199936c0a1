"""Registry of OOD scores and their inputs, and computation of a score by name; higher = more OOD."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fedlas._core.check import InputError
from fedlas._core.registry import Entry, Registry
from fedlas.predictions import Predictions
from fedlas.zoo.ood.outputs import Outputs

__all__ = ["OOD_SCORES", "Reference", "Score", "compute_score", "score_options"]

Score = Callable[..., Tensor]
"""``score(needed..., *, option=default) -> (N,)``, higher = more OOD."""

OOD_SCORES: Registry[Score] = Registry("OOD score")
"""Scores by name. Metadata: ``title`` (name in tables), ``paper`` (title of the paper), ``year``, ``url``; ``packages``
(optional packages that the score requires). Parameters in :data:`INPUTS` are the inputs of a score; the others are
options with a default."""

INPUTS = {
    "logits": "logits",
    "features": "features",
    "val": "validation predictions",
    "train": "features of training images",
    "head": "classifier head",
    "model": "model",
    "inputs": "images",
    "std": "",  # comes with the images
}
"""Possible inputs of a score, and their names in tables: ``logits (N, C)`` and ``features (N, D)`` of the samples to
score; ``val``, :class:`~fedlas.Predictions` on held-out in-distribution samples; ``train``, predictions with features
on training samples; ``head``, the linear head; ``model``, ``inputs (N, channels, H, W)`` and the ``std`` of each
channel by which they were divided."""


def required_inputs(entry: Entry[Score]) -> frozenset[str]:
    """Return the names of a score's inputs, among :data:`INPUTS`."""
    return frozenset(inspect.signature(entry.value).parameters) & INPUTS.keys()


def score_options(entry: Entry[Score]) -> dict[str, Any]:
    """Return the options of a score with their defaults.

    Example:
        >>> import fedlas.zoo.ood
        >>> score_options(OOD_SCORES["gen"])
        {'gamma': 0.1, 'top': 100}
    """
    return OOD_SCORES.resolve_options(entry.name, offered=INPUTS)


def depends_on_temperature(entry: Entry[Score]) -> bool:
    """Return whether a score is computed from logits, and so depends on a temperature."""
    return "logits" in required_inputs(entry)


@dataclass(frozen=True, eq=False)
class Reference:
    """In-distribution samples that scores are fitted to.

    Attributes:
        val: Predictions on held-out samples.
        train: Predictions with features on training samples.
        head: The linear head that maps features to logits.

    Example:
        >>> val = Predictions(torch.tensor([[2.0, 0.0], [0.0, 3.0]]), torch.tensor([0, 1]))
        >>> Reference(val=val).divide_logits(2.0).val.logits
        array([[1. , 0. ],
               [0. , 1.5]], dtype=float32)
    """

    val: Predictions | None = None
    train: Predictions | None = None
    head: nn.Linear | None = None

    def divide_logits(self, temperature: float) -> Reference:
        """Return a copy with all logits divided by ``temperature``; features and head are unchanged."""
        val, train = (
            None if part is None else part.with_logits(part.tensors().logits / temperature)
            for part in (self.val, self.train)
        )
        return Reference(val, train, self.head)


def compute_score(
    name: str,
    outputs: Outputs | Predictions,
    *,
    reference: Reference | None = None,
    options: Mapping[str, Any] | None = None,
) -> Tensor:
    """Return an OOD score of every sample, by registry name.

    Args:
        name: Registry name.
        outputs: The model's outputs for the samples, or predictions, whose labels are ignored. A score that is
            computed from images must be in ``outputs.scores``.
        reference: In-distribution samples, for a score that is fitted.
        options: Options of the score; the others keep their defaults.

    Returns:
        ``(N,)`` float64 on the CPU, higher = more OOD.

    Raises:
        InputError: For an unknown name or option, a missing input, or a score that is not finite.
        MissingExtraError: If it needs a package that is not installed.

    Example:
        >>> compute_score("max-logit", Outputs(torch.tensor([[2.0, 1.0]]))).tolist()
        [-2.0]
    """
    entry = OOD_SCORES[name]
    fitted_on = Reference() if reference is None else reference
    needs = required_inputs(entry)
    if isinstance(outputs, Predictions):
        outputs = Outputs.from_predictions(outputs)
    if not isinstance(outputs, Outputs) or not isinstance(fitted_on, Reference):
        raise InputError(
            "outputs must be Outputs or Predictions, and reference must be a Reference",
            f"{type(outputs).__name__} and {type(fitted_on).__name__}",
            "Wrap arrays: Predictions(logits, features=features).",
        )
    if "model" in needs:
        if name not in outputs.scores:
            raise InputError(
                f"outputs.scores must hold {name}, which is computed from images",
                f"outputs with {', '.join(outputs.scores) or 'no scores'}",
                "Compute it with the function of that name, and pass it in scores.",
            )
        return outputs.scores[name].double().cpu()
    # Fitted scores take what they need of the outputs and the reference.
    offered: dict[str, Any] = {
        "logits": outputs.logits, "features": outputs.features, "val": fitted_on.val, "train": fitted_on.train,
        "head": fitted_on.head,
    }  # fmt: skip
    for need in sorted(needs):
        if offered[need] is None:
            raise InputError(
                f"the score {name} requires {INPUTS[need]}",
                "none",
                "Pass them, or choose another score.",
            )

    score: Tensor = OOD_SCORES.build(name, options, **offered)
    score = score.detach().double().cpu()
    if score.shape != (outputs.num_samples,) or not bool(torch.isfinite(score).all()):
        finite = int(torch.isfinite(score).sum())
        raise InputError(
            f"the score {name} must be finite and of shape ({outputs.num_samples},)",
            f"{tuple(score.shape)}, {finite} finite",
            "Check the logits and features, which may be too large for float32.",
        )
    return score
