"""The tap: reads one forward pass, keeps nothing afterward, complains when it cannot know."""

import copy
import gc
import pickle
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

from fedlas import FeatureTap
from fedlas.errors import InputError


@pytest.fixture
def model():
    return nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))


def test_tap_reads_module_input_with_graph(model):
    tap = FeatureTap(model[2])
    tap.start()
    logits = model(torch.randn(5, 4))
    features = tap.stop()
    torch.testing.assert_close(model[2](features), logits, rtol=0, atol=0)
    assert features.requires_grad


def test_listens_only_when_asked(model):
    tap = FeatureTap(model[2])
    model(torch.randn(5, 4))
    assert tap._capture.captured is None
    tap.start()
    model(torch.randn(5, 4))
    features = weakref.ref(tap.stop())
    gc.collect()
    assert features() is None  # the tap let go of it


@pytest.mark.parametrize("runs", [0, 2])
def test_tap_requires_exactly_one_run(model, runs):
    tap = FeatureTap(model[2])
    tap.start()
    for _ in range(runs):
        model(torch.randn(5, 4))
    with pytest.raises(InputError, match=rf"exactly once .*got {runs} runs"):
        tap.stop()
    assert tap._capture.captured is None
    tap.start()
    model(torch.randn(6, 4))
    assert tap.stop().shape == (6, 3)


def test_stop_without_start(model):
    with pytest.raises(InputError, match="got 0 runs"):
        FeatureTap(model[2]).stop()


def test_keyword_and_other_inputs_are_refused():
    class Takes(nn.Module):
        def forward(self, first=None):
            return torch.zeros(1)

    module = Takes()
    tap = FeatureTap(module)
    for args, kwargs in (((), {"first": torch.rand(2)}), (([1.0],), {}), ((None,), {})):
        tap.start()
        module(*args, **kwargs)
        with pytest.raises(InputError, match="first argument must be a tensor"):
            tap.stop()


def test_a_thread_hears_only_what_it_runs(model):
    """Not even the number of runs is another thread's."""
    tap = FeatureTap(model[2])
    tap.start()
    with ThreadPoolExecutor(1) as other:
        other.submit(model, torch.randn(9, 4)).result()
        with pytest.raises(InputError, match="got 0 runs"):
            other.submit(tap.stop).result()
        other.submit(tap.cancel).result()
    model(torch.randn(5, 4))
    assert tap.stop().shape == (5, 3)


def test_removal(model):
    tap = FeatureTap(model[2])
    tap.remove()
    tap.remove()
    assert not model[2]._forward_pre_hooks
    tap.start()
    model(torch.randn(5, 4))
    with pytest.raises(InputError, match="got 0 runs"):
        tap.stop()


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))])
def test_a_copy_is_on_its_own(model, copied):
    tap = FeatureTap(model[2])
    other_model, other_tap = copied((model, tap))
    other_tap.start()
    model(torch.randn(5, 4))
    with pytest.raises(InputError, match="got 0 runs"):
        other_tap.stop()
    other_tap.start()
    other_model(torch.randn(7, 4))
    assert other_tap.stop().shape == (7, 3)
    other_tap.remove()
    assert not other_model[2]._forward_pre_hooks
    assert len(model[2]._forward_pre_hooks) == 1


def test_the_state_of_the_model_is_untouched(model):
    keys = list(model.state_dict())
    FeatureTap(model[2])
    assert list(model.state_dict()) == keys
