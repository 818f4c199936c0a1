"""Models with one output, as for BCEWithLogitsLoss, and models of text: predicted, calibrated and exported."""

import numpy as np
import pytest
import torch
from torch import nn

import fedlas
from fedlas.deploy import export
from fedlas.errors import InputError


@pytest.fixture(scope="module")
def binary():
    """A model of one output, inputs and labels that are less certain than it says."""
    torch.manual_seed(0)
    net, inputs = nn.Linear(5, 1), torch.randn(400, 5)
    with torch.no_grad():
        net.weight.mul_(8)
    return net, inputs, (torch.rand(400) < torch.sigmoid(net(inputs)[:, 0] / 3)).float()


class Flat(nn.Module):
    """A model whose only output has no axis of classes."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, inputs):
        return self.model(inputs)[:, 0]


@pytest.mark.parametrize(
    "form", [torch.Tensor.long, torch.Tensor.float, lambda labels: labels.unsqueeze(1)]
)
@pytest.mark.parametrize("wrap", [lambda net: net, Flat])
def test_single_output_is_logit_of_second_class(binary, form, wrap):
    net, inputs, labels = binary
    predictions = fedlas.predict(wrap(net), [(inputs, form(labels))])
    assert torch.equal(predictions.tensors().target, labels.long())
    torch.testing.assert_close(
        predictions.tensors().probs[:, 1], torch.sigmoid(net(inputs)[:, 0]).detach()
    )
    model = fedlas.calibrate(wrap(net), [(inputs, form(labels))], method="temperature")
    assert 2 < model.calibrator.temperature < 4
    expected = torch.sigmoid(net(inputs)[:, 0] / model.calibrator.temperature).detach()
    torch.testing.assert_close(model.predict_proba(inputs)[:, 1], expected)


def test_labels_between_0_and_1_are_none(binary):
    net, inputs, labels = binary
    with pytest.raises(InputError, match="integers"):
        fedlas.predict(net, [(inputs, labels / 2)])


class Text(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding, self.head = nn.Embedding(50, 8), nn.Linear(8, 3)

    def forward(self, input_ids, attention_mask):
        weights = attention_mask.unsqueeze(-1).float()
        return self.head((self.embedding(input_ids) * weights).sum(1) / weights.sum(1).clamp(min=1))


@pytest.mark.system
def test_text_models_take_keywords_and_export_dynamic_length(tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    torch.manual_seed(0)
    batch = {
        "input_ids": torch.randint(0, 50, (60, 12)),
        "attention_mask": torch.ones(60, 12, dtype=torch.int64),
    }
    network = Text()
    with torch.no_grad():
        network.head.weight.mul_(8)
        target = torch.multinomial((network(**batch) / 2).softmax(1), 1)[:, 0]
    model = fedlas.calibrate(network, [(batch, target)], method="temperature")
    assert torch.equal(model.predict_proba(**batch), model.predict_proba(batch))
    for wrong in ({"inputs": batch, "input_ids": batch["input_ids"]}, {}):
        with pytest.raises(InputError, match="exactly one of inputs"):
            model.predict_proba(**wrong)
    export(model, tmp_path / "text.onnx", batch)
    session = runtime.InferenceSession(tmp_path / "text.onnx")
    short = {name: value[:4, :7] for name, value in batch.items()}
    probs = session.run(["probs"], {name: value.numpy() for name, value in short.items()})[0]
    np.testing.assert_allclose(probs, model.predict_proba(**short).numpy(), atol=1e-6)
