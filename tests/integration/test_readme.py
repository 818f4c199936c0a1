"""The README's code runs, and its commands exist."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import fedlas
from fedlas.lab.benches import load_recipe_group
from fedlas.losses import LOSSES

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


PARTS = {"val": slice(5000), "test": slice(5000, None)}
PYTHON = re.findall(r"```python\n(.*?)```", README, flags=re.S)


def test_the_three_lines_print_what_they_say(capsys, tmp_path, monkeypatch):
    """The head stands in for the network: its stored inputs have half precision, so numbers are near those printed."""
    shared = ROOT.parent / "shared" / "real"
    if not shared.exists():
        pytest.skip("needs the predictions of published networks")
    stored = np.load(shared / "resnet20-cifar10-test.npz")
    weights = load_file(shared / "resnet20-cifar10.safetensors")
    head = nn.Linear(64, 10)
    head.load_state_dict({name: weights[f"linear.{name}"] for name in ("weight", "bias")})
    features = torch.from_numpy(stored["features"]).float()
    target = torch.from_numpy(stored["target"]).long()
    loaders = {f"{part}_loader": [(features[rows], target[rows])] for part, rows in PARTS.items()}
    monkeypatch.chdir(tmp_path)
    exec(PYTHON[0], {"model": nn.Sequential(nn.Identity(), head), **loaders})
    (printed,) = re.findall(r"```text\n(.*?)```", README, flags=re.S)
    for line, expected in zip(
        capsys.readouterr().out.splitlines(), printed.splitlines(), strict=True
    ):
        assert re.sub(r"\d", "0", line) == re.sub(r"\d", "0", expected)
        values, near = (
            [float(value) for value in re.findall(r"\d+\.\d+", each)] for each in (line, expected)
        )
        assert values == pytest.approx(near, abs=0.3 if "%" in line else 1e-3)
    page = (ROOT / "docs" / "any-model.md").read_text()  # shows the same
    assert printed in page
    assert PYTHON[0].split("#")[0] in page


def test_a_report_says_what_its_comment_says(capsys):
    exec(PYTHON[1], {"fedlas": fedlas})
    (comment,) = re.findall(r"# (Over-confident: .*)", PYTHON[1])
    assert comment in " ".join(capsys.readouterr().out.split())


def test_the_training_loop_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 16), nn.ReLU())
    model.add_module("fc", nn.Linear(16, 100))
    loader = [(torch.randn(8, 3, 2, 2), torch.arange(8)) for _ in range(2)]
    exec(PYTHON[2], {"torch": torch, "fedlas": fedlas, "model": model, "train_loader": loader})
    saved = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert {"model.fc.weight", "criterion.gate.hidden.weight", "criterion.nci.mean"} <= set(saved)


def test_it_counts_what_there_is():
    assert f"FedLAS and {len(list(LOSSES)) - 1} other losses" in README


def test_commands_name_recipes_that_exist():
    used = re.findall(r"fedlas (?:bench|train) ([a-z0-9/-]+)", README)
    assert used
    assert all(
        load_recipe_group(name).recipes for name in set(used)
    )  # one recipe is a group of its own


@pytest.mark.parametrize("target", ["demo", "test"])
def test_its_two_commands_are_make_targets(target):
    assert f"make {target}" in README
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), flags=re.M)


@pytest.mark.parametrize(
    "page",
    ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/architecture.md", "results/README.md"],
)
def test_local_links_lead_somewhere(page):
    path = ROOT / page
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", path.read_text()):
        assert (path.parent / target).exists(), f"{page} links to {target}"
