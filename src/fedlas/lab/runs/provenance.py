"""Environment of a measurement: versions, machine, commit and command."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

import fedlas
from fedlas._core.files import write_json
from fedlas.lab.runs.folder import RunFolder
from fedlas.lab.train.checkpoint import config_differences
from fedlas.lab.train.log import warn_once

_CODE_KEYS = ("fedlas", "commit", "torch")
"""Entries that say what code computed a run's numbers."""
_PACKAGES = ("torchvision", "numpy", "accelerate", "scipy", "scikit-learn")


def environment(device: torch.device | str = "cpu") -> dict[str, Any]:
    """Return the software, hardware and code versions that are recorded in ``environment.json``.

    ``commit`` is the commit of the checkout that the package runs from, None for an installed package; ``dirty`` is
    True if files differ from the commit or are new in the package. Host and user names are left out: absolute paths
    in the command are cut to their last part.
    """
    (commit, dirty), kind = _commit(), torch.device(device).type
    return {
        "fedlas": fedlas.__version__,
        "commit": commit,
        "dirty": dirty,
        "command": _command_line(),
        "python": platform.python_version(),
        "torch": str(torch.__version__),  # with the build, such as +cpu, which PyPI's version lacks
        **{name: number for name in _PACKAGES if (number := _package_version(name)) is not None},
        "platform": platform.system() + " " + platform.machine(),
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if kind == "cuda" else kind,
    }


def record_start(folder: Path, device: torch.device | str, **more: Any) -> None:
    """Append the environment of this start, and the entries ``more``, to ``environment.json``."""
    run = RunFolder(folder)
    now = {**environment(device), **more}
    if changes := code_changes(run, now):
        warn_once(f"{run.name} resumes with other code: {changes}. Its epochs mix both.")
    write_json(run.environment_path, [*run.starts, now])


def code_changes(run: RunFolder, now: Mapping[str, Any]) -> str:
    """Return the differences in code versions since the last start of a run, or an empty string."""
    start = run.starts[-1] if run.starts else now
    before, after = ({key: each.get(key) for key in _CODE_KEYS} for each in (start, now))
    return "; ".join(config_differences(before, after))


def _command_line() -> str:
    called = Path(sys.argv[0]).name
    program = "fedlas" if called in ("cli.py", "__main__.py") else called
    return shlex.join([program, *map(_strip_folders, sys.argv[1:])])


def _strip_folders(argument: str) -> str:
    """Return an argument with an absolute path, also after ``--out=``, cut to its last part."""
    if Path(argument).is_absolute():
        return Path(argument).name or argument
    key, equals, value = argument.partition("=")
    return f"{key}={_strip_folders(value)}" if equals else argument


def _package_version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


@cache
def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    name = names[0] if names else platform.processor() or "unknown"
    return f"{name} ({torch.backends.cpu.get_cpu_capability()})"


@cache
def _commit() -> tuple[str | None, bool | None]:
    """Return the commit of this checkout, and whether tracked files or files of the package differ from it."""
    here = Path(__file__).resolve()
    try:
        tracked = _run_git(here.parent, "ls-files", "--error-unmatch", here.name)
        if tracked is None:
            return None, None
        changed = _run_git(here.parent, "status", "--porcelain", "-uno")
        # of the package: may be imported
        unknown = _run_git(here.parents[1], "ls-files", "--others", "--exclude-standard")
        return _run_git(here.parent, "rev-parse", "HEAD"), bool(changed or unknown)
    except OSError:  # git is not installed
        return None, None


def _run_git(folder: Path, *command: str) -> str | None:
    # without its lock, a run that is killed leaves none for the user's own git
    git = ["git", "--no-optional-locks", *command]
    done = subprocess.run(git, cwd=folder, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None
