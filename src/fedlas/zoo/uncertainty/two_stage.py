"""Two-stage training: a new head (TST) or a variational head (V-TST) on a frozen trained body.

Source:
    Jordahn, Olmos: Decoupling Feature Extraction and Classification Layers for Calibrated Neural Networks, ICML 2024,
    section 4. https://arxiv.org/abs/2405.01196
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fedlas._core.check import InputError, check_count, check_number, describe
from fedlas._core.kinds import check_argument_types
from fedlas.features import find_head
from fedlas.zoo.uncertainty.ensemble import log_mean_softmax

__all__ = ["LatentKL", "MLPHead", "TwoStage", "VariationalHead"]


class MLPHead(nn.Module):
    """New head of TST: two hidden layers with ReLU on the features.

    Args:
        in_features: ``D``.
        hidden: Size of both hidden layers.
        num_classes: ``C``.

    Example:
        >>> MLPHead(in_features=8, hidden=16, num_classes=3)(torch.zeros(2, 8)).shape
        torch.Size([2, 3])
    """

    def __init__(self, in_features: int, hidden: int, num_classes: int) -> None:
        super().__init__()
        _check_sizes(in_features=in_features, hidden=hidden, num_classes=num_classes)
        self.body = nn.Sequential(
            nn.Linear(in_features, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU()
        )
        self.out = nn.Linear(hidden, num_classes)

    def forward(self, features: Tensor) -> Tensor:
        """Return the logits ``(N, C)`` for ``features (N, D)``."""
        logits: Tensor = self.out(self.body(features))
        return logits


def _check_sizes(**sizes: int) -> None:
    for name, size in sizes.items():
        check_count(name, size)


class VariationalHead(nn.Module):
    """New head of V-TST: the logits are a linear function of a Gaussian latent variable.

    ``z ~ q(z | x) = N(mu(h), diag sigma(h)^2)``, prior ``p(z) = N(0, I)``, ``p(y | z) = softmax(W z + b)``.

    Args:
        in_features: ``D``, size of the features ``h``.
        hidden: Size of the hidden layer and of ``z``.
        num_classes: ``C``.
        samples: Number of draws of ``z`` in ``eval()``.
        seed: Seed of the draws in ``eval()``.

    State:
        In ``train()`` there is one draw, from torch's global generator, and :meth:`pop_kl` gives the KL divergence of
        the last batch. In ``eval()`` all inputs meet the same standard normal draws, so that the prediction for
        one does not depend on its batch or on earlier calls.

    Example:
        >>> head = VariationalHead(in_features=8, hidden=16, num_classes=3, samples=20).eval()
        >>> head(torch.zeros(2, 8)).exp().sum(dim=1).round(decimals=4)
        tensor([1., 1.], grad_fn=<RoundBackward1>)
    """

    def __init__(
        self, in_features: int, hidden: int, num_classes: int, *, samples: int = 100, seed: int = 0
    ) -> None:
        super().__init__()
        _check_sizes(in_features=in_features, hidden=hidden, num_classes=num_classes)
        self.samples = check_count("samples", samples)
        self.seed = check_count("seed", seed, low=0)
        self.body = nn.Sequential(nn.Linear(in_features, hidden), nn.ReLU())
        self.mean = nn.Linear(hidden, hidden)
        self.log_var = nn.Linear(hidden, hidden)
        self.out = nn.Linear(hidden, num_classes)
        self._kl: Tensor | None = None

    def forward(self, features: Tensor) -> Tensor:
        """Return the logits ``(N, C)`` for one draw in ``train()``, or the log of the mean over draws in ``eval()``."""
        h = self.body(features)
        mean = self.mean(h)
        log_var = self.log_var(h)
        if self.training:
            # In float16, exp of a log-variance above 11 overflows, and a sum over many dimensions loses digits.
            self._kl = standard_normal_kl(mean.float(), log_var.float()).mean()
            # Noise that is drawn apart from mean and variance lets gradients reach both.
            logits: Tensor = self.out(mean + (0.5 * log_var).exp() * torch.randn_like(mean))
            return logits
        # The same draws for every input, from a generator of their own.
        generator = torch.Generator().manual_seed(self.seed)
        noise = torch.randn(self.samples, 1, mean.shape[1], generator=generator).to(mean)
        return log_mean_softmax(self.out(mean + (0.5 * log_var).exp() * noise))

    def pop_kl(self) -> Tensor:
        """Return the mean of ``KL(q(z | x) || p(z))`` over the last training batch, and clear it.

        Raises:
            InputError: If there was no training batch since the last call.
        """
        kl = self._kl
        self._kl = None
        if kl is None:
            raise InputError(
                "the head must have run in training mode",
                "no training batch since the last call",
                "Call the model first.",
            )
        return kl


class LatentKL(nn.Module):
    """KL penalty that turns the loss of a :class:`TwoStage` with a :class:`VariationalHead` into the negative ELBO.

    ``weight * mean_i KL(q(z | x_i) || N(0, I))``, over the last batch of the model.

    Args:
        weight: 1 for the evidence lower bound.

    Example:
        >>> model = VariationalHead(in_features=8, hidden=16, num_classes=3)  # in train()
        >>> _ = model(torch.randn(4, 8))
        >>> bool(LatentKL()(model) >= 0)
        True
    """

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__()
        self.weight = check_number("weight", weight, low=0)

    def forward(self, model: nn.Module) -> Tensor:
        """Return the penalty for ``model``, a scalar."""
        heads = [module for module in model.modules() if isinstance(module, VariationalHead)]
        if len(heads) != 1:
            raise InputError(
                "the model must have exactly one VariationalHead",
                len(heads),
                "Build the model with a VariationalHead as its head.",
            )
        return heads[0].pop_kl() * self.weight


class TwoStage(nn.Module):
    """Trained model with a new head; only the head is trained.

    Args:
        model: Trained classifier; changed in place: its head is replaced, the rest is frozen.
        head: The new head, from features ``(N, D)`` to logits ``(N, C)``.
        old_head: The head to replace: its name, the module, or None to find it.

    Raises:
        InputError: If the head cannot be found or is the model itself.

    State:
        ``train()`` puts only the head into training mode: batch norms of the body use the statistics of stage one, and
        its dropout is off. The body's weights and buffers never change.

    Example:
        >>> trained = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
        >>> model = TwoStage(trained, MLPHead(8, 16, 3))
        >>> [name for name, parameter in model.named_parameters() if parameter.requires_grad][0]
        'model.2.body.0.weight'
    """

    @check_argument_types
    def __init__(
        self, model: nn.Module, head: nn.Module, old_head: str | nn.Module | None = None
    ) -> None:
        super().__init__()
        replaced = find_head(model, old_head)
        name = next(name for name, module in model.named_modules() if module is replaced)
        if not name:
            raise InputError(
                "the model must have layers before its head", describe(model), "Use a deeper model."
            )
        model.requires_grad_(False)
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, head)
        self.model = model
        self._head = [head]  # in a list, so that it is not registered a second time
        self.train(self.training)

    @property
    def head(self) -> nn.Module:
        """The new head."""
        return self._head[0]

    def get_classifier(self) -> nn.Module:
        """Return the new head; the method has the name that other libraries use."""
        return self.head

    def train(self, mode: bool = True) -> TwoStage:
        """Put the head into training mode, and keep the body in ``eval()``."""
        super().train(False)
        self.training = mode
        self.head.train(mode)
        return self

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits ``(N, C)`` for ``images``."""
        logits: Tensor = self.model(images)
        return logits


def standard_normal_kl(mean: Tensor, log_var: Tensor) -> Tensor:
    """Return ``KL(N(mean, diag exp(log_var)) || N(0, I))`` for each row, in nats.

    ``1/2 sum_d (exp(log_var_d) + mean_d^2 - 1 - log_var_d)``.

    Args:
        mean: ``(N, Z)``.
        log_var: ``(N, Z)``.

    Returns:
        ``(N,)``.

    Example:
        >>> standard_normal_kl(torch.tensor([[2.0, 1.0]]), torch.zeros(1, 2)).tolist()
        [2.5]
    """
    return 0.5 * (log_var.exp() + mean.square() - 1 - log_var).sum(dim=1)
