"""Reliability diagrams of the worst labels of multi-label predictions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fedlas._core.check import InputError
from fedlas._core.kinds import check_argument_types
from fedlas.binary import LabelTable, label_measures
from fedlas.plots.positive_class import positive_reliability_diagram
from fedlas.plots.theme import Axes, ThemeOption, new_panels, resolve_theme
from fedlas.predictions.multi_label import require_multi_label

if TYPE_CHECKING:
    from fedlas.predictions import MultiLabel

MAX_LABELS = 6
"""Labels of which a diagram is drawn."""
_MIN_SAMPLES = 10
"""Samples of which a curve can be drawn."""
_NUM_COLUMNS = 3


def worst_labels(table: LabelTable, count: int = MAX_LABELS) -> list[str]:
    """Return the labels with the strongest evidence of miscalibration, among those with enough samples to draw.

    Args:
        table: From :func:`fedlas.binary.label_measures`.
        count: Number of labels.
    """
    return [
        name
        for name, each in table.items()
        if 0 < each.positives < each.num_samples and each.num_samples >= _MIN_SAMPLES
    ][:count]


@check_argument_types
def label_reliability_diagrams(
    predictions: MultiLabel,
    labels: Sequence[str] | None = None,
    *,
    axes: Sequence[Axes] | None = None,
    title: str = "",
    theme: ThemeOption = "light",
    replicates: int = 199,
    axes_for: Sequence[MultiLabel] = (),
) -> list[Axes]:
    """Draw a small reliability diagram for each of the worst labels; see :func:`positive_reliability_diagram`.

    Args:
        predictions: Logits and labels ``(N, L)``.
        labels: Names of the labels to draw; None: the six with the strongest evidence of miscalibration, of those that
            at least 10 samples tell and that some of them have and others do not.
        axes: Where to draw, one for each label; None: three in a row on a new figure.
        title: What follows the name of each label above its diagram, such as ``"calibrated"``.
        theme: Palette.
        replicates: Number for the interval of each curve; 0 draws none.
        axes_for: Predictions of the same labels whose probabilities all fit the axes, such as those before and after a
            calibration, whose diagrams can then be compared; empty: these.

    Returns:
        The Axes of each label, of which each has the scale that suits the label.

    Raises:
        InputError: For another kind of predictions, an unknown label, no label that can be drawn, or fewer Axes than
            labels.

    Example:
        >>> import torch
        >>> from fedlas.predictions import MultiLabel
        >>> logits = torch.randn(400, 3, generator=torch.Generator().manual_seed(0))
        >>> target = torch.bernoulli(logits.sigmoid(), generator=torch.Generator().manual_seed(1))
        >>> scale = torch.tensor([1.0, 3.0, 1.0])
        >>> several = MultiLabel(scale * logits, target, names=("cat", "dog", "fox"))
        >>> [ax.get_title(loc="left") for ax in label_reliability_diagrams(several, replicates=0)]
        ['dog', 'cat', 'fox']
    """
    require_multi_label(predictions)
    names = list(
        worst_labels(label_measures(predictions, replicates=0)) if labels is None else labels
    )
    if not names or (axes is not None and len(axes) < len(names)):
        raise InputError(
            "there must be at least one label to draw, and Axes for each label",
            f"{len(names)} labels" + ("" if axes is None else f", {len(axes)} Axes"),
            f"Pass labels with both outcomes in at least {_MIN_SAMPLES} samples, and an Axes per label or axes=None.",
        )
    if axes is None:
        axes = new_panels(resolve_theme(theme), len(names), columns=_NUM_COLUMNS, size=(3.1, 3.7))
    for name, ax in zip(names, axes, strict=False):
        compared: list[Any] = [each.label(name) for each in axes_for]
        positive_reliability_diagram(
            predictions.label(name),
            ax=ax,
            title=f"{name}, {title}" if title else name,
            theme=theme,
            replicates=replicates,
            scale="auto",
            axes_for=compared,
        )
    return list(axes[: len(names)])
