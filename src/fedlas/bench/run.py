"""Does one run, from its plan to ``metrics.json``; the only place that turns names into things."""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from fedlas._core.check import InputError
from fedlas._core.extras import require
from fedlas._core.files import not_writable, write_json, write_text
from fedlas.bench.environment import environment
from fedlas.bench.plan import Run, build_loss
from fedlas.calibrators import CalibrationWarning, TemperatureScaling
from fedlas.data import Batches, Images, Source, Splits, load_dataset, split
from fedlas.metrics import evaluate
from fedlas.models import build_model
from fedlas.objective import Objective
from fedlas.predictions import Predictions
from fedlas.train import derive, fit, predict, seed_everything
from fedlas.train.checkpoint import differences

FORMAT = 1


def execute(run: Run, *, label: str | None = None) -> dict[str, Any]:
    """Train, predict and measure; go on where an earlier start stopped, or return what a finished one found.

    Args:
        run: The run.
        label: Shown in front of the progress bar; None is the run's name.

    Returns:
        The contents of ``metrics.json``.

    Raises:
        InputError: If the folder cannot be written to, holds a run of another configuration or is being worked on by
            another process; and whatever data, model, loss or training find wrong.

    State:
        Everything lands in ``run.folder``. ``metrics.json`` is written last: a folder that has it is finished.
    """
    with _locked(run.folder):
        config = run.config()
        _claim(run.folder, config)
        finished = run.folder / "metrics.json"
        if finished.exists():
            metrics: dict[str, Any] = json.loads(finished.read_text())
            return metrics
        started = time.monotonic()
        accelerator = require("accelerate", extra="bench").Accelerator(mixed_precision="no")
        splits = prepare_data(run).to(accelerator.device)
        objective = build_objective(run, splits)
        if accelerator.is_main_process:
            splits.save_indices(run.folder / "splits.npz")
            write_json(run.folder / "environment.json", environment(accelerator.device))
        train = run.recipe.train
        fitted = fit(
            objective,
            Batches(
                splits.train,
                mean=splits.mean,
                std=splits.std,
                batch_size=train.batch_size,
                flip=splits.flip,
                crop_padding=splits.crop_padding,
                shuffle=True,
                drop_last=train.drop_last,
                seed=derive(run.seed, "order"),
                rank=accelerator.process_index,
                world_size=accelerator.num_processes,
            ),
            _batches(splits, splits.val, train.batch_size),
            folder=run.folder,
            config=train,
            optimizer=run.recipe.optimizer,
            schedule=run.recipe.schedule,
            identity=config,
            accelerator=accelerator,
            name=label or run.name,
        )
        metrics = {
            "format": FORMAT,
            "run": run.name,
            "recipe": run.recipe.name,
            "loss": run.loss,
            "seed": run.seed,
            "epochs": train.epochs,
            "best_epoch": fitted.best_epoch,
            "selected_by": train.select,
            "parameters": sum(p.numel() for p in objective.model.parameters()),
        }
        parts = {
            name: _predictions(objective, splits, part, train.batch_size)
            for name, part in (("val", splits.val), ("test", splits.test))
        }
        if accelerator.is_main_process:
            for name, predictions in parts.items():
                predictions.save(run.folder / "predictions" / f"{name}.npz")
            metrics |= measure(parts["val"], parts["test"], num_bins=train.num_bins)
            metrics["seconds"] = round(time.monotonic() - started, 2)
            (run.folder / "error.txt").unlink(missing_ok=True)
            write_json(finished, metrics)
        accelerator.wait_for_everyone()
        return metrics


def measure(val: Predictions, test: Predictions, *, num_bins: int = 15) -> dict[str, Any]:
    """Metrics before and after temperature scaling, which is fitted on validation by NLL.

    Returns:
        ``temperature`` (NLL optimum), ``temperature_ece`` (grid, for parity with published tables), ``notes`` (what the
        fits warned of), and the metrics ``val``, ``test``, ``test_scaled``.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", CalibrationWarning)
        scaling = TemperatureScaling().fit(val)
        grid = TemperatureScaling(objective="ece", num_bins=num_bins).fit(val)
    return {
        "temperature": scaling.temperature,
        "temperature_ece": grid.temperature,
        "notes": [str(warning.message) for warning in caught],
        "val": evaluate(val, num_bins=num_bins),
        "test": evaluate(test, num_bins=num_bins),
        "test_scaled": evaluate(scaling.transform(test), num_bins=num_bins),
    }


def prepare_data(run: Run) -> Splits:
    """The three parts of a run's data; the same for every loss of the same seed."""
    data = run.recipe.data
    source = _source(data.name, data.root, json.dumps(data.options, sort_keys=True))
    return split(
        source,
        seed=derive(run.seed, "split"),
        val_size=data.val_size,
        train_size=data.train_size,
        test_size=data.test_size,
    )


def build_objective(run: Run, splits: Splits) -> Objective:
    """Model and loss of a run. The model's weights are the same for every loss: the loss draws from a stream of its own."""
    seed_everything(derive(run.seed, "model"))
    model = build_model(
        run.recipe.model.name,
        num_classes=splits.num_classes,
        in_channels=splits.in_channels,
        image_size=splits.image_size,
        **run.recipe.model.options,
    )
    seed_everything(derive(run.seed, "criterion"))
    objective = Objective(model, build_loss(run, num_classes=splits.num_classes))
    seed_everything(derive(run.seed, "training"))
    return objective


@lru_cache(maxsize=1)
def _source(name: str, root: str | None, options: str) -> Source:
    """The data set, kept from run to run: reading it can take longer than an epoch."""
    return load_dataset(name, root, **json.loads(options))


def _batches(splits: Splits, part: Images, batch_size: int) -> Batches:
    """Batches in fixed order, without augmentation."""
    return Batches(part, mean=splits.mean, std=splits.std, batch_size=max(batch_size, 256))


def _predictions(objective: Objective, splits: Splits, part: Images, batch_size: int) -> Predictions:
    predictions = predict(objective, _batches(splits, part, batch_size))
    return replace(predictions, label_probs=None if part.label_probs is None else part.label_probs.cpu())


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keep every other process out of the run folder; the lock goes with the process, however it ends."""
    filelock = require("filelock", extra="bench")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(folder / ".lock")
        lock.acquire(timeout=0)
    except filelock.Timeout as error:
        raise BusyError(
            "run",
            "its folder must not be in use",
            f"{folder}, which another process is working on",
            "Wait for it, or choose another --out.",
        ) from error
    except OSError as error:
        raise not_writable(folder, error) from error
    try:
        yield
    finally:
        lock.release()


class BusyError(InputError):
    """Another process is working on the run folder."""


def _claim(folder: Path, config: Mapping[str, Any]) -> None:
    """Write ``config.yaml``, or refuse a folder that belongs to another configuration."""
    yaml = require("yaml", extra="bench")
    path = folder / "config.yaml"
    if path.exists():
        found = differences(yaml.safe_load(path.read_text()) or {}, config)
        if found:
            raise InputError(
                "run",
                "its folder must hold the same configuration",
                f"{folder}, which differs in {'; '.join(found)}",
                "Use the old settings to go on, or another --out to start afresh.",
            )
    else:
        write_text(path, yaml.safe_dump(dict(config), sort_keys=False))
