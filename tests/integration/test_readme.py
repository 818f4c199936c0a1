"""The README's code runs, and its commands exist."""

import re
from pathlib import Path

import pytest
import torch
from torch import nn

from fedlas.cli import main
from fedlas.lab.bench.suite import load_group

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def test_python_block_runs(tmp_path, monkeypatch, capsys):
    (block,) = re.findall(r"```python\n(.*?)```", README, flags=re.S)
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 16), nn.ReLU())
    model.add_module("fc", nn.Linear(16, 100))
    loader = [(torch.randn(8, 3, 2, 2), torch.arange(8)) for _ in range(2)]
    exec(block, {"torch": torch, "model": model, "train_loader": loader, "test_loader": loader})
    assert "'ece':" in capsys.readouterr().out
    saved = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert {"model.fc.weight", "criterion.gate.hidden.weight", "criterion.nci.mean"} <= set(saved)


def test_commands_name_recipes_that_exist():
    used = re.findall(r"fedlas (?:bench|train) ([a-z0-9/-]+)", README)
    assert used
    assert all(load_group(name).recipes for name in set(used))  # one recipe is a group of its own


@pytest.mark.parametrize("target", ["demo", "test"])
def test_its_two_commands_are_make_targets(target):
    assert f"make {target}" in README
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), flags=re.M)


def test_its_list_command_works(capsys):
    assert main(["list", "losses"]) == 0
    assert "fedlas+" in capsys.readouterr().out


@pytest.mark.parametrize(
    "page", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/architecture.md", "results/README.md"]
)
def test_local_links_lead_somewhere(page):
    path = ROOT / page
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", path.read_text()):
        assert (path.parent / target).exists(), f"{page} links to {target}"
