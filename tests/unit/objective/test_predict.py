import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from fedlas import Objective
from fedlas._core.check import InputError
from fedlas.losses import FedLAS
from fedlas.objective import predict


@pytest.fixture
def model():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 3))
    model.train()
    model[1].eval()  # a frozen batch norm, as in fine-tuning: it must stay so
    return model


X, Y = torch.randn(10, 4, generator=torch.Generator().manual_seed(0)), torch.arange(10) % 3


def modes(model):
    return [module.training for module in model.modules()]


def test_plain_loader_objective_and_batches_agree(model):
    before = modes(model)
    whole = predict(model, [(X, Y)])
    loader = predict(model, DataLoader(TensorDataset(X, Y), batch_size=3))
    wrapped = predict(Objective(model, FedLAS(3), head="3"), [(X[:7], Y[:7], torch.arange(7)), (X[7:], Y[7:], None)])
    for other in (loader, wrapped):
        torch.testing.assert_close(other.logits, whole.logits)
        assert torch.equal(other.target, Y)
    assert modes(model) == before == [True, True, False, True, True]
    assert whole.logits.dtype == torch.float32
    assert not whole.logits.requires_grad


def test_buffers_and_global_generator_stay(model):
    objective = Objective(model, FedLAS(3), head="3")
    before = {key: value.clone() for key, value in objective.state_dict().items()}
    state = torch.get_rng_state()
    predict(objective, [(X, Y)])
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[key]) for key, value in objective.state_dict().items())


def test_modes_and_hooks_come_back_after_an_error(model):
    before = modes(model)

    def loader():
        yield X, Y
        raise OSError("disk")

    with pytest.raises(OSError, match="disk"):
        predict(model, loader(), features=True, head="3")
    with pytest.raises(RuntimeError):
        predict(model, [(torch.zeros(2, 5), Y[:2])])
    assert modes(model) == before
    assert not model[3]._forward_pre_hooks


def test_features_are_the_input_of_the_head(model):
    predictions = predict(model, [(X[:4], Y[:4]), (X[4:], Y[4:])], features=True, head="3")
    torch.testing.assert_close(model[3](predictions.features), predictions.logits)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_float32_whatever_the_model_computes_in(dtype):
    model = nn.Linear(4, 3, dtype=dtype)
    assert predict(model, [(X.to(dtype), Y)]).logits.dtype == torch.float32


def test_model_without_parameters_and_output_objects():
    class Output(nn.Module):
        def forward(self, inputs):
            return type("Output", (), {"logits": inputs[:, :3]})()

    assert torch.equal(predict(Output(), [(X, Y)]).logits, X[:, :3])


def test_empty_loader_and_nan(model):
    with pytest.raises(InputError, match="at least one batch"):
        predict(model, [])
    with pytest.raises(InputError, match="finite"):
        predict(model, [(X * float("nan"), Y)])


@pytest.mark.parametrize("output", [(X[:, :3], X), {"logits": X[:, :3]}, None])
def test_what_is_no_model_or_no_logits(output):
    class Output(nn.Module):
        def forward(self, inputs):
            return output

    with pytest.raises(InputError, match=r"predict: the model must return logits"):
        predict(Output(), [(X, Y)])
    with pytest.raises(InputError, match=r"predict: the model must be an nn.Module; got"):
        predict(lambda inputs: inputs, [(X, Y)])
