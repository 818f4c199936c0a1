"""Does something again whenever a file changes, until Ctrl-C."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from fedlas._core.check import InputError
from fedlas._core.terminal import say

SECONDS = 1.0
"""Between two looks. A file that changed is read when two looks find it the same: it may still be being written."""

_Look = tuple[tuple[int, int] | None, ...]


def watch(
    files: Sequence[Path],
    render: Callable[[], int],
    *,
    seconds: float = SECONDS,
    sleep: Callable[[float], None] = time.sleep,
) -> int:
    """Call ``render`` now, and again after each change of one of the files, until Ctrl-C.

    Args:
        files: What is watched: time of change and size.
        render: What is done. An :class:`InputError` ends it the first time; later it is shown and waited out, since the
            file may be half written.
        seconds: Between two looks.
        sleep: Waits for so long.

    Returns:
        0: Ctrl-C is how this ends.

    Raises:
        InputError: What the first ``render`` raises.
    """
    names = ", ".join(file.name for file in files)

    seen = _look(files)
    try:
        render()
        say(f"watching {names}; Ctrl-C ends it", stderr=True)
        # The files may have changed while they were read, so what was read is the older look.
        rendered, seen = seen, _look(files)
        while True:
            sleep(seconds)
            now = _look(files)
            # A file is read when two looks agree: it is then no longer being written.
            if now == seen != rendered and None not in now:
                rendered = now
                say(f"{time.strftime('%H:%M:%S')} {names} changed", stderr=True)
                try:
                    render()
                except InputError as error:
                    say(f"fedlas: error: {error} Waiting for the next change.", stderr=True)
            seen = now
    except KeyboardInterrupt:
        say("", "Stopped watching.", stderr=True)
        return 0


def _look(files: Sequence[Path]) -> _Look:
    found: list[tuple[int, int] | None] = []
    for file in files:
        try:
            stat = file.stat()
            found.append((stat.st_mtime_ns, stat.st_size))
        except OSError:
            found.append(None)
    return tuple(found)
