"""Python runs this first in every process below a test that uses the fixture ``stops``; see ``tests/stops.py``."""

import os

if "FEDLAS_STOPS" in os.environ:
    from stops import obey

    obey(os.environ["FEDLAS_STOPS"])
