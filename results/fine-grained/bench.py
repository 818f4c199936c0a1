"""``fedlas`` with two models more: ``python bench.py bench within.yaml --data PROBLEM.npz --out FOLDER``.

``last-stage`` is the last stage of a small residual network, its pool and its head, for the maps of ``problems.py``;
``words`` the mean of embeddings and a head, for the rows of ``texts.py``.
"""

import sys

import torch
from torch import Tensor, nn

from fedlas.cli.main import main
from fedlas.lab.models.base import MODELS, GlobalMean
from fedlas.lab.models.residual import SmallResNet


class LastStage(nn.Module):
    """Blocks, global mean and classifier, under the names that they have in the whole network."""

    def __init__(self, num_classes: int, blocks: int) -> None:
        super().__init__()
        whole = SmallResNet(num_classes, 3, blocks=blocks)
        self.stages = nn.ModuleDict({"2": whole.stages[2]})
        self.pool = GlobalMean()
        self.fc = whole.fc

    def forward(self, maps: Tensor) -> Tensor:
        """Return logits ``(N, C)`` of maps ``(N, 32, 16, 16)``."""
        logits: Tensor = self.fc(self.pool(self.stages["2"](maps)))
        return logits


class Words(nn.Module):
    """Mean of the embeddings of a row's tokens (0: no token), in which both signs are features, and classifier."""

    def __init__(self, num_classes: int, tokens: int, width: int) -> None:
        super().__init__()
        self.words = nn.Embedding(tokens, width)
        self.fc = nn.Linear(2 * width, num_classes)

    def forward(self, rows: Tensor) -> Tensor:
        """Return logits ``(N, C)`` of ``rows (N, L)`` of whole numbers."""
        tokens = rows.long()
        there = (tokens > 0).unsqueeze(-1)
        mean = (self.words(tokens) * there).sum(1) / there.sum(1)
        logits: Tensor = self.fc(torch.cat([mean.relu(), (-mean).relu()], 1))
        return logits


@MODELS.register("last-stage", paper="He et al. 2015", url="https://arxiv.org/abs/1512.03385")
def build(num_classes: int, *, blocks: int = 3) -> nn.Module:
    """Return the last stage of ResNet-20 (or of ``6 * blocks + 2`` layers), for maps of 32 channels."""
    return LastStage(num_classes, blocks)


@MODELS.register("words", rows=True)
def build_words(num_classes: int, *, tokens: int, width: int = 128) -> nn.Module:
    """Return the mean of embeddings and a head."""
    return Words(num_classes, tokens, width)


if __name__ == "__main__":
    sys.exit(main())
