"""Drawing replicates, block by block, and collecting what is computed of each.

Random numbers are a function of the seed and the replicate's number alone: neither the size of the blocks nor the
number of threads plays a part. They come from NumPy's ``RandomState``, whose output is frozen.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from enum import IntEnum
from functools import partial
from typing import Any, TypeVar

import numpy as np
import torch

from fedlas._core.check import InputError, check_count
from fedlas.predictions.predictions import AnyPredictions, check_measurable
from fedlas.stats.replicates import Redrawn, Replicates, Resampled
from fedlas.stats.rows import Floats, Rows, rows_of

K = TypeVar("K")
BLOCK = 2**18
"""Elements of the largest arrays of one block: 2 MiB of float64, so that several stay in a processor's cache."""
MANY_PROBS = 2**23
"""Probabilities from which on it is their sums by class that take the time: these come from wide blocks."""
CLASS_REPLICATES = 199
"""At most so many replicates of what is computed of so many probabilities."""
_WIDE, _WIDE_BLOCK = 99, 2**23


class Purpose(IntEnum):
    """What random numbers are for: two uses of one seed never see the same ones. Do not renumber."""

    BOOTSTRAP = 0
    NOISE_FLOOR = 1
    CELL_BIAS = 2


def random_state(purpose: Purpose, seed: int) -> np.random.RandomState:
    """The random numbers of a seed for one purpose."""
    return np.random.RandomState(np.random.MT19937(np.random.SeedSequence((int(purpose), seed))))


def rows_for(owner: str, predictions: AnyPredictions, num_bins: int) -> Rows:
    """The rows of ``predictions``, without those of weight 0: drawing them would change nothing but the random numbers.

    Raises:
        InputError: If they are no predictions, are fewer than 2 samples, or ``num_bins`` is not a count.
    """
    check_measurable(owner, predictions)
    weights = predictions.weights
    if weights is not None and not bool(weights.all()):
        predictions = rows_of(predictions, weights.nonzero().squeeze(1))
    if predictions.num_samples < 2:
        raise InputError(owner, "predictions must hold at least 2 samples", 1, "One sample has no spread: use more.")
    return Rows(predictions, check_count(owner, "num_bins", num_bins))


def resampled_weights(
    *rows: Rows, replicates: int, seed: int, cuts: Iterable[int] = (), wide: bool = True
) -> Iterator[Floats]:
    """Blocks of bootstrap draws: how often each of ``N`` rows, the same for one or more sets of them, ``(R, N)``.

    There are ``replicates`` rows in all.
    """
    for uniforms in _uniforms(Purpose.BOOTSTRAP, rows, replicates, seed, cuts, wide):
        # Uniform numbers are at most 1 - 2**-53, which times N rounds to less than N: no index is out of range.
        index = np.multiply(uniforms, rows[0].num_samples, out=uniforms).astype(np.int64)
        # Each replicate counts in a range of its own, so that one bincount serves the whole block.
        index += np.arange(len(index))[:, None] * rows[0].num_samples
        yield np.bincount(index.ravel(), minlength=index.size).reshape(index.shape).astype(np.float64)


def resampled(
    rows: Rows, *, replicates: int, seed: int, cuts: Iterable[int] = (), wide: bool = True
) -> Iterator[Resampled]:
    """Blocks of bootstrap replicates, ``replicates`` in all."""
    for drawn in resampled_weights(rows, replicates=replicates, seed=seed, cuts=cuts, wide=wide):
        yield Resampled(rows, drawn)


def redrawn(
    rows: Rows, *, replicates: int, seed: int, cuts: Iterable[int] = (), wide: bool = True
) -> Iterator[Redrawn]:
    """Blocks of replicates with labels drawn from the model's probabilities, ``replicates`` in all."""
    for uniforms in _uniforms(Purpose.NOISE_FLOOR, [rows], replicates, seed, cuts, wide):
        yield Redrawn(rows, uniforms)


def values_in(
    draw: Callable[..., Iterator[Replicates]],
    rows: Rows,
    forms: Mapping[K, tuple[Callable[[Replicates], Floats], int]],
    *,
    seed: int,
    narrow: Collection[K] = (),
    advance: Callable[[int], None] | None = None,
) -> dict[K, Floats]:
    """Values of several quantities over one set of replicates, which each block of is drawn once for all of them.

    Args:
        draw: :func:`resampled` or :func:`redrawn`.
        rows: What is drawn from.
        forms: By name, the quantity of a block ``(R, ...)``, and of how many replicates, from the first, it is wanted.
        seed: Of the random numbers.
        narrow: Quantities that do little with each row. Of many probabilities they have a pass of their own over the
            same replicates, in blocks that a processor's cache holds; sums by class take wide ones.
        advance: Called after each block with the number of its replicates; of two passes in the last one.

    Returns:
        ``(replicates, ...)`` by name.
    """
    wide = {name: form for name, form in forms.items() if name not in narrow or not _has_many(rows)}
    others = {name: form for name, form in forms.items() if name not in wide}
    found: dict[K, Floats] = {}
    if wide:
        found |= _values_in(draw(rows, **_extent(wide), seed=seed), wide, None if others else advance)
    if others:
        found |= _values_in(draw(rows, **_extent(others), seed=seed, wide=False), others, advance)
    return found


def values_in_both(
    rows: Rows,
    forms: Mapping[K, tuple[Callable[[Replicates], Floats], int]],
    tested: Mapping[K, tuple[Callable[[Replicates], Floats], int]],
    **options: Any,
) -> tuple[dict[K, Floats], dict[K, Floats]]:
    """:func:`values_in` of ``forms`` over resampled rows, and of ``tested`` over redrawn labels.

    The two share nothing that either changes, so a second core takes the one, if PyTorch may use more than one.
    """
    floors = partial(values_in, redrawn, rows, tested, **options)
    if torch.get_num_threads() == 1:
        return values_in(resampled, rows, forms, **options), floors()
    with ThreadPoolExecutor(1) as other:
        drawn = other.submit(floors)
        return values_in(resampled, rows, forms, **options), drawn.result()


def _extent(forms: Mapping[K, tuple[Callable[[Replicates], Floats], int]]) -> dict[str, Any]:
    wanted = {replicates for _, replicates in forms.values()}
    return {"replicates": max(wanted, default=0), "cuts": wanted}


def _values_in(
    blocks: Iterator[Replicates],
    forms: Mapping[K, tuple[Callable[[Replicates], Floats], int]],
    advance: Callable[[int], None] | None,
) -> dict[K, Floats]:
    parts: dict[K, list[Floats]] = {name: [] for name in forms}
    done = 0
    for block in blocks:
        for name, (form, replicates) in forms.items():
            if done < replicates:
                parts[name].append(form(block))
        block.release()
        done += block.size
        if advance is not None:
            advance(block.size)
    return {name: np.concatenate(found) for name, found in parts.items()}


def _has_many(*rows: Rows) -> bool:
    return max(each.num_samples * each.num_classes for each in rows) > MANY_PROBS


def _uniforms(
    purpose: Purpose, rows: Sequence[Rows], replicates: int, seed: int, cuts: Iterable[int], wide: bool
) -> Iterator[Floats]:
    random = random_state(purpose, seed)
    # Beside (R, N) there are (R, C * num_bins) arrays; how large a block is changes no number that is drawn.
    largest = max(max(each.num_samples, each.num_classes * each.num_bins) for each in rows)
    narrow = max(1, BLOCK // largest)
    many = wide and _has_many(*rows)
    start = 0
    for stop in sorted({replicates, *(cut for cut in cuts if cut < replicates)}):
        step = max(narrow, min(_WIDE, _WIDE_BLOCK // largest)) if many and stop <= CLASS_REPLICATES else narrow
        for size in (min(step, stop - at) for at in range(start, stop, step)):
            yield random.random_sample((size, rows[0].num_samples))
        start = stop
