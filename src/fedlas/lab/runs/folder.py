"""Run folders: names of their files, and the contents, each read once."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from hashlib import file_digest
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedlas._core.arrays import open_arrays
from fedlas._core.check import InputError, check_count, describe
from fedlas._core.files import (
    check_path_component,
    is_file,
    parse_json,
    require_inside,
    require_no_device,
    write_atomically,
)
from fedlas.lab.recipes.planning import Run
from fedlas.lab.recipes.recipe import recipe_from_content
from fedlas.lab.recipes.yaml_text import parse_yaml
from fedlas.lab.runs.text_archive import TextArchive
from fedlas.lab.train.checkpoint import CHECKPOINT
from fedlas.lab.train.log import LOG, parse_log, read_log
from fedlas.predictions import Predictions

FORMAT = 1
"""Format of ``metrics.json``."""
_DEFAULT_BINS = 15
_MAX_PATH_BYTES = 4096
_FORBIDDEN_KEYS = {
    "": ("trackers", "methods", "seeds", "losses", "title"),
    "data": ("root", "workers", "download"),
}
"""Keys that no run writes into its ``config.yaml``: where data lies, whether it is fetched, who is shown the run."""


def is_derived(config: Mapping[str, Any]) -> bool:
    """Return whether a configuration is of a result derived from other runs, such as an ensemble."""
    return "uncertainty" in config


class UnreadableError(InputError):
    """A run folder, or a file in it, cannot be read."""


class _File:
    """Descriptor of a file in a run folder: its path on an instance, its name on the class."""

    def __init__(self, name: str) -> None:
        self.name = Path(name)

    def __get__(self, folder: RunFolder | None, owner: type) -> Path:
        return self.name if folder is None else folder.path / self.name


@dataclass(frozen=True)
class RunFolder:
    """A run on disk: in a folder of its own, or in the ``runs.zip`` of its bench.

    Args:
        path: The folder.
        label: Name of the run among others; None for the name of the folder.
        data_root: Where the run's data is; None searches the usual places.

    State:
        Each file is read at first use and cached, except predictions, which are large; make a new object to see later
        changes. A missing file is None or empty, except predictions and splits. If the folder has no configuration or
        metrics of its own, its text files are read from the pack of the bench.
    """

    path: Path
    label: str | None = None
    data_root: str | None = None

    lock_path = _File(".lock")
    config_path = _File("config.yaml")
    data_path = _File("data.json")
    data_root_path = _File("data_root.txt")
    environment_path = _File("environment.json")
    error_path = _File("error.txt")
    splits_path = _File("splits.npz")
    log_path = _File(LOG)
    checkpoint_path = _File(CHECKPOINT)
    metrics_path = _File("metrics.json")
    intervals_path = _File("intervals.json")
    calibrated_path = _File("calibrated.json")
    shift_path = _File("shift.json")
    predictions_path = _File("predictions")
    work_path = _File("work")

    def require_inside(self, path: Path) -> Path:
        """Return ``path``; raise InputError if a link leads out of the folder, which may be from a stranger."""
        return require_inside(self.path, path)

    def part_path(self, part: str) -> Path:
        """Return the path of the predictions on a part of the data, such as ``test``."""
        return self.predictions_path / f"{part}.npz"

    @property
    def name(self) -> str:
        """Label of the run, or else the name of its folder."""
        return (
            self.label
            or (self.path if self.path.name not in ("", "..") else self.path.resolve()).name
        )

    @property
    def is_packed(self) -> bool:
        """Whether the run is read from the ``runs.zip`` of its bench."""
        return self._packed_text(self.metrics_path) is not None

    def _packed_text(self, path: Path) -> str | None:
        if is_file(self.config_path) or is_file(self.metrics_path):
            return None
        pack = _load_pack(self.path.parent)
        return None if pack is None else pack.text(self.path.name, path.name)

    def has_file(self, path: Path) -> bool:
        """Return whether a text file of the run exists, on disk or in the pack."""
        return path.exists() or self._packed_text(path) is not None

    def text(self, path: Path) -> str | None:
        """Return the content of a text file, on disk or in the pack, or None if it is missing.

        Raises:
            OSError: If it cannot be read.
            InputError: If the pack cannot be read.
        """
        return (
            require_no_device(path).read_text(encoding="utf-8")
            if path.exists()
            else self._packed_text(path)
        )

    @property
    def is_finished(self) -> bool:
        """Whether the run has metrics, which are written last."""
        return is_file(self.metrics_path) or self.is_packed

    @property
    def is_derived(self) -> bool:
        """Whether the run was made of other runs, such as an ensemble."""
        return is_derived(self.config or {})

    @property
    def files(self) -> list[str]:
        """Paths of the existing files that a report links to, relative to the folder."""
        first = (self.metrics_path, self.log_path, self.config_path, self.environment_path)
        paths = (*first, self.part_path("val"), self.part_path("test"), self.intervals_path)
        return [path.relative_to(self.path).as_posix() for path in paths if is_file(path)]

    @cached_property
    def config(self) -> dict[str, Any] | None:
        """The resolved configuration in ``config.yaml``; None if the file is missing or empty.

        Raises:
            UnreadableError: If it cannot be read, or is no mapping.
        """
        path = self.config_path
        try:
            text = self.text(path)
            content = None if text is None else parse_yaml(text)
            if not isinstance(content, dict | None):
                raise ValueError(f"not a mapping but {describe(content)}")
        except (OSError, ValueError) as error:
            raise UnreadableError(
                f"{path.name} must be readable YAML",
                f"{path} ({error})",
                "Choose another --out to start over.",
            ) from error
        return content

    @cached_property
    def data(self) -> dict[str, Any] | None:
        """The data fingerprint in ``data.json``; None if the file is missing.

        Raises:
            UnreadableError: If it cannot be read.
        """
        return self._read_json(self.data_path, "Choose another --out to start over.")

    @cached_property
    def saved_data_root(self) -> str | None:
        """Absolute path of the data at the last start; None if the run reads no files or the path is unknown."""
        try:
            with require_no_device(self.data_root_path).open("rb") as file:
                root = os.fsdecode(file.read(_MAX_PATH_BYTES).removesuffix(b"\n"))
        except OSError:
            return None
        return root if os.path.isabs(root) and "\0" not in root else None  # noqa: PTH117 - it is a text

    def save_data_root(self, root: Path) -> None:
        """Write the path of the data to ``data_root.txt``, as bytes because it need not be UTF-8."""
        write_atomically(self.data_root_path, lambda file: file.write(os.fsencode(root) + b"\n"))

    @cached_property
    def metrics(self) -> dict[str, Any]:
        """Contents of ``metrics.json``; empty if the run is not finished.

        Raises:
            UnreadableError: If it cannot be read.
        """
        return self._read_json(self.metrics_path, "Remove it to measure the run again.") or {}

    def _read_json(self, path: Path, fix: str) -> dict[str, Any] | None:
        try:
            text = self.text(path)
            content = None if text is None else parse_json(text)
        except (OSError, ValueError) as error:
            raise UnreadableError(
                f"{path.name} must be readable JSON", f"{path} ({error})", fix
            ) from error
        if content is not None and not isinstance(content, dict):
            raise UnreadableError(f"{path.name} must hold an object", path, fix)
        return content

    @cached_property
    def starts(self) -> list[dict[str, Any]]:
        """Environments of all starts, oldest first; empty if ``environment.json`` is missing or damaged."""
        try:
            content = parse_json(self.text(self.environment_path) or "[]", finite=False)
        except (OSError, ValueError):
            return []
        return (
            [start for start in content if isinstance(start, dict)]
            if isinstance(content, list)
            else []
        )

    @cached_property
    def log(self) -> list[dict[str, Any]]:
        """Records of the training log, one per epoch."""
        packed = self._packed_text(self.log_path)
        return read_log(self.log_path) if packed is None else parse_log(packed)

    @cached_property
    def splits(self) -> dict[str, NDArray[np.int64]]:
        """Sample indices of each part of the data set.

        Raises:
            UnreadableError: If ``splits.npz`` is missing or cannot be read.
        """
        path = self.splits_path
        try:
            with open_arrays(path) as splits:
                return {part: splits[part] for part in ("train", "val", "test")}
        except (OSError, ValueError) as error:
            raise UnreadableError(
                f"{path.name} must be readable", f"{path} ({error})", "Train the run again."
            ) from error

    def predictions(self, part: str) -> Predictions:
        """Return the predictions on a part of the data.

        Raises:
            InputError: If the file is missing or cannot be read.
        """
        return Predictions.load(self.part_path(part))

    def test_predictions_or_reason(self) -> Predictions | str:
        """Return the predictions on the test part, or the reason why they cannot be read."""
        path = self.part_path("test")
        if not is_file(path):
            return f"{self.name}: {path.relative_to(self.path).as_posix()} is missing"
        try:
            return Predictions.load(path)
        except InputError as error:
            return f"{self.name}: {error}"

    @cached_property
    def fingerprint(self) -> str | None:
        """SHA-256 of the file of test predictions; None if the file cannot be read."""
        try:
            with require_no_device(self.part_path("test")).open("rb") as file:
                return file_digest(file, "sha256").hexdigest()
        except OSError:
            return None

    @property
    def num_bins(self) -> int:
        """Number of bins of the metrics in the configuration, 15 by default."""
        train = (self.config or {}).get("train")
        value = train.get("num_bins") if isinstance(train, dict) else None
        return (
            value
            if isinstance(value, int) and not isinstance(value, bool) and value > 0
            else _DEFAULT_BINS
        )

    @cached_property
    def run(self) -> Run:
        """The plan of the run, from its ``config.yaml``.

        Raises:
            InputError: If this is no run folder, the run was made of other runs, or its configuration cannot be read;
                or if loss, recipe or seed could not be parts of a path.
        """
        config = self.config if self.path.is_dir() or self.is_packed else None
        if config and is_derived(config):
            raise InputError(
                "the folder must be of a trained run",
                f"{self.path}, which was made of {', '.join(map(str, config.get('runs') or ()))}",
                "Pass the folder of one of these runs.",
            )
        sections = [(config or {}).get(section) for section in ("loss", "data", "model")]
        sections += [
            section.get("options", {}) for section in sections[1:] if isinstance(section, dict)
        ]
        if (
            not config
            or not {"recipe", "seed"} <= config.keys()
            or not all(isinstance(s, dict) for s in sections)
        ):
            raise InputError(
                "the folder must be a run folder",
                self.path,
                "Pass one that fedlas runs train or bench made.",
            )
        # The file may be a stranger's, and these become parts of paths: of what trackers and methods write and remove.
        fix = f"Check {self.config_path}, or train the run again."
        name = check_path_component("the loss", config["loss"].get("name"), fix)
        seed = check_count("seed", config["seed"], low=0)
        content = {
            key: value for key, value in config.items() if key not in ("recipe", "loss", "seed")
        }
        for section in ("data", "model"):
            values = {key: value for key, value in content[section].items() if key != "options"}
            content[section] = values | content[section].get("options", {})
        for section, keys in _FORBIDDEN_KEYS.items():
            if strange := sorted((content[section] if section else content).keys() & set(keys)):
                raise InputError(
                    f"the config.yaml of a run must not set {section and section + '.'}{strange[0]}",
                    f"{self.config_path}, which sets it",
                    fix,
                )
        options = {key: value for key, value in config["loss"].items() if key != "name"}
        recipe = recipe_from_content(
            str(config["recipe"]), {**content, "title": config["recipe"], "losses": {name: options}}
        )
        return Run(recipe.with_data_root(self.data_root), name, seed, self.path)


PACK_FILE = "runs.zip"
PACK_MARK = b"fedlas runs 1"
"""Comment that marks the zip as a pack of runs; other zips are ignored."""


def packed_run_names(bench: Path) -> list[str]:
    """Return the names of the runs in the pack of a bench folder, or an empty list without a pack.

    Raises:
        InputError: If its pack cannot be read.
    """
    return list(_load_pack(bench) or ())


def _load_pack(bench: Path) -> TextArchive | None:
    path = bench / PACK_FILE
    if not is_file(path):
        return None
    about = path.stat()
    return _read_pack(path, about.st_mtime_ns, about.st_size)


@lru_cache(maxsize=16)
def _read_pack(path: Path, *_version: int) -> TextArchive:
    """Return the pack, cached until the file changes."""
    return TextArchive(path, PACK_MARK)
