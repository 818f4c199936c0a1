"""What is known of a run before it is done: its steps, and how far it has come."""

from __future__ import annotations

import math
from dataclasses import dataclass

from fedlas._core.check import InputError
from fedlas._core.files import is_file
from fedlas.lab.data import DATASETS, load_dataset
from fedlas.lab.recipes.plan import Run
from fedlas.lab.recipes.recipe import Recipe
from fedlas.lab.runs.execute import LEFT_OUT, fold_runs
from fedlas.lab.runs.folder import RunFolder
from fedlas.lab.train.config import TrainConfig


@dataclass(frozen=True)
class Forecast:
    """One run, before it is done.

    Attributes:
        run: The run.
        steps: About how many optimizer steps it takes from the start; None if nobody knows how large its data is.
        left: About how many of them are still to be done.
        state: ``new``, ``finished``, ``failed before`` or how far it has come.
    """

    run: Run
    steps: int | None
    left: int | None
    state: str


def train_size(recipe: Recipe) -> int | None:
    """About how many images a run of the recipe trains on; None if nobody knows before the data is there.

    The size of a published data set is known without its files. The user's own images are counted if they are there:
    names and labels are looked at, and no image is read.
    """
    data = recipe.data
    about = DATASETS[data.name].metadata
    expected = about.get("expected")
    # The published size answers without the files, which may not be on this machine.
    if expected is not None:
        total, classes = expected.train, expected.classes
    elif "files" not in about:  # embedded or computed, so there is nothing to read
        source = load_dataset(data.name, **data.options)
        total, classes = len(source.train), source.num_classes
    elif (counted := _counted(recipe)) is not None:
        total, classes = counted
    else:
        return data.train_size
    if data.hold_out_classes:
        kept = max(1, classes - len(data.hold_out_classes))
        total, classes = round(total * kept / classes), kept
    # Hold out, cap and thin in the order in which the data is prepared; another order gives another size.
    held_out = data.val_size if data.val_size >= 1 else data.val_size * total
    left = total - math.ceil(held_out)
    if data.train_size is not None:
        left = min(left, data.train_size)
    if data.long_tail is not None:
        # Class sizes fall geometrically from the first class to the last, so their mean share scales the part.
        shares = (data.long_tail ** (-c / max(1, classes - 1)) for c in range(classes))
        left = round(left * sum(shares) / classes)
    return max(left, 1)


def _counted(recipe: Recipe) -> tuple[int, int] | None:
    """Training images and classes of the user's own data; None if it is not there, or not as it should be."""
    count = DATASETS[recipe.data.name].metadata.get("count")
    try:
        return None if count is None else count(recipe.data.root)
    except (InputError, OSError):  # the run itself will say what is wrong with it
        return None


def forecast(run: Run) -> Forecast:
    """What is known of a run before it starts; its folder is looked at, its data is not."""
    train, images = run.recipe.train, train_size(run.recipe)
    # A size that is not known before the data is read leaves the steps open.
    each = None if images is None else _steps(images, train)
    folder = RunFolder(run.folder)
    done = _epochs_done(folder, train.checkpoint_every)
    if folder.is_finished:
        state, done = "finished", train.epochs
    elif done:
        state = f"resumes after epoch {done}"
    else:
        state = "failed before" if is_file(folder.error_path) else "new"
    if images is None or each is None:
        return Forecast(run, None, None, state)
    total, left = each * train.epochs, each * max(0, train.epochs - done)
    # Models of folds come first; where the run itself has begun, they are done.
    folds = fold_runs(run)
    for fold in folds:
        steps = _steps(images - images // len(folds), train)
        total += steps * train.epochs
        if not done and not is_file(RunFolder(fold.folder).part_path(LEFT_OUT)):
            left += steps * max(0, train.epochs - _epochs_done(RunFolder(fold.folder), train.checkpoint_every))
    return Forecast(run, total, left, state)


def _steps(images: int, train: TrainConfig) -> int:
    """Steps of an epoch."""
    if train.drop_last and images >= train.batch_size:
        return images // train.batch_size
    return math.ceil(images / train.batch_size)


def _epochs_done(folder: RunFolder, every: int) -> int:
    """Epochs in the checkpoint, from which the run resumes; the log may hold later ones."""
    # Without a checkpoint, training starts afresh, whatever the log holds.
    if not is_file(folder.checkpoint_path):
        return 0
    try:
        return len(folder.log) // every * every
    except (InputError, ValueError, KeyError):  # the run itself will say what is wrong with it
        return 0
