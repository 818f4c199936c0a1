"""Runs a model over a data set and collects its predictions."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Literal, TypedDict, Unpack, overload

import torch
from torch import Tensor, nn

from fedlas._core.check import InputError, check_count, check_kinds, describe, warn_user
from fedlas.features.read import ComputedFeatures, NoFeatures, Reader
from fedlas.objective.head_search import HeadSearch
from fedlas.objective.network import network_of
from fedlas.objective.runner import MOST_LOGITS, Runner, collected, collected_labels
from fedlas.predictions import MultiLabel, Predictions


class Options(TypedDict, total=False):
    """Keywords of :func:`predict`."""

    device: str | torch.device | None
    features: bool | Callable[..., Tensor]
    head: str | nn.Module | None
    observe: Callable[[Tensor, Tensor], None] | None
    label: int | str | None
    weights: int | str | None
    clusters: int | str | None
    ignore_index: int | None
    max_rows: int | None


@overload
def predict(
    model: Any, loader: Iterable[Any], *, multi_label: Literal[True], **options: Unpack[Options]
) -> MultiLabel: ...


@overload
def predict(
    model: Any,
    loader: Iterable[Any],
    *,
    multi_label: Literal[False] = False,
    **options: Unpack[Options],
) -> Predictions: ...


@check_kinds
def predict(
    model: Any,
    loader: Iterable[Any],
    *,
    device: str | torch.device | None = None,
    features: bool | Callable[..., Tensor] = False,
    head: str | nn.Module | None = None,
    observe: Callable[[Tensor, Tensor], None] | None = None,
    label: int | str | None = None,
    weights: int | str | None = None,
    clusters: int | str | None = None,
    ignore_index: int | None = -100,
    max_rows: int | None = None,
    multi_label: bool = False,
) -> Predictions | MultiLabel:
    """Return predictions of ``model`` on every batch of ``loader``.

    Args:
        model: Classifier to logits ``(N, C)`` or, of each position, ``(N, C, d1, ...)``; to one logit of the second of
            two classes ``(N, 1)`` or ``(N,)``; or an :class:`~fedlas.Objective` around one. The module inside of
            ``DistributedDataParallel``, ``DataParallel`` or ``torch.compile`` is called. A list of models is an
            ensemble: the mean of their probabilities. An ``.onnx`` file or a session of onnxruntime is run by it.
        loader: Yields ``(inputs, target)``, where further elements are ignored; or a mapping such as a Hugging Face
            batch, with the labels under ``labels``, ``label`` or ``target`` and the arguments of ``forward`` under the
            other keys; or inputs alone, a tensor, ``(inputs,)`` or a mapping, which gives predictions without target.
            Several inputs are one tuple, ``((a, b), target)``.
        device: Device of the inputs; None is that of the model's parameters.
        features: True keeps the input of the classifier head too: of the module whose output is the logits. A function
            is called with the arguments of ``forward`` and returns features ``(N, D)``.
        head: The head, if features are needed and it cannot be found.
        observe: Called after each batch with its logits ``(B, C)`` and features ``(B, D)``, on the model's device; it
            serves measurements that should not keep the features of a whole data set.
        label: Key or position of the labels, if they are elsewhere; all other elements are then inputs: 2 for
            ``(a, b, target)``.
        weights: Key or position of the weight of each sample in a batch.
        clusters: Key or position of the cluster of each sample (its patient, its user), numbers or names. Positions of
            dense outputs belong to the cluster of their sample; without ``clusters``, each sample is one.
        ignore_index: Label of rows that are left out; None: all count.
        multi_label: Whether labels are independent, each with a sigmoid: logits ``(N, L)``, labels 0, 1 or
            ``ignore_index (N, L)``, which every batch must hold. The result is then a :class:`~fedlas.MultiLabel`.
        max_rows: Most rows to keep, a random sample of them; None keeps all, of dense outputs at most 2^28 logits.

    Returns:
        Float32 predictions on the CPU, in the order of the loader.

    Raises:
        InputError: If the model is not a module, takes other inputs or returns no logits, a batch or its labels cannot
            be read, the loader is empty, or logits are not finite.

    State:
        The model runs in ``eval()`` under ``torch.no_grad``; each submodule's mode is then restored, also after
        an error.

    Example:
        >>> model = nn.Linear(4, 3)
        >>> predict(model, [(torch.zeros(2, 4), torch.tensor([0, 1]))]).num_samples
        2
        >>> predict(model, [torch.zeros(2, 4)])
        Predictions(2 samples, 3 classes, without target)
    """
    network = network_of(model)
    computed = not isinstance(features, bool)
    reader: Reader | HeadSearch = NoFeatures()
    if computed:
        reader = ComputedFeatures(_function(features))
    elif features or observe is not None:
        reader = HeadSearch(head, required=True)
    places = {"weights": weights, "clusters": clusters}
    runner = Runner(
        network,
        loader,
        device=device,
        reader=reader,
        ignore_index=ignore_index,
        label=label,
        others={name: key for name, key in places.items() if key is not None},
        observe=observe,
        keep_features=bool(features),
        labeled=multi_label,
        multi_label=multi_label,
    )
    if max_rows is not None:
        check_count("max_rows", max_rows)
    most = MOST_LOGITS if max_rows is None else None
    try:
        if multi_label:
            return collected_labels(runner)
        predictions, total = collected(runner, most=most, max_rows=max_rows, dense_only=True)
    finally:
        reader.remove()
    if max_rows is None and predictions.num_samples < total:
        warn_user(
            f"predict: a random sample of {predictions.num_samples:,} of {total:,} positions is kept, since all of "
            "them take more than a gibibyte. Pass max_rows to choose their number."
        )
    return predictions.with_logits(predictions.logits.float())


def _function(features: object) -> Callable[..., Any]:
    if callable(features):
        return features
    fix = "Pass True for the head's input, or a function of the model's inputs."
    raise InputError("features must be True, False or a function", describe(features), fix)
