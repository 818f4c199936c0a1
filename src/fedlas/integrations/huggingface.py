"""Hugging Face: a Trainer for any loss of this library, and metrics for its ``compute_metrics``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from fedlas._core.check import InputError, describe
from fedlas._core.collective import sum_across_ranks, world_size
from fedlas._core.extras import require
from fedlas.features import FeatureTap, find_head
from fedlas.integrations._criterion import add_parameters, refuse_mixing
from fedlas.integrations._huggingface_checkpoints import CRITERION_FILE, CriterionCheckpoints
from fedlas.integrations._huggingface_metrics import CalibrationMetrics, rows_of
from fedlas.objective.objective import logits_of
from fedlas.predictions import Predictions

_transformers = require("transformers", extra="hf")

__all__ = ["CRITERION_FILE", "CalibrationMetrics", "CriterionMixin", "CriterionTrainer"]

Pool = Callable[[Tensor, Mapping[str, Any]], Tensor]


class CriterionMixin(CriterionCheckpoints):
    """Adds a criterion to a Hugging Face ``Trainer``: ``class MyTrainer(CriterionMixin, SomeTrainer)``.

    It is for image, text and token classification: models that return ``.logits`` ``(N, C)``, or ``(N, L, C)`` for
    tokens.

    Args:
        *args: Arguments of the Trainer.
        criterion: Any loss of this library, or a module such as ``nn.CrossEntropyLoss``, with reduction ``"mean"``.
        head: The model's classifier head, if the criterion needs features: its dotted name, the module, or None to
            find it.
        pool: ``pool(features, inputs)``, for a head that runs on every token while the logits are those of one token:
            returns ``(N, D)`` from the head's input ``(N, L, D)`` and the batch.
        **kwargs: Keywords of the Trainer.

    Attributes:
        criterion: The criterion; the Trainer's optimizer trains its gate, in a separate group without weight decay.

    Raises:
        InputError: If the criterion cannot be used here, no head is found, or the model returns something else; on
            loading, if a checkpoint lacks the criterion's file.
        MissingExtraError: On import, if transformers is not installed.

    State:
        Each checkpoint and each ``save_model`` writes the criterion's state to ``criterion.pt`` next to the model's own
        files, which do not change; resuming and ``load_best_model_at_end`` read it back. The optimizer's state holds
        the gate's momenta.

    Note:
        Gradient accumulation: the loss of each part is divided by the divisor of the mean over the whole accumulated
        batch (its valid labels, or their class weights), so that the gradient is that of one large batch. Every part
        updates NCI, as it updates batch normalization. The Trainer clips the model's gradient and not the gate's, as
        the published code does. Under several processes the gate starts from that of the main process, and its gradient
        is averaged before each step; DeepSpeed and FSDP are not supported.

        A criterion that learns from validation is updated after each evaluation during training.

    Example:
        >>> import tempfile
        >>> from transformers import TrainingArguments
        >>> from fedlas.losses import FedLAS
        >>> class Model(nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.classifier = nn.Linear(4, 3)
        ...     def forward(self, pixel_values):
        ...         return {"logits": self.classifier(pixel_values)}
        >>> args = TrainingArguments(tempfile.mkdtemp(), report_to="none", use_cpu=True)
        >>> CriterionTrainer(Model(), args, criterion=FedLAS(num_classes=3)).head
        Linear(in_features=4, out_features=3, bias=True)
    """

    def __init__(
        self,
        *args: Any,
        criterion: nn.Module,
        head: str | nn.Module | None = None,
        pool: Pool | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        this: Any = self
        self._owner = type(self).__name__
        if not isinstance(criterion, nn.Module) or getattr(criterion, "reduction", None) != "mean":
            raise InputError(
                self._owner,
                "criterion must be a loss with reduction 'mean'",
                describe(criterion),
                "Build it first, e.g. criterion=FedLAS(num_classes=10); the Trainer does the rest.",
            )
        self.needs = refuse_mixing(self._owner, criterion, "Mix in the data collator, with soft labels.")
        if this.compute_loss_func is not None or this.label_smoother is not None:
            raise InputError(
                self._owner,
                "criterion must be the only loss",
                "compute_loss_func or label_smoothing_factor too",
                "Leave them out.",
            )
        # The Trainer moves the model to the device and nothing else.
        self.criterion = criterion.to(this.args.device)
        self.pool = pool
        self.head: nn.Module | None = None
        self._tap: FeatureTap | None = None
        if self.needs & {"features", "head_weight"}:
            self.head = find_head(this.model, head, num_classes=getattr(criterion, "num_classes", None))
            self._tap = FeatureTap(self.head)
        this.model_accepts_loss_kwargs = True  # the Trainer would divide the loss a second time
        this.loss_is_scaled_for_ga = True  # the same, in later releases of transformers

    # --- the loss -------------------------------------------------------------------------------------------------

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """Loss of a batch: its mean, or in training its part of the mean of the accumulated batch."""
        inputs = dict(inputs)
        labels, index = inputs.pop("labels", None), inputs.pop("index", None)
        if labels is None:
            raise InputError(
                self._owner, "each batch must have 'labels'", sorted(inputs), "Return them from the data set."
            )
        # Run the model, and collect what the criterion needs.
        outputs, features = self._run(model, inputs)
        logits = logits_of(self._owner, outputs)
        if logits.ndim == 3:  # (N, L, C): the criterion takes classes as the second axis
            logits = logits.movedim(-1, 1)
        extra: dict[str, Any] = {}
        if features is not None and "features" in self.needs:
            extra["features"] = self._fitting(features, logits, inputs)
        if self.head is not None and "head_weight" in self.needs:
            extra["head_weight"] = self.head.weight
        if index is not None and "index" in self.needs:
            extra["index"] = index
        # The loss: a part of an accumulated batch in training, a mean otherwise.
        self.criterion.train(model.training)
        if model.training and num_items_in_batch is not None:
            args: Any = self.args  # type: ignore[attr-defined]  # the Trainer's
            ranks = world_size() if args.average_tokens_across_devices else 1  # DDP divides by it
            loss = self._sum(logits, labels, extra) * (ranks / num_items_in_batch)
        elif self._none_counts(labels):
            loss = logits.sum() * float("nan")  # as F.cross_entropy gives
        else:
            loss = self.criterion(logits, labels, **extra)
        return (loss, outputs) if return_outputs else loss

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], Tensor | None]:
        """The parts of an accumulated batch and the divisor of its mean; the gate's gradient is reset."""
        parent: Any = super()
        parts, _ = parent.get_batch_samples(epoch_iterator, num_batches, device)
        self.criterion.zero_grad()  # the Trainer does this for the model only
        if not parts or any("labels" not in part for part in parts):
            return parts, None
        total = torch.stack([self._normalizer(part["labels"].to(device)).float() for part in parts]).sum()
        args: Any = self.args  # type: ignore[attr-defined]  # the Trainer's
        total = sum_across_ranks(total) if args.average_tokens_across_devices else total
        return parts, torch.where(total > 0, total, 1.0)  # without valid labels the loss is 0, not 0 / 0

    def _run(self, model: nn.Module, inputs: dict[str, Any]) -> tuple[Any, Tensor | None]:
        if self._tap is None:
            return _with_logits(model(**inputs)), None
        self._tap.start()
        try:
            outputs = model(**inputs)
        except BaseException:
            self._tap.cancel()
            raise
        return _with_logits(outputs), self._tap.stop()

    def _fitting(self, features: Tensor, logits: Tensor, inputs: Mapping[str, Any]) -> Tensor:
        """Features for the criterion: ``(N, D)``, or ``(N, D, L)`` for logits of every token."""
        if logits.ndim == 3:
            return features.movedim(-1, 1) if features.ndim == 3 else features
        if features.ndim > 2 and self.pool is not None:
            features = self.pool(features, inputs)
        if features.ndim != 2:
            raise InputError(
                self._owner,
                f"the head's input must be (N, D), since the logits are {tuple(logits.shape)}",
                describe(features),
                "Pass pool=lambda features, inputs: ..., which picks the token whose logits are returned.",
            )
        return features

    def _sum(self, logits: Tensor, labels: Tensor, extra: dict[str, Any]) -> Tensor:
        """The criterion's sum over a part of a batch; 0 for a part without valid labels."""
        if self._none_counts(labels):
            return logits.sum() * 0.0
        criterion: Any = self.criterion
        criterion.reduction = "sum"  # a mean times its divisor is NaN if all weights are 0
        try:
            return criterion(logits, labels, **extra)
        finally:
            criterion.reduction = "mean"

    def _none_counts(self, labels: Tensor) -> bool:
        """Whether no label is valid, which a loss refuses. Checked on the CPU only, where it needs no waiting."""
        looks = labels.device.type == "cpu" and not labels.is_floating_point()
        return looks and bool((labels == self._ignored).all())

    @property
    def _ignored(self) -> int:
        return getattr(self.criterion, "ignore_index", -100)

    def _normalizer(self, labels: Tensor) -> Tensor:
        """The divisor of the criterion's mean; a criterion with another divisor has ``counted``."""
        counted: Callable[[Tensor], Tensor] | None = getattr(self.criterion, "counted", None)
        if counted is not None:
            return counted(labels)
        if labels.is_floating_point():
            return torch.tensor(labels.shape[0] if labels.ndim == 2 else labels[..., 0].numel(), device=labels.device)
        valid = labels != self._ignored
        weight = getattr(self.criterion, "weight", None)
        if weight is None:
            return valid.sum()
        return (weight.to(labels.device)[torch.where(valid, labels, 0)] * valid).sum()

    # --- the gate -------------------------------------------------------------------------------------------------

    def create_optimizer(self, *args: Any, **kwargs: Any) -> torch.optim.Optimizer:
        """The Trainer's optimizer, with the criterion's parameters in a separate group without weight decay."""
        parent: Any = super()
        made = parent.create_optimizer(*args, **kwargs)
        optimizer: torch.optim.Optimizer = made if made is not None else self.optimizer  # type: ignore[attr-defined]  # the Trainer's
        if add_parameters(optimizer, self.criterion) and world_size() > 1:
            for parameter in self.criterion.parameters():
                dist.broadcast(parameter.data, src=0)
            optimizer.register_step_pre_hook(lambda *_: self._average_gradients())
        return optimizer

    def _average_gradients(self) -> None:
        for parameter in self.criterion.parameters():
            if parameter.grad is not None:
                parameter.grad = sum_across_ranks(parameter.grad) / world_size()

    # --- validation -----------------------------------------------------------------------------------------------

    def evaluation_loop(
        self, dataloader: Any, description: str, prediction_loss_only: bool | None = None, *args: Any, **kwargs: Any
    ) -> Any:
        """As the Trainer; a criterion that learns from validation then gets the predictions."""
        parent: Any = super()
        update = getattr(self.criterion, "update_from_validation", None)
        if update is None or not self.is_in_train:  # type: ignore[attr-defined]  # the Trainer's
            return parent.evaluation_loop(dataloader, description, prediction_loss_only, *args, **kwargs)
        output = parent.evaluation_loop(dataloader, description, False, *args, **kwargs)
        if output.predictions is None or output.label_ids is None:
            raise InputError(
                self._owner,
                "the criterion must see the predictions of each evaluation",
                "an evaluation that keeps none",
                "Set batch_eval_metrics=False.",
            )
        update(Predictions(*rows_of(output.predictions, output.label_ids, self._ignored)))
        return output


class CriterionTrainer(CriterionMixin, _transformers.Trainer):  # type: ignore[name-defined]  # known on import
    """``transformers.Trainer`` with a criterion; see :class:`CriterionMixin`.

    Args:
        *args: Arguments of ``transformers.Trainer``.
        criterion: Any loss of this library.
        head: The classifier head, if it cannot be found.
        pool: Selects the token whose logits are returned.
        **kwargs: Keywords of ``transformers.Trainer``.
    """


def _with_logits(outputs: Any) -> Any:
    """A plain dictionary as Hugging Face's own kind of output, so that it has ``.logits``."""
    if isinstance(outputs, Mapping) and not hasattr(outputs, "logits"):
        return require("transformers.utils", extra="hf").ModelOutput(**outputs)
    return outputs
