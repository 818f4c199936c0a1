"""``fedlas`` with the model ``last-stage``: ``python bench.py bench within.yaml --data PROBLEM.npz --out FOLDER``.

The last stage of a small residual network, its pool and its head, for the maps of ``problems.py``.
"""

import sys

from torch import Tensor, nn

from fedlas.cli.main import main
from fedlas.lab.models.base import MODELS, GlobalMean
from fedlas.lab.models.residual import SmallResNet


class LastStage(nn.Module):
    """Three blocks, global mean and classifier, under the names that they have in the whole network."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        whole = SmallResNet(num_classes, 3, blocks=3)
        self.stages = nn.ModuleDict({"2": whole.stages[2]})
        self.pool = GlobalMean()
        self.fc = whole.fc

    def forward(self, maps: Tensor) -> Tensor:
        """Return logits ``(N, C)`` of maps ``(N, 32, 16, 16)``."""
        logits: Tensor = self.fc(self.pool(self.stages["2"](maps)))
        return logits


@MODELS.register("last-stage", paper="He et al. 2015", url="https://arxiv.org/abs/1512.03385")
def build(num_classes: int) -> nn.Module:
    """Return the last stage of ResNet-20, for maps of 32 channels."""
    return LastStage(num_classes)


if __name__ == "__main__":
    sys.exit(main())
