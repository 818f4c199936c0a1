"""Words of confidence that no table has, and the share of correct answers that a fit learns for each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fedlas._core.check import truncated_list
from fedlas.calibrators._fit.folds import make_folds
from fedlas.calibrators._fit.rowwise import to_predictions
from fedlas.predictions import TopLabel
from fedlas.predictions.language.phrases import count_phrases
from fedlas.resample.effective import effective_sample_size_by_group
from fedlas.stats.pooling import partial_pooling

if TYPE_CHECKING:
    from fedlas.predictions.any_predictions import AnyPredictions
    from fedlas.predictions.tables.formats.format import Format
    from fedlas.predictions.tables.roles import Columns

_FOLDS = 5
_SHOWN = 12
"""Words that a note lists."""


def find_phrases(source: Format, columns: Columns) -> list[str]:
    """Return the phrases of a table that a fit can learn: those that at least five answers state; empty if none."""
    if columns.cell_form != "words":
        return []
    column = str(columns.confidence)
    source.expand_paths(columns.paths, [column])
    columns.find_scores(source.names, where=source.label)
    blocks = (
        chunk.map_values(column, lambda value, _: value) for chunk in source.chunks([], [column])
    )
    return count_phrases(blocks, columns.words)


@dataclass(frozen=True, eq=False)
class PhraseRows:
    """Phrases by which the rows of a fit state their confidence, where no number or known word does.

    Attributes:
        names: The phrases ``(G,)``.
        codes: Index of the phrase of each row ``(N,)``; -1 for a row whose confidence is known without.
    """

    names: tuple[str, ...]
    codes: NDArray[np.int64]

    @classmethod
    def from_values(
        cls, phrases: tuple[str, ...], has_weight: NDArray[np.bool_] | None
    ) -> PhraseRows | None:
        """Return the phrases of the rows of positive weight, or None if no row has one."""
        texts = np.array(phrases, dtype=object)
        texts = texts if has_weight is None else texts[has_weight]
        names = sorted({*texts} - {""})
        index = {name: code for code, name in enumerate(names)}
        return (
            cls(tuple(names), np.array([index.get(text, -1) for text in texts])) if names else None
        )

    def learn(self, val: TopLabel, rows: NDArray[np.bool_] | None = None) -> NDArray[np.float64]:
        """Return the share of correct answers by phrase ``(G,)``, pooled; NaN for one that no row has.

        The shares are drawn toward their mean by partial pooling. Its standard errors are those of the common share,
        so that few correct answers are no certainty; weights and clusters lower the number of answers that they count.

        Args:
            val: The rows of the fit, ``(N,)``.
            rows: Mask ``(N,)`` of those to learn from; None: all.
        """
        used = self.codes >= 0 if rows is None else (self.codes >= 0) & rows
        codes = self.codes[used]
        right = val.correct[used].astype(np.float64)
        weights = np.ones(len(codes)) if val.weights is None else val.weights[used]
        count = len(self.names)
        totals = np.bincount(codes, weights, minlength=count)
        shares = np.full(count, np.nan)
        has_rows = totals > 0
        if not has_rows.any():
            return shares
        if val.clusters is None:
            units, unit_weights = codes, weights
        else:  # answers of a cluster may all be right or all be wrong: they count as one
            pairs = np.stack([codes, val.clusters[used]])
            keys, index = np.unique(pairs, axis=1, return_inverse=True)
            units, unit_weights = keys[0], np.bincount(index.ravel(), weights)
        sizes = effective_sample_size_by_group(unit_weights, units)
        sizes = np.pad(sizes, (0, count - len(sizes)), constant_values=1.0)[has_rows]
        raw_shares = (
            np.bincount(codes, weights * right, minlength=count)[has_rows] / totals[has_rows]
        )
        # Half an answer each way, so that no share is exactly 0 or 1.
        half = 0.5 / (sizes.sum() + 1.0)
        common = np.clip(float(sizes @ raw_shares / sizes.sum()), half, 1.0 - half)
        pooled = partial_pooling(raw_shares, np.sqrt(common * (1.0 - common) / sizes))
        shares[has_rows] = np.clip(pooled.values, half, 1.0 - half)
        return shares

    def restate(
        self, val: TopLabel, shares: NDArray[np.float64]
    ) -> tuple[TopLabel, NDArray[np.bool_]]:
        """Return rows whose phrases have the confidences ``shares (G,)``, and a mask of the rows that state any."""
        values = np.append(shares, np.nan)[self.codes]
        is_stated = (self.codes < 0) | ~np.isnan(values)
        confidence = val.confidence.copy()
        is_learned = (self.codes >= 0) & is_stated
        confidence[is_learned] = values[is_learned]
        return replace(val, confidence=confidence), is_stated

    def restate_out_of_fold(self, val: TopLabel, rows: NDArray[np.bool_] | None = None) -> TopLabel:
        """Return rows whose phrases have the confidences that the other folds of ``rows (N,)`` teach; None: all rows.

        A calibrator that is fitted to them learns what a word is worth to answers that have not taught it. A row keeps
        what all ``rows`` teach where it is in no fold, or the other folds lack its phrase.
        """
        stated, _ = self.restate(val, self.learn(val, rows))
        used = np.arange(len(self.codes)) if rows is None else np.flatnonzero(rows)
        part = to_predictions(stated.rows(used))
        folds = make_folds(part, _FOLDS, weights=part.tensors().weights)
        confidence = stated.confidence.copy()
        for fold in range(folds.count):
            train = np.zeros(len(self.codes), dtype=bool)
            train[used[folds.train(fold).numpy()]] = True
            left_out = np.zeros_like(train)
            left_out[used[folds.test(fold).numpy()]] = True
            others, is_stated = self.restate(val, self.learn(val, train))
            mask = left_out & is_stated
            confidence[mask] = others.confidence[mask]
        return replace(stated, confidence=confidence)

    def note(self, shares: Mapping[str, float]) -> str:
        """Return a note on the share of correct answers that was learned for each phrase."""
        counts = np.bincount(self.codes[self.codes >= 0], minlength=len(self.names))
        order = sorted(self.names, key=lambda name: -shares[name])
        rows = dict(zip(self.names, counts.tolist(), strict=True))
        words = [f"{name} {100 * shares[name]:.3g} % ({rows[name]:,})" for name in order]
        return (
            f"Words were learned, as shares of correct answers drawn toward their mean (of how many answers): "
            f"{truncated_list(words, _SHOWN)}."
        )


def learn_phrases(
    val: AnyPredictions, values: Mapping[str, Any], has_weight: NDArray[np.bool_] | None
) -> tuple[AnyPredictions, PhraseRows | None, dict[str, float]]:
    """Return the rows of a fit with learned confidences, their phrases (None without any), and what was learned.

    The confidences are those of other folds, :meth:`PhraseRows.restate_out_of_fold`; what was learned is of all rows.
    """
    if "phrases" not in values or not isinstance(val, TopLabel):
        return val, None, {}
    phrases = PhraseRows.from_values(values["phrases"], has_weight)
    if phrases is None:
        return val, None, {}
    words = dict(zip(phrases.names, phrases.learn(val).tolist(), strict=True))
    return phrases.restate_out_of_fold(val), phrases, words
