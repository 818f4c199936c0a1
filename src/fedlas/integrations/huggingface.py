"""Hugging Face: a Trainer for any loss of this library, and metrics for its ``compute_metrics``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from fedlas._core.arrays import load_tensors
from fedlas._core.check import InputError, check_count, describe
from fedlas._core.extras import require
from fedlas._core.files import write_atomically
from fedlas._core.kinds import check_argument_types
from fedlas._core.ranks import sum_across_ranks, world_size
from fedlas.features import FeatureTap, find_head
from fedlas.integrations import drop_in
from fedlas.integrations.positions import valid_rows
from fedlas.metrics import StreamingMetrics
from fedlas.objective.call import extract_logits
from fedlas.predictions import Predictions

_transformers = require("transformers", extra="hf")

__all__ = ["CRITERION_FILE", "ComputeMetrics", "CriterionMixin", "CriterionTrainer"]

CRITERION_FILE = "criterion.pt"
"""Name of the file with gate and NCI, in each checkpoint and next to a saved model."""
Pool = Callable[[Tensor, Mapping[str, Any]], Tensor]


class CriterionMixin:
    """Mixin that adds a criterion to a Hugging Face ``Trainer``: ``class MyTrainer(CriterionMixin, SomeTrainer)``.

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
        trainer = self._trainer
        if not isinstance(criterion, nn.Module) or getattr(criterion, "reduction", None) != "mean":
            raise InputError(
                "criterion must be a loss with reduction 'mean'",
                describe(criterion),
                "Build it first, e.g. criterion=FedLAS(num_classes=10); the Trainer does the rest.",
            )
        self.needs = drop_in.require_no_mixing(
            criterion, "Mix in the data collator, with soft labels."
        )
        if trainer.compute_loss_func is not None or trainer.label_smoother is not None:
            raise InputError(
                "criterion must be the only loss",
                "also compute_loss_func or label_smoothing_factor",
                "Leave compute_loss_func and label_smoothing_factor out.",
            )
        # The Trainer moves the model to the device and nothing else.
        self.criterion = criterion.to(trainer.args.device)
        self.pool = pool
        self.head: nn.Module | None = None
        self._tap: FeatureTap | None = None
        if self.needs & {"features", "head_weight"}:
            num_classes = getattr(criterion, "num_classes", None)
            self.head = find_head(trainer.model, head, num_classes=num_classes)
            self._tap = FeatureTap(self.head)
        trainer.model_accepts_loss_kwargs = True  # the Trainer would divide the loss a second time
        trainer.loss_is_scaled_for_ga = True  # the same, in later releases of transformers
        trainer.label_names = trainer.label_names or ["labels"]  # a forward without them names none

    # --- the loss -------------------------------------------------------------------------------------------------

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """Return the mean loss of a batch, or in training the batch's share of the accumulated mean."""
        inputs = dict(inputs)
        labels = inputs.pop("labels", None)
        index = inputs.pop("index", None)
        if labels is None:
            raise InputError(
                "each batch must have 'labels'", sorted(inputs), "Return them from the data set."
            )
        # Run the model, and collect what the criterion needs.
        outputs, features = self._forward_with_features(model, inputs)
        logits = extract_logits(outputs)
        if logits.ndim == 3:  # (N, L, C): the criterion takes classes as the second axis
            logits = logits.movedim(-1, 1)
        if features is not None and "features" in self.needs:
            features = self._pool_features(features, logits, inputs)
        # In evaluation the index is not the position in the training set.
        index = index if model.training else None
        extra = drop_in.criterion_keywords(self.needs, features, self.head, index)
        # The loss: a part of an accumulated batch in training, a mean otherwise.
        self.criterion.train(model.training)
        if model.training and num_items_in_batch is not None:
            across = self._trainer.args.average_tokens_across_devices
            ranks = world_size() if across else 1  # DDP divides by it
            loss = self._loss_sum(logits, labels, extra) * (ranks / num_items_in_batch)
        elif self._all_ignored(labels):
            loss = logits.sum() * float("nan")  # as F.cross_entropy gives
        else:
            loss = self.criterion(logits, labels, **extra)
        return (loss, outputs) if return_outputs else loss

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], Tensor | None]:
        """Return the batches of an accumulation step and the divisor of their mean; reset the criterion's gradients."""
        parts, _ = self._parent.get_batch_samples(epoch_iterator, num_batches, device)
        self.criterion.zero_grad()  # the Trainer does this for the model only
        if not parts or any("labels" not in part for part in parts):
            return parts, None
        labels = [part["labels"].to(device) for part in parts]
        counts = [drop_in.mean_divisor(self.criterion, each).float() for each in labels]
        total = torch.stack(counts).sum()
        if self._trainer.args.average_tokens_across_devices:
            total = sum_across_ranks(total)
        # without valid labels the loss is 0, not 0 / 0
        return parts, torch.where(total > 0, total, 1.0)

    def _forward_with_features(
        self, model: nn.Module, inputs: dict[str, Any]
    ) -> tuple[Any, Tensor | None]:
        if self._tap is None:
            return _to_model_output(model(**inputs)), None
        self._tap.start()
        try:
            outputs = model(**inputs)
        except BaseException:
            self._tap.cancel()
            raise
        return _to_model_output(outputs), self._tap.stop()

    def _pool_features(self, features: Tensor, logits: Tensor, inputs: Mapping[str, Any]) -> Tensor:
        """Return features in the shape of the logits: ``(N, D)``, or ``(N, D, L)`` for logits of every token."""
        if logits.ndim == 3:
            return features.movedim(-1, 1) if features.ndim == 3 else features
        if features.ndim > 2 and self.pool is not None:
            features = self.pool(features, inputs)
        if features.ndim != 2:
            raise InputError(
                f"the head's input must be (N, D) for logits {tuple(logits.shape)}",
                describe(features),
                "Pass pool=lambda features, inputs: ..., which picks the token whose logits are returned.",
            )
        return features

    def _loss_sum(self, logits: Tensor, labels: Tensor, extra: dict[str, Any]) -> Tensor:
        """Return the criterion's loss summed over a batch, or 0 for a batch without valid labels."""
        if self._all_ignored(labels):
            return logits.sum() * 0.0
        criterion: Any = self.criterion
        criterion.reduction = "sum"  # a mean times its divisor is NaN if all weights are 0
        try:
            return criterion(logits, labels, **extra)
        finally:
            criterion.reduction = "mean"

    def _all_ignored(self, labels: Tensor) -> bool:
        """Return whether all labels are ignored; checked only on the CPU, elsewhere False, to avoid a device sync."""
        looks = labels.device.type == "cpu" and not labels.is_floating_point()
        return looks and bool((labels == drop_in.ignored_label(self.criterion)).all())

    # --- the gate -------------------------------------------------------------------------------------------------

    def create_optimizer(self, *args: Any, **kwargs: Any) -> torch.optim.Optimizer:
        """Return the Trainer's optimizer, with the criterion's parameters in a group without weight decay."""
        returned = self._parent.create_optimizer(*args, **kwargs)
        optimizer: torch.optim.Optimizer = returned or self._trainer.optimizer
        if drop_in.add_parameters(optimizer, self.criterion) and world_size() > 1:
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
        self,
        dataloader: Any,
        description: str,
        prediction_loss_only: bool | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        """Run the Trainer's evaluation loop, then update a criterion that learns from validation predictions."""
        update = getattr(self.criterion, "update_from_validation", None)
        learns = update is not None and self._trainer.is_in_train
        only_loss = False if learns else prediction_loss_only
        output = self._parent.evaluation_loop(dataloader, description, only_loss, *args, **kwargs)
        if update is not None and learns:
            if output.predictions is None or output.label_ids is None:
                raise InputError(
                    "the criterion requires the predictions of each evaluation",
                    "batch_eval_metrics=True, which keeps none",
                    "Set batch_eval_metrics=False.",
                )
            ignored = drop_in.ignored_label(self.criterion)
            update(Predictions(*valid_rows(output.predictions, output.label_ids, ignored)))
        return output

    # --- checkpoints ----------------------------------------------------------------------------------------------

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save the model as the Trainer does, and the criterion's state next to the model."""
        self._parent.save_model(output_dir, _internal_call=_internal_call)
        args = self._trainer.args
        if args.should_save:
            path = Path(output_dir or args.output_dir) / CRITERION_FILE
            write_atomically(path, lambda file: torch.save(self.criterion.state_dict(), file))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        self._folder = Path(resume_from_checkpoint)
        self._parent._load_from_checkpoint(resume_from_checkpoint, model)
        self._load_criterion()

    def _load_best_model(self) -> None:
        self._folder = Path(self._trainer.state.best_model_checkpoint)
        self._parent._load_best_model()
        self._load_criterion()

    def _issue_warnings_after_load(self, load_result: Any) -> None:
        # transformers 5 saves some models (ViT) under the keys of older releases, and its Trainer loads them without
        # translating, so that weights keep their old values. from_pretrained translates.
        model = self._trainer.accelerator.unwrap_model(self._trainer.model)
        if not load_result.missing_keys or not isinstance(model, _transformers.PreTrainedModel):
            self._parent._issue_warnings_after_load(load_result)
            return
        options = {"config": model.config, "dtype": model.dtype, "local_files_only": True}
        translated, about = type(model).from_pretrained(
            self._folder, output_loading_info=True, **options
        )
        if about["missing_keys"]:
            raise InputError(
                "the checkpoint must hold every weight of the model",
                f"{self._folder} without {', '.join(sorted(about['missing_keys'])[:5])}",
                "Resume with the model that wrote it.",
            )
        model.load_state_dict(translated.state_dict())

    def _load_criterion(self) -> None:
        path = self._folder / CRITERION_FILE
        if not path.exists() and not self.criterion.state_dict():
            return
        try:
            self.criterion.load_state_dict(load_tensors(path))
        except (OSError, ValueError) as error:
            raise InputError(
                f"the checkpoint must hold the criterion's state in {CRITERION_FILE}",
                f"{path} ({error})",
                "Resume from a checkpoint that this Trainer wrote, with the same criterion.",
            ) from error

    @property
    def _trainer(self) -> Any:
        """This object, typed as a Trainer."""
        return self

    @property
    def _parent(self) -> Any:
        """The methods of the Trainer that the mixin overrides."""
        return super()


class CriterionTrainer(CriterionMixin, _transformers.Trainer):  # type: ignore[name-defined]  # known on import
    """``transformers.Trainer`` with a criterion; see :class:`CriterionMixin`.

    Args:
        *args: Arguments of ``transformers.Trainer``.
        criterion: Any loss of this library.
        head: The classifier head, if it cannot be found.
        pool: Selects the token whose logits are returned.
        **kwargs: Keywords of ``transformers.Trainer``.

    Example:
        >>> from fedlas.losses import FedLAS
        >>> trainer = CriterionTrainer(model, args, criterion=FedLAS(num_classes=3))  # doctest: +SKIP
        >>> trainer.train()  # doctest: +SKIP
    """


class ComputeMetrics:
    """Callable for the Trainer's ``compute_metrics``: accuracy, NLL and ECE, or other metrics.

    Args:
        metrics: Registry names; None for all that :func:`~fedlas.evaluate` computes from logits and target.
        num_bins: Number of bins, at least 1.
        ignore_index: Label that is left out.

    Raises:
        InputError: For a metric that is unknown or cannot be computed from sums; when called, for logits or labels of
            other shapes, or without valid labels.

    State:
        With ``TrainingArguments(batch_eval_metrics=True)`` it is called batch by batch and keeps integer sums of
        ``O(num_bins)`` size, so an evaluation of any length fits in memory. The result clears the sums.

    Example:
        >>> import numpy as np
        >>> from types import SimpleNamespace
        >>> batch = SimpleNamespace(predictions=np.array([[2.0, 0.0], [0.0, 1.0]]), label_ids=np.array([0, 0]))
        >>> ComputeMetrics(["accuracy"])(batch)
        {'accuracy': 0.5}
    """

    @check_argument_types
    def __init__(
        self,
        metrics: Sequence[str] | None = ("accuracy", "nll", "ece"),
        *,
        num_bins: int = 15,
        ignore_index: int = -100,
    ) -> None:
        self.metrics = None if metrics is None else list(metrics)
        self.num_bins = num_bins
        self.ignore_index = check_count("ignore_index", ignore_index, low=None)
        # wrong options raise here, before training
        StreamingMetrics(2, metrics=self.metrics, num_bins=num_bins)
        self._streaming: StreamingMetrics | None = None

    def __call__(self, prediction: Any, compute_result: bool = True) -> dict[str, float]:
        """Add ``prediction.predictions`` and ``.label_ids``; return the metrics if ``compute_result``, else ``{}``."""
        logits, labels = valid_rows(prediction.predictions, prediction.label_ids, self.ignore_index)
        if self._streaming is None:
            self._streaming = StreamingMetrics(
                logits.shape[1], metrics=self.metrics, num_bins=self.num_bins
            )
        if len(logits):
            self._streaming.update(logits, labels)
        if not compute_result:
            return {}
        metrics = self._streaming.compute()
        self._streaming = None
        return metrics


def _to_model_output(outputs: Any) -> Any:
    """Return a mapping as a ``ModelOutput`` with ``.logits``, and any other output unchanged."""
    if isinstance(outputs, Mapping) and not hasattr(outputs, "logits"):
        return require("transformers.utils", extra="hf").ModelOutput(**outputs)
    return outputs
