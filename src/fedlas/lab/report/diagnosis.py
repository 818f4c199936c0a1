"""Page of ``fedlas runs diagnose``: figures of each run, training courses, and failure cases."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from fedlas._core.extras import require
from fedlas.lab.data.base import Part
from fedlas.lab.runs.load import load_splits_if_available
from fedlas.lab.studies.diagnose import RunDiagnosis, RunGroup
from fedlas.plots import score_bins, score_scatter, strength_histogram, training_curves
from fedlas.plots.theme import legend_height
from fedlas.present.page import (
    MAX_FIGURE_WIDTH,
    creation_note,
    new_page_axes,
    render,
    to_inline_svg,
)
from fedlas.present.table import DASH, Table, make_table
from fedlas.stats.intervals import Interval

MAX_THUMBNAIL_SIDE = 96
"""Pixels of a picture; larger images are reduced, so that a page stays small."""
_COURSE_TITLES = {
    "gate.plus": "Share of held-out samples sent up (psi = +1)",
    "gate.train_flips": "Share of training samples whose direction flips per epoch",
    "gate.alpha": "Mean strength alpha_i of held-out samples",
    "indicator.spearman_confidence": "Spearman correlation of Z and confidence, held out",
    "indicator.auroc_correct": "AUROC of Z for right predictions, held out",
    "indicator.spearman_gap": "Spearman correlation of Z and signed gap, held out",
}


@dataclass(frozen=True)
class FailureCase:
    """Failure case: the image as a data URI (empty without data), its index and a text."""

    image: str
    index: int
    text: str
    head: str = ""


def diagnose_page(groups: Sequence[RunGroup], *, data: str | None = None) -> str:
    """Return the page as self-contained HTML.

    Args:
        groups: At least one group of runs.
        data: Folder of the runs' data, for the images.
    """
    sections = [
        _study_section(group.run_label(study), study, data)
        for group in groups
        for study in group.studies
    ]
    history = {
        group.name: [record for study in group.studies for record in study.history]
        for group in groups
    }
    courses = [
        (title, _course_figure(history, path, title))
        for path, title in _COURSE_TITLES.items()
        if any(_has_value(record, path) for records in history.values() for record in records)
    ]
    return render(
        "diagnose.html.j2",
        package="fedlas.lab.report",
        sections=sections,
        courses=courses,
        several=len(sections) > 1,
        made=creation_note(),
    )


def _has_value(record: dict[str, Any], path: str) -> bool:
    """Return whether a log record has a value at ``section.name``."""
    room, name = path.split(".")
    return (record.get(room) or {}).get(name) is not None


def _course_figure(history: dict[str, list[dict[str, Any]]], path: str, title: str) -> Any:
    """Return a figure of one logged value over the epochs."""
    ax = new_page_axes(height=2.7 + legend_height(list(history), MAX_FIGURE_WIDTH))
    training_curves(history, metric=path, ax=ax).set_ylabel(path.split(".")[1].replace("_", " "))
    return to_inline_svg(ax, title)


def _study_section(name: str, study: RunDiagnosis, data: str | None) -> dict[str, Any]:
    """Return the template values of one run: figures, correlations and failure cases."""
    test = study.predictions
    b = study.bins
    scatter = score_scatter(
        study.score, test.tensors().confidence, test.tensors().correct, ax=new_page_axes()
    )
    bins = score_bins(b.score, b.confidence, b.accuracy, b.standard_error, ax=new_page_axes())
    pictures = [
        ("Confidence over Z", to_inline_svg(scatter, f"Confidence over the indicator's Z, {name}")),
        (
            "Signed gap by Z",
            to_inline_svg(bins, f"Confidence minus accuracy in groups by Z, {name}"),
        ),
    ]
    # Only a loss with a strength of its own for each sample has a distribution of strengths.
    if study.alpha_i is not None and study.alpha is not None:
        strengths = strength_histogram(
            study.alpha_i, test.tensors().correct, alpha=study.alpha, ax=new_page_axes()
        )
        pictures.append(("Strengths", to_inline_svg(strengths, f"Distribution of alpha_i, {name}")))
    images, missing = _test_images(study, data)
    return {
        "name": name,
        "id": name.replace(" ", "-"),
        "samples": test.num_samples,
        "source": study.score_source,
        "table": _association_table(name, study),
        "gate": study.gate,
        "pictures": pictures,
        "alarms": study.alarms_by_kind,
        "cases": [
            ("High Z, yet under-confident: right, and doubted", _failure_cases(study, study.failures.high, images)),
            ("Low Z, yet over-confident: wrong, and believed", _failure_cases(study, study.failures.low, images)),
        ],
        "missing": missing,
    }  # fmt: skip


def _association_table(name: str, study: RunDiagnosis) -> Table:
    rows = [
        (
            label,
            *map(_format_interval, (a.pearson, a.spearman)),
            "" if a.auroc is None else _format_interval(a.auroc),
        )
        for label, a in _labeled_associations(study)
    ]
    return make_table(("Pair", "Pearson", "Spearman", "AUROC"), rows, title=f"Correlations, {name}")


def _labeled_associations(study: RunDiagnosis) -> list[tuple[str, Any]]:
    """Return each association of the indicator with its label."""
    indicator = study.indicator
    return [
        ("Z and confidence", indicator.confidence),
        ("Z and being right", indicator.correctness),
        ("Z and signed gap (confidence - right)", indicator.gap),
        ("for comparison: confidence and being right", indicator.baseline),
        *([] if study.strength is None else [("strength alpha_i and being right", study.strength)]),
    ]


def _format_interval(interval: Interval) -> str:
    if math.isnan(interval.value):
        return DASH
    return f"{interval.value:.3f} [{interval.low:.3f}, {interval.high:.3f}]"


def _test_images(study: RunDiagnosis, data: str | None) -> tuple[Part | None, str]:
    """Return the test images of a run, or None and the reason why there are none."""
    splits, missing = load_splits_if_available(study.run.folder, data=data)
    if splits is None:
        return None, f"No images: {missing}"
    if len(splits.test.shape) != 3:
        return None, "No images: the model takes rows of features."
    if not torch.equal(splits.test.target.cpu(), study.predictions.tensors().target):
        return None, "No images: the test set found is not the one that was predicted."
    return splits.test, ""


def _failure_cases(
    study: RunDiagnosis, indices: Sequence[int], images: Part | None
) -> list[FailureCase]:
    """Return the failure cases at the chosen indices, with images if there are any."""
    test = study.predictions.tensors()
    return [
        FailureCase(
            "" if images is None else thumbnail(images, i),
            i,
            f"Z {float(study.score[i]):+.1f}, {float(test.confidence[i]):.0%} for class {int(test.predicted[i])}, "
            f"is {int(test.target[i])}",
        )
        for i in indices
    ]


def thumbnail(part: Part, index: int) -> str:
    """Return one image of a part, as the model sees it, as a PNG data URI.

    Args:
        part: In memory or in files.
        index: Index of the image, from 0.

    Returns:
        A PNG; an image of two or of more than three channels shows the first channel.

    Raises:
        InputError: If its file is gone or broken.
    """
    image = part.image(index).cpu()
    pixels = (image if len(image) == 3 else image[:1]).permute(1, 2, 0).numpy()
    picture = require("PIL.Image", extra="bench").fromarray(
        pixels[:, :, 0] if pixels.shape[2] == 1 else pixels
    )
    picture.thumbnail((MAX_THUMBNAIL_SIDE, MAX_THUMBNAIL_SIDE))
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
