"""Recipes from Python objects: data, model and losses in place of registered names."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from fedlas._core.check import InputError, describe
from fedlas._core.registry import Registry
from fedlas.features import find_head
from fedlas.lab.data import Images, Source
from fedlas.lab.data.base import Part
from fedlas.lab.data.files import DatasetItems
from fedlas.lab.data.tokens import token_array
from fedlas.lab.models.library_models import accept_token_array
from fedlas.lab.recipes.recipe import Recipe, recipe_from_content

_ALLOWED_DATA_KEYS = ("label_noise", "long_tail", "long_tail_seed", "cross_fit", "workers")
"""Keys of ``data`` that apply to parts passed in Python; the other keys choose or divide a data set."""


@dataclass(frozen=True, eq=False)
class RecipeObjects:
    """Data, model builder and loss builders of a recipe made of Python objects.

    Attributes:
        source: Training, validation and test part.
        model: Called with ``num_classes``, ``in_channels`` and ``image_size``, as far as it has these parameters; None
            builds the registered model of the recipe.
        losses: Functions that build losses, by name; called as ``model`` with ``num_classes``, ``num_samples``,
            ``num_epochs`` and ``num_features``.
        tokens: Whether inputs are fields of tokens, which the model takes by their names.
    """

    source: Source
    model: Callable[..., nn.Module] | None = None
    losses: Mapping[str, Callable[..., nn.Module]] = field(default_factory=dict)
    tokens: bool = False

    def build(self, kind: str, name: str, options: Mapping[str, Any], **offered: Any) -> nn.Module:
        """Build the model, or the loss called ``name``, and check that it is a module."""
        function = self.model if kind == "model" else self.losses[name]
        registry: Registry[Any] = Registry(kind)
        registry.add(name.lower(), function)
        module = registry.build(name.lower(), options, **offered)
        if not isinstance(module, nn.Module):
            raise InputError(
                f"the function for the {kind} {name} must return a torch.nn.Module",
                describe(module),
                "Return the module that it builds.",
            )
        return _TokenModel(module) if self.tokens and kind == "model" else module


class _TokenModel(nn.Module):
    """Wrapper that gives a model of several token fields a single input."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = accept_token_array(model)

    def forward(self, tokens: Tensor) -> Any:
        return self.model(tokens)

    def get_classifier(self) -> nn.Module:
        """Return the classifier head; :func:`find_head` asks for it here."""
        return find_head(self.model)


def recipe_from_objects(
    train: object,
    val: object,
    test: object,
    model: Callable[..., nn.Module] | None,
    *,
    name: str,
    model_name: str,
    settings: Mapping[str, Any] | None = None,
    losses: Mapping[str, Callable[..., nn.Module]] | None = None,
) -> Recipe:
    """Return a recipe whose data and model are Python objects; the parts are used as passed.

    Args:
        train: Pair ``(inputs, target)`` of arrays or tensors, or a ``TensorDataset``: float32 of any shape, or uint8
            images ``(N, channels, H, W)``. Another map-style ``Dataset`` of ``(tensor, class index)`` is read sample by
            sample; each sample of an epoch has a seed of its own for torch's global generator. Inputs may be the output
            of a tokenizer of transformers, whose fields the model takes by their names.
        val: As ``train``; epochs and calibrators are chosen on it.
        test: As ``train``.
        model: Function that builds the model; it may take ``num_classes``. None builds the registered ``model_name``.
        name: Name of the data, of the recipe and so of its folder.
        model_name: Name of the model.
        settings: Sections of a recipe: ``model``, ``optimizer``, ``schedule``, ``train``, ``losses``, and ``data`` with
            keys that do not divide the data.
        losses: Functions that build losses, by name.

    Raises:
        InputError: For data of another kind, parts that differ in shape, a class without training samples, or settings
            that no recipe takes.

    Example:
        >>> rows = (torch.eye(4), torch.tensor([0, 0, 1, 1]))
        >>> recipe = recipe_from_objects(rows, rows, rows, None, name="toy", model_name="linear")
        >>> recipe.data.name, recipe.model.name
        ('toy', 'linear')
    """
    content = {key: dict(value) for key, value in (settings or {}).items()}
    if unknown_keys := [key for key in content.get("data", {}) if key not in _ALLOWED_DATA_KEYS]:
        raise InputError(
            f"settings of data must be among {', '.join(_ALLOWED_DATA_KEYS)}",
            unknown_keys[0],
            "Divide the data yourself, and pass the parts.",
        )
    parts = {
        key: to_part(value, key) for key, value in (("train", train), ("val", val), ("test", test))
    }
    largest_label = max(int(part.target.max()) for part in parts.values())
    classes = tuple(str(label) for label in range(largest_label + 1))
    source = Source(name, parts["train"], parts["test"], classes, mean=(), std=(), val=parts["val"])
    content["data"] = {
        "name": name,
        "val_size": len(parts["val"]),
        "python": True,
        **content.get("data", {}),
    }
    content["model"] = {"name": model_name, **content.get("model", {})}
    recipe = recipe_from_content(name, {"title": f"{name}, passed in Python", **content})
    for loss in losses or {}:
        if not re.fullmatch(r"[a-z0-9][a-z0-9+._-]*", loss):
            raise InputError(
                "the name of a loss must consist of lower-case letters, digits and + . _ -",
                repr(loss),
                "Rename it: its runs get folders of that name.",
            )
    tokens = isinstance(train, tuple | list) and isinstance(train[0], Mapping)
    return replace(recipe, objects=RecipeObjects(source, model, losses or {}, tokens))


def to_part(data: object, name: str) -> Part:
    """Return a part from a pair of arrays or from a ``Dataset``.

    Raises:
        InputError: If it is neither.
    """
    if isinstance(data, torch.utils.data.TensorDataset):
        data = data.tensors
    if not isinstance(data, tuple | list) or len(data) != 2:
        return DatasetItems.from_dataset(data, name)
    inputs, target = data
    inputs = torch.as_tensor(token_array(inputs) if isinstance(inputs, Mapping) else inputs)
    target = torch.as_tensor(target)
    if inputs.dtype != torch.uint8:
        inputs = inputs.float()
    if target.is_floating_point() or target.is_complex():
        raise InputError(
            f"labels of {name} must be whole numbers",
            describe(target),
            "Number the classes from 0.",
        )
    # One number per sample is a row of one feature.
    return Images(inputs[:, None] if inputs.ndim == 1 else inputs, target.long())
