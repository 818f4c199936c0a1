"""What a number was measured with: versions, machine, commit and command."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

import fedlas

_PACKAGES = ("torch", "torchvision", "numpy", "accelerate", "scipy", "scikit-learn")


def environment(device: torch.device | str = "cpu") -> dict[str, Any]:
    """Everything that may explain another number elsewhere; plain values for ``environment.json``.

    The commit is that of the checkout the package runs from, null for an installed package. No host or user name, and
    of the program's path the last part only.
    """
    commit, dirty = _commit()
    return {
        "fedlas": fedlas.__version__,
        "commit": commit,
        "dirty": dirty,
        "command": _command(),
        "python": platform.python_version(),
        **{name: found for name in _PACKAGES if (found := _version(name)) is not None},
        "platform": platform.system() + " " + platform.machine(),
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": _device(torch.device(device)),
    }


def _command() -> str:
    program = Path(sys.argv[0]).name
    return shlex.join(["fedlas" if program == "cli.py" else program, *sys.argv[1:]])


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _device(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    names = (
        [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
        if info.exists()
        else []
    )
    flags = torch.backends.cpu.get_cpu_capability()
    return f"{names[0] if names else platform.processor() or 'unknown'} ({flags})"


def _commit() -> tuple[str | None, bool | None]:
    """Commit of the checkout that holds this file, and whether tracked files differ from it."""
    here = Path(__file__).resolve()
    try:
        tracked = _git(here.parent, "ls-files", "--error-unmatch", here.name)
        if tracked is None:
            return None, None
        return _git(here.parent, "rev-parse", "HEAD"), bool(_git(here.parent, "status", "--porcelain", "-uno"))
    except OSError:  # git is not installed
        return None, None


def _git(folder: Path, *command: str) -> str | None:
    done = subprocess.run(["git", *command], cwd=folder, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None
