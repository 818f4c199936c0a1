"""Published numbers of the same data set and losses as a bench: ``published_numbers.csv``, each row with its source."""

from __future__ import annotations

import csv
from functools import cache
from importlib.resources import files

from fedlas.lab.runs.summary import Summary
from fedlas.present.table import DASH, Table, table_of

_DATA = {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100", "tiny-imagenet": "Tiny-ImageNet", "imagenet": "ImageNet"}
_MODELS = {"resnet50": "ResNet-50", "resnet101": "ResNet-101"}
_METRICS = ("accuracy", "ece", "adaptive_ece")


@cache
def published_numbers() -> tuple[dict[str, str], ...]:
    """Return the rows: source, protocol, data, model, method, metrics in percent, note."""
    text = (files("fedlas.lab.report") / "published_numbers.csv").read_text(encoding="utf-8")
    return tuple(csv.DictReader(text.splitlines()))


def published_table(summary: Summary) -> Table | None:
    """Return published numbers before temperature, of the model of the runs if there are any; None if there are none.

    They are of one seed, or of a number of seeds that is not stated, so there is no spread to test against.
    """
    configs = [run.folder.config for run in summary.runs if not run.folder.is_derived]
    config = next(filter(None, configs), None)
    if config is None or "model" not in config:
        return None
    data, model = _DATA.get(str(config["data"]["name"])), _MODELS.get(str(config["model"]["name"]))
    rows = [row for row in published_numbers() if row["data"] == data and row["method"] in summary.methods]
    rows = [row for row in rows if row["model"] == model] or rows
    if not rows:
        return None
    cells = [
        (row["method"], row["source"], row["protocol"], row["model"], *(row[m] or DASH for m in _METRICS), row["note"])
        for row in sorted(rows, key=lambda row: summary.methods.index(row["method"]))
    ]
    heads = ("method", "source", "protocol", "model", "accuracy %", "ECE %", "adaptive ECE %", "note")
    return table_of(heads, cells, title=f"Published numbers on {data}, test set", text=(0, 1, 2, 3, 7))
