"""Training curves: a line per method, with a band over seeds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from fedlas._core.check import InputError, describe
from fedlas._core.extras import require
from fedlas._core.kinds import check_argument_types
from fedlas.metrics import METRICS
from fedlas.plots.theme import Axes, ThemeOption, draw_legend_below, set_labels, styled_axes

_SETTLING_SHARE = 0.2
"""Share of the epochs, the first ones, that the vertical axis may cut off: they change most and matter least."""
_PART_TITLES = {"train": "Training", "val": "Validation", "test": "Test"}


@check_argument_types
def training_curves(
    history: Mapping[str, Sequence[Mapping[str, Any]]],
    *,
    metric: str,
    ax: Axes | None = None,
    theme: ThemeOption = "light",
    legend: bool = True,
) -> Axes:
    """Draw ``metric`` over epochs: the mean over seeds as a line, the range over seeds as a band.

    The band of a single run is the metric's interval, if its records hold ``METRIC_low`` and ``METRIC_high``.

    Args:
        history: For each method the log records of all its seeds, one after the other. A record holds ``"epoch"`` and
            the metric, as ``log.jsonl`` of a run folder does: ``{"epoch": 1, "val": {"ece": 0.1}}``.
        metric: Path into a record, its parts joined by dots: ``"val.ece"``, ``"train.loss"``, ``"lr"``. The axis is in
            percent if the metric is registered so.
        ax: Where to draw; a new figure if None.
        theme: Palette.
        legend: Whether to name the methods below the axes.

    Returns:
        The Axes. Its vertical axis fits the last 80 % of the epochs; earlier values may lie outside.

    Raises:
        InputError: If no record holds the metric; the message lists those that exist.

    Note:
        Records without the metric, or where it is null or NaN, are left out. At an epoch that only some seeds reached,
        mean and band are over those.

    Example:
        >>> log = [{"epoch": e, "val": {"ece": 0.1 / e}} for e in (1, 2, 3)]
        >>> ax = training_curves({"ce": log, "fedlas": log + log}, metric="val.ece")
        >>> ax.get_ylabel(), [line.get_label() for line in ax.lines]
        ('Validation ECE (%)', ['ce', 'fedlas'])
    """
    for name, lines in history.items():
        if not isinstance(lines, Sequence) or not all(isinstance(line, Mapping) for line in lines):
            fix = "Pass the records of log.jsonl."
            raise InputError(
                f"the log of {name!r} must be a list of mappings", describe(lines), fix
            )
    curves = {name: _values_by_epoch(lines, metric) for name, lines in history.items()}
    if not any(curves.values()):
        paths = sorted(
            {path for lines in history.values() for line in lines for path in _metric_paths(line)}
            - {"epoch"}
        )
        raise InputError(
            f"at least one log record must have 'epoch' and {metric!r}",
            f"records with {', '.join(paths) or 'nothing'}",
            "Name one of these metrics, or pass the records of log.jsonl.",
        )

    # One line and one band a method.
    label, percent = _axis_label(metric)
    scale = 100.0 if percent else 1.0
    axes, palette = styled_axes(theme, ax, size=(5.6, 3.8))
    last = max(max(points) for points in curves.values() if points)
    late_values: list[float] = []
    for i, (name, points) in enumerate(curves.items()):
        if not points:
            continue
        epochs = sorted(points)
        low, mean, high = (
            [scale * statistic(points[e]) for e in epochs]
            for statistic in (min, lambda v: sum(v) / len(v), max)
        )
        if all(len(values) == 1 for values in points.values()):
            ends = (_values_by_epoch(history[name], metric + end) for end in ("_low", "_high"))
            low, high = ([scale * of.get(e, points[e])[0] for e in epochs] for of in ends)
        axes.fill_between(
            epochs, low, high, color=palette.line(i)["color"], alpha=0.13, linewidth=0
        )
        marker = "o" if len(epochs) == 1 else None
        axes.plot(
            epochs, mean, linewidth=1.5, label=name, marker=marker, markersize=4, **palette.line(i)
        )
        late_values += [
            v
            for e, v in zip(epochs + epochs, low + high, strict=True)
            if e > _SETTLING_SHARE * last
        ]

    # Scales and text.
    _set_vertical_limits(axes, late_values, ceiling=100.0 if percent else math.inf)
    if last > 1:
        axes.set_xlim(1, last)
    axes.xaxis.set_major_locator(
        require("matplotlib.ticker", extra="tables").MaxNLocator(integer=True, nbins=8)
    )
    set_labels(axes, palette, "epoch", label)
    if legend:
        draw_legend_below(axes, palette)
    return axes


def _set_vertical_limits(axes: Axes, values: Sequence[float], *, ceiling: float) -> None:
    """Set the vertical limits around ``values``, bounded by 0 and ``ceiling`` where the values are."""
    bottom = min(values)
    top = max(values)
    margin = 0.06 * (top - bottom) or 0.05 * abs(top) or 0.5
    floor = 0.0 if bottom >= 0 else -math.inf
    axes.set_ylim(max(bottom - margin, floor), min(top + margin, max(ceiling, top)))


def _values_by_epoch(lines: Sequence[Mapping[str, Any]], metric: str) -> dict[int, list[float]]:
    points: dict[int, list[float]] = {}
    for line in lines:
        value: Any = line
        for part in metric.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        if _is_number(value) and _is_number(line.get("epoch")):
            points.setdefault(int(line["epoch"]), []).append(float(value))
    return points


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _metric_paths(line: Mapping[str, Any], prefix: str = "") -> list[str]:
    paths: list[str] = []
    for key, value in line.items():
        paths += (
            _metric_paths(value, f"{prefix}{key}.")
            if isinstance(value, Mapping)
            else [f"{prefix}{key}"]
        )
    return paths


def _axis_label(metric: str) -> tuple[str, bool]:
    """Return the axis label of a metric path, and whether the metric is in percent."""
    *parts, name = metric.split(".")
    title = METRICS[name].title if name in METRICS else name
    percent = name in METRICS and METRICS[name].percent
    where = " ".join(_PART_TITLES.get(part, part) for part in parts)
    text = f"{where} {title if title.isupper() else title[:1].lower() + title[1:]}".strip()
    return text + (" (%)" if percent else ""), percent
