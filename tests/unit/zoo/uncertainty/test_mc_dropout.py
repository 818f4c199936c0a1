import pytest
import torch
from torch import nn

from fedlas import Objective
from fedlas.errors import InputError
from fedlas.predictions import Predictions
from fedlas.zoo.uncertainty import DropoutSamples, mc_dropout


@pytest.fixture
def model():
    torch.manual_seed(0)
    built = nn.Sequential(
        nn.Linear(6, 16),
        nn.BatchNorm1d(16),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Dropout(0.0),
        nn.Linear(16, 3),
    )
    built.train()(torch.randn(20, 6))  # statistics of their own for the batch norm
    return built.eval()


@pytest.fixture
def batches():
    generator = torch.Generator().manual_seed(1)
    return [(torch.randn(n, 6, generator=generator), torch.arange(n) % 3, "more") for n in (5, 4)]


def expected(model, batches, samples, seed):
    """Passes one by one, their masks drawn from the same seed at each batch."""
    probs = []
    for inputs, *_ in batches:
        torch.manual_seed(seed)
        passes = []
        for _ in range(samples):
            hidden = model[2](model[1](model[0](inputs)))
            passes.append(model[5](nn.functional.dropout(hidden, 0.5, training=True)).softmax(1))
        probs.append(torch.stack(passes).mean(0))
    return torch.cat(probs).detach()


def test_mean_over_passes_with_dropout_on(model, batches):
    found = mc_dropout(model, batches, samples=7, seed=3)
    torch.testing.assert_close(found.tensors().probs, expected(model, batches, 7, 3))
    assert found.tensors().logits.dtype == torch.float32
    assert found.target.tolist() == [0, 1, 2, 0, 1, 0, 1, 2, 0]
    plain = torch.cat([model(inputs) for inputs, *_ in batches]).softmax(1)
    assert not torch.allclose(found.tensors().probs, plain, atol=1e-2)


def test_twenty_passes_from_seed_zero_unless_told(model, batches):
    assert torch.equal(
        mc_dropout(model, batches).tensors().logits,
        mc_dropout(model, batches, samples=20, seed=0).tensors().logits,
    )
    assert not torch.equal(
        mc_dropout(model, batches).tensors().logits,
        mc_dropout(model, batches, seed=1).tensors().logits,
    )


def test_one_pass_is_noisy_and_many_settle(model, batches):
    """The spread over seeds falls with the root of the number of passes."""

    def spread(samples):
        return (
            torch.stack(
                [
                    mc_dropout(model, batches, samples=samples, seed=s).tensors().probs
                    for s in range(8)
                ]
            )
            .std(0)
            .mean()
        )

    assert spread(1) > 4 * spread(100)


def test_nothing_is_left_behind(model, batches):
    model[0].train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    torch.manual_seed(5)
    next_number = torch.rand(1)
    torch.manual_seed(5)
    mc_dropout(model, batches, samples=3)
    assert torch.equal(torch.rand(1), next_number)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_modes_come_back_after_an_error(model):
    model.train()
    with pytest.raises(RuntimeError):
        mc_dropout(model, [(torch.zeros(2, 5), torch.zeros(2, dtype=torch.int64))])
    assert all(module.training for module in model.modules())
    model.eval()
    during = []
    model[5].register_forward_hook(lambda *_: during.append([module.training for module in model]))
    mc_dropout(model, [(torch.zeros(2, 6), torch.zeros(2, dtype=torch.int64))], samples=1)
    assert during[-1] == [False, False, False, True, False, False]
    assert not any(module.training for module in model.modules())


def test_an_objective_is_looked_into(model, batches):
    found = mc_dropout(Objective(model, nn.CrossEntropyLoss()), batches, samples=3)
    assert torch.equal(
        found.tensors().logits, mc_dropout(model, batches, samples=3).tensors().logits
    )


def test_every_member_of_the_dropout_family():
    for layer, inputs in (
        (nn.Dropout2d(0.5), torch.ones(4, 3, 2, 2)),
        (nn.AlphaDropout(0.5), torch.ones(4, 3, 2, 2)),
    ):
        network = nn.Sequential(layer, nn.Flatten(), nn.Linear(12, 2)).eval()
        with torch.no_grad():
            samples = DropoutSamples(network, samples=1)(inputs)
        assert not torch.allclose(samples, network(inputs).log_softmax(1))


def test_as_a_module_it_is_the_same(model, batches):
    sampled = DropoutSamples(model, samples=4, seed=2).eval()
    with torch.inference_mode():
        logits = torch.cat([sampled(inputs) for inputs, *_ in batches])
    assert torch.equal(logits, mc_dropout(model, batches, samples=4, seed=2).tensors().logits)
    assert isinstance(mc_dropout(model, batches), Predictions)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"samples": 0}, "samples"), ({"seed": -1}, "seed"), ({"samples": 2.5}, "samples")],
)
def test_invalid_numbers_are_refused(model, batches, options, message):
    with pytest.raises(InputError, match=f"mc_dropout: {message}"):
        mc_dropout(model, batches, **options)


def test_without_dropout_or_data(model):
    for plain in (nn.Linear(6, 3), nn.Sequential(nn.Linear(6, 3), nn.Dropout(0.0))):
        with pytest.raises(InputError, match=r"rate above 0; got .*model\.dropout"):
            mc_dropout(plain, [])
    with pytest.raises(InputError, match="at least one batch"):
        mc_dropout(model, [])


def test_one_logit_is_that_of_the_second_class():
    model = nn.Sequential(nn.Dropout(0.5), nn.Linear(8, 1))
    inputs = torch.randn(4, 8)
    found = mc_dropout(model, [(inputs, torch.tensor([0, 1, 1, 0]))], samples=50)
    assert found.probs.shape == (4, 2)
    with torch.no_grad():
        torch.testing.assert_close(
            found.tensors().probs[:, 1], model.eval()(inputs)[:, 0].sigmoid(), atol=0.3, rtol=0
        )
    assert found.tensors().probs[:, 1].unique().numel() == 4
