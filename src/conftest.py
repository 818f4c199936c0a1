"""Imports what registers itself, so that the examples of one file can be run: ``pytest src/fedlas/losses/poly.py``."""

# pytest runs a file as a module of its own if nobody has imported it; the package would then register it again.
import fedlas.lab.benches.executors
import fedlas.lab.data
import fedlas.lab.models
import fedlas.lab.studies.uncertainty
import fedlas.zoo.ood  # noqa: F401 (modules that fill registries)
from fedlas.calibrators import CALIBRATORS
from fedlas.losses import LOSSES
from fedlas.metrics import METRICS

for registry in (CALIBRATORS, LOSSES, METRICS):
    registry.entries()  # imports their modules
