"""The figures of the documentation, drawn by the library; colors follow the theme that a reader chose.

Curves are the library's own functions, predictions are synthetic with known calibration, and what happened in training
is read from the logs in ``results/``. The same code and the same matplotlib draw the same bytes.
"""

# ruff: noqa: RUF001 (axes are labeled in Greek)

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fedlas import Predictions
from fedlas.lab.results.differences import method_differences
from fedlas.lab.runs.bench_folder import run_folders
from fedlas.lab.runs.collection import collect_runs
from fedlas.lab.runs.summary import FinishedRun
from fedlas.losses import NormConfidenceIndicator, adaptive_strength, smoothed_cross_entropy
from fedlas.metrics import ece
from fedlas.plots import (
    LIGHT,
    new_axes,
    positive_reliability_diagram,
    reliability_diagram,
    seed_values,
    training_curves,
)
from fedlas.plots.theme import DASHES, draw_legend_outside, style_axes, without_pyplot
from fedlas.present.page import to_themed_svg
from fedlas.stats import noise_floor

RUNS = Path(__file__).resolve().parents[2] / "results" / "fashion-mnist"
SIZE = (3.7, 3.0)  # inches: about as wide as a phone, so that the text is not scaled down there

FIXED_STRENGTH = {"ce": 0.0, "ls-quarter": 0.0125, "ls-half": 0.025, "ls": 0.05}
ABLATIONS = tuple(
    f"fedlas-{part}" for part in ("against", "frozen", "plus", "minus", "zero", "noise", "constant")
)
"""Of the runs in ``results/``, those with one part of FedLAS replaced."""
NORMS = tuple(f"fedlas-{norm}" for norm in ("l2", "linf", "map-l2", "map-linf"))
"""Those with another norm, or of features before the pool."""
MARKERS = ("s", "o", "x")

FIGURES: dict[str, Callable[[], Any]] = {}
"""By name, functions that return the Axes that were drawn on."""


@without_pyplot()
def draw(name: str) -> str:
    """Return the SVG of a figure."""
    return to_themed_svg(FIGURES[name](), name)


def _figure(name: str) -> Callable[[Callable[[], Any]], Callable[[], Any]]:
    def register(function: Callable[[], Any]) -> Callable[[], Any]:
        FIGURES[name] = function
        return function

    return register


def synthetic(samples: int, *, sharpness: float = 1.0, seed: int = 0) -> Predictions:
    """Predictions of ten classes: labels drawn from ``softmax(logits)``, then the logits times ``sharpness``.

    At 1 the classifier is calibrated by construction; above it claims too much, below too little.
    """
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(samples, 10, generator=generator)
    target = torch.multinomial(logits.softmax(1), 1, generator=generator).squeeze(1)
    return Predictions(sharpness * logits, target)


@_figure("positive-class")
def _positive_class() -> Any:
    """The model of ``docs/binary.md``."""
    generator = torch.Generator().manual_seed(0)
    log_odds = 1.5 * torch.randn(4000, generator=generator) - 1.5
    sick = torch.bernoulli(log_odds.sigmoid(), generator=generator).long()
    model = Predictions(torch.stack([torch.zeros(4000), 1.6 * log_odds + 0.5], dim=1), sick)
    return positive_reliability_diagram(model)


@_figure("strength")
def _strength() -> Any:
    axes = _axes()
    z = torch.linspace(-3, 3, 301)
    for i, beta in enumerate((4.0, 1.0, 0.5)):
        for psi, width in ((1, 1.8), (-1, 1.0)):
            alpha_i = adaptive_strength(z, torch.full_like(z, psi), alpha=0.05, beta=beta)
            label = f"β {beta:g}, ψ {'+1' if psi > 0 else '-1'}"
            axes.plot(
                z,
                alpha_i,
                color=LIGHT.lines[i],
                linestyle=DASHES[0 if psi > 0 else 1],
                linewidth=width,
                label=label,
            )
    axes.axhline(0.05, color=LIGHT.muted, linewidth=0.8, linestyle=(0, (1, 3)))
    _label(axes, "standardized norm Z", "strength α_i (α = 0.05)")
    return axes


@_figure("gradient")
def _gradient() -> Any:
    axes = _axes()
    gap = torch.linspace(-3, 9, 241)
    for i, alpha in enumerate((0.0, 0.05, 0.1, 0.2)):
        logits = torch.zeros(len(gap), 10)
        logits[:, 0] = gap
        logits.requires_grad_(True)
        target = torch.zeros(len(gap), dtype=torch.int64)
        smoothed_cross_entropy(logits, target, alpha=alpha, reduction="sum").backward()
        axes.plot(
            logits.detach().softmax(1)[:, 0], logits.grad[:, 0], color=LIGHT.lines[i], linestyle=DASHES[i],
            linewidth=1.6, label=f"α = {alpha:g}",
        )  # fmt: skip
    axes.axhline(0, color=LIGHT.ink, linewidth=0.8)
    axes.set(xlim=(0.5, 1.0), ylim=(-0.3, 0.22))
    _label(axes, "probability of the right class, p_y", "gradient ∂l / ∂z_y")
    return axes


@_figure("indicator")
def _indicator() -> Any:
    axes = _axes()
    generator = torch.Generator().manual_seed(0)
    steps = np.arange(1, 121)
    level = 20 + 25 * (1 - np.exp(-steps / 25)) + 6 * (steps > 80)
    batches = [float(at) * (1 + 0.35 * torch.randn(32, 1, generator=generator)) for at in level]
    axes.plot(
        steps,
        [float(b.abs().mean()) for b in batches],
        ".",
        color=LIGHT.muted,
        markersize=3,
        label="batch mean",
    )
    for i, momentum in enumerate((0.95, 0.5, 0.05)):
        indicator, means = NormConfidenceIndicator(momentum), []
        for batch in batches:
            indicator(batch)
            means.append(float(indicator.mean))
        axes.plot(
            steps,
            means,
            color=LIGHT.lines[i],
            linestyle=DASHES[i],
            linewidth=1.4,
            label=f"m = {momentum:g}",
        )
    _label(axes, "training step", "feature norm")
    return axes


@_figure("flips")
def _flips() -> Any:
    axes = _from_logs("gate.train_flips")
    axes.yaxis.set_major_formatter(lambda value, _position: f"{100 * value:g}")
    return _named(axes, "flips in an epoch (%)")


@_figure("mean-strength")
def _mean_strength() -> Any:
    axes = _from_logs("gate.alpha")
    return _named(axes, "mean strength α_i")


@_figure("tracks-confidence")
def _tracks_confidence() -> Any:
    axes = _from_logs("indicator.spearman_confidence")
    axes.axhline(0, color=LIGHT.muted, linewidth=0.8)
    return _named(axes, "correlation of Z, confidence")


@_figure("differences")
def _differences() -> Any:
    return _measured(["fedlas:ls", "ls-half:ls", "fedlas:ls-half", "fedlas:ce", "fedlas+:mbls"])


@_figure("ablations")
def _ablations() -> Any:
    return _measured([f"fedlas:{name}" for name in (*ABLATIONS, *NORMS)])


@_figure("strength-and-ece")
def _strength_and_ece() -> Any:
    """Every run of label smoothing, FedLAS and its ablations: a fixed strength or the mean one, and the ECE."""
    axes = _axes()
    named = {
        "label smoothing": FIXED_STRENGTH,
        "FedLAS": ("fedlas",),
        "ablations": ("fedlas-mean", *ABLATIONS, *NORMS),
    }
    runs = collect_runs(RUNS).runs
    for i, (name, losses) in enumerate(named.items()):
        points = [
            (_strength_of(run), 100 * run.measured["test"]["ece"])
            for run in runs
            if run.loss in losses
        ]
        axes.scatter(
            *zip(*points, strict=True), s=16, marker=MARKERS[i], color=LIGHT.lines[i], alpha=0.85, label=name,
        )  # fmt: skip
    axes.set_ylim(bottom=0)
    axes.set_xlim(left=-0.002)
    _label(axes, "mean strength α_i on validation images", "ECE (%)")
    return axes


@_figure("calibrated")
def _calibrated() -> Any:
    return reliability_diagram(synthetic(10_000), band=True, title="calibrated")


@_figure("over-confident")
def _over_confident() -> Any:
    return reliability_diagram(synthetic(10_000, sharpness=1.7), band=True, title="over-confident")


@_figure("under-confident")
def _under_confident() -> Any:
    return reliability_diagram(synthetic(10_000, sharpness=0.6), band=True, title="under-confident")


@_figure("few-samples")
def _few_samples() -> Any:
    return reliability_diagram(synthetic(300), band=True, title="calibrated, 300 samples")


@_figure("noise-floor")
def _noise_floor() -> Any:
    axes = _axes()
    sizes = (100, 300, 1000, 3000, 10_000, 30_000)
    for i, num_bins in enumerate((15, 50)):
        floors = [_floor(samples, num_bins) for samples in sizes]
        low, high = ([100 * floor.quantiles[q] for floor in floors] for q in (0.05, 0.95))
        color = LIGHT.lines[i]
        axes.fill_between(sizes, low, high, color=color, alpha=0.15, linewidth=0)
        axes.plot(
            sizes, [100 * floor.mean for floor in floors], color=color, linestyle=DASHES[i], linewidth=1.6,
            label=f"{num_bins} bins", marker="o", markersize=3,
        )  # fmt: skip
    axes.set_xscale("log")
    axes.set_ylim(bottom=0)
    _label(axes, "samples N", "ECE if calibrated (%)")
    return axes


@_figure("bins")
def _bins() -> Any:
    axes = _axes()
    counts = (5, 10, 15, 20, 30, 50, 75, 100)
    for i, (sharpness, name) in enumerate(((1.0, "calibrated"), (1.15, "a little over-confident"))):
        predictions = synthetic(1000, sharpness=sharpness, seed=3)
        values = [100 * ece(predictions, num_bins=n) for n in counts]
        axes.plot(
            counts, values, color=LIGHT.lines[i], linestyle=DASHES[i], linewidth=1.6, label=name, marker="o",
            markersize=3,
        )  # fmt: skip
    axes.set_ylim(bottom=0)
    _label(axes, "bins", "ECE, 1,000 samples (%)")
    return axes


@cache
def _floor(samples: int, num_bins: int) -> Any:
    return noise_floor(synthetic(samples), replicates=200, num_bins=num_bins)


def _strength_of(run: FinishedRun) -> float:
    """What a fixed strength is, or the mean strength on validation images at the epoch that was chosen."""
    if run.loss in FIXED_STRENGTH:
        return FIXED_STRENGTH[run.loss]
    record = run.folder.log[int(run.best_epoch or 0) - 1]
    return float(record["gate"]["alpha"])


def _measured(pairs: list[str]) -> Any:
    """Differences in ECE between methods of the runs in ``results/``, seed by seed."""
    pairs_measured = method_differences(collect_runs(RUNS), pairs, metric="ece")
    values = {
        " - ".join(each.names): [100 * (a - b) for a, b in zip(*each.values, strict=True)]
        for each in pairs_measured
    }
    axes = new_axes(LIGHT, size=(3.7, 1.1 + 0.26 * len(pairs_measured)))
    seed_values(values, label="ECE (points), A - B", zero=True, ax=axes, legend=False)
    draw_legend_outside(axes, LIGHT, max_columns=3)
    return axes


def _axes() -> Any:
    axes = new_axes(LIGHT, size=SIZE)
    style_axes(axes, LIGHT)
    axes.grid(color=LIGHT.grid, linewidth=0.8)
    return axes


def _label(axes: Any, x: str, y: str) -> None:
    axes.set_xlabel(x, color=LIGHT.ink, fontsize=9)
    axes.set_ylabel(y, color=LIGHT.ink, fontsize=9)
    axes.figure.legend(
        loc="outside lower center", ncols=3, frameon=False, fontsize=8.5, labelcolor=LIGHT.ink
    )


def _from_logs(metric: str) -> Any:
    """Curves of FedLAS and FedLAS+ over the epochs of the runs in ``results/``: mean of the seeds, and their range."""
    runs = [run for run in run_folders(RUNS) if run.is_finished]
    history = {}
    for loss in ("fedlas", "fedlas+"):
        history[loss] = [
            record for run in runs if run.metrics["loss"] == loss for record in run.log
        ]
        if not history[loss]:
            raise FileNotFoundError(
                f"{RUNS} must hold logs of {loss}, which the figures of the method are drawn from."
            )
    axes = new_axes(LIGHT, size=SIZE)
    return training_curves(history, metric=metric, ax=axes, legend=False)


def _named(axes: Any, name: str) -> Any:
    _label(axes, "epoch", name)
    return axes
