"""Rules of a random forest as an OOD score and a shift test: how often samples hit each rule."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedlas._core.check import InputError, check_choice, check_count
from fedlas._core.extras import require
from fedlas._core.types import FloatArray, IntArray
from fedlas.predictions import Predictions
from fedlas.zoo.ood.base import OOD_SCORES
from fedlas.zoo.ood.feature_norm import check_features
from fedlas.zoo.ood.fitted_scores import check_train_features

__all__ = ["RuleShift", "Rules", "rule_shift", "rules_score"]

Statistic = Literal["distance", "information"]

_MAX_TREE_SAMPLES = 10_000
"""Maximum number of training samples per tree, drawn with replacement; more samples only take time."""

_BINS = 10
"""Number of equal-mass bins for the values of a histogram over rules."""


@OOD_SCORES.register(
    "rules",
    title="Rules",
    paper="Rule-based Out-of-Distribution Detection",
    year=2023,
    url="https://arxiv.org/abs/2303.01860",
    packages=("sklearn",),
)
def rules_score(features: Tensor, *, train: Predictions, trees: int = 100, leaf: int = 5) -> Tensor:
    """Mean rarity of the rules that a sample hits: 1 minus the share of training samples in its leaf.

    The mean is over trees. It equals the distance of :func:`rule_shift` for a set of this one sample.

    Args:
        features: ``(N, D)``.
        train: Predictions on training samples, with features ``(N', D)``; the trees predict their targets.
        trees: Trees of the random forest; each sample hits one rule of each.
        leaf: Samples that a rule must cover, at least, of those that its tree is grown from. Rules end there or where
            they lead to one class.

    Returns:
        ``(N,)`` in ``[0, 1]``, higher = more OOD.

    Raises:
        InputError: If ``train`` has no features, another number of them, or none by which trees can separate classes.
        MissingExtraError: Without scikit-learn.

    Note:
        The paper detects sets only. Its histogram of a single sample gives this score, which is ours.

    Example:
        >>> x = torch.linspace(-1, 1, 200)[:, None]
        >>> known = Predictions(torch.cat([x, -x], 1), (x[:, 0] < 0).long(), features=x)
        >>> bool((rules_score(torch.tensor([[-0.5], [0.5]]), train=known, trees=5) < 1).all())
        True

    Source:
        De Bernardi, Narteni, Cambiaso and Mongelli 2023; see :func:`rule_shift`.
    """
    bank = check_train_features(features, train)
    rules = Rules(bank, train.tensors().target, trees=trees, leaf=leaf)
    share = rules.counts(rules.hits(bank)) / len(bank)
    return torch.from_numpy(1 - share[rules.hits(features)].mean(axis=1))


@dataclass(frozen=True)
class RuleShift:
    """Result of a permutation test for a shift in rule hits.

    Attributes:
        statistic: The distance, in ``[0, 1]``, or the information, in nats.
        p_value: Share of random divisions of all samples that differ at least as much, in ``(0, 1]``.
    """

    statistic: float
    p_value: float


def rule_shift(
    train: Predictions,
    batch: Tensor,
    *,
    held_out: Tensor | None = None,
    statistic: Statistic = "distance",
    trees: int = 100,
    leaf: int = 5,
    permutations: int = 999,
    seed: int = 0,
) -> RuleShift:
    """Test whether a set of samples hits the rules of the training data as in-distribution samples do.

    A rule is the path to a leaf of a random forest: conditions on features that lead to a class. The histogram of a set
    is the share of its samples that hit each rule.

    Args:
        train: Predictions with features ``(N', D)`` on the samples that rules are made from. If a model has none, pass
            its flattened inputs as features.
        batch: Features ``(M, D)`` of the set in question.
        held_out: Features ``(K, D)`` of known samples that the histogram is compared with; None keeps a random half of
            ``train`` for it, which makes no rules. Where the model was trained on ``train``, pass samples that it was
            not trained on: a model treats its training samples differently from all others.
        statistic: ``"distance"``, the total variation between both histograms, mean over trees (half the L1 norm of
            the difference); or ``"information"``, the mutual information of both histograms over rules, which a shift
            lowers.
        trees: As in :func:`rules_score`.
        leaf: As in :func:`rules_score`.
        permutations: Random divisions of batch and held-out samples, at least 19; p is at least ``1 / (1 + number)``.
        seed: For the division of ``train`` and the permutations.

    Raises:
        InputError: As :func:`rules_score`, or if an option is out of range.
        MissingExtraError: Without scikit-learn.

    Note:
        Written from the abstract of the paper and from the quantities that its authors' scripts compute; we had no full
        text. The authors take rules of a Logic Learning Machine; here they are those of a random forest, so a sample
        hits as many rules as there are trees. The bins of mutual information are ours: ten of equal mass over the
        rules.

        The authors call a set OOD if the number lies outside the range of pairs of training sets of equal size. The
        permutation test has the same null hypothesis, serves sets of any size, and its p-value is exact. Two of their
        statistics, weighted mutual information and rule-based information, are not here.

        Mutual information asks whether one histogram determines the other, so it misses shares that change places.

    Example:
        >>> x = torch.linspace(-1, 1, 200)[:, None]
        >>> known = Predictions(torch.cat([x, -x], 1), (x[:, 0] < 0).long(), features=x)
        >>> rule_shift(known, x[150:], trees=5, permutations=99).p_value
        0.01

    Source:
        De Bernardi, Narteni, Cambiaso and Mongelli 2023: rule hits of sets, their mutual information and L1 norm.
    """
    check_count("seed", seed, low=0)
    tree_features = check_train_features(batch, train)
    target = train.tensors().target
    if held_out is None:
        if len(tree_features) < 4:
            fix = "Pass more samples."
            raise InputError(
                "train must have at least 4 samples if held_out is None", len(tree_features), fix
            )
        order = torch.from_numpy(np.random.default_rng([seed, 1]).permutation(len(tree_features)))
        rows, held_out_rows = order.to(tree_features.device).chunk(2)
        held_out = tree_features[held_out_rows]
        target = target[rows]
        tree_features = tree_features[rows]
    rules = Rules(tree_features, target, trees=trees, leaf=leaf)
    return rules.shift(held_out, batch, statistic=statistic, permutations=permutations, seed=seed)


class Rules:
    """Rules of a random forest that predicts classes from features, for use on several sets.

    Args:
        features: ``(N, D)``.
        target: Class of each sample ``(N,)``.
        trees: Trees of the forest.
        leaf: Samples that a rule must cover, at least, of those that its tree is grown from.

    Raises:
        InputError: If an option is out of range, or no tree separates classes.
        MissingExtraError: Without scikit-learn.
    """

    def __init__(
        self, features: Tensor, target: Tensor, *, trees: int = 100, leaf: int = 5
    ) -> None:
        check_count("trees", trees)
        check_count("leaf", leaf)
        ensemble = require("sklearn.ensemble", extra="ood")
        most = _MAX_TREE_SAMPLES if len(features) > _MAX_TREE_SAMPLES else None
        forest = ensemble.RandomForestClassifier(
            trees, min_samples_leaf=leaf, max_samples=most, random_state=0
        )
        self._forest: Any = forest.fit(_to_float32_array(features), target.cpu().numpy())
        # Rules are numbered through all trees. A number is that of a node; those of inner nodes are never hit.
        nodes = [tree.tree_.node_count for tree in forest.estimators_]
        self._first = np.cumsum([0, *nodes[:-1]])
        self._width = features.shape[1]
        self._trees = trees
        self._nodes = sum(nodes)
        if self._nodes == trees:
            raise InputError(
                "training features must separate classes, so that trees have rules",
                "no tree with a split",
                "Pass samples of at least two classes whose features vary.",
            )

    def hits(self, features: Tensor) -> IntArray:
        """Return the index of the rule that each sample hits in each tree, ``(N, trees)``."""
        checked = check_features(features, width=self._width)
        nodes: IntArray = (
            self._forest.apply(_to_float32_array(checked)).astype(np.int64) + self._first
        )
        return nodes

    def counts(self, hits: IntArray) -> FloatArray:
        """Return the number of samples that hit each rule."""
        return np.bincount(hits.ravel(), minlength=self._nodes).astype(np.float64)

    def shift(
        self,
        reference: Tensor,
        batch: Tensor,
        *,
        statistic: Statistic = "distance",
        permutations: int = 999,
        seed: int = 0,
    ) -> RuleShift:
        """Test ``batch (M, D)`` for a shift from ``reference (K, D)``; see :func:`rule_shift` for the options."""
        check_choice("statistic", statistic, get_args(Statistic))
        check_count("permutations", permutations, low=19)
        # Both statistics are symmetric, so it is the smaller set that is counted.
        smaller, larger = sorted((self.hits(batch), self.hits(reference)), key=len)
        hits = np.concatenate([smaller, larger])
        size = len(smaller)
        total = self.counts(hits)
        used = total > 0
        # Bin edges are those of all samples together, which no permutation changes.
        edges = np.quantile(total[used], np.arange(1, _BINS) / _BINS) / len(hits)

        def compute_statistic(rows: IntArray) -> float:
            count = self.counts(rows)
            shares = count[used] / size, (total - count)[used] / (len(hits) - size)
            if statistic == "distance":
                return float(np.abs(shares[0] - shares[1]).sum()) / (2 * self._trees)
            return _mutual_information(
                *(np.searchsorted(edges, share, side="right") for share in shares)
            )

        value = compute_statistic(smaller)
        generator = np.random.default_rng(seed)
        random_values = np.array(
            [
                compute_statistic(hits[generator.permutation(len(hits))[:size]])
                for _ in range(permutations)
            ]
        )
        # Equal counts may differ in the last digit; taking them as equal errs toward no shift.
        extreme = (
            random_values >= value - 1e-12
            if statistic == "distance"
            else random_values <= value + 1e-12
        )
        return RuleShift(value, (1 + int(extreme.sum())) / (1 + permutations))


def _mutual_information(first: IntArray, second: IntArray) -> float:
    """Return the mutual information of two arrays of bin indices, in nats."""
    joint = np.bincount(first * _BINS + second, minlength=_BINS**2).reshape(_BINS, _BINS) / len(
        first
    )
    apart = joint.sum(axis=1, keepdims=True) * joint.sum(axis=0, keepdims=True)
    some = joint > 0
    return float((joint[some] * np.log(joint[some] / apart[some])).sum())


def _to_float32_array(features: Tensor) -> NDArray[np.float32]:
    """Return a float32 array, the precision in which scikit-learn's trees compare."""
    array: NDArray[np.float32] = features.detach().float().cpu().numpy()
    return array
