import numpy as np
import pytest
import torch

from fedlas.errors import InputError
from fedlas.metrics import evaluate
from fedlas.predictions import Predictions
from fedlas.zoo.ood import Outputs, adapt_images, count_duplicates


def test_round_trip(tmp_path):
    outputs = Outputs(torch.randn(4, 3), torch.randn(4, 2), {"odin": torch.arange(4.0)})
    again, about = Outputs.load(outputs.save(tmp_path / "a.npz", about={"images": "x", "n": [1]}))
    assert about == {"images": "x", "n": [1]}
    assert torch.equal(again.logits, outputs.logits)
    assert torch.equal(again.features, outputs.features)
    assert torch.equal(again.scores["odin"], outputs.scores["odin"])
    assert (
        Outputs.load(Outputs(torch.zeros(1, 2)).save(tmp_path / "b.npz", about={}))[0].features
        is None
    )


def test_they_are_no_predictions_to_evaluate(tmp_path):
    path = Outputs(torch.zeros(2, 3)).save(tmp_path / "a.npz", about={})
    with pytest.raises(InputError, match="must have labels"):
        evaluate(Predictions.load(path))


@pytest.mark.parametrize("content", [b"", b"nonsense", "half"])
def test_damaged_files(tmp_path, content):
    path = tmp_path / "a.npz"
    if content == "half":
        Outputs(torch.zeros(50, 3)).save(path, about={})
        content = path.read_bytes()[:-200]
    path.write_bytes(content)
    with pytest.raises(InputError, match="Remove the file"):
        Outputs.load(path)
    np.savez(path, logits=np.zeros((2, 2)))
    with pytest.raises(InputError, match=r"written by Outputs\.save"):
        Outputs.load(path)


def test_refuses():
    for bad in (torch.zeros(0, 2), torch.zeros(3), torch.full((2, 2), torch.nan), None):
        with pytest.raises(InputError):
            Outputs(bad)
    with pytest.raises(InputError, match="features"):
        Outputs(torch.zeros(2, 2), torch.zeros(3, 1))
    with pytest.raises(InputError, match="score odin"):
        Outputs(torch.zeros(2, 2), scores={"odin": torch.zeros(3)})
    with pytest.raises(InputError, match="score odin must be finite"):
        Outputs(
            torch.zeros(2, 2), scores={"odin": torch.full((2,), torch.nan).to(torch.float8_e5m2)}
        )


def test_gray_and_color():
    gray = torch.randint(0, 256, (5, 1, 8, 8), dtype=torch.uint8)
    color, notes = adapt_images(gray, channels=3, size=8)
    assert all(torch.equal(color[:, c : c + 1], gray) for c in range(3))
    assert notes == ["gray repeated to 3 channels"]
    back, notes = adapt_images(color, channels=1, size=8)
    assert torch.equal(back, gray)
    assert notes == ["color converted to gray"]
    same, notes = adapt_images(gray, channels=1, size=8)
    assert same is gray
    assert notes == []
    red = torch.zeros(1, 3, 2, 2, dtype=torch.uint8)
    red[:, 0] = 255
    assert adapt_images(red, channels=1, size=2)[0].unique().tolist() == [76]  # 0.299 * 255


def test_sizes():
    flat = torch.full((3, 3, 10, 20), 77, dtype=torch.uint8)
    scaled, notes = adapt_images(flat, channels=3, size=32)
    assert scaled.shape == (3, 3, 32, 32)
    assert scaled.unique().tolist() == [77]
    assert notes == ["scaled from 10 x 20 to 32 x 32 pixels"]
    small = torch.zeros(1, 1, 4, 4, dtype=torch.uint8)
    small[..., ::2] = 254
    assert adapt_images(small, channels=1, size=2)[0].float().mean() == pytest.approx(
        127, abs=2
    )  # smoothed, not picked


@pytest.mark.parametrize(
    "bad",
    [
        torch.zeros(2, 1, 4, 4),
        torch.zeros(2, 2, 4, 4, dtype=torch.uint8),
        torch.zeros(4, 4, dtype=torch.uint8),
    ],
)
def test_adapt_refuses(bad):
    with pytest.raises(InputError, match="adapt_images"):
        adapt_images(bad, channels=3, size=4)


def test_duplicates():
    random = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (6, 3, 4, 4), dtype=torch.uint8, generator=random)
    others = torch.cat(
        [
            images[[1, 4, 4]],
            torch.randint(0, 256, (5, 3, 4, 4), dtype=torch.uint8, generator=random),
        ]
    )
    assert count_duplicates(images, others) == 2
    changed = others.clone()
    changed[:, 0, 0, 0] += 1
    assert count_duplicates(images, changed) == 0
    assert count_duplicates(images, others[:, :1]) == 0
    with pytest.raises(InputError, match="others"):
        count_duplicates(images, others.float())
