"""How much memory is left."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

__all__ = ["available_memory", "check_fits"]

_CGROUP = Path("/sys/fs/cgroup/memory.max")
_MEMINFO = Path("/proc/meminfo")


def available_memory() -> int | None:
    """Bytes that may still be taken; None where the system does not say."""
    limits = []
    with suppress(OSError, ValueError):  # of a container; "max" where there is none
        limits.append(int(_CGROUP.read_text()))
    with suppress(OSError, ValueError, StopIteration):
        line = next(line for line in _MEMINFO.read_text().splitlines() if line.startswith("MemAvailable:"))
        limits.append(1024 * int(line.split()[1]))
    with suppress(OSError, ValueError, AttributeError):  # elsewhere: all that the machine has
        limits.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    return min(limits, default=None)


def check_fits(size: int, what: str) -> None:
    """Refuse to take ``size`` bytes that are not there: the system would swap, or end the process without a word.

    Raises:
        ValueError: If ``size`` is more than :func:`available_memory`; ``what`` names what would take them.
    """
    free = available_memory()
    if free is not None and size > free:
        raise ValueError(f"{what} takes {size / 2**30:,.1f} GiB of memory, and {free / 2**30:,.1f} GiB are free")
