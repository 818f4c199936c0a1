"""Multi-layer perceptron and linear model, for rows of features and the smallest images."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from fedlas._core.check import InputError, check_count, describe
from fedlas.lab.models.base import MODELS, check_dropout


class MLP(nn.Module):
    """Multi-layer perceptron: flatten, hidden layers with ReLU, then the classifier ``fc``.

    Args:
        num_inputs: Numbers in one input.
        num_classes: ``C``.
        hidden: Size of each hidden layer; empty for a linear model.
        dropout: Rate of dropout after each hidden layer.
    """

    def __init__(
        self, num_inputs: int, num_classes: int, hidden: Sequence[int], dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.num_inputs = num_inputs
        layers: list[nn.Module] = [nn.Flatten()]
        for size in hidden:
            layers += [
                nn.Linear(num_inputs, size),
                nn.ReLU(),
                *([nn.Dropout(dropout)] if dropout else []),
            ]
            num_inputs = size
        self.body = nn.Sequential(*layers)
        self.fc = nn.Linear(num_inputs, num_classes)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return logits ``(N, C)`` of ``inputs (N, D)`` or images ``(N, channels, H, W)``.

        Raises:
            InputError: If an input has another size than the model was built for.
        """
        if inputs.shape[1:].numel() != self.num_inputs:
            raise InputError(
                f"each input must have {self.num_inputs} numbers, as the model was built for",
                describe(inputs),
                "Build the model with the image_size and in_channels of the data.",
            )
        logits: Tensor = self.fc(self.body(inputs))
        return logits


@MODELS.register("linear", rows=True)
def build_linear(num_classes: int, in_channels: int, *, image_size: int = 32) -> nn.Module:
    """Multinomial logistic regression on a row of features, or on the flattened image.

    Args:
        num_classes: ``C``.
        in_channels: Features of a row, or channels of an image.
        image_size: Height and width of an image; 1 for rows.
    """
    return MLP(in_channels * image_size**2, num_classes, ())


@MODELS.register("mlp", rows=True)
def build_mlp(
    num_classes: int,
    in_channels: int,
    *,
    image_size: int = 32,
    hidden: Sequence[int] = (256, 256),
    dropout: float = 0.0,
) -> nn.Module:
    """Multi-layer perceptron on a row of features, or on the flattened image.

    Args:
        num_classes: ``C``.
        in_channels: Features of a row, or channels of an image.
        image_size: Height and width of an image, fixed when the model is built; 1 for rows.
        hidden: Size of each hidden layer; empty for multinomial logistic regression.
        dropout: Rate of dropout after each hidden layer, in [0, 1).

    Raises:
        InputError: If ``hidden`` is not a sequence of whole numbers >= 1, or ``dropout`` is not in [0, 1) or is above 0
            without a hidden layer.
    """
    if not isinstance(hidden, list | tuple):
        raise InputError(
            "hidden must be a sequence of layer sizes", describe(hidden), "Pass e.g. [256, 256]."
        )
    sizes = [check_count("each size in hidden", size) for size in hidden]
    rate = check_dropout(dropout)
    if rate and not sizes:
        raise InputError(
            "dropout requires at least one hidden layer",
            f"dropout {rate} and hidden []",
            "Leave it out.",
        )
    return MLP(in_channels * image_size**2, num_classes, sizes, rate)
