"""What a use of the package loads: ``python tools/reach.py`` shows it. Bounds only fall."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[2] / "tools" / "reach.py"
NEEDS_TORCH = {
    "metrics.ece", "report", "compare", "estimates", "fedlas evaluate", "fedlas compare",
    "fedlas calibrate", "fedlas apply", "fedlas monitor", "fedlas card", "fedlas export --format sql",
}  # fmt: skip
"""Uses that do not work yet where torch is not installed. One that does leaves the list, and none joins it."""
MOST = {
    "Predictions": (20, 0),
    "metrics.ece": (31, 2),
    "report": (111, 3),
    "compare": (73, 3),
    "estimates": (59, 3),
    "fedlas evaluate": (120, 3),
    "fedlas compare": (107, 3),
    "fedlas calibrate": (200, 68),
    "fedlas apply": (94, 7),  # five modules are of votes and words, which a file may need
    "fedlas monitor": (129, 5),
    "fedlas card": (257, 70),
    "fedlas init": (67, 1),
    "fedlas export --format sql": (196, 68),
}
"""Modules of the package that a use loads (5 % are for a contribution), and how many of them import torch at top."""
NEVER = {"pandas", "scipy.stats"}
"""Packages that no use loads: one tenth of a second of a processor, and half a second."""


@pytest.fixture(scope="module")
def uses():
    if not hasattr(os, "fork"):
        pytest.skip("the tool forks a process for each use")
    done = subprocess.run(
        [sys.executable, TOOL, "--json"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_uses_work_without_torch_but_those_listed(uses):
    """The list is exact: a use that needs torch no more must leave it."""
    assert {name for name, each in uses.items() if not each["holds"]} == NEEDS_TORCH


def test_uses_load_no_more_modules_than_bound(uses):
    found = {name: (each["loaded"], each["with torch"]) for name, each in uses.items()}
    assert found.keys() == MOST.keys()
    over = {
        name: (loaded, with_torch)
        for name, (loaded, with_torch) in found.items()
        if loaded > 1.05 * MOST[name][0] or with_torch > MOST[name][1]
    }
    assert over == {}, (
        "import it at its first use, or under TYPE_CHECKING; split the file that holds two things"
    )


def test_uses_load_no_package_that_takes_long(uses):
    assert {name for name, each in uses.items() if NEVER & set(each["also"])} == set()


def test_evaluation_loads_no_calibrator(uses):
    """And ``monitor`` only the map that its card names, temperature scaling, which it applies."""
    for name in ("report", "compare", "fedlas evaluate", "fedlas compare"):
        assert [
            each for each in uses[name]["modules"] if each.startswith("fedlas.calibrators")
        ] == []
    others = ("auto", "fit_mixture", "mixture", "isotonic", "structured")
    loaded = set(uses["fedlas monitor"]["modules"])
    assert loaded & {f"fedlas.calibrators.{each}" for each in others} == set()


def test_applying_loads_maps_of_its_file_alone(uses):
    """The file holds a mixture of temperature and structured scaling, and neither fits nor other maps are loaded."""
    loaded = {each.removeprefix("fedlas.calibrators.") for each in uses["fedlas apply"]["modules"]}
    assert {"auto", "mixture", "structured", "temperature"} <= loaded
    assert (
        loaded & {"fit_mixture", "mixture_features", "isotonic", "spline", "affine", "confusion"}
        == set()
    )
