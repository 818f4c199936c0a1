"""What a loss declares for tuning is an option of its own, in a range that it accepts and that holds its default."""

import inspect

import pytest

from fedlas.lab.recipes import load_recipe
from fedlas.lab.tune import plan_tuning
from fedlas.losses import LOSSES

pytest.importorskip("optuna")

NUMBERS = {
    entry.name: {
        p.name
        for p in inspect.signature(entry.value).parameters.values()
        if isinstance(p.default, float) and p.name not in ("weight",)
    }
    for entry in LOSSES.entries()
}


@pytest.mark.parametrize("name", list(LOSSES))
def test_what_is_declared(name):
    parameters = inspect.signature(LOSSES[name].value).parameters
    declared = LOSSES[name].metadata.get("tune", {})
    assert declared.keys() <= parameters.keys()
    # refuses a range that the loss does not accept
    (method,) = plan_tuning("digits", ["losses={}", "data.cross_fit=2"], losses=[name]).methods
    defaults = {option: parameters[option].default for option in declared}
    assert {option: method.preset_in_range.get(option) for option in declared} == defaults, declared


@pytest.mark.parametrize("name", [name for name, numbers in NUMBERS.items() if numbers])
def test_a_loss_with_numbers_says_which_are_tuned(name):
    assert "tune" in LOSSES[name].metadata, (
        f"{name} has {sorted(NUMBERS[name])}: say at its registration which are tuned and where, e.g. "
        'tune={"alpha": "0.01:1:log"}, or tune={} for none'
    )


def test_presets_of_the_packages_recipes_can_be_drawn():
    """Otherwise the sampler would never look near what the recipe says."""
    for name in ("digits", "cifar10", "cifar100"):
        recipe = load_recipe(name)
        for method in plan_tuning(name, losses=list(recipe.losses)).methods:
            assert method.preset_in_range == method.preset, (name, method)
