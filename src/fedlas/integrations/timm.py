"""timm: a training task with a criterion of this library."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from fedlas._core.extras import require
from fedlas.integrations.drop_in import DropInLoss, add_parameters
from fedlas.objective import Objective

require("timm.task", extra="timm")

from timm.task import TrainingTask  # noqa: E402 (after require, whose error names the extra)
from timm.utils.model import unwrap_model  # noqa: E402 (as above)

__all__ = ["CriterionTask", "DropInLoss"]


class CriterionTask(TrainingTask):
    """A ``timm.task.TrainingTask`` whose loss is a criterion of this library.

    In timm's ``train.py`` it replaces ``ClassificationTask(model, train_loss_fn)``. In a script without tasks,
    :class:`~fedlas.integrations.drop_in.DropInLoss` replaces ``train_loss_fn``.

    Args:
        model: A classifier, of timm or not.
        criterion: Any loss of this library, or e.g. timm's own.
        head: The classifier head, if it cannot be found.
        device: As for ``TrainingTask``.
        dtype: As for ``TrainingTask``.
        verbose: As for ``TrainingTask``.

    Attributes:
        objective: Model and criterion in one module, which EMA averages and DDP wraps.

    Raises:
        InputError: As :class:`~fedlas.Objective`.
        MissingExtraError: On import, if timm is not installed or older than its tasks.

    State:
        ``get_checkpoint_state()`` holds the model under its own keys as ``state_dict``, as timm's tools expect, and
        gate and NCI as ``task_state``; ``load_checkpoint_state`` reads both, for the EMA too.

    Note:
        timm's optimizer factory applies weight decay to every matrix, including the gate's. :meth:`create_optimizer`
        uses it for the model and adds the criterion's parameters without decay.

    Example:
        >>> from fedlas.losses import FedLAS
        >>> _ = torch.manual_seed(0)
        >>> task = CriterionTask(nn.Sequential(nn.Flatten(), nn.Linear(4, 3)), FedLAS(num_classes=3))
        >>> sorted(task(torch.randn(5, 4), torch.tensor([0, 1, 2, 0, 1])))
        ['loss', 'output']
    """

    def __init__(
        self,
        model: nn.Module,
        criterion: nn.Module,
        *,
        head: str | nn.Module | None = None,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
        verbose: bool = True,
    ) -> None:
        super().__init__(device=device, dtype=dtype, verbose=verbose)
        self.trainable_module: nn.Module = Objective(model, criterion, head)
        self.trainable_module.to(device=self.device, dtype=dtype)

    @property
    def objective(self) -> Objective:
        """The :class:`~fedlas.Objective` of model and criterion, without wrappers such as DDP."""
        return unwrap_model(self.trainable_module)

    def forward(self, input: Tensor, target: Tensor) -> dict[str, Tensor]:  # noqa: A002 (timm's name)
        """Return the loss and the logits of a batch as a dict.

        Args:
            input: Images ``(N, D, H, W)``.
            target: Labels ``(N,)``, or soft ones ``(N, C)`` from timm's mixup.

        Returns:
            ``loss`` and ``output``.
        """
        loss, logits = self.trainable_module(input, target)
        return {"loss": loss, "output": logits}

    def create_optimizer(self, opt: str = "sgd", **options: Any) -> torch.optim.Optimizer:
        """Return an optimizer by ``timm.optim.create_optimizer_v2``; the criterion's parameters get no weight decay.

        Args:
            opt: timm's name of the optimizer.
            **options: Options of ``create_optimizer_v2``.
        """
        optimizer: torch.optim.Optimizer = require("timm.optim", extra="timm").create_optimizer_v2(
            self.objective.model, opt=opt, **options
        )
        add_parameters(optimizer, self.objective.criterion)
        return optimizer

    def prepare_distributed(
        self, device_ids: list[int] | None = None, **ddp_kwargs: Any
    ) -> CriterionTask:
        """Wrap model and criterion together in DDP, so that the gate is the same on all ranks.

        Args:
            device_ids: As for DDP.
            **ddp_kwargs: Options of DDP.
        """
        wrapper = torch.nn.parallel.DistributedDataParallel
        self.trainable_module = wrapper(self.trainable_module, device_ids=device_ids, **ddp_kwargs)
        return self

    def compile(  # type: ignore[override]  # timm's own differs from PyTorch's too
        self, backend: str = "inductor", mode: str | None = None, **compile_kwargs: Any
    ) -> nn.Module | None:
        """Compile model and criterion; call it before :meth:`prepare_distributed`.

        Args:
            backend: As for ``torch.compile``.
            mode: As for ``torch.compile``.
            **compile_kwargs: Options of ``torch.compile``.
        """
        compiled: Any = torch.compile(
            self.trainable_module, backend=backend, mode=mode, **compile_kwargs
        )
        self.trainable_module = compiled
        return self.get_eval_model()

    def get_eval_model(
        self, module: nn.Module | None = None, ema: bool = False
    ) -> nn.Module | None:
        """Return the model alone, from images to logits."""
        chosen = super().get_eval_model(module, ema)
        inner = None if chosen is None else unwrap_model(chosen)
        return inner.model if isinstance(inner, Objective) else inner

    def get_clip_parameters(self, exclude_head: bool = False) -> list[nn.Parameter]:
        """Return the parameters to clip: the model's, without the gate's, as in the published code.

        Args:
            exclude_head: Leave out the last two, as timm does for adaptive clipping.
        """
        parameters = list(self.objective.model.parameters())
        return parameters[:-2] if exclude_head else parameters

    def get_task_state(self, module: nn.Module | None = None, ema: bool = False) -> dict[str, Any]:
        """Return the criterion's state for timm's checkpoint."""
        objective = self._unwrap_objective(module, ema)
        return {} if objective is None else dict(objective.criterion.state_dict())

    def load_task_state(
        self,
        state: dict[str, Any] | None,
        strict: bool = True,
        module: nn.Module | None = None,
        ema: bool = False,
    ) -> None:
        """Restore the criterion's state that :meth:`get_task_state` returned.

        Args:
            state: The state; None if the checkpoint has none, for a criterion without state.
            strict: Whether every key must be there.
            module: As for ``TrainingTask``.
            ema: Whether it is the state of the average.
        """
        objective = self._unwrap_objective(module, ema)
        if objective is not None:
            objective.criterion.load_state_dict(state or {}, strict=strict)

    def _unwrap_objective(self, module: nn.Module | None, ema: bool) -> Objective | None:
        chosen = self.get_trainable_module(ema=ema) if module is None else module
        inner = None if chosen is None else unwrap_model(chosen)
        return inner if isinstance(inner, Objective) else None
