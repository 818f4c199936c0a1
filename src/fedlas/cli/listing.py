"""``fedlas list``: lists the names that the command line and recipes accept."""

from __future__ import annotations

import argparse
import inspect
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from textwrap import shorten
from typing import TYPE_CHECKING, Any

from fedlas._core.errors import InputError, suggestion
from fedlas._core.terminal import Cell, console, print_lines, print_renderable, rich_table
from fedlas._core.text import printable

if TYPE_CHECKING:  # the kinds are listed without torch
    from fedlas._core.registry import Entry
    from fedlas.cli.arguments import AddSubcommand

_REGISTRIES: dict[str, tuple[str, str, str]] = {
    "losses": ("losses", "LOSSES", "losses to train with"),
    "metrics": ("metrics", "METRICS", "accuracy, calibration error and proper scores"),
    "calibrators": (
        "calibrators",
        "CALIBRATORS",
        "methods that repair the predictions of a trained model",
    ),
    "datasets": ("lab.data", "DATASETS", "data sets of recipes"),
    "models": ("lab.models", "MODELS", "backbones of recipes"),
    "uncertainty": ("lab.studies.uncertainty", "UNCERTAINTY", "methods on top of finished runs"),
    "executors": ("lab.benches.executors", "EXECUTORS", "places for the runs of a bench"),
    "ood": ("zoo.ood", "OOD_SCORES", "scores that detect other data"),
    "corruptions": ("lab.data.shift", "CORRUPTIONS", "corruptions of test images"),
}
"""By kind: module and name of its registry, imported when it is listed, and what the kind is."""
_KINDS = {kind: about for kind, (_, _, about) in _REGISTRIES.items()}
_KINDS |= {"recipes": "settings of a training run", "tuning": "options that fedlas tune searches"}
KINDS = tuple(_KINDS)
"""Kinds that can be listed."""

# Not options of one thing but of all of its kind, or given by the bench.
_SHARED_OPTIONS = {
    "reduction",
    "ignore_index",
    "weight",
    "num_classes",
    "num_samples",
    "in_channels",
    "image_size",
    "root",
}


def add_list(add: AddSubcommand) -> None:
    """Add the subcommand ``fedlas list``."""
    parser = add(_run, "KIND")
    parser.add_argument(
        "kind",
        nargs="?",
        metavar="KIND",
        help=f"{', '.join(KINDS[:-1])} or {KINDS[-1]} (default: the kinds)",
    )
    parser.add_argument(
        "--markdown",
        action="store_true",
        help="a Markdown table with every column (default: one that fits)",
    )


def _run(args: argparse.Namespace) -> int:
    kinds = [{"name": kind, "what it is": about} for kind, about in _KINDS.items()]
    entries = list_kind(args.kind) if args.kind else Listing(kinds)
    if args.markdown:
        print_lines(*entries.markdown().split("\n"))
        return 0
    room = max(20, console().width - 2 - max(len(row["name"]) for row in entries.rows))
    rows: list[Sequence[Cell]] = [
        ([(row["name"], "bold")], shorten(row["what it is"], room, placeholder=" ..."))
        for row in entries.rows
    ]
    print_renderable(rich_table(("name", "what it is"), rows, box=None, pad_edge=False))
    if any(map(entries.details, entries.rows)):
        print_lines("options and papers: --markdown", style="dim")
    return 0


@dataclass(frozen=True)
class Listing:
    """Rows of a listing: cells by heading, with ``name`` and ``what it is`` in every row."""

    rows: Sequence[dict[str, str]]

    def details(self, row: dict[str, str]) -> str:
        """Return the cells of a row other than name and description, on one line."""
        paper = ", ".join(filter(None, (row.get("paper"), row.get("year"))))
        rest = [
            key
            for key in row
            if key not in ("name", "what it is", "paper", "year", "linked", "note") and row[key]
        ]
        return " · ".join(
            filter(None, (paper, *(f"{key}: {row[key]}" for key in rest), row.get("note")))
        )

    def markdown(self) -> str:
        """Return the non-empty columns as a Markdown table, with links for papers."""
        unseen = {"paper"} if "linked" in self.rows[0] else set()
        headings = [
            heading
            for heading in self.rows[0]
            if heading not in unseen and any(r[heading] for r in self.rows)
        ]
        lines = [
            ["paper" if heading == "linked" else heading for heading in headings],
            ["---"] * len(headings),
        ]
        lines += [
            [printable(row[heading]).replace("|", "\\|") for heading in headings]
            for row in self.rows
        ]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def list_kind(kind: str) -> Listing:
    """Return the listing of a kind, such as ``"losses"``."""
    if kind not in KINDS:
        raise InputError(
            f"kind must be one of {', '.join(KINDS)}", repr(kind), suggestion(kind, KINDS)
        )
    if kind == "recipes":
        recipes = import_module("fedlas.lab.recipes.text")
        titles = {
            name: str(recipes.read_recipe_file(name)[1]["title"])
            for name in recipes.shipped_recipe_names()
        }
        return Listing([{"name": name, "what it is": title} for name, title in titles.items()])
    if kind == "tuning":
        return Listing(import_module("fedlas.lab.tune.space").tuning_rows())
    module, registry, _ = _REGISTRIES[kind]
    room = import_module(f"fedlas.{module}")
    more = _EXTRA_COLUMNS.get(kind, lambda _entry: {})
    rows = [_entry_row(entry) | more(entry) for entry in getattr(room, registry).entries()]
    if kind == "models":
        rows += [
            _entry_row(entry) | {"name": f"{entry.name}:NAME", "defaults": ""}
            for entry in room.LIBRARIES.entries()
        ]
    return Listing(rows)


def _entry_row(entry: Entry[Any]) -> dict[str, str]:
    paper, year, url = (str(entry.metadata.get(key) or "") for key in ("paper", "year", "url"))
    return {
        "name": entry.name,
        "what it is": re.sub(r":\w+:`~?([^`]*)`", r"\1", entry.summary)
        .replace("``", "")
        .removesuffix("."),
        "paper": paper,
        "year": year,
        "linked": f"[{paper or entry.name}]({url})" if url else paper,
        "defaults": _format_defaults(entry.value),
    }


def _loss_columns(entry: Entry[Any]) -> dict[str, str]:
    kind = entry.value
    needs = [_NEED_NAMES[need] for need in sorted(kind.needs) if _NEED_NAMES[need]]
    needs += ["mixes inputs"] if hasattr(kind, "mix") and not needs else []
    if "base" in inspect.signature(kind).parameters:
        needs.append("what its base needs")
    passes_on = import_module("fedlas.losses._base").LossWrapper.update_from_validation
    if getattr(kind, "update_from_validation", passes_on) is not passes_on:
        needs.append("validation")
    note = str(entry.metadata.get("note", "written from the paper"))
    return {
        "needs": ", ".join(needs),
        "note": note + (", pairwise cost" if entry.metadata.get("pairwise") else ""),
    }


def _calibrator_columns(entry: Entry[Any]) -> dict[str, str]:
    return {
        "needs": ", ".join([*sorted(entry.value.needs), *entry.metadata.get("packages", ())]),
        "keeps the class": "yes" if entry.value.keeps_argmax else "no",
    }


def _ood_columns(entry: Entry[Any]) -> dict[str, str]:
    room = import_module("fedlas.zoo.ood.base")
    needs = [
        word for name, word in room.INPUTS.items() if name in room.required_inputs(entry) and word
    ]
    return {"needs": ", ".join([*needs, *entry.metadata.get("packages", ())])}


_EXTRA_COLUMNS: dict[str, Callable[[Entry[Any]], dict[str, str]]] = {
    "losses": _loss_columns,
    "calibrators": _calibrator_columns,
    "ood": _ood_columns,
}
_NEED_NAMES = {
    "features": "features",
    "index": "sample index",
    "mixed": "more forward passes",
    "mixed_share": "",  # comes with the mixed samples
    "head_weight": "head weight",
}


def _format_defaults(value: Callable[..., Any]) -> str:
    parameters = inspect.signature(value).parameters.values()
    return ", ".join(
        f"{p.name} {p.default:g}" if isinstance(p.default, float) else f"{p.name} {p.default}"
        for p in parameters
        if p.name not in _SHARED_OPTIONS
        and p.default is not inspect.Parameter.empty
        and p.default is not None
    )
