"""Training loop on accelerate, with validation and a checkpoint after each epoch; the best epoch is kept."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from fedlas._core.check import InputError, NonFiniteError
from fedlas._core.ranks import gather_object, run_on_main
from fedlas._core.streams import rng_state
from fedlas.lab.train.average import AVERAGES
from fedlas.lab.train.checkpoint import (
    CHECKPOINT,
    load_checkpoint,
    restore_training,
    save_checkpoint,
)
from fedlas.lab.train.config import (
    REFINED_NLL,
    check_selection_metric,
    refined_nll,
    selection_score,
)
from fedlas.lab.train.engine import Engine, build_optimizer, build_schedule
from fedlas.lab.train.job import TrainingJob
from fedlas.lab.train.layers import FineTuning
from fedlas.lab.train.log import LOG, Progress, append_log, truncate_log
from fedlas.metrics import METRICS, evaluate
from fedlas.objective import Objective
from fedlas.objective.predict import predict
from fedlas.predictions import Predictions


class DivergedError(InputError):
    """The training diverged: loss or logits are not finite, although the input is valid."""


@dataclass(frozen=True)
class FitResult:
    """Result of a training; its objective holds the best epoch's weights.

    Attributes:
        best_epoch: Epoch whose weights, or average of weights, were kept, counted from 1.
        history: Records of the log, one per epoch.
    """

    best_epoch: int
    history: list[dict[str, Any]]


def fit(job: TrainingJob) -> FitResult:
    """Train the objective of a job until its last epoch, resuming from ``checkpoint.pt`` if there is one.

    Returns:
        The best epoch and the log. The objective holds the best epoch's weights.

    Raises:
        InputError: For a head that hooks need and the model lacks, a checkpoint that cannot be read or belongs to
            another configuration, a metric that cannot select (``config.select``), or a folder that is not writable.
        DivergedError: If the loss or validation logits are no longer finite.

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
    training = _Training(job)
    epochs = job.config.epochs
    quiet = not training.is_main
    with job.show(
        job.name, epochs=epochs, steps=len(job.train), done=training.done, quiet=quiet
    ) as bar:
        for epoch in range(training.done + 1, epochs + 1):
            record = training.epoch(epoch, bar)
            # Log, then save a checkpoint: a kill between the two repeats the epoch, and its line is replaced.
            if training.is_main:
                append_log(job.folder / LOG, record)
                bar.epoch(record)
                if job.on_record is not None:
                    job.on_record(record)
            if epoch % job.config.checkpoint_every == 0 or epoch == epochs:
                training.save(epoch)
            job.accelerator.wait_for_everyone()
    job.objective.load_state_dict(training.best["objective"])
    return FitResult(best_epoch=int(training.best["epoch"]), history=training.history)


class _Training:
    """State of a training job, restored from its checkpoint if there is one."""

    def __init__(self, job: TrainingJob) -> None:
        self.job = job
        config = job.config
        accelerator = job.accelerator
        self.is_main = bool(accelerator.is_main_process)
        # Check everything before anything is changed: an error after an epoch would come late.
        self.select = check_selection_metric(config.select)
        tuned_epochs = config.epochs - config.probe_epochs
        job.schedule.milestone_epochs(tuned_epochs)
        # The main process decides, so that all start at the same epoch. Then each reads the shared file.
        path = job.folder / CHECKPOINT
        saved = (
            load_checkpoint(path, job.identity) if run_on_main(accelerator, path.exists) else None
        )
        # By model (the objective's, and its average): the module whose input the hooks get.
        self.read: dict[nn.Module, nn.Module] = {}
        if job.hooks:
            self.read[job.objective.model] = _module_to_hook(job.objective, job.objective.model)
        self.engine = Engine(job.objective, config, accelerator)
        self.optimizer = build_optimizer(job.objective, job.optimizer)
        self.schedule = build_schedule(
            self.optimizer, job.schedule, epochs=tuned_epochs, probe_epochs=config.probe_epochs
        )
        model = job.objective.model
        head = job.objective.find_classifier(model) if config.probe_epochs else None
        self.tuning = FineTuning(model, job.frozen, head, config.probe_epochs)
        self.done = 0 if saved is None else int(saved["epoch"])  # epochs that the checkpoint holds
        self.tuning.select_trainable(self.done + 1)
        self.engine.start(self.optimizer)
        self.weights = AVERAGES[config.average](job.objective.model, config)
        self.best: dict[str, Any] = {"epoch": 0, "value": float("nan"), "objective": {}}
        if saved is not None:
            restore_training(saved, job, self.optimizer, self.schedule, self.weights)
            self.best = saved["best"]
        self.history = run_on_main(accelerator, lambda: truncate_log(job.folder / LOG, self.done))

    def epoch(self, epoch: int, bar: Progress) -> dict[str, Any]:
        """Train and validate one epoch, counted from 1, and return its log record."""
        job = self.job
        config = self.job.config
        weights = self.weights
        started = time.monotonic()
        lr = self.optimizer.param_groups[0]["lr"]
        job.train.set_epoch(epoch - 1)
        if self.tuning.select_trainable(epoch):
            self.engine.start(self.optimizer)  # processes exchange the gradients of another set
        trained = self._train_epoch(epoch, bar)
        self.schedule.step()
        weights.end_epoch(epoch, job.train, job.accelerator)
        try:
            predictions, added = self._validate()
        except NonFiniteError as error:
            raise DivergedError(*error.parts) from error
        if (update := getattr(job.objective.criterion, "update_from_validation", None)) is not None:
            update(predictions)
        scores = evaluate(predictions, num_bins=config.num_bins)
        if self.select == REFINED_NLL:
            scores[REFINED_NLL] = refined_nll(predictions)
        elif (
            self.select not in scores
        ):  # not a default metric for so few classes, but selected by the user
            scores[self.select] = METRICS[self.select].value(predictions)
        value = scores[self.select]
        best = self.best
        # The first average replaces the best epoch before, which was no average. Among equals the last epoch wins.
        better = not best["epoch"] or selection_score(self.select, value) >= selection_score(
            self.select, best["value"]
        )
        if epoch == weights.first or better:
            self.best = {
                "epoch": epoch,
                "value": value,
                "objective": _copy_state(job.objective, weights.model),
            }
        record = {
            "epoch": epoch,
            "lr": lr,
            "precision": self.engine.config.precision,
            "seconds": round(time.monotonic() - started, 3),
            "train": trained,
            "val": scores,
            **added,
        }
        self.history.append(record)
        return record

    def save(self, epoch: int) -> None:
        """Write a checkpoint."""
        job = self.job
        state = {
            "epoch": epoch,
            "objective": dict(job.objective.state_dict()),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "average": self.weights.state_dict(),
            "hooks": [hook.state_dict() for hook in job.hooks],
            "rng": gather_object(job.accelerator, rng_state()),
            "best": self.best,
        }
        if self.is_main:
            save_checkpoint(job.folder / CHECKPOINT, state, job.identity)

    def _train_epoch(self, epoch: int, bar: Progress) -> dict[str, float]:
        """Train on one pass over the data, and return the mean loss and accuracy before each step."""
        engine = self.engine
        accelerator = self.job.accelerator
        hooks = self.job.hooks
        objective = engine.wrapped
        objective.train()
        self.tuning.freeze_layers(epoch)
        # loss, hits, samples: read once, at the end
        totals = torch.zeros(3, device=accelerator.device)
        for step, batch in enumerate(self.job.train, start=1):
            # A step averages the gradient over its parts; only the last part makes the processes exchange theirs.
            parts = list(engine.parts(*batch))
            for number, (inputs, target, index, share) in enumerate(parts, start=1):
                with engine.gradient_sync(last=number == len(parts)):
                    try:
                        with engine.autocast():
                            loss, logits = objective(inputs, target, index=index)
                    except (
                        NonFiniteError
                    ) as error:  # a loss refuses logits of -inf before any sum of it is NaN
                        raise _divergence_error(f"{error.parts[1]} in epoch {epoch}") from error
                    for hook in hooks:
                        hook.on_batch(logits, index)
                    engine.backward(loss, share)
                # The sums stay on the device: reading a number after each step would stall an accelerator.
                with torch.no_grad():
                    hits = (logits.argmax(1) == target).sum()
                    totals += torch.stack(
                        (loss * len(target), hits.to(loss.dtype), loss.new_tensor(len(target)))
                    )
            engine.step(self.job.optimizer.clip_norm)
            self.weights.step(epoch)
            bar.step(epoch, step, float(loss.detach()) if bar.due() else None)
        # One check per epoch finds divergence, because NaN and infinity stay in a sum.
        loss_sum, hits, samples = accelerator.reduce(totals, reduction="sum").tolist()
        if not math.isfinite(loss_sum):
            raise _divergence_error(f"a mean loss of {loss_sum / samples} in epoch {epoch}")
        return {"loss": loss_sum / samples, "accuracy": hits / samples}

    def _validate(self) -> tuple[Predictions, dict[str, Any]]:
        """Return the predictions of the model or its average on validation, and the hooks' log entries."""
        job = self.job
        model = self.weights.model
        device = self.job.accelerator.device
        if not job.hooks:
            return predict(model, job.val, device=device), {}

        def observe(logits: Tensor, features: Tensor) -> None:
            for hook in job.hooks:
                hook.on_held_out(logits, features)

        if model not in self.read:
            self.read[model] = _module_to_hook(job.objective, model)
        head = self.read[model]
        predictions = predict(model, job.val, device=device, head=head, observe=observe)
        added: dict[str, Any] = {}
        for hook in job.hooks:
            added.update(hook.on_epoch(predictions, partial(gather_object, job.accelerator)))
        return predictions, added


def _divergence_error(got: str) -> DivergedError:
    fix = "Lower optimizer.lr, set optimizer.clip_norm, or check the inputs for NaN."
    return DivergedError("loss and logits must stay finite", got, fix)


def _module_to_hook(objective: Objective, model: nn.Module) -> nn.Module:
    """Return the module whose input the hooks get: the one that the criterion reads, or the classifier head."""
    read = objective.find_feature_module(model)
    return objective.find_classifier(model) if read is None else read


def _copy_state(objective: Objective, model: nn.Module) -> dict[str, Tensor]:
    """Return a copy on the CPU of the objective's state, with the weights of ``model``."""
    state = objective.state_dict() | {
        f"model.{key}": value for key, value in model.state_dict().items()
    }
    return {key: value.detach().to("cpu", copy=True) for key, value in state.items()}
