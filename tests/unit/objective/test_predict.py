import sys
from functools import partial

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from fedlas import Objective
from fedlas.errors import CalibrationWarning, InputError
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
    wrapped = predict(
        Objective(model, FedLAS(num_classes=3), head="3"),
        [(X[:7], Y[:7], torch.arange(7)), (X[7:], Y[7:], None)],
    )
    for other in (loader, wrapped):
        torch.testing.assert_close(other.tensors().logits, whole.tensors().logits)
        assert torch.equal(other.tensors().target, Y)
    assert modes(model) == before == [True, True, False, True, True]
    assert whole.tensors().logits.dtype == torch.float32
    assert not whole.tensors().logits.requires_grad


def test_buffers_and_global_generator_stay(model):
    objective = Objective(model, FedLAS(num_classes=3), head="3")
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
    torch.testing.assert_close(
        model[3](predictions.tensors().features), predictions.tensors().logits
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_float32_whatever_the_model_computes_in(dtype):
    model = nn.Linear(4, 3, dtype=dtype)
    assert predict(model, [(X.to(dtype), Y)]).tensors().logits.dtype == torch.float32


def test_model_without_parameters_and_output_objects():
    class Output(nn.Module):
        def forward(self, inputs):
            return type("Output", (), {"logits": inputs[:, :3]})()

    assert torch.equal(predict(Output(), [(X, Y)]).tensors().logits, X[:, :3])


def test_empty_loader_and_nan(model):
    with pytest.raises(InputError, match="at least one batch"):
        predict(model, [])
    with pytest.raises(InputError, match="finite"):
        predict(model, [(X * float("nan"), Y)])


@pytest.mark.parametrize("output", [(X[:, :3], X), {"scores": X[:, :3]}, None])
def test_what_is_no_model_or_no_logits(output):
    class Output(nn.Module):
        def forward(self, inputs):
            return output

    with pytest.raises(InputError, match=r"predict: .*return logits"):
        predict(Output(), [(X, Y)])
    with pytest.raises(InputError, match=r"predict: .*nn\.Module; got"):
        predict(lambda inputs: inputs, [(X, Y)])


class Pair(nn.Module):
    """Two inputs, one of which may be left out."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.head = nn.Linear(4, 3)

    def forward(self, left, right, scale=None):
        return self.head(left + 2 * right) * (1.0 if scale is None else scale)


class Either(nn.Module):
    """Takes a whole batch as one argument."""

    def forward(self, batch):
        return (
            batch["left"][:, :3] + batch["right"][:, :3]
            if isinstance(batch, dict)
            else batch[0][:, :3]
        )


def as_dicts(**columns):
    return [
        {name: column[start : start + 4] for name, column in columns.items()}
        for start in range(0, 10, 4)
    ]


LOADERS = {
    "pairs": ([(X[:7], Y[:7]), (X[7:], Y[7:])], True),
    "lists, as of a DataLoader": ([[X, Y]], True),
    "labels under label": (as_dicts(image=X, label=Y), True),
    "labels under labels": (as_dicts(input=X, labels=Y), True),
    "labels under target": (as_dicts(input=X, target=Y), True),
    "labels as a list": ([(X, Y.tolist())], True),
    "inputs alone": ([X[:7], X[7:]], False),
    "inputs alone of a TensorDataset": (DataLoader(TensorDataset(X), batch_size=4), False),
    "inputs alone by name": (as_dicts(image=X), False),
    "labels that are None": ([(X, None)], False),
}


@pytest.mark.parametrize("name", LOADERS)
def test_any_loader(name):
    loader, labeled = LOADERS[name]
    torch.manual_seed(0)
    model = nn.Linear(4, 3)
    found = predict(model, loader)
    torch.testing.assert_close(found.tensors().logits, model(X).detach())
    assert found.has_target is labeled
    assert not labeled or torch.equal(found.tensors().target, Y)


@pytest.mark.parametrize(
    ("batch", "label"),
    [
        (((X, X + 1), Y), None),
        ([[X, X + 1], Y, torch.arange(10)], None),
        ({"left": X, "right": X + 1, "labels": Y}, None),
        (({"right": X + 1, "left": X}, Y), None),
        ((X, X + 1, Y), 2),
        ((X, X + 1, Y), -1),
        ({"left": X, "right": X + 1, "class": Y}, "class"),
    ],
    ids=["tuple", "list", "mapping", "mapping and labels", "position", "from the end", "key"],
)
def test_several_inputs(batch, label):
    model = Pair()
    found = predict(model, [batch], label=label)
    torch.testing.assert_close(found.tensors().logits, model(X, X + 1).detach())
    assert torch.equal(found.tensors().target, Y)


def test_model_with_one_argument_gets_whole_batch():
    both = {"left": X, "right": X + 1}
    torch.testing.assert_close(
        predict(Either(), [{**both, "label": Y}]).tensors().logits, 2 * X[:, :3] + 1
    )
    torch.testing.assert_close(predict(Either(), [((X, X + 1), Y)]).tensors().logits, X[:, :3])


def test_hugging_face_batches():
    transformers = pytest.importorskip("transformers")
    config = transformers.DistilBertConfig(
        vocab_size=50, dim=8, hidden_dim=16, n_layers=1, n_heads=2, num_labels=3
    )
    model = transformers.DistilBertForSequenceClassification(config)
    ids = torch.arange(20).reshape(4, 5)
    encoded = {"input_ids": ids, "attention_mask": (ids % 5 < 3).long()}
    labeled = predict(
        model, [transformers.BatchEncoding({**encoded, "labels": Y[:4]})], features=True
    )
    torch.testing.assert_close(labeled.tensors().logits, model.eval()(**encoded).logits.detach())
    assert torch.equal(labeled.tensors().target, Y[:4])
    torch.testing.assert_close(
        model.classifier(labeled.tensors().features), labeled.tensors().logits
    )
    assert not predict(model, [transformers.BatchEncoding(encoded)]).has_target


@pytest.mark.parametrize(
    ("batch", "options", "message"),
    [
        (
            (X, X + 1, Y),
            {},
            r"labels of a batch must be integers of shape \(10,\); got \(10, 4\) torch.float32.*label=2",
        ),
        (
            (X, X + 1),
            {},
            r"must be integers of shape \(10,\); got \(10, 4\).*inputs without labels as \(inputs,\)",
        ),
        (
            (X, nn.functional.one_hot(Y)),
            {},
            r"classes or several labels; got only such rows, \(10, 3\)",
        ),
        ((X, Y[:9]), {}, r"must be integers of shape \(10,\); got \(9,\)"),
        ((X, Y.float()), {}, r"must be integers of shape \(10,\); got \(10,\) torch.float32"),
        ((X, ["cat"] * 10), {}, r"must be integers of shape \(10,\); got list \['cat'"),
        (
            {"x": X, "label": Y, "target": Y},
            {},
            "labels under one key only; got a mapping with 'x', 'label', 'target'",
        ),
        ({"x": X}, {"label": "y"}, "must hold 'y'; got a mapping with 'x'"),
        (
            (X, Y),
            {"label": 2},
            "position of the labels in a batch; got 2. Pass a position from 0 to 1",
        ),
        ((X, Y), {"label": "y"}, "position of the labels in a batch; got 'y'"),
        (X, {"label": 1}, "must hold the elements 1; got"),
        (
            "text",
            {},
            r"a batch must be a tensor of inputs, \(inputs, target\) or a mapping; got str 'text'",
        ),
        ((), {}, "or a mapping; got tuple"),
    ],
)
def test_batches_that_cannot_be_understood(batch, options, message):
    with pytest.raises(InputError, match=rf"^predict: .*{message}"):
        predict(nn.Linear(4, 3), [batch], **options)


@pytest.mark.parametrize(
    ("batch", "got"),
    [
        ((X, Y), "one input"),
        ((X, X, Y), "one input"),
        (((X, X, X, X), Y), "4 inputs"),
        ({"left": X, "mask": X}, "inputs left, mask"),
    ],
)
def test_a_model_of_two_inputs_says_which(batch, got):
    with pytest.raises(InputError, match=rf"Pair\.forward .*\(left, right, scale=\); got {got}"):
        predict(Pair(), [batch])


def test_labels_in_some_batches_only(model):
    with pytest.raises(InputError, match="labels in 1 of 2 batches"):
        predict(model, [(X, Y), X])


def dense(seed=0, count=5):
    torch.manual_seed(seed)
    images, target = torch.randn(count, 2, 4, 3), torch.randint(0, 3, (count, 4, 3))
    target[:, 0] = 255
    return [(images[:2], target[:2]), (images[2:], target[2:])]


def test_dense_outputs_give_rows_per_position():
    model, batches = nn.Conv2d(2, 3, 1), dense()
    p = predict(model, batches, ignore_index=255)
    images, target = (torch.cat(parts) for parts in zip(*batches, strict=True))
    torch.testing.assert_close(
        p.tensors().logits, model(images).detach().movedim(1, -1)[:, 1:].reshape(-1, 3)
    )
    assert torch.equal(p.tensors().target, target[:, 1:].reshape(-1))
    assert torch.equal(p.tensors().clusters, torch.arange(5).repeat_interleave(9))
    unlabeled = predict(model, [part for part, _ in batches])
    assert unlabeled.num_samples == 5 * 12
    assert not unlabeled.has_target
    with pytest.raises(InputError, match="puts the classes second"):
        predict(nn.Linear(2, 3), [(torch.zeros(4, 5, 2), torch.zeros(4, 5).long())])
    with pytest.raises(InputError, match=r"must be integers of shape \(2, 4, 3\); got \(2, 4\)"):
        predict(model, [(images[:2], target[:2, :, 0])])


def test_a_random_sample_of_the_positions(monkeypatch):
    model, batches = nn.Conv2d(2, 3, 1), dense()
    whole, some = (
        predict(model, batches, ignore_index=255),
        predict(model, batches, ignore_index=255, max_rows=13),
    )
    assert some.num_samples == 13
    places = [
        int((whole.tensors().logits == row).all(dim=1).nonzero()) for row in some.tensors().logits
    ]
    assert places == sorted(places)
    assert torch.equal(whole.tensors().clusters[places], some.tensors().clusters)
    assert predict(model, batches, max_rows=1000, ignore_index=255).num_samples == 45
    monkeypatch.setattr(sys.modules["fedlas.objective.predict"], "MAX_LOGITS", 60)
    with pytest.warns(CalibrationWarning, match=r"random sample of \d+ of 45 positions"):
        assert 10 <= predict(model, batches, ignore_index=255).num_samples <= 20


@pytest.mark.parametrize("clusters", [["p1", "p0", "p1", "p1"], torch.tensor([4, 2, 4, 4])])
def test_weights_and_clusters_of_a_batch(clusters):
    model = nn.Linear(4, 3)
    batches = [
        (X[:4], Y[:4], clusters, torch.arange(4.0)),
        (X[4:8], Y[4:8], clusters, torch.ones(4)),
    ]
    p = predict(model, batches, clusters=2, weights=3)
    assert p.weights.tolist() == [0, 1, 2, 3, 1, 1, 1, 1]
    numbers = p.clusters.tolist()
    assert numbers[:4] == numbers[4:]
    assert numbers[0] == numbers[2] == numbers[3] != numbers[1]
    named = [{"x": x, "y": y, "who": who, "w": w} for x, y, who, w in batches]
    assert torch.equal(
        predict(model, named, label="y", clusters="who", weights="w").tensors().clusters,
        p.tensors().clusters,
    )
    moved = predict(model, [(who, x, y) for x, y, who, _ in batches], label=2, clusters=0)
    assert torch.equal(moved.tensors().logits, p.tensors().logits)


@pytest.mark.parametrize(
    ("batch", "options", "message"),
    [
        (
            (X, Y),
            {"clusters": 2},
            "clusters must be the position of the clusters in a batch; got 2",
        ),
        (
            {"x": X, "label": Y},
            {"clusters": "who"},
            "must hold 'who'; got a mapping with 'x', 'label'",
        ),
        (X, {"weights": 1}, "must hold the elements 1; got"),
        ((X, Y, [1, 2]), {"clusters": 2}, r"clusters of a batch must have shape \(10,\)"),
        ((X, Y, [object()] * 10), {"weights": 2}, "weights of a batch must be a tensor or a list"),
        ((X, nn.functional.one_hot(Y)), {}, r"target.argmax\(1\)"),
    ],
)
def test_parts_that_a_batch_lacks(batch, options, message):
    with pytest.raises(InputError, match=rf"^predict: .*{message}"):
        predict(nn.Linear(4, 3), [batch], **options)


compiled = partial(torch.compile, backend="eager")


@pytest.mark.parametrize(
    "wrap",
    [nn.DataParallel, compiled, lambda model: Objective(compiled(model), nn.CrossEntropyLoss())],
)
def test_wrapped_models(model, wrap):
    wrapped = wrap(model)
    found = predict(wrapped, [(X, Y)], features=True, head="3")
    torch.testing.assert_close(found.tensors().logits, predict(model, [(X, Y)]).tensors().logits)
    torch.testing.assert_close(model[3](found.tensors().features), found.tensors().logits)
    assert modes(model) == [True, True, False, True, True]


@pytest.mark.parametrize(("options", "match"), [
    ({"loader": None}, "loader"), ({"loader": 3}, "loader"),
    ({"device": "gpu"}, "device"), ({"device": 1.5}, "device"), ({"device": []}, "device"),
])  # fmt: skip
def test_wrong_types_are_named(options, match):
    with pytest.raises(InputError, match=f"predict: (the )?{match} must"):
        predict(**{"model": nn.Linear(4, 3), "loader": [torch.zeros(2, 4)]} | options)
