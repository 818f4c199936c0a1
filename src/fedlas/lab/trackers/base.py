"""The contract of trackers: they show a run's log in a tool, and a log that is shown again adds nothing twice."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fedlas._core.registry import Registry

EXTRA = "trackers"
FINAL = "test/nll"
"""A value that only a finished run has: a tracker that holds it has everything."""


@dataclass(frozen=True)
class Place:
    """The run that a tracker shows, and the folder of its files.

    Attributes:
        folder: Folder shared by all runs of a bench: ``.trackers`` next to the run folders.
        project: Name that the runs of a recipe share.
        name: Name of the run.
        id: Identifier of the run, the same at every start. It distinguishes runs of one name in different folders.
        config: Configuration of the run, with dotted keys and plain values.
    """

    folder: Path
    project: str
    name: str
    id: str
    config: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Held:
    """What a tracker already has of a run when it is opened.

    Attributes:
        epoch: Last epoch; 0 for none.
        final: Whether the tracker has the final metrics.
    """

    epoch: int = 0
    final: bool = False


class Tracker(ABC):
    """Shows runs in one tool, through accelerate's tracker for it.

    Args:
        project: Project of the runs in the tool; None is the recipe's name.

    Raises:
        MissingExtraError: If the tool is not installed.
    """

    def __init__(self, *, project: str | None = None) -> None:
        self.project = project
        self._tracker: Any = None

    @abstractmethod
    def open(self, place: Place) -> Held:
        """Begin or resume to show a run; returns what the tool already has of it."""

    def log(self, values: Mapping[str, float], epoch: int) -> None:
        """Show the values of an epoch."""
        self._tracker.log(dict(values), step=epoch)

    @abstractmethod
    def picture(self, name: str, figure: Any, epoch: int) -> None:
        """Show a ``matplotlib`` figure."""

    def close(self) -> None:
        """Write what is pending. The run can be opened again."""
        self._tracker.finish()

    @abstractmethod
    def where(self, folder: Path) -> str:
        """The command or the address that shows the runs tracked in ``folder``, the ``.trackers`` of a bench."""

    def project_of(self, place: Place) -> str:
        """Name of the project. Tools allow no slash in it."""
        return (self.project or place.project).replace("/", "-")


TRACKERS: Registry[type[Tracker]] = Registry("tracker")
"""Trackers by name."""


def trackers_of(options: Mapping[str, Mapping[str, Any]]) -> dict[str, Tracker]:
    """Trackers by name, from the options of each tracker.

    Raises:
        InputError: For an unknown name, option or value.
        MissingExtraError: If a tool is not installed.
    """
    return {name: TRACKERS.build(name, given) for name, given in options.items()}


def values_of(record: Mapping[str, Any]) -> dict[str, float]:
    """Numbers of a record of the log, or of ``metrics.json``, under names such as ``val/ece``.

    Args:
        record: Nested mappings of numbers, lists and text.

    Returns:
        Every finite number, and the number of ``alarms``. Other lists, text and missing values are left out.

    Example:
        >>> values_of({"epoch": 2, "val": {"ece": 0.1, "mce": None}, "alarms": ["stuck"]})
        {'epoch': 2, 'val/ece': 0.1, 'alarms': 1}
    """
    found: dict[str, float] = {}
    for key, value in record.items():
        if isinstance(value, Mapping):
            found.update({f"{key}/{name}": number for name, number in values_of(value).items()})
        elif key == "alarms" and isinstance(value, list):
            found[key] = len(value)
        elif isinstance(value, int | float) and not isinstance(value, bool) and value - value == 0:
            found[key] = value
    return found


def pixels_of(figure: Any) -> np.ndarray:
    """A figure as ``(height, width, 3)`` bytes. Tools that get the figure itself would use pyplot's global state."""
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3].copy()


def flat(config: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """A nested configuration with dotted keys. Values other than numbers, flags and text become text.

    Example:
        >>> flat({"loss": {"name": "ls", "alpha": 0.05}, "seed": 0, "sizes": [1, 2]})
        {'loss.name': 'ls', 'loss.alpha': 0.05, 'seed': 0, 'sizes': '[1, 2]'}
    """
    found: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            found.update(flat(value, f"{above}{key}."))
        else:
            found[f"{above}{key}"] = value if isinstance(value, bool | int | float | str) else str(value)
    return found
