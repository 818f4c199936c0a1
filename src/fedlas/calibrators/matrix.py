"""Matrix scaling: any affine map of the logits."""

from __future__ import annotations

from torch import Tensor

from fedlas.calibrators._odir import RegularizedMatrix
from fedlas.calibrators.base import CALIBRATORS

__all__ = ["MatrixScaling"]


@CALIBRATORS.register(
    "matrix",
    title="Matrix",
    paper="Beyond Temperature Scaling: Obtaining Well-Calibrated Multiclass Probabilities with Dirichlet Calibration",
    year=2019,
    url="https://arxiv.org/abs/1910.12656",
)
class MatrixScaling(RegularizedMatrix):
    """Any affine map of the logits, ``W z + b``, with off-diagonal and intercept regularization (ODIR).

    ``W (C, C)`` and ``b (C,)`` minimize on validation predictions ``NLL + off_diagonal / (C (C - 1)) sum_{i != j}
    W_ij^2 + intercept / C sum_j b_j^2``, a convex problem, by Newton's method in float64.

    Args:
        off_diagonal: Penalty of the weights off the diagonal (the paper's lambda), at least 0. None: chosen.
        intercept: Penalty of the intercepts (the paper's mu), at least 0. None: chosen.
        num_folds: Folds of the cross-validation that chooses, at least 2.

    Raises:
        InputError: For a negative penalty or a ``num_folds`` below 2.

    Note:
        Penalties that are not given are chosen from a small grid by the negative log-likelihood of held-out folds:
        first how far the diagonal may differ from temperature scaling (as in :class:`VectorScaling`), then
        ``off_diagonal``, then ``intercept``, each from strong to weak until the gain falls below 1e-5 nats a sample.
        The paper searches two penalties at once, and leaves the diagonal free. If the gain over temperature scaling is
        not above its standard error on held-out samples, this is temperature scaling. The folds depend on the samples
        themselves, so neither their order nor a seed matters, and samples with equal logits are in one fold.

        Test NLL above that of temperature scaling, mean (worst) of 10 draws (``benchmarks/calibrators.py``), where
        temperature scaling is all that is needed (a negative number would be a gain). Without the prior and the
        comparison, Dirichlet calibration of 97 and 3 samples was worse by 0.122 (0.685):

        ======================  ==============  ==============  ==============
        samples of the classes  vector          matrix          Dirichlet
        ======================  ==============  ==============  ==============
        49, 1                   0.000 (0.000)   0.000 (0.000)   0.000 (0.000)
        97, 3                   0.001 (0.008)   0.002 (0.015)   0.002 (0.015)
        190, 10                 0.000 (0.000)   0.000 (0.000)   0.000 (0.000)
        40, 20, 13, ... 2, 1    0.000 (0.000)   0.000 (0.000)   0.001 (0.010)
        ten times 10            0.000 (0.000)   0.001 (0.008)   0.008 (0.070)
        ======================  ==============  ==============  ==============

        With ``off_diagonal=0, intercept=0`` it is the matrix scaling of Guo et al. 2017, which over-fits. Even then a
        prior with the weight of one observation keeps the parameters finite.

        Not invariant to adding one number to all logits of a row; :class:`DirichletCalibration` is. The predicted class
        can change. A pass over the data takes ``N C^2`` operations, and a fit with its search hundreds of passes: with
        5,000 samples seconds for 10 classes and half a minute for 100. Give both penalties where there are many more.

        Warns (:class:`CalibrationWarning`) when this is temperature scaling, when cross-validation chose the weakest
        penalty of its grid, when a diagonal is negative or over ten times that of temperature scaling, when only the
        prior keeps the parameters finite, when a class has no sample, when the fit changes nothing or did not converge.

    Example:
        >>> import torch
        >>> from fedlas import Predictions
        >>> random = torch.Generator().manual_seed(0)
        >>> logits = torch.randn(5000, 3, generator=random, dtype=torch.float64) * 2
        >>> target = torch.multinomial(logits.softmax(1), 1, generator=random).squeeze(1)
        >>> mixed = logits.clone()
        >>> mixed[:, 0] += 0.5 * logits[:, 1]  # one class's logit leaks into another's
        >>> matrix = MatrixScaling(off_diagonal=0.1, intercept=0.1).fit(Predictions(mixed, target))
        >>> first_against_last = matrix.weight[0] - matrix.weight[2]
        >>> bool((first_against_last - torch.tensor([1.0, -0.5, -1.0])).abs().max() < 0.1)  # and is taken out again
        True

    Source:
        Kull et al. 2019 (ODIR, and matrix scaling with it); the map: Guo et al. 2017 (arXiv 1706.04599), section 4.2.
    """

    def _inputs(self, logits: Tensor) -> Tensor:
        return logits
