"""Ends this process when its parent ends, even during imports: the fork server loads this module first."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1

if sys.platform == "linux":
    _parent = os.getppid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if _parent == 1:  # it ended before it was asked about
        os._exit(1)
