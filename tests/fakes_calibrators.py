"""Calibrators that a test registers, and what calibrators make their maps of."""

from torch import nn

from fedlas.calibrators import CALIBRATORS, TemperatureScaling


def add(registry, name, **changes):
    """Register temperature scaling with other attributes; ``metadata`` is that of the entry."""
    metadata = {"title": name, "paper": "none", **changes.pop("metadata", {})}
    registry.register(name, **metadata)(type(name.title(), (TemperatureScaling,), changes))


class Unchanged(nn.Module):
    """Logits without a change, with or without features."""

    def forward(self, rows, features=None):
        return rows


def part_of(entry):
    """The part of the data that a calibrator is fitted on."""
    return entry.metadata.get("part", "val")


def made_entries():
    """Entries of calibrators whose part the model makes."""
    return [entry for entry in CALIBRATORS.entries() if part_of(entry) != "val"]
