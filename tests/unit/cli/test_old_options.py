"""Options with new names: the old name gives the same and a warning, for one release."""

import pytest
import torch

import fedlas
from fedlas.cli import main


def drawn(seed):
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(200, 3, generator=generator)
    return fedlas.Predictions(
        logits, torch.multinomial((logits / 2).softmax(1), 1, generator=generator)[:, 0]
    )


@pytest.mark.parametrize(
    "words",
    [
        ["evaluate", "FILE", "--on", "VAL", "--replicates", "0"],
        ["card", "VAL", "FILE", "--replicates", "0", "--out", "OUT"],
    ],
    ids=["evaluate", "card"],
)
def test_old_option_works_with_warning(words, tmp_path, capsys):
    places = {name: str(tmp_path / f"{name}.npz") for name in ("VAL", "FILE")} | {
        "OUT": str(tmp_path / "card.json")
    }
    for seed, name in enumerate(("VAL", "FILE")):
        drawn(seed).save(places[name])
    words = [places.get(word, word) for word in words]
    assert main([*words, "--method", "temperature"]) == 0
    expected = capsys.readouterr()
    assert main([*words, "--calibrate", "temperature"]) == 0
    shown = capsys.readouterr()
    assert shown.out == expected.out
    assert "--calibrate is now --method" in shown.err
