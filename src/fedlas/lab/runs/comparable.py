"""Runs that may share a table, and the settings that they share where a recipe leaves them to the machine."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import torch

from fedlas._core.check import InputError
from fedlas.lab.recipes.plan import Run
from fedlas.lab.runs.claim import run_folders
from fedlas.lab.runs.folder import BEFORE_AUTO, RunFolder, UnreadableError, is_derived
from fedlas.lab.train.checkpoint import differences
from fedlas.lab.train.engine import suited

Config = Mapping[str, Any]


def check_config(config: Config) -> None:
    """Refuse a configuration that is not built like one of a run, so that it can be compared.

    Raises:
        ValueError: If it is not.
    """
    runs = config.get("runs") if is_derived(config) else {"": {"config": config}}
    for run in runs.values() if isinstance(runs, dict) else [None]:
        inner = run.get("config") if isinstance(run, dict) else None
        if not isinstance(inner, dict) or not isinstance(inner.get("data") or {}, dict):
            raise ValueError("config.yaml is not the configuration of a run")


def check_alike(configs: Iterable[tuple[str, Mapping[str, Any]]], fix: str) -> None:
    """Refuse runs that cannot share a table: they may differ in loss and seed, the runs of one loss in seed only.

    Args:
        configs: Name and configuration of each run.
        fix: Fix to suggest.

    Raises:
        InputError: For the first run that differs otherwise; every difference is named.
    """
    first: dict[str, tuple[str, dict[str, Any]]] = {}
    for name, config in configs:
        loss = config.get("loss")
        shared = {key: value for key, value in config.items() if key not in ("loss", "seed")}
        of_loss = str(loss.get("name") if isinstance(loss, dict) else loss)
        for group, part in (("", shared), (f"loss {of_loss}", {"loss": loss})):
            other, settings = first.setdefault(group, (name, part))
            if changes := differences(settings, part):
                expected = (
                    "all runs of one folder must have the same configuration but for loss and seed"
                )
                raise InputError(
                    expected, f"{name}, which differs from {other} in {'; '.join(changes)}", fix
                )


def check_data_alike(configs: Iterable[tuple[str, Config]], fix: str) -> None:
    """Refuse folders whose runs, or the runs they are made of, were given other data.

    In all else they may differ, as that may be the point: a hyper-ensemble, a network with dropout.

    Args:
        configs: Name and configuration of each folder.
        fix: Fix to suggest.

    Raises:
        InputError: For the first that differs; every difference is named.
    """
    sections: list[tuple[str, Config]] = []
    for name, config in configs:
        for run in _runs(config):
            data = dict(run.get("data") or {})
            if data.get("test_size") is None:
                # the test set is the same whatever the validation part
                data.pop("split_seed", None)
            sections.append((name, {"data": data}))
    check_alike(sections, fix)


def settings_note(config: Config, other: str, trained: Config) -> str | None:
    """Return a note on settings of the member runs that differ from those of ``other``; None if none does.

    Args:
        config: Of what was made of runs.
        other: Name of a run in the same folder.
        trained: That run's configuration.
    """
    changes: dict[str, None] = {}
    for run in _runs(config):
        changes |= dict.fromkeys(
            differences(_settings(trained), _settings(run), words=("there", "here"))
        )
    return f"its runs differ from {other} in {'; '.join(changes)}" if changes else None


def _runs(config: Config) -> list[Config]:
    """Return configurations of the runs it is made of, or its own."""
    if not is_derived(config):
        return [config]
    return [run["config"] for run in config["runs"].values()]


def _settings(config: Config) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key not in ("loss", "seed")}


_OPEN = {"precision": "auto", "channels_last": None}


def settled(run: Run, device: torch.device) -> Run:
    """Return the run with precision and memory layout decided.

    A run that was begun keeps its own; a new one takes those of comparable runs in the same bench, and
    the first one what suits the device.
    """
    run = as_begun(run)
    return replace(run, recipe=replace(run.recipe, train=suited(run.recipe.train, device)))


def as_begun(run: Run) -> Run:
    """Return the run with the precision and layout of its folder, or of the runs in the same bench; only reads."""
    train = run.recipe.train
    undecided = [key for key, value in _OPEN.items() if getattr(train, key) == value]
    for folder in (RunFolder(run.folder), *run_folders(run.folder.parent)) if undecided else ():
        try:
            config = folder.config or {}
        except UnreadableError:
            continue  # its use will say what is wrong with it
        section = config.get("train")
        if isinstance(section, Mapping) and (
            folder.path == run.folder or _fixed(config) == _fixed(run.config())
        ):
            decided = {key: section.get(key, BEFORE_AUTO[key]) for key in undecided}
            return replace(run, recipe=replace(run.recipe, train=replace(train, **decided)))
    return run


def _fixed(config: Config) -> dict[str, Any]:
    """Return a configuration without loss, seed and what a recipe may leave to the machine."""
    train = {key: value for key, value in config["train"].items() if key not in _OPEN}
    return {**_settings(config), "train": train}
