"""OOD data sets, adapted to the input of a run's model."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from fedlas._core.check import InputError, suggestion
from fedlas.lab.data import DATASETS, Images, Splits, load_dataset
from fedlas.lab.data.base import Part
from fedlas.lab.data.files import ImageFiles, View
from fedlas.lab.recipes.planning import Run
from fedlas.lab.runs.data import HELD_OUT, held_out_class_images
from fedlas.zoo.ood import adapt_images, count_duplicates

_DATASET_FORM = "NAME, NAME:ROOT or LABEL=NAME:ROOT"
_DIGITS = "both hold the digits 0 to 9: what differs is how they are written and recorded, not what they are"

REMARKS = {
    frozenset({"cifar10", "cifar100"}): (
        "no class is in both, by construction, and both were drawn from the same 80 million tiny images, so cameras "
        "and scaling do not distinguish them. Close in meaning are pickup truck, bus, streetcar and tractor to "
        "automobile and truck; wolf, fox and the big cats to dog and cat; cattle and camel to horse and deer"
    ),
    frozenset({"digits", "mnist"}): _DIGITS,
    frozenset({"digits", "svhn"}): _DIGITS,
    frozenset({"mnist", "svhn"}): _DIGITS,
    frozenset({"fashion-mnist", "mnist"}): (
        "no class is in both; size, centring and gray levels are alike, but digits are thin strokes on much more black"
    ),
}
"""Notes on pairs of data sets, by their registry names."""


@dataclass(frozen=True)
class DatasetSpec:
    """A data set as named on the command line.

    Attributes:
        label: Its name in files and tables.
        name: Registry name.
        root: Where its files are; None for the usual places.
    """

    label: str
    name: str
    root: str | None = None


@dataclass(frozen=True, eq=False)
class OodImages:
    """Images of an OOD data set, adapted to the input of a run's model.

    Attributes:
        label: Name in files and tables.
        part: Adapted images; the targets are meaningless, since the labels are not classes of the model.
        notes: Changes to the images, and remarks on the pair of data sets.
    """

    label: str
    part: Part
    notes: tuple[str, ...]


def parse_datasets(texts: Sequence[str]) -> list[DatasetSpec]:
    """Parse data sets given as ``NAME``, ``NAME:ROOT`` or ``LABEL=NAME:ROOT``.

    Raises:
        InputError: For an unknown name (the message has the nearest), a label that cannot name a file, or a duplicate.

    Example:
        >>> parse_datasets(["digits", "mine=npz:/data/a.npz"])[1]
        DatasetSpec(label='mine', name='npz', root='/data/a.npz')
    """
    sets: list[DatasetSpec] = []
    for word in texts:
        # LABEL=NAME:ROOT, of which label and root may be missing.
        place, colon, root = word.partition(":")
        label, equals, name = place.partition("=")
        name = name if equals else label
        if name not in DATASETS:
            raise InputError(
                f"--data must be {_DATASET_FORM} of a registered data set",
                repr(word),
                suggestion(name, DATASETS),
            )
        # A label becomes a heading and a column, and must not be that of the classes that a run held out.
        if (
            not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9+._-]*", label)
            or (colon and not root)
            or label == HELD_OUT
        ):
            raise InputError(
                f"--data must be {_DATASET_FORM}, with a label of letters, digits and + . _ -",
                repr(word),
                "Write e.g. svhn, cifar100:/data or mine=npz:/data/a.npz.",
            )
        if label in [other.label for other in sets]:
            raise InputError(
                "labels of data sets must be unique",
                f"{label} twice",
                f"Give one a label: other={word}.",
            )
        sets.append(DatasetSpec(label, name, root or None))
    return sets


def load_ood_sets(run: Run, splits: Splits, specs: Sequence[DatasetSpec]) -> list[OodImages]:
    """Return the OOD images for a run: its held-out classes first, if any, then the named data sets.

    Args:
        run: The run.
        splits: Its data.
        specs: Further data sets; the test part of each is taken whole.

    Raises:
        InputError: If there are no OOD images, a data set cannot be loaded or adapted, or is the run's own test part.
    """
    sets: list[OodImages] = []
    if run.recipe.data.hold_out_classes:
        part = held_out_class_images(run)
        classes = ", ".join(map(str, run.recipe.data.hold_out_classes))
        sets.append(OodImages(HELD_OUT, part, (f"test images of the classes held out: {classes}",)))
    if not sets and not specs:
        raise InputError(
            "at least one OOD data set is required",
            "no --data, and a run without held-out classes",
            "Name a data set, e.g. --data cifar100, or train with --set data.hold_out_classes=[...].",
        )
    return sets + [_load_ood_set(run, splits, one) for one in specs]


def _load_ood_set(run: Run, splits: Splits, spec: DatasetSpec) -> OodImages:
    source = load_dataset(spec.name, spec.root)
    part, notes = _adapt_part(source.test, splits)
    shared = _count_shared_images(part, splits)
    notes += [
        f"{number:,} of {len(part):,} images are among the run's own {w} images"
        for w, number in shared.items()
    ]
    if shared.get("test") == len(part):
        raise InputError(
            "OOD images must not be the run's own test images",
            spec.label,
            "Name another data set.",
        )
    data = run.recipe.data.name
    remark = REMARKS.get(frozenset({data, spec.name})) or REMARKS.get(frozenset({data, spec.label}))
    return OodImages(spec.label, part, (*notes, *([remark] if remark else [])))


def _count_shared_images(part: Part, splits: Splits) -> dict[str, int]:
    """Return the number of images of a part that occur in the run's training and test parts, if any, by part."""
    if not isinstance(part, Images):
        return {}
    parts = {"training": splits.train, "test": splits.test}
    counts = {
        name: count_duplicates(part.images, images.images)
        for name, images in parts.items()
        if isinstance(images, Images)
    }
    return {name: number for name, number in counts.items() if number}


def _adapt_part(part: Part, splits: Splits) -> tuple[Part, list[str]]:
    """Return a part with the channels and size of the run's images, and notes on the changes."""
    channels = splits.in_channels
    size = splits.image_size
    if part.shape == splits.test.shape and not isinstance(part, ImageFiles):
        return part, []
    if isinstance(part, Images):
        images, notes = adapt_images(part.images, channels=channels, size=size)
        return Images(images, part.target), notes
    view = (
        splits.test.view
        if isinstance(splits.test, ImageFiles)
        else View(resize=size, crop=size, train_crop="center")
    )
    notes = [f"shorter side scaled to {view.resize} pixels, center {size} x {size} cut out"]
    return (
        replace(part, view=view, channels=channels) if isinstance(part, ImageFiles) else part
    ), notes
