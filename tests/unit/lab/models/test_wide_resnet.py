import pytest
import torch
from torch import nn

from fedlas.errors import InputError
from fedlas.lab.models import build_model


def built(**options):
    return build_model("wide-resnet", num_classes=10, in_channels=3, **options)


@pytest.mark.parametrize(
    ("depth", "width", "millions"),
    [(28, 10, 36.5), (40, 2, 2.2), (16, 8, 11.0)],  # the paper's table 4
)
def test_published_numbers_of_parameters(depth, width, millions):
    with torch.device("meta"):
        model = built(depth=depth, width=width)
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(millions, abs=0.06)


@pytest.mark.parametrize("depth", [10, 16, 28])
def test_depth_is_counted_in_layers(depth):
    with torch.device("meta"):
        model = built(depth=depth, width=1)
    convolutions = [
        m for m in model.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)
    ]
    # the paper counts the shortcuts of the three stages among the 6 n + 4, the 3 x 3 ones being 6 n + 1
    assert len(convolutions) == depth - 3
    assert model.fc.in_features == 64


@pytest.mark.parametrize("depth", [4, 9, 11, 0, -2, 10.5])
def test_other_depths_are_refused(depth):
    with pytest.raises(InputError, match="depth must be"):
        built(depth=depth)


def test_the_nearest_depths_are_named():
    with pytest.raises(InputError, match=r"depth .*6 n \+ 4 for a whole number n; got 30"):
        built(depth=30)


def test_dropout_inside_the_blocks():
    model = built(depth=10, width=1, block_dropout=0.3)
    assert [m.p for m in model.modules() if isinstance(m, nn.Dropout)] == [0.3] * 3
    with pytest.raises(InputError, match=r"block_dropout .*\[0, 1\)"):
        built(block_dropout=1)


def test_block_with_zero_branch_is_identity():
    _, block, wider, *_ = built(depth=10, width=1).eval().features
    nn.init.zeros_(block.conv2.weight)
    x = torch.randn(2, 16, 5, 5)
    assert torch.equal(block(x), x)
    assert block.shortcut is None
    assert wider(x).shape == (2, 32, 3, 3)
