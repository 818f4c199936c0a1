"""The table of metrics that several subcommands print."""

from __future__ import annotations

from fedlas._core.terminal import say, show
from fedlas.present.evaluation import WITHIN, metrics_table, short_table
from fedlas.present.noise_text import Known, Measured
from fedlas.present.table import terminal


def show_metrics(
    columns: Measured, *, title: str, noise: Known | None = None, details: bool = False, num_classes: int = 10
) -> None:
    """Print metrics by stage: the main ones, or all with interval, noise floor and p-value."""
    if details:
        show(terminal(metrics_table(columns, title=title, noise=noise), details=True))
        return
    short = short_table(columns, title=title, noise=noise, num_classes=num_classes)
    show(terminal(short))
    marked = any(cell.mark == "calibrated" for row in short.rows for cell in row)
    say(*([WITHIN] if marked else []), style="dim", wrap=True)
