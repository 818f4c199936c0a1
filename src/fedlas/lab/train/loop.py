"""The training loop, on accelerate: it validates and saves a checkpoint after each epoch, and keeps the best one."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from fedlas._core.check import InputError, NonFiniteError
from fedlas._core.ranks import gather_object, new_accelerator, on_main
from fedlas._core.streams import rng_state
from fedlas.lab.train.average import AVERAGES, Weights
from fedlas.lab.train.checkpoint import CHECKPOINT, load_checkpoint, save_checkpoint
from fedlas.lab.train.config import OptimizerConfig, ScheduleConfig, TrainConfig
from fedlas.lab.train.engine import Engine
from fedlas.lab.train.hooks import Hook
from fedlas.lab.train.log import LOG, append_log, truncate_log
from fedlas.lab.train.optim import build_optimizer, build_schedule
from fedlas.lab.train.progress import Progress, ShowProgress, TrainingProgress
from fedlas.lab.train.restore import restore
from fedlas.lab.train.selection import REFINED, check_select, merit, refined_nll
from fedlas.metrics import evaluate
from fedlas.objective import Objective
from fedlas.objective.predict import predict
from fedlas.predictions import Predictions

__all__ = ["DivergedError", "EpochBatches", "Fitted", "fit"]


class EpochBatches(Protocol):
    """Training data: batches ``(inputs, target, index)`` whose order depends on the epoch alone."""

    def __iter__(self) -> Any: ...
    def __len__(self) -> int: ...
    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch, counted from 0."""


class DivergedError(InputError):
    """Loss or logits are no longer finite: the settings do not train, but the input is correct."""


@dataclass(frozen=True)
class Fitted:
    """Outcome of a run. The objective passed to :func:`fit` holds the best epoch's weights.

    Attributes:
        best_epoch: Epoch whose weights, or average of weights, were kept, counted from 1.
        history: Records of the log, one per epoch.
    """

    best_epoch: int
    history: list[dict[str, Any]]


def fit(
    objective: Objective,
    train: EpochBatches,
    val: EpochBatches,
    *,
    folder: Path,
    config: TrainConfig,
    optimizer: OptimizerConfig,
    schedule: ScheduleConfig,
    identity: Mapping[str, Any],
    accelerator: Any = None,
    name: str = "train",
    hooks: Sequence[Hook] = (),
    on_record: Callable[[Mapping[str, Any]], None] | None = None,
    show: ShowProgress = TrainingProgress,
) -> Fitted:
    """Train until the last epoch, from ``folder/checkpoint.pt`` if there is one.

    Args:
        objective: Model and criterion; trained in place.
        train: Training batches of this process.
        val: Validation batches, the whole part on every process.
        folder: Holds ``checkpoint.pt`` and ``log.jsonl``.
        config: Configuration of the loop.
        optimizer: Configuration of the optimizer.
        schedule: Configuration of the learning rate.
        identity: Resolved configuration of the run. A checkpoint of another configuration is refused.
        accelerator: ``accelerate.Accelerator``; None makes one.
        name: Text in front of the progress bar.
        hooks: Observers that add to the log. They need the model's head to be found, or named in the objective.
        on_record: Called on the main process with each record, after it is in the log.
        show: Shows the progress.

    Returns:
        The best epoch and the log.

    Raises:
        InputError: For a head that hooks need and that is not found, a checkpoint that cannot be read or belongs to
            another configuration, a metric that cannot select (``config.select``), or a folder that is not writable.
        DivergedError: For a loss, or validation logits, that are no longer finite.

    State:
        A run stopped at any moment resumes from its last checkpoint; on a CPU it ends with the same weights, bit for
        bit. A criterion with ``update_from_validation(predictions)`` gets the validation predictions after each epoch,
        before the checkpoint. With ``config.average`` the objective's model gets averaged weights at the end; until
        then the average is in a model of its own.

    Note:
        With several processes each takes its slice of every batch, and ``config.accumulate`` cuts the slice into parts.
        Each part's loss is weighted by its samples; :class:`~fedlas.lab.train.engine.Engine` says when the gradient is
        that of the whole batch. Batch normalization uses the statistics of each part, so a model with it trains as with
        a smaller batch.
    """
    # Check everything before anything is changed: an error after an epoch would come late.
    select = check_select(config.select)
    accelerator = accelerator or new_accelerator()
    main, rank = bool(accelerator.is_main_process), int(accelerator.process_index)
    schedule.milestone_epochs(config.epochs)
    path, log = folder / CHECKPOINT, folder / LOG
    # The main process decides, so that all start at the same epoch. Then each reads the shared file.
    saved = load_checkpoint(path, identity) if on_main(accelerator, path.exists) else None
    if hooks:
        _read_in(objective, objective.model)

    # Build what trains, and restore its state.
    done = 0
    best: dict[str, Any] = {"epoch": 0, "value": float("nan"), "objective": {}}
    engine = Engine(objective, config, accelerator)
    torch_optimizer = build_optimizer(objective, optimizer)
    scheduler = build_schedule(torch_optimizer, schedule, epochs=config.epochs)
    engine.start(torch_optimizer)
    weights = AVERAGES[config.average](objective.model, config)
    if saved is not None:
        restore(
            saved, path, objective=objective, optimizer=torch_optimizer, schedule=scheduler, weights=weights,
            hooks=hooks, epochs=config.epochs, rank=rank,
        )  # fmt: skip
        done, best = saved["epoch"], saved["best"]
        del saved
    history = on_main(accelerator, lambda: truncate_log(log, done))

    with show(name, epochs=config.epochs, steps=len(train), done=done, quiet=not main) as bar:
        for epoch in range(done + 1, config.epochs + 1):
            # Train and validate.
            started = time.monotonic()
            train.set_epoch(epoch - 1)
            lr = torch_optimizer.param_groups[0]["lr"]
            trained = _train_epoch(engine, train, optimizer.clip_norm, weights, hooks, bar, epoch)
            scheduler.step()
            weights.end_epoch(epoch, train, accelerator)
            try:
                predictions, watched = _validate(objective, weights.model, val, hooks, accelerator)
            except NonFiniteError as error:
                raise DivergedError(*error.parts) from error
            if (update := getattr(objective.criterion, "update_from_validation", None)) is not None:
                update(predictions)
            scores = evaluate(predictions, num_bins=config.num_bins)
            if select == REFINED:
                scores[REFINED] = refined_nll(predictions)
            value = scores[select]
            # The first average replaces what was best before, which was no average. Among equals the last epoch wins.
            if epoch == weights.first or not best["epoch"] or merit(select, value) >= merit(select, best["value"]):
                best = {"epoch": epoch, "value": value, "objective": _snapshot(objective, weights.model)}

            # Log, then save a checkpoint: a kill between the two repeats the epoch, and its line is replaced.
            record = {
                "epoch": epoch,
                "lr": lr,
                "precision": engine.config.precision,
                "seconds": round(time.monotonic() - started, 3),
                "train": trained,
                "val": scores,
                **watched,
            }
            if engine.watch.text and not any("slow_step" in earlier for earlier in history):
                record["slow_step"] = engine.watch.text
            history.append(record)
            if main:
                append_log(log, record)
                bar.epoch(record)
                if on_record is not None:
                    on_record(record)
            if epoch % config.checkpoint_every == 0 or epoch == config.epochs:
                state = {
                    "epoch": epoch,
                    "objective": dict(objective.state_dict()),
                    "optimizer": torch_optimizer.state_dict(),
                    "schedule": scheduler.state_dict(),
                    "average": weights.state_dict(),
                    "hooks": [hook.state_dict() for hook in hooks],
                    "rng": gather_object(accelerator, rng_state()),
                    "best": best,
                }
                if main:
                    save_checkpoint(path, state, identity)
            accelerator.wait_for_everyone()
    objective.load_state_dict(best["objective"])
    return Fitted(best_epoch=int(best["epoch"]), history=history)


def _train_epoch(
    engine: Engine,
    batches: EpochBatches,
    clip_norm: float | None,
    weights: Weights,
    hooks: Sequence[Hook],
    bar: Progress,
    epoch: int,
) -> dict[str, float]:
    """One pass over the training data; mean loss and accuracy of each batch before its step."""
    objective, accelerator = engine.wrapped, engine.accelerator
    objective.train()
    device = accelerator.device
    totals = torch.zeros(3, device=device)  # loss, hits, samples: read once, at the end
    for step, batch in enumerate(batches, start=1):
        # A step averages the gradient over its parts; only the last part makes the processes exchange theirs.
        with engine.watch.step(batch[0]):
            parts = list(engine.parts(*batch))
            for number, (inputs, target, index, share) in enumerate(parts, start=1):
                with engine.collecting(last=number == len(parts)):
                    try:
                        with engine.autocast():
                            loss, logits = objective(inputs, target, index=index)
                    except NonFiniteError as error:  # a loss refuses logits of -inf before any sum of it is NaN
                        raise _diverged(f"{error.parts[2]} in epoch {epoch}") from error
                    for hook in hooks:
                        hook.on_batch(logits, index)
                    engine.backward(loss, share)
                # The sums stay on the device: reading a number after each step would stall an accelerator.
                with torch.no_grad():
                    hits = (logits.argmax(1) == target).sum()
                    totals += torch.stack((loss * len(target), hits.to(loss.dtype), loss.new_tensor(len(target))))
            engine.step(clip_norm)
            weights.step(epoch)
        bar.step(epoch, step, float(loss.detach()) if bar.due() else None)
    # One check per epoch finds divergence, because NaN and infinity stay in a sum.
    loss_sum, hits, samples = accelerator.reduce(totals, reduction="sum").tolist()
    if not math.isfinite(loss_sum):
        raise _diverged(f"a mean loss of {loss_sum / samples} in epoch {epoch}")
    return {"loss": loss_sum / samples, "accuracy": hits / samples}


def _diverged(got: str) -> DivergedError:
    fix = "Lower optimizer.lr, set optimizer.clip_norm, or check the inputs for NaN."
    return DivergedError("training", "loss and logits must stay finite", got, fix)


def _validate(
    objective: Objective, model: nn.Module, val: EpochBatches, hooks: Sequence[Hook], accelerator: Any
) -> tuple[Predictions, dict[str, Any]]:
    """Predictions of a model (the objective's, or an average) on the validation part, and what hooks add to the log."""
    keep = bool(getattr(objective.criterion, "learns_from_held_out_features", False))
    if not hooks and not keep:
        return predict(model, val, device=accelerator.device), {}

    def observe(logits: Tensor, features: Tensor) -> None:
        for hook in hooks:
            hook.on_held_out(logits, features)

    head = _read_in(objective, model)
    predictions = predict(model, val, device=accelerator.device, features=keep, head=head, observe=observe)
    added: dict[str, Any] = {}
    for hook in hooks:
        added.update(hook.on_epoch(predictions, partial(gather_object, accelerator)))
    return predictions, added


def _read_in(objective: Objective, model: nn.Module) -> nn.Module:
    """The module of a model whose input hooks get: the one the criterion reads, or the classifier head."""
    read = objective.head_in(model)
    return objective.classifier_in(model) if read is None else read


def _snapshot(objective: Objective, model: nn.Module) -> dict[str, Tensor]:
    """A copy of the objective's state with the weights of ``model``."""
    state = objective.state_dict() | {f"model.{key}": value for key, value in model.state_dict().items()}
    return {key: value.detach().to("cpu", copy=True) for key, value in state.items()}
