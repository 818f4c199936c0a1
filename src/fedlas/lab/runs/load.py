"""A trained run, back from its folder: model, loss and data as they were."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedlas._core.check import InputError, check_count
from fedlas._core.extras import MissingExtraError
from fedlas._core.files import check_name
from fedlas.lab.data import Splits
from fedlas.lab.recipes.plan import Run
from fedlas.lab.recipes.recipe import recipe_from
from fedlas.lab.runs.execute import build_objective, data_fingerprint, prepare_data
from fedlas.lab.runs.folder import check_data, finished, read_config
from fedlas.lab.train import load_checkpoint
from fedlas.objective import Objective


@dataclass(frozen=True)
class Trained:
    """A finished run.

    Attributes:
        run: What it was.
        objective: Model and loss with the weights of the best epoch, in ``eval()``.
        splits: Its data, split as it was.
        metrics: Contents of its ``metrics.json``.
    """

    run: Run
    objective: Objective
    splits: Splits
    metrics: dict[str, Any]


def load_plan(folder: Path, *, data: str | None = None) -> Run:
    """The run whose folder it is, as planned, finished or not.

    Args:
        folder: A run folder.
        data: Where its data is; None searches the usual places.

    Raises:
        InputError: If it is no run folder, one made of other runs, or its configuration cannot be read; or if loss,
            recipe or seed could not be parts of a path.
    """
    config = read_config(folder) if folder.is_dir() else None
    if config and "uncertainty" in config:
        made_of = f"{folder}, made of {', '.join(map(str, config.get('runs') or ()))}"
        raise InputError("run", "it must be one that was trained", made_of, "Pass one of these.")
    sections = [(config or {}).get(section) for section in ("loss", "data", "model")]
    sections += [section.get("options", {}) for section in sections[1:] if isinstance(section, dict)]
    if not config or not {"recipe", "seed"} <= config.keys() or not all(isinstance(each, dict) for each in sections):
        raise InputError("run", "it must be the folder of a run", folder, "Pass one that fedlas train or bench made.")
    # The file may be a stranger's, and these become parts of paths: of what trackers and methods write and remove.
    fix = f"Check {folder / 'config.yaml'}, or train the run again."
    name = check_name("run", "the loss", config["loss"].get("name"), fix)
    seed = check_count("run", "seed", config["seed"], low=0)
    if "root" in config["data"]:
        raise InputError("run", "config.yaml must not say where data lies", config["data"]["root"], fix)
    content = {key: value for key, value in config.items() if key not in ("recipe", "loss", "seed")}
    for section in ("data", "model"):
        options = content[section].pop("options", {})
        content[section] = {**content[section], **options}
    options = {key: value for key, value in config["loss"].items() if key != "name"}
    recipe = recipe_from(str(config["recipe"]), {**content, "title": config["recipe"], "losses": {name: options}})
    return Run(recipe.with_data_root(data), name, seed, folder)


def load_trained(folder: Path, *, data: str | None = None) -> Trained:
    """A finished run with its best weights.

    Args:
        folder: A run folder.
        data: Where its data is; None searches the usual places.

    Raises:
        InputError: If it is no folder of a finished run, its files cannot be read, or the data is not what it was
            trained on.
    """
    run = load_plan(folder, data=data)
    metrics = finished(run)
    if metrics is None:
        raise InputError("run", "it must be finished", folder, "Start its fedlas command again: it goes on.")
    check_data(folder, data_fingerprint(run))
    splits = prepare_data(run)
    objective = build_objective(run, splits, pretrained=False)
    objective.load_state_dict(load_checkpoint(folder / "checkpoint.pt", run.config())["best"]["objective"])
    return Trained(run, objective.eval(), splits, metrics)


def splits_at_hand(folder: Path, *, data: str | None = None) -> tuple[Splits | None, str]:
    """The data of a run, for what is better shown than not, such as images and names of classes.

    Args:
        folder: A run folder.
        data: Where its data is; None searches the usual places.

    Returns:
        The splits, and why there are none: the data is not there, is not what the run was trained on, or cannot be
        read; whoever shows less for it says so.
    """
    try:
        run = load_plan(folder, data=data)
        check_data(folder, data_fingerprint(run))
        return prepare_data(run), ""
    except (InputError, MissingExtraError) as error:
        return None, str(error)
    except (KeyError, TypeError, AttributeError, OSError) as error:  # a configuration that somebody edited
        return None, f"its configuration cannot be read ({type(error).__name__}: {error})"
