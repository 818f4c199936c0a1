import torch

from fedlas.lab.recipes import load_recipe, plan_runs
from fedlas.lab.runs import choose_threads, workload
from fedlas.lab.runs.workload import count_forward_flops


def run(*overrides):
    return plan_runs(load_recipe("digits", overrides), losses=["ce"], seeds=[0])[0]


def test_only_small_models_use_one_thread():
    small, before = run(), torch.get_rng_state()
    assert choose_threads(small) == 1
    assert torch.equal(torch.get_rng_state(), before)
    assert choose_threads(run("model.width=256")) is None


def test_with_an_accelerator_nothing_is_changed(monkeypatch):
    monkeypatch.setattr(workload, "has_accelerator", lambda: True)
    assert choose_threads(run()) is None


def test_operations_of_a_linear_model():
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(2 * 3 * 3, 5))
    assert count_forward_flops(model, (2, 3, 3)) == 2 * (2 * 3 * 3) * 5


def test_operations_of_convolutions():
    model = torch.nn.Sequential(
        torch.nn.Conv2d(2, 4, 3, padding=1), torch.nn.Conv2d(4, 4, 3, stride=2, groups=2)
    )
    assert count_forward_flops(model, (2, 5, 5)) == 2 * (25 * 4 * 2 * 9 + 4 * 4 * 2 * 9)
