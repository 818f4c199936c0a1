"""What a run's model says of images that its training left no predictions of: made once, kept with the run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from fedlas._core.check import InputError
from fedlas._core.ranks import new_accelerator
from fedlas.lab.data import Splits
from fedlas.lab.data.base import Part
from fedlas.lab.runs.build import Trained
from fedlas.lab.runs.data import as_tested, outputs_fingerprint
from fedlas.lab.runs.folder import RunFolder
from fedlas.objective import predict
from fedlas.predictions import Predictions
from fedlas.zoo.ood import OOD_SCORES, Outputs, options_of
from fedlas.zoo.ood.base import needs_of

MOST_TRAINING = 50_000
"""Training images that scores are fitted on; of more, as many of each class as its share."""


@dataclass(frozen=True)
class Chosen:
    """Scores to compute, and their options.

    Attributes:
        names: Registry names.
        options: Options that were given, by score.
    """

    names: Sequence[str]
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def of(self, name: str) -> dict[str, Any]:
        """All options of a score, defaults included."""
        return options_of(OOD_SCORES[name]) | dict(self.options.get(name, {}))

    def needing(self, need: str) -> list[str]:
        """Scores that need this."""
        return [name for name in self.names if need in needs_of(OOD_SCORES[name])]


class Speaker:
    """A run's model, asked about images; what it says is saved in the run's folder ``predictions`` and found there.

    Args:
        trained: The run, on the CPU.
        chosen: Scores that will be computed, some of them by the model itself.
        show: Called with what is being done, where that may take long.

    State:
        Writes ``predictions/NAME.npz``, and only if what is there is of other images, other weights or other options.
    """

    def __init__(self, trained: Trained, chosen: Chosen, show: Callable[[str], None] = lambda _text: None) -> None:
        self.trained, self.chosen, self.show = trained, chosen, show
        self._device = new_accelerator().device
        self._splits = as_tested(trained.run, trained.splits)
        self._model = trained.objective.model.to(self._device)

    def outputs(self, name: str, part: Part, *, by_model: bool = True, splits: Splits | None = None) -> Outputs:
        """Outputs of the model for a part, with features and with the scores that only the model can compute.

        Args:
            name: Of the file.
            part: Images; their targets are not looked at.
            by_model: Whether such scores are wanted.
            splits: Whose normalization the images get; None is that of the test part.
        """
        folder = self.trained.run.folder
        path = RunFolder(folder).part_path(name)
        source = outputs_fingerprint(folder, part)
        # What is saved counts if it is of these images and weights, and was made with the same options.
        wanted = {score: self.chosen.of(score) for score in (self.chosen.needing("model") if by_model else ())}
        found, made_with = self._saved(name, source)
        missing = {score: options for score, options in wanted.items() if made_with.get(score) != options}
        if found is not None and not missing:
            return found
        if found is None:
            self.show(f"{name}.npz: predictions of {len(part):,} images")
            images = (inputs for inputs, *_ in self._batches(part, splits))  # whose labels are other classes
            said = predict(self._model, images, features=True)
            found, made_with = Outputs.of(said), {}
        # Only what is missing is computed; the rest is kept.
        scores = dict(found.scores)
        for score, options in missing.items():
            self.show(f"{name}.npz: {score} of {len(part):,} images")
            scores[score] = self._score(score, part, options)
        found = Outputs(found.logits, found.features, scores)
        found.save(RunFolder(folder).writable(path), about={**source, "scores": {**made_with, **missing}})
        return found

    def training(self) -> Predictions:
        """Predictions with features on training images as they are, without augmentation."""
        part = self.trained.splits.train
        part = part.take(_stratified(part.target, MOST_TRAINING))
        said = self.outputs("in-train", part, by_model=False, splits=self.trained.splits)
        return Predictions(said.logits, part.target.cpu(), features=said.features)

    def _saved(self, name: str, source: Mapping[str, Any]) -> tuple[Outputs | None, dict[str, Any]]:
        """What is saved of these images and weights, and the options of its scores; nothing if there is no such."""
        try:
            found, about = Outputs.load(RunFolder(self.trained.run.folder).part_path(name))
        except InputError:  # missing or damaged: made anew
            return None, {}
        if {key: about.get(key) for key in source} != source or found.features is None:
            return None, {}
        return found, dict(about.get("scores", {}))

    def _score(self, name: str, part: Part, options: Mapping[str, Any]) -> Tensor:
        modes = [(module, module.training) for module in self._model.modules()]
        frozen = [(weight, weight.requires_grad) for weight in self._model.parameters()]
        try:
            self._model.eval().requires_grad_(False)
            given: dict[str, Any] = {"model": self._model, "std": self._splits.std}
            parts = [
                OOD_SCORES.build(name, options, inputs=inputs.to(self._device), **given).detach().double().cpu()
                for inputs, *_ in self._batches(part)
            ]
        finally:
            for module, mode in modes:
                module.training = mode
            for weight, wanted in frozen:
                weight.requires_grad_(wanted)
        return torch.cat(parts)

    def _batches(self, part: Part, splits: Splits | None = None) -> Any:
        """Batches in fixed order, with the run's own transform for testing (or that of ``splits``), nothing drawn."""
        return (splits or self._splits).batches(
            part.to(self._device), batch_size=self.trained.run.recipe.train.batch_size
        )


def linear_head(head: nn.Module) -> nn.Linear | None:
    """A copy of the head on the CPU if it is linear, for scores that need it."""
    weight, bias = getattr(head, "weight", None), getattr(head, "bias", None)
    if not isinstance(weight, Tensor) or weight.ndim != 2:
        return None
    copy = nn.Linear(weight.shape[1], weight.shape[0])
    with torch.no_grad():
        copy.weight.copy_(weight.detach().cpu())
        copy.bias.copy_(torch.zeros(len(weight)) if bias is None else bias.detach().cpu())
    return copy


def _stratified(target: Tensor, most: int) -> Tensor:
    """At most ``most`` positions, evenly spaced among the samples sorted by class; ascending."""
    order = target.cpu().argsort(stable=True)
    kept = torch.linspace(0, len(order) - 1, min(most, len(order))).round().long()
    return order[kept].sort().values.to(target.device)
