"""Fills ``results/``: ``python docs/results.py`` rewrites its leaderboard, the tables of its pages and their figures.

Every number comes from the packed runs of a study. A page marks a table with a comment, ``<!-- results ... -->``, that
says in YAML what to show, and ``<!-- end -->``; what is between them is generated.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import yaml

from fedlas.lab.report.bench_tables import read_published_numbers, results_table
from fedlas.lab.report.cells import method_cell, method_noise
from fedlas.lab.results.differences import method_differences
from fedlas.lab.results.result import Result, build_result
from fedlas.lab.results.stages import AUTO, with_calibrators
from fedlas.lab.runs.collection import collect_runs
from fedlas.lab.runs.intervals import with_estimates
from fedlas.lab.runs.summary import STAGES
from fedlas.plots import LIGHT, seed_values
from fedlas.plots.theme import draw_legend_outside, new_axes, set_axis_label, set_ticks, style_axes
from fedlas.present.page import MAX_FIGURE_WIDTH, new_page_axes, to_themed_svg
from fedlas.present.table import (
    DASH,
    Table,
    make_table,
    markdown_table,
    metric_column,
    table_to_csv,
)
from fedlas.stats import Difference, holm, mean_interval, paired_t_test
from fedlas.stats.estimates import is_calibration_error

ROOT = Path(__file__).resolve().parents[1] / "results"
BOARD = {
    "fashion-mnist": "Fashion-MNIST, 10,000 training images",
    "cifar10-45000": "CIFAR-10, 45,000 training images",
    "cifar100-45000": "CIFAR-100, 45,000 training images",
    "digits": "Digits, 897 training images",
    "wordnet": "WordNet, 25,000 definitions, 45 topics",
    "glyphs": "Letters and digits of fonts, 4,000 training images",
}
"""The studies of the leaderboard."""
FIGURES = {
    "fashion-mnist": [
        "ce",
        "ls-quarter",
        "ls-half",
        "fedlas",
        "fedlas-mean",
        "mbls",
        "fedlas+",
        "acls",
        "ls",
    ],
    "cifar10-45000": [],
    "cifar100-45000": [],
    "cifar10": [],
    "digits": [],
    "wordnet": [],
    "glyphs": [],
}
"""Studies with a figure, and the methods in it; all if none is named."""

METHODS = {
    "digits": "Digits, MLP",
    "mnist": "MNIST, MLP",
    "words": "Words of ten languages, MLP",
    "fashion-mlp": "Fashion-MNIST, MLP",
    "fashion-noise": "the same, 20 % wrong labels",
    "fashion-tail": "the same, long-tailed",
    "fashion-conv": "Fashion-MNIST, resnet8",
    "fashion-flip": "the same, with flips (3 seeds)",
    "cifar10": "CIFAR-10, resnet8",
    "cifar100": "CIFAR-100, resnet8",
    "cifar100-small": "the same, longer (3 seeds)",
}
"""The settings in which losses are compared with cross-entropy plus a temperature."""
EFFECTS = {
    "fashion-mnist": "Fashion-MNIST",
    "cifar10-45000": "CIFAR-10",
    "cifar100-45000": "CIFAR-100",
    "cifar100-half": "CIFAR-100, 5 epochs",
    "glyphs": "fonts, from scratch",
    "wordnet": "WordNet, 45 topics",
}
"""Studies with packed runs of both FedLAS and label smoothing over five seeds, in the figure of effects."""
REPORTED = tuple(range(10, 15))
"""The seeds of their report, on which nothing was chosen."""
WINNER = "tempered-past"

_PLACE = re.compile(r"(<!-- results\n(.*?)-->\n).*?(<!-- end -->)", re.DOTALL)
_BOARD = re.compile(r"(<!-- leaderboard -->\n).*?(<!-- end -->)", re.DOTALL)


@cache
def model_of(study: str) -> Result:
    """The packed runs of a study."""
    return build_result(
        with_calibrators(
            with_estimates(collect_runs(ROOT / study), replicates=0), [AUTO], required=False
        )
    )


def filled(text: str) -> str:
    """A page with its tables up to date."""
    text = _PLACE.sub(
        lambda found: (
            f"{found[1]}\n{markdown_table(_table(yaml.safe_load(found[2])))}\n\n{found[3]}"
        ),
        text,
    )
    return _BOARD.sub(lambda found: f"{found[1]}\n{leaderboard()}\n\n{found[2]}", text)


def leaderboard() -> str:
    """For each data set a table with a row a method, the lowest NLL first."""
    return "\n\n".join(
        f"## {title}\n\n{markdown_table(board(model_of(study)))}" for study, title in BOARD.items()
    )


def board(model: Result) -> Table:
    """A row a method: means over seeds, and for the ECE interval and noise floor; AURC where runs measured it."""
    aurc = any(model.values(method, "aurc") for method in model.methods)
    rows = []
    for method in model.methods:
        *first, after = _with_floor(model, method)
        interval = method_noise(model, method, metric_column("ece")).interval or DASH
        rows.append([method, *first, interval, after, *[_mean(model, method, "aurc")] * aurc])
    return make_table(
        [*_HEADS[:-1], "95 % interval", _HEADS[-1], *[metric_column("aurc").head] * aurc], rows
    )


_HEADS = ("method", "seeds", "accuracy %", "NLL", "ECE % (floor)", "after T")


def _with_floor(model: Result, method: str) -> list[Any]:
    """Seeds, accuracy, NLL, ECE with its noise floor, and ECE after temperature scaling."""
    noise, (ece, after) = method_noise(model, method, metric_column("ece")), _ece(model, method)
    floor = f" ({'~' * noise.calibrated}{noise.floor})" if noise.floor else ""
    means = [_mean(model, method, metric) for metric in ("accuracy", "nll")]
    return [len(model.seeds[method]), *means, f"{ece}{floor}", after]


def _ece(model: Result, method: str) -> list[str]:
    """Before and after temperature scaling."""
    return [_mean(model, method, "ece", stage) for stage in STAGES]


def _mean(model: Result, method: str, metric: str, stage: str = "test") -> str:
    return method_cell(
        model, method, metric_column(metric, places=4 if metric_column(metric).unit else 3), stage
    ).text


def _table(spec: dict[str, Any]) -> Table:
    kind, study = next(iter(spec.items()))
    return _KINDS[kind](study, **{key: value for key, value in spec.items() if key != kind})


def _methods(study: str, methods: Mapping[str, str | None] | None, note: str = "") -> Table:
    """Accuracy, NLL and ECE of some methods, all if none is named; the values of ``methods`` stand under ``note``."""
    model = model_of(study)
    chosen = methods or dict.fromkeys(model.methods)
    rows = [
        [method, *_with_floor(model, method), *[word] * bool(note)]
        for method, word in chosen.items()
    ]
    return make_table([*_HEADS, *[note] * bool(note)], rows)


def _calibrated(study: str) -> Table:
    """Each method as trained, after a temperature and after auto: accuracy, NLL and ECE."""
    model, stages = model_of(study), (*STAGES, AUTO)
    rows = []
    for method in model.methods:
        ece, floor = (
            _mean(model, method, "ece"),
            method_noise(model, method, metric_column("ece")).floor,
        )
        nll = [_mean(model, method, "nll", stage) for stage in stages]
        after = [_mean(model, method, "ece", stage) for stage in stages[1:]]
        accuracy = [_mean(model, method, "accuracy", stage) for stage in ("test", AUTO)]
        rows.append([method, accuracy[0], *nll, f"{ece} ({floor})", *after, accuracy[1]])
    heads = [
        "method",
        "accuracy %",
        "NLL",
        "after T",
        "after auto",
        "ECE % (floor)",
        "after T",
        "after auto",
    ]
    return make_table([*heads, "accuracy % after auto"], rows)


def _levels(studies: Mapping[str, str], metric: str) -> Table:
    """Every published figure of our methods with ResNet-50, a column a source, and ours."""
    published = [
        row for row in read_published_numbers() if row[metric] and not row["model"].endswith("101")
    ]
    sources = {
        source: source.split()[0]
        for source in dict.fromkeys(row["source"] for row in published)
        if "log" not in source
    }
    rows = []
    for data, study in studies.items():
        model = model_of(study)
        for method in model.summary.methods:
            theirs = [
                next(
                    (
                        row[metric]
                        for row in published
                        if (row["source"], row["data"], row["method"]) == (source, data, method)
                    ),
                    DASH,
                )
                for source in sources
            ]
            noise = method_noise(model, method, metric_column(metric))
            floor = f" ({'~' * noise.calibrated}{noise.floor})" if noise.floor else ""
            if set(theirs) != {DASH}:
                rows.append([data, method, *theirs, _mean(model, method, metric) + floor])
    here = "here" + " (floor)" * is_calibration_error(metric)
    return make_table(["data", "method", *sources.values(), here], rows, left_aligned=(0, 1))


def _elsewhere(data: Sequence[str]) -> Table:
    """Every published figure of data that no study here is of."""
    heads = {"data": "data", "model": "network", "method": "method", "accuracy": "accuracy %", "ece": "ECE %",
             "adaptive_ece": "adaptive ECE %", "source": "source", "note": "note"}  # fmt: skip
    rows = [
        [row[key] or DASH for key in heads]
        for row in read_published_numbers()
        if row["data"] in data
    ]
    return make_table(
        [*heads.values(), "here"],
        [[*row, "not run"] for row in rows],
        left_aligned=(0, 1, 2, 6, 7, 8),
    )


def _corrupted(study: str) -> Table:
    """Each method on clean and on corrupted images: means over the corruptions, then over the seeds that have them."""
    found: dict[str, list[dict[str, Any]]] = {}
    for run in model_of(study).summary.runs:
        if text := run.folder.text(run.folder.shift_path):
            found.setdefault(run.loss, []).append(json.loads(text))
    rows = []
    for method, runs in found.items():
        values = {"accuracy": [], "ece": [], "ece after": [], "nll": [], "nll after": []}
        clean = _spread([100 * run["clean"]["test"]["ece"] for run in runs], 1)
        for run in runs:
            for name, seeds in values.items():
                metric, _, after = name.partition(" ")
                stage = "test_calibrated" if after else "test"
                seeds.append(
                    (1 if metric == "nll" else 100)
                    * fmean(row[stage][metric] for row in run["corrupted"])
                )
        places = [2 if name.startswith("nll") else 1 for name in values]
        rows.append([method, len(runs), clean, *map(_spread, values.values(), places)])
    heads = ["ECE %, clean", "accuracy %, corrupted", "ECE %", "after T", "NLL", "after T"]
    return make_table(["method", "seeds", *heads], rows)


def _detected(study: str) -> Table:
    """AUROC of out-of-distribution scores as trained, a row a method: mean and deviation over seeds."""
    found: dict[str, dict[str, list[float]]] = {}
    for row in _csv(study, "ood"):
        if row["stage"] == "before":
            found.setdefault(row["loss"], {}).setdefault(row["score"], []).append(
                100 * float(row["auroc"])
            )
    scores = list(next(iter(found.values())))
    rows = [
        [method, *(_spread(values[score], 1) for score in scores)]
        for method, values in found.items()
    ]
    return make_table(["AUROC %", *scores], rows)


def _repaired(study: str, pair: str) -> Table:
    """NLL of two losses after each calibrator, from ``calibrators.csv``, and the difference over seeds."""
    found: dict[str, dict[str, list[float]]] = {}
    for row in sorted(_csv(study, "calibrators"), key=lambda row: int(row["seed"])):
        found.setdefault(row["calibrator"], {}).setdefault(row["loss"], []).append(
            float(row["nll"])
        )
    mine, its = pair.split(":")
    tests = _with_holm(
        [[a - b for a, b in zip(each[mine], each[its], strict=True)] for each in found.values()]
    )
    rows = [
        [calibrator, _spread(each[mine], 3), _spread(each[its], 3), *test]
        for (calibrator, each), test in sorted(
            zip(found.items(), tests, strict=True), key=lambda item: fmean(item[0][1][its])
        )
    ]
    return make_table(["NLL after", mine, its, "difference [95 %]", "Holm"], rows)


def _compare(study: str, pairs: Sequence[str], stage: str = "test") -> Table:
    """Differences of pairs over seeds."""
    columns = [
        [_difference(found, metric) for found in _differences(study, pairs, metric, stage)]
        for metric in ("ece", "nll")
    ]
    rows = [
        [pair.replace(":", " - "), *ece, *nll]
        for pair, ece, nll in zip(pairs, *columns, strict=True)
    ]
    return make_table(["A - B", "ECE points [95 %]", "t", "Holm", "NLL [95 %]", "t", "Holm"], rows)


def _published(rows: Sequence[Sequence[str]]) -> Table:
    """Published differences beside ours with its interval over seeds; each row is study, pair, metric, figures."""
    shown = []
    for study, pair, metric, figures in rows:
        [found] = _differences(study, [pair], metric.replace(" ", "_"))
        data = BOARD[study].partition(",")[0]
        shown.append(
            [
                data,
                pair.replace(":", " - "),
                metric,
                figures,
                _difference(found, metric.replace(" ", "_"))[0],
            ]
        )
    return make_table(
        ["data", "A - B", "points of", "published", "here [95 %]"], shown, left_aligned=(0, 1, 2, 3)
    )


def _gate(study: str, methods: Mapping[str, str]) -> Table:
    """FedLAS against what has one part of it replaced."""
    model, others = model_of(study), [method for method in methods if method != "fedlas"]
    tests = dict.fromkeys(methods, ("",) * 4)
    found = [
        _differences(study, [f"fedlas:{other}" for other in others], metric)
        for metric in ("ece", "nll")
    ]
    for other, ece, nll in zip(others, *found, strict=True):
        tests[other] = (*_difference(ece, "ece")[::2], *_difference(nll, "nll")[::2])
    rows = []
    for method, replaced in methods.items():
        strengths = [
            s
            for run in model.summary.runs
            if run.loss == method and (s := _strength(run)) is not None
        ]
        strength = _spread(strengths, 3) if strengths else ""
        rows.append([method, replaced, strength, *_ece(model, method), *tests[method]])
    heads = ["FedLAS minus it, ECE points [95 %]", "Holm", "NLL [95 %]", "Holm"]
    return make_table(
        ["method", "what is replaced", "strength", "ECE %", "after T", *heads],
        rows,
        left_aligned=(0, 1),
    )


def _strength(run: Any) -> float | None:
    gate = run.folder.log[int(run.best_epoch) - 1].get("gate")
    return gate["alpha"] if gate else None


def _indicator(study: str) -> Table:
    """What the feature norm says, from ``diagnose.json``: mean and deviation over seeds."""
    asked = {
        "Spearman Z, confidence": ("confidence", "spearman"), "AUROC Z, right": ("correctness", "auroc"),
        "AUROC confidence, right": ("baseline", "auroc"), "Spearman Z, signed gap": ("gap", "spearman"),
    }  # fmt: skip
    found: dict[str, list[list[float]]] = {}
    for run in json.loads((ROOT / study / "diagnose.json").read_text(encoding="utf-8")):
        values = [
            (run["indicator"][about][kind] or {}).get("value") for about, kind in asked.values()
        ]
        if None not in values:  # the score of fedlas-constant has no ranks
            found.setdefault(run["loss"], []).append(values)
    by_rank = sorted(found.items(), key=lambda item: -fmean(values[0] for values in item[1]))
    rows = [
        [method, *(_spread(column, 2) for column in zip(*runs, strict=True))]
        for method, runs in by_rank
    ]
    return make_table(["method", *asked], rows)


def _halves(study: str) -> Table:
    """Calibrators over random halves: NLL minus that of temperature scaling, ECE and changed classes by network."""
    rows = _csv(study, "calibrators")
    networks, methods = (
        list(dict.fromkeys(row[key] for row in rows)) for key in ("network", "calibrator")
    )

    def values(network: str, method: str, metric: str) -> list[float]:
        found = [
            float(row[metric])
            for row in rows
            if (row["network"], row["calibrator"]) == (network, method)
        ]
        return [value if metric == "nll" else 100 * value for value in found]

    def difference(network: str, method: str) -> list[float]:
        pairs = zip(
            values(network, method, "nll"), values(network, "temperature", "nll"), strict=True
        )
        return [mine - its for mine, its in pairs]

    p_values = {
        network: dict(
            zip(
                methods, holm([_resampled(difference(network, m))[2] for m in methods]), strict=True
            )
        )
        for network in networks
    }
    by_nll = sorted(
        methods,
        key=lambda method: fmean(v for network in networks for v in values(network, method, "nll")),
    )
    shown = []
    for method in by_nll:
        cells: list[str] = []
        for network in networks:
            nll, ece = values(network, method, "nll"), values(network, method, "ece")
            mean, half, _ = _resampled(difference(network, method))
            p = p_values[network][method]
            against = (
                DASH
                if method == "temperature"
                else f"{mean:+.4f} ± {half:.4f}{' *' if p < 0.05 else ''}"
            )
            new = fmean(values(network, method, "changed"))
            cells += [_spread(nll, 4), against, _spread(ece, 2), f"{new:.2f}" if new else "kept"]
        shown.append([method, *cells])
    heads = [
        f"{_network(n)} {head}"
        for n in networks
        for head in ("NLL", "minus temperature", "ECE %", "new class %")
    ]
    return make_table(["calibrator", *heads], shown)


def _shifted(study: str, about: Mapping[str, str]) -> Table:
    """Means over the corruptions, out-of-distribution scores, the card and the monitor, by network."""
    shift, ood = _csv(study, "shift"), _csv(study, "ood")
    production = json.loads((ROOT / study / "production.json").read_text(encoding="utf-8"))
    networks = list(dict.fromkeys(row["network"] for row in shift))
    rows = []
    for severity in dict.fromkeys(row["severity"] for row in shift):
        for method, name in about.items():
            cells = []
            for network in networks:
                key = (network, severity, method)
                found = [
                    row
                    for row in shift
                    if (row["network"], row["severity"], row["calibrator"]) == key
                ]
                if not found:
                    cells.append(DASH)
                    continue
                accuracy, ece = (
                    fmean(100 * float(row[metric]) for row in found)
                    for metric in ("accuracy", "ece")
                )
                cells.append(
                    f"{ece:.1f} (accuracy {accuracy:.1f}, NLL {fmean(float(row['nll']) for row in found):.2f})"
                )
            rows.append([f"ECE %, severity {severity}, {name}", *cells])
    for stage, score in dict.fromkeys((row["stage"], row["score"]) for row in ood):
        cells = []
        for network in networks:
            found = [
                row
                for row in ood
                if (row["network"], row["stage"], row["score"]) == (network, stage, score)
            ]
            cells.append(_spread([100 * float(row["auroc"]) for row in found], 2))
        after = " after temperature" if stage == "temperature" else ""
        rows.append([f"AUROC % against CIFAR-100, {score}{after}", *cells])
    for number, risk in enumerate(each["risk"] for each in production[0]["selective"]):
        chosen = [run["selective"][number] for run in production]
        texts = [DASH if "test" not in row else _selected(row) for row in chosen]
        rows.append([f"card: accepted at risk {100 * risk:g} %", *texts])
    for severity in dict.fromkeys(row["severity"] for row in shift):
        texts = []
        for run in production:
            after = [
                alarm for name, alarm in run["alarms"].items() if name.endswith(f"-{severity}")
            ]
            seen = sorted(alarm for alarm in after if alarm is not None)
            median = f", median {seen[len(seen) // 2]:,} images" if seen else ""
            texts.append(f"{len(seen)} of {len(after)}{median}" if after else DASH)
        rows.append([f"monitor: shifts noticed, severity {severity}", *texts])
    quiet = [
        DASH if run["alarms"]["clean"] is None else f"{run['alarms']['clean']:,} images"
        for run in production
    ]
    rows.append(["monitor: alarm without a shift", *quiet])
    return make_table(["what", *map(_network, networks)], rows)


def _selected(row: dict[str, Any]) -> str:
    found = row["test"]
    return f"{100 * found['coverage']:.1f} %, of which wrong {100 * found['risk']:.2f} %"


def _resampled(differences: Sequence[float]) -> tuple[float, float, float]:
    """Mean, half the 95 % interval, and p-value over halves of one test set.

    The halves overlap, so the variance of their mean is ``1/J + 1`` times that of a half, not ``1/J`` (Nadeau and
    Bengio, "Inference for the generalization error", 2003: the test part is as large as the part to fit).
    """
    from scipy.stats import t

    count, mean = len(differences), fmean(differences)
    error = stdev(differences) * (1 / count + 1) ** 0.5
    p_value = float(2 * t.sf(abs(mean) / error, count - 1)) if error else 1.0
    return mean, float(t.ppf(0.975, count - 1)) * error, p_value


def _against_baseline(study: str, method: str) -> Table:
    """A method before, and cross-entropy after a temperature, a row a setting; Holm's correction over settings."""
    found = {setting: _by_method(study, setting) for setting in METHODS}
    tests = _with_holm([_minus_baseline(each, method, "nll") for each in found.values()])
    rows = []
    for (setting, each), test in zip(found.items(), tests, strict=True):
        mine, base = each[method, ""], each["ce", "temperature"]
        accuracy = 100 * fmean(_minus_baseline(each, method, "accuracy"))
        levels = [f"{fmean(columns['nll']):.3f}" for columns in (mine, base)]
        eces = [_ece_with_floor(columns) for columns in (mine, base)]
        rows.append([METHODS[setting], *levels, *test, f"{accuracy:+.2f}", *eces])
    heads = [
        "setting",
        "NLL",
        "ce + T",
        "difference [95 %]",
        "Holm",
        "accuracy, points",
        "ECE % (floor)",
        "of ce + T",
    ]
    return make_table(heads, rows)


def _against_others(study: str, method: str) -> Table:
    """The same against structured scaling; AURC, and how far the ECE is above its noise floor."""
    found = {setting: _by_method(study, setting) for setting in METHODS}
    tests = _with_holm(
        [_minus_baseline(each, method, "nll", "structured") for each in found.values()]
    )
    rows = []
    for (setting, each), test in zip(found.items(), tests, strict=True):
        aurc = [1000 * value for value in _minus_baseline(each, method, "aurc")]
        low, high = mean_interval(aurc) or (fmean(aurc),) * 2
        beyond = [
            f"{100 * (fmean(each[key]['ece']) - fmean(each[key]['floor'])):.2f}"
            if key in each
            else DASH
            for key in ((method, ""), ("ce", "temperature"), ("fedlas", ""))
        ]
        rows.append(
            [METHODS[setting], *test, f"{fmean(aurc):+.1f} [{low:+.1f}, {high:+.1f}]", *beyond]
        )
    heads = [
        "setting", "NLL minus ce + structured [95 %]", "Holm", "AURC minus ce + T, thousandths [95 %]",
        "ECE above its floor, points", "of ce + T", "of fedlas",
    ]  # fmt: skip
    return make_table(heads, rows)


def _parts(study: str, methods: Sequence[str]) -> Table:
    """NLL minus that of cross-entropy after a temperature, of several methods, in the settings that have them all."""
    rows = []
    for setting, title in METHODS.items():
        found = _by_method(study, setting)
        if all((method, "") in found for method in methods):
            tests = _with_holm([_minus_baseline(found, method, "nll") for method in methods])
            rows.append([title, *(difference for difference, _ in tests)])
    return make_table(["NLL minus ce + T [95 %]", *methods], rows)


def _settings(study: str, name: str, seeds: Sequence[int]) -> Table:
    """Every method of a setting, the lowest NLL first; differences to cross-entropy after temperature scaling."""
    found = _by_method(study, name, seeds)
    methods = sorted(
        {method for method, _ in found}, key=lambda method: fmean(found[method, ""]["nll"])
    )
    tests = _with_holm([_minus_baseline(found, method, "nll") for method in methods])
    rows = [
        [
            method, _spread([100 * value for value in found[method, ""]["accuracy"]], 2),
            _spread(found[method, ""]["nll"], 3), *test, _ece_with_floor(found[method, ""]),
            _spread(found[method, ""]["aurc"], 4), _spread(found[method, "temperature"]["nll"], 3),
        ]
        for method, test in zip(methods, tests, strict=True)
    ]  # fmt: skip
    return make_table(
        [
            "method",
            "accuracy %",
            "NLL",
            "minus ce + T [95 %]",
            "Holm",
            "ECE % (floor)",
            "AURC",
            "NLL after T",
        ],
        rows,
    )


def _by_method(
    study: str, setting: str, seeds: Sequence[int] = REPORTED
) -> dict[tuple[str, str], dict[str, list[float]]]:
    """The columns of each method and calibrator, in the order of seeds."""
    found: dict[tuple[str, str], dict[str, list[float]]] = {}
    for row in sorted(_csv(study, "results"), key=lambda row: int(row["seed"])):
        if row["setting"] == setting and int(row["seed"]) in seeds:
            columns = found.setdefault((row["method"], row["after"]), {})
            for name in ("accuracy", "nll", "ece", "floor", "aurc"):
                columns.setdefault(name, []).append(float(row[name]))
    return found


def _minus_baseline(
    found: Mapping[tuple[str, str], Mapping[str, list[float]]],
    method: str,
    metric: str,
    after: str = "temperature",
) -> list[float]:
    """A method before minus cross-entropy after a calibrator, seed by seed."""
    return [
        mine - its
        for mine, its in zip(found[method, ""][metric], found["ce", after][metric], strict=True)
    ]


def _with_holm(differences: Sequence[list[float]]) -> list[tuple[str, str]]:
    """Mean with its interval over seeds, and the p-value of the paired test corrected for all of them."""
    tests = [paired_t_test(each, [0.0] * len(each)) for each in differences]
    corrected = holm([1.0 if test.p_value is None else test.p_value for test in tests])
    cells = []
    for each, p_value in zip(differences, corrected, strict=True):
        low, high = mean_interval(each) or (fmean(each),) * 2
        said = "< 0.001" if p_value < 0.001 else f"{p_value:.3f}"
        cells.append((f"{fmean(each):+.4f} [{low:+.4f}, {high:+.4f}]", said))
    return cells


def _ece_with_floor(columns: Mapping[str, list[float]]) -> str:
    return f"{_spread([100 * value for value in columns['ece']], 2)} ({100 * fmean(columns['floor']):.2f})"


def _csv(study: str, name: str) -> list[dict[str, str]]:
    with (ROOT / study / f"{name}.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _network(name: str) -> str:
    return name.replace("resnet", "ResNet-")


@dataclass(frozen=True)
class Effect:
    """FedLAS less label smoothing on one data set: paired differences, a value a seed; none where not measured.

    Attributes:
        data: Name of the data set.
        fresh: Whether nothing of this project was chosen on its test data.
        ece: Of the ECE as trained, in points.
        nll: Of the NLL after ``auto``, in nats.
    """

    data: str
    fresh: bool
    ece: list[float]
    nll: list[float]


def effects() -> list[Effect]:
    """Return FedLAS less label smoothing on every data set of :data:`EFFECTS`, of fine-tuning and of the arena."""
    packed = [
        Effect(
            title,
            study in ("glyphs", "wordnet"),
            _paired(model_of(study).summary, "ece", "test", 100),
            _paired(model_of(study).summary, "nll", AUTO, 1),
        )
        for study, title in EFFECTS.items()
    ]
    tuned = [
        Effect(
            f"fine-tuning: {name}",
            True,
            _minus_ls(rows, "raw ece", 100),
            _minus_ls(rows, "auto nll", 1),
        )
        for name, rows in _grouped(_csv("fine-grained", "runs"), "problem").items()
    ]
    arena = [
        Effect(f"arena: {name}", True, [], _minus_ls(rows, "nll", 1))
        for name, rows in _grouped(_csv("arena", "results"), "data").items()
    ]
    return [*packed, *tuned, *arena]


def _grouped(rows: Sequence[dict[str, str]], key: str) -> dict[str, list[dict[str, str]]]:
    found: dict[str, list[dict[str, str]]] = {}
    for row in rows:
        found.setdefault(row[key], []).append(row)
    return found


def _minus_ls(rows: Sequence[Mapping[str, str]], column: str, scale: float) -> list[float]:
    """Return FedLAS less label smoothing in a column of rows of ``method`` and ``seed``, over their common seeds."""
    fedlas, ls = (
        {int(row["seed"]): float(row[column]) for row in rows if row["method"] == method}
        for method in ("fedlas", "ls")
    )
    return [scale * (fedlas[seed] - ls[seed]) for seed in sorted(fedlas.keys() & ls.keys())]


def _paired(summary: Any, metric: str, stage: str, scale: float) -> list[float]:
    """Return FedLAS less label smoothing over the seeds of packed runs; none if the runs lack the stage."""
    fedlas, ls = (
        {run.seed: run.measured[stage][metric] for run in summary.runs if run.loss == method and stage in run.measured}
        for method in ("fedlas", "ls")
    )  # fmt: skip
    return [scale * (fedlas[seed] - ls[seed]) for seed in sorted(fedlas.keys() & ls.keys())]


def _effects(title: str) -> Table:
    """FedLAS less label smoothing on each data set, and the mean over those on which nothing was chosen."""
    rows = effects()
    fresh = [row for row in rows if row.fresh]
    means = [
        [fmean(values) for row in fresh if (values := getattr(row, name))]
        for name in ("ece", "nll")
    ]
    shown = [
        [row.data, "no" if row.fresh else "yes", _interval(row.ece, 1), _interval(row.nll, 3)]
        for row in rows
    ]
    over = f"mean of {len(means[0])} and {len(means[1])} that entered none"
    return make_table(
        [title, "entered a choice", "ECE as trained, points [95 %]", "NLL after auto [95 %]"],
        [*shown, [over, "", _interval(means[0], 1), _interval(means[1], 3)]],
        left_aligned=(0, 1),
    )


def _interval(values: Sequence[float], places: int) -> str:
    """Return the mean with its t-interval; a dash without values."""
    if not values:
        return DASH
    low, high = mean_interval(values) or (fmean(values),) * 2
    return f"{fmean(values):+.{places}f} [{low:+.{places}f}, {high:+.{places}f}]"


_KINDS = {
    "table": _methods, "compare": _compare, "gate": _gate, "indicator": _indicator, "halves": _halves,
    "shifted": _shifted, "against": _against_baseline, "others": _against_others, "parts": _parts,
    "setting": _settings, "calibrated": _calibrated, "published": _published, "levels": _levels,
    "elsewhere": _elsewhere, "effects": _effects, "corrupted": _corrupted, "detected": _detected, "repaired": _repaired,
}  # fmt: skip


def _differences(
    study: str, pairs: Sequence[str], metric: str, stage: str = "test"
) -> list[Difference]:
    return method_differences(model_of(study).summary, pairs, metric=metric, stage=stage)


def _difference(found: Difference, metric: str) -> list[str]:
    """Mean and interval, p-value of the t-test, and the same with Holm's correction."""
    scale, places = (100, 2) if metric_column(metric).unit else (1, 3)
    ends = [f"{scale * end:+.{places}f}" for end in found.interval or ()]
    p_values = [
        DASH if p is None else "≤ 0.001" if p < 0.001 else f"{p:.3f}"
        for p in (found.p_value, found.p)
    ]
    return [
        f"{scale * found.difference:+.{places}f}" + (f" [{', '.join(ends)}]" if ends else ""),
        *p_values,
    ]


def _spread(values: Sequence[float], places: int) -> str:
    spread = f" ± {stdev(values):.{places}f}" if len(values) > 1 else ""
    return f"{fmean(values):.{places}f}{spread}"


def draw(study: str) -> str:
    """The ECE of a study by method, a dot for each seed, as SVG: no wider than a phone."""
    model, about = model_of(study), metric_column("ece")
    methods = [method for method in model.methods if method in FIGURES[study] or not FIGURES[study]]
    values = {method: [100 * value for value in model.values(method, "ece")] for method in methods}
    noise = {method: method_noise(model, method, about).floor_value for method in methods}
    floors = {method: 100 * value for method, value in noise.items() if value is not None}
    drawn = new_page_axes(height=1.2 + 0.19 * len(methods))
    seed_values(values, floors=floors, label=about.head, ax=drawn, legend=False)
    drawn.set_xlim(left=0)
    draw_legend_outside(drawn, LIGHT, max_columns=2)
    return to_themed_svg(
        drawn, f"{study}: ECE of each method before temperature scaling, a dot for each seed"
    )


def draw_shift(study: str) -> str:
    """ECE against accuracy of every corruption, before and after calibrators that were fitted on clean images."""
    rows, drawn = _csv(study, "shift"), new_page_axes(height=3.2)
    style_axes(drawn, LIGHT)
    for number, method in enumerate(dict.fromkeys(row["calibrator"] for row in rows)):
        found = [row for row in rows if row["calibrator"] == method]
        points = [[100 * float(row[metric]) for row in found] for metric in ("accuracy", "ece")]
        drawn.scatter(*points, s=14, color=LIGHT.lines[number], marker="o^s"[number], label=method)
    set_axis_label(drawn.xaxis, "accuracy % on corrupted images", LIGHT)
    set_axis_label(drawn.yaxis, "ECE %", LIGHT)
    drawn.set_ylim(bottom=0)
    draw_legend_outside(drawn, LIGHT, max_columns=3)
    return to_themed_svg(
        drawn,
        "The ECE of two networks under 15 corruptions: the lower the accuracy, the higher the ECE",
    )


def draw_methods(study: str) -> str:
    """NLL of the winner before any calibrator over that of cross-entropy after a temperature, a dot a seed."""
    values = {}
    for setting, title in METHODS.items():
        found = _by_method(study, setting)
        pairs = zip(found[WINNER, ""]["nll"], found["ce", "temperature"]["nll"], strict=True)
        values[title] = [100 * (mine / its - 1) for mine, its in pairs]
    drawn = new_page_axes(height=1.2 + 0.24 * len(values))
    seed_values(values, label="NLL against ce + temperature, %", zero=True, ax=drawn, legend=False)
    draw_legend_outside(drawn, LIGHT, max_columns=2)
    return to_themed_svg(
        drawn,
        f"NLL of {WINNER} before any calibrator, relative to cross-entropy after a temperature",
    )


def draw_effects() -> str:
    """FedLAS less label smoothing on each data set, ECE as trained and NLL after auto, with 95 % intervals, as SVG."""
    rows = effects()[::-1]
    left, right = new_axes(LIGHT, size=(1.6 * MAX_FIGURE_WIDTH, 1.0 + 0.19 * len(rows)), panels=2)
    panels = (
        (left, "ece", "ECE, points (left: FedLAS lower)"),
        (right, "nll", "NLL after auto (left: lower)"),
    )
    for drawn, name, label in panels:
        style_axes(drawn, LIGHT)
        drawn.axvline(0, color=LIGHT.lines[0], linewidth=0.8)
        for place, row in enumerate(rows):
            if values := getattr(row, name):
                low, high = mean_interval(values) or (fmean(values),) * 2
                color = LIGHT.lines[1 if high < 0 else 3 if low > 0 else 0]
                drawn.plot([low, high], [place, place], color=color, linewidth=1.2)
                fill = color if row.fresh else LIGHT.background
                drawn.plot(
                    [fmean(values)], [place], "o", color=color, markerfacecolor=fill, markersize=3.8
                )
        drawn.set_ylim(-0.7, len(rows) - 0.3)
        set_axis_label(drawn.xaxis, label, LIGHT)
        drawn.xaxis.set_label_position("top")  # what is shown stands above a figure of thirty rows
    set_ticks(left.yaxis, range(len(rows)), [row.data for row in rows])
    right.set_yticks([])
    return to_themed_svg(
        left,
        "FedLAS less label smoothing on each data set with 95 percent intervals: the ECE as trained goes either way, "
        "the NLL after auto differs on hardly any",
    )


def pages() -> list[Path]:
    """Pages of ``results/``."""
    return sorted(ROOT.rglob("*.md"))


if __name__ == "__main__":
    for page in pages():
        page.write_text(filled(page.read_text(encoding="utf-8")), encoding="utf-8")
    for name in FIGURES:
        (ROOT / name / "figure.svg").write_text(draw(name), encoding="utf-8")
    (ROOT / "published-network" / "figure.svg").write_text(
        draw_shift("published-network"), encoding="utf-8"
    )
    (ROOT / "replication.svg").write_text(draw_effects(), encoding="utf-8")
    (ROOT / "methods" / "figure.svg").write_text(draw_methods("methods"), encoding="utf-8")
    for file in ROOT.rglob("runs.zip"):
        study = file.parent.relative_to(ROOT).as_posix()
        text = table_to_csv(results_table(model_of(study).summary))
        (file.parent / "results.csv").write_text(text, encoding="utf-8")
