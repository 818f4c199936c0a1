"""Decides what a recipe leaves to the machine, once for all runs that stand in one table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from fedlas.lab.recipes.plan import Run
from fedlas.lab.runs.find import run_folders
from fedlas.lab.runs.folder import BEFORE_AUTO, RunFolder, UnreadableError
from fedlas.lab.train import TrainConfig
from fedlas.lab.train.machine import suited

_OPEN = {"precision": "auto", "channels_last": None}


def settled(run: Run, device: torch.device) -> Run:
    """The run with precision and memory layout decided.

    A run that was begun keeps its own; a new one takes those of the runs beside it with which it would be compared, and
    the first one what suits the device.
    """
    run = as_begun(run)
    return _with(run, suited(run.recipe.train, device))


def as_begun(run: Run) -> Run:
    """The run with what its folder, or the runs beside it, decide of the precision and the layout; only reads."""
    if not _open_in(run.recipe.train):
        return run
    for folder in (RunFolder(run.folder), *run_folders(run.folder.parent)):
        try:
            config = folder.config
        except UnreadableError:
            continue  # its use will say what is wrong with it
        train = config.get("train") if config else None
        if isinstance(train, Mapping) and (folder.path == run.folder or _comparable(config or {}, run)):
            return _with(run, decided(run.recipe.train, train))
    return run


def decided(config: TrainConfig, train: Mapping[str, Any]) -> TrainConfig:
    """The configuration with what it leaves open as the section ``train`` of a ``config.yaml`` has it."""
    return replace(config, **{key: train.get(key, BEFORE_AUTO[key]) for key in _open_in(config)})


def _open_in(config: TrainConfig) -> list[str]:
    return [key for key, value in _OPEN.items() if getattr(config, key) == value]


def _with(run: Run, train: TrainConfig) -> Run:
    return run if train == run.recipe.train else replace(run, recipe=replace(run.recipe, train=train))


def _comparable(config: Mapping[str, Any], run: Run) -> bool:
    """Whether a configuration is the run's but for loss, seed and what is open."""
    ours, theirs = (
        {
            key: {name: item for name, item in value.items() if name not in _OPEN} if key == "train" else value
            for key, value in each.items()
            if key not in ("loss", "seed")
        }
        for each in (run.config(), config)
    )
    return ours == theirs
