"""Lightning: a callback that logs calibration metrics, monitors the gate, and updates a loss from validation."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from fedlas._core.check import InputError
from fedlas._core.extras import require
from fedlas._core.ranks import world_size
from fedlas.diagnose import GateMonitor, find_gated_loss
from fedlas.features import FeatureTap
from fedlas.integrations.drop_in import ignored_label
from fedlas.integrations.positions import valid_positions
from fedlas.metrics import StreamingMetrics
from fedlas.objective import Objective
from fedlas.objective.call import class_logits
from fedlas.predictions import Predictions

require("lightning", extra="lightning")

from lightning.pytorch import Callback, LightningModule, Trainer  # noqa: E402 (after require, whose error names the extra)

__all__ = ["CalibrationCallback"]

_log = logging.getLogger(__name__)


class CalibrationCallback(Callback):
    """Lightning callback that logs calibration metrics of the module's :class:`~fedlas.Objective`.

    The module keeps its own steps. It holds an objective, calls it in ``training_step`` and ``validation_step``
    (``loss, logits = self.objective(images, target)``), and gives ``fedlas.param_groups(self.objective)`` to its
    optimizer. After each validation the callback logs ``val_accuracy``, ``val_ece`` and so on, so that
    ``ModelCheckpoint(monitor="val_nll")`` and early stopping can use them. It also calls ``update_from_validation`` of
    a criterion that has it, and logs statistics of gate and indicator.

    Args:
        metrics: Registry names; None for those that :func:`~fedlas.evaluate` computes from logits and target.
        num_bins: Number of bins, at least 1.
        objective: Dotted name of the objective in the module; None finds the only one.

    Attributes:
        records: Record of the monitor after each validation of this run, in order; empty for a loss without a gate.

    Raises:
        InputError: If the module holds no objective, or several and none is named; if a validation ends without a call
            of it, or has soft targets.
        MissingExtraError: On import, if Lightning is not installed.

    State:
        Gate and NCI are part of the module's ``state_dict``, and so of every checkpoint. The state of the monitor is
        the callback's state in the checkpoint. Metrics are integer sums of ``O(num_bins)`` size; all predictions of a
        validation are kept only while a monitor or ``update_from_validation`` needs them.

    Note:
        Nothing happens in the sanity check before training. Under several processes metrics are those of all samples
        and ``update_from_validation`` gets all predictions; the monitor uses the part of the main process.
        Dense outputs are measured at every valid position; the monitor leaves them out. Flips of training samples are
        counted if the module passes ``index=`` to its objective. A checkpoint in the middle of an epoch does not hold
        the decisions of that epoch, so its flips are counted from the checkpoint on.

    Example:
        >>> from fedlas.integrations.lightning import CalibrationCallback
        >>> CalibrationCallback(metrics=["accuracy", "ece"]).metrics
        ['accuracy', 'ece']
    """

    def __init__(
        self,
        *,
        metrics: Sequence[str] | None = None,
        num_bins: int = 15,
        objective: str | None = None,
    ) -> None:
        super().__init__()
        self.metrics = None if metrics is None else list(metrics)
        self.num_bins = num_bins
        self.objective = objective
        self.records: list[dict[str, Any]] = []
        # wrong options raise here, before anything runs
        StreamingMetrics(2, metrics=self.metrics, num_bins=num_bins)
        self._monitor: GateMonitor | None = None
        self._state: Mapping[str, Any] | None = None
        self._handles: list[Any] = []
        self._tap: FeatureTap | None = None
        # the stage to read: "train", "fit" (its validation), "val" (alone), "test", or none
        self._listening = ""
        self._streaming: StreamingMetrics | None = None
        self._outputs: list[tuple[Tensor, Tensor]] = []
        self._has_features = False

    # --- Lightning's hooks -----------------------------------------------------------------------------------------

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Find the module's objective and register hooks on it."""
        self.teardown(trainer, pl_module, stage)
        objective = _find_objective(pl_module, self.objective)
        criterion: Any = objective.criterion
        if self._monitor is not None and self._monitor.criterion is criterion:
            # a second fit resumes, without the rest of an aborted epoch
            self._state = self._monitor.state_dict()
        gated = find_gated_loss(objective.criterion)
        self._monitor = None if gated is None else GateMonitor(gated)
        if self._monitor is not None and self._state:
            self._monitor.load_state_dict(self._state)
        self._handles.append(objective.register_forward_hook(self._on_output, with_kwargs=True))
        read = objective.find_feature_module(objective.model)
        if self._monitor is not None and read is not None:
            self._tap = FeatureTap(read)
            self._handles.append(objective.register_forward_pre_hook(self._start_tap))

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:  # noqa: ARG002 (Lightning's signature)
        """Remove every hook from the objective."""
        for handle in self._handles:
            handle.remove()
        if self._tap is not None:
            self._tap.remove()
        self._handles = []
        self._tap = None
        self._listening = ""

    def on_train_batch_start(self, *_: Any) -> None:
        """Start recording the gate's decisions on a training batch."""
        self._listening = "train"

    def on_train_batch_end(self, *_: Any) -> None:
        """Stop recording the gate's decisions."""
        self._listening = ""

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002 (Lightning's signature)
        """Start collecting validation outputs, except in the sanity check before training."""
        alone = "" if trainer.sanity_checking else "val"
        self._start_epoch("fit" if alone and trainer.state.fn == "fit" else alone)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002 (Lightning's signature)
        """Log validation metrics and gate statistics, and update a criterion that learns from validation."""
        if self._listening:
            self._finish_epoch(pl_module)

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002 (Lightning's signature)
        """Start collecting test outputs."""
        self._start_epoch("test")

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002 (Lightning's signature)
        """Log the test metrics."""
        self._finish_epoch(pl_module)

    def state_dict(self) -> dict[str, Any]:
        """Return the monitor's state, for Lightning's checkpoint."""
        return {} if self._monitor is None else {"monitor": self._monitor.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state that :meth:`state_dict` returned."""
        self._state = state_dict.get("monitor")
        if self._monitor is not None and self._state:
            self._monitor.load_state_dict(self._state)

    # --- hooks of the objective -----------------------------------------------------------------------------------

    def _start_tap(self, *_: Any) -> None:
        if self._listening == "fit" and self._tap is not None:
            self._tap.start()

    @torch.no_grad()
    def _on_output(
        self, objective: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any
    ) -> None:
        logits = class_logits(output[1]).detach()
        # Training: the monitor sees the gate's decisions.
        if self._listening == "train" and self._monitor is not None:
            self._monitor.on_batch(logits, kwargs.get("index"))
        if self._listening in ("", "train"):
            return
        # Validation and test: measure the valid positions.
        criterion = objective.criterion
        target = kwargs["target"] if "target" in kwargs else args[1]
        ignored = ignored_label(criterion)
        rows, labels = valid_positions(logits, target, ignore_index=ignored)
        features = None if self._tap is None or self._listening != "fit" else self._tap.stop()
        if not len(rows):
            return
        if self._streaming is None:
            self._streaming = StreamingMetrics(
                rows.shape[1], metrics=self.metrics, num_bins=self.num_bins
            )
        self._streaming.update(rows, labels)
        # Keep the logits only if something needs all of them.
        watched = self._monitor is not None and features is not None and logits.ndim == 2
        learns = self._listening == "fit" and (
            watched or hasattr(criterion, "update_from_validation")
        )
        if learns:
            self._outputs.append((rows.float().cpu(), labels.cpu()))
        if watched:
            counts = target != ignored
            self._monitor.on_held_out(rows, features.flatten(1)[counts])  # type: ignore[union-attr]  # not None here
            self._has_features = True

    # --- one epoch ------------------------------------------------------------------------------------------------

    def _start_epoch(self, listening: str) -> None:
        self._listening = listening
        self._streaming = None
        self._outputs = []
        self._has_features = False

    def _finish_epoch(self, module: LightningModule) -> None:
        listening = self._listening
        self._listening = ""
        stage = "test" if listening == "test" else "val"
        if self._streaming is None:
            raise InputError(
                f"{'test' if stage == 'test' else 'validation'}_step must call the module's objective",
                "no call of the objective",
                "Write loss, logits = self.objective(images, target) there.",
            )
        # Metrics of all ranks.
        whole = self._streaming.sum_across_ranks()
        values = {f"{stage}_{name}": value for name, value in whole.compute().items()}
        if self._outputs:
            logits, target = (torch.cat(parts) for parts in zip(*self._outputs, strict=True))
            predictions = Predictions(logits, target)
            self._outputs = []
            update = getattr(
                _find_objective(module, self.objective).criterion, "update_from_validation", None
            )
            if listening == "fit" and update is not None:
                update(_gather_predictions(predictions))
            if self._has_features:
                values |= self._monitor_epoch(predictions)
        # Log everything at once, the same names on every rank.
        for name, value in values.items():
            module.log(name, torch.tensor(value, dtype=torch.float64))

    def _monitor_epoch(self, predictions: Predictions) -> dict[str, float]:
        record = self._monitor.on_epoch(predictions)  # type: ignore[union-attr]  # not None, since it has seen samples
        self.records.append(record)
        for alarm in record["alarms"]:
            _log.warning("%s", alarm)
        named = {
            f"{part}_{name}": value
            for part in ("gate", "indicator")
            for name, value in record[part].items()
        }
        return {
            name: float(value) for name, value in named.items() if isinstance(value, int | float)
        }


def _find_objective(module: LightningModule, name: str | None) -> Objective:
    objectives = {key: part for key, part in module.named_modules() if isinstance(part, Objective)}
    chosen = (
        objectives
        if name is None
        else {key: part for key, part in objectives.items() if key == name}
    )
    if len(chosen) == 1:
        return next(iter(chosen.values()))
    raise InputError(
        "the module must have exactly one fedlas.Objective"
        + ("" if name is None else f" named {name!r}"),
        f"{type(module).__name__} with {', '.join(chosen) or 'none'}",
        "Write self.objective = fedlas.Objective(model, criterion) in its __init__, or name one: objective='...'.",
    )


def _gather_predictions(predictions: Predictions) -> Predictions:
    """Return the predictions of all ranks, concatenated in the order of ranks."""
    if world_size() == 1:
        return predictions
    parts: list[Any] = [None] * world_size()
    dist.all_gather_object(parts, (predictions.logits, predictions.target))
    logits, target = (torch.cat(columns) for columns in zip(*parts, strict=True))
    return Predictions(logits, target)
