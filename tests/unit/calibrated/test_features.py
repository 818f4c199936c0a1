"""Features without being asked: the head's input, others, none; in one forward pass, in files and in copies."""

import copy
import gc
import pickle
import re

import pytest
import torch
from torch import nn

import fedlas
from fedlas import CalibratedModel, Objective, Predictions, calibrate
from fedlas.calibrators import CALIBRATORS, FeatureClipping, TemperatureScaling
from fedlas.errors import InputError
from fedlas.losses import FedLAS
from wants_features import NormTemperature

C = 3
pytestmark = pytest.mark.filterwarnings("ignore::fedlas.errors.CalibrationWarning")


@pytest.fixture(autouse=True)
def _registered(changeable):
    changeable(CALIBRATORS)
    CALIBRATORS.add("norm-temperature", NormTemperature)


def three_layers(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 5), nn.ReLU(), nn.Linear(5, C))


class Cosine(nn.Module):
    """A head that is no linear layer."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(C, 5))

    def forward(self, inputs):
        return (
            nn.functional.normalize(inputs, dim=1) @ nn.functional.normalize(self.weight, dim=1).T
        )


class Several(nn.Module):
    """Layers of which the code alone says which one is last."""

    def __init__(self, last=None, scale=1.0):
        super().__init__()
        torch.manual_seed(0)
        self.b = last or nn.Linear(5, C)
        self.a = nn.Linear(6, 5)
        self.aside = nn.Linear(6, C)
        self.scale = scale

    def forward(self, inputs):
        logits = self.b(self.a(inputs).relu())
        self.aside(inputs)
        return logits if self.scale == 1 else logits * self.scale


def batches(samples=300, seed=1):
    torch.manual_seed(seed)
    inputs = torch.randn(samples, 6)
    target = (2 * inputs[:, :C] + torch.randn(samples, C)).argmax(1)
    return [(inputs[:200], target[:200]), (inputs[200:], target[200:])]


X = torch.randn(7, 6, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize(
    ("model", "width"),
    [
        (three_layers(), 5),
        (Several(), 5),
        (Several(Cosine()), 5),
        (
            nn.Sequential(
                nn.Linear(6, 4), nn.Unflatten(1, (4, 1)), nn.Conv1d(4, C, 1), nn.Flatten()
            ),
            4,
        ),
        (nn.Linear(6, C), 6),
        (nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 1)), 8),
        (Objective(three_layers(), nn.CrossEntropyLoss()), 5),
    ],
    ids=[
        "Sequential",
        "by run",
        "cosine",
        "convolution",
        "the model itself",
        "one output",
        "Objective",
    ],
)
def test_head_is_module_that_outputs_the_logits(model, width):
    loader = batches()
    if width == 8:
        loader = [(x, (y > 0).long()) for x, y in loader]
    calibrated = calibrate(model, loader, NormTemperature())
    assert calibrated.calibrator.num_features == width
    assert "logits alone" not in repr(calibrated)
    p = fedlas.predict(model, loader, features=True)
    assert p.features.shape == (300, width)
    wanted = calibrated.calibrator.transform(p).tensors().logits
    torch.testing.assert_close(fedlas.predict(calibrated, loader).tensors().logits, wanted)
    probs = calibrated.predict_proba(torch.cat([x for x, _ in loader]))
    torch.testing.assert_close(probs, wanted.softmax(1))


class Reused(nn.Module):
    def __init__(self):
        super().__init__()
        self.b = nn.Linear(6, 6)

    def forward(self, inputs):
        return self.b(self.b(inputs))


class Pooled(nn.Module):
    """The head runs on a map that is averaged after it."""

    def __init__(self):
        super().__init__()
        self.last = nn.Linear(1, C)

    def forward(self, inputs):
        return self.last(inputs.unsqueeze(2)).mean(dim=1)


@pytest.mark.parametrize(
    ("model", "why"),
    [
        (nn.Identity(), "no module outputs the logits"),
        (nn.Sequential(nn.Linear(6, 6), Reused()), "the head does not run exactly once"),
        (
            Pooled(),
            r"the head's input \(200, 6, 1\) does not match the logits \(200, 3\) row by row",
        ),
    ],
)
def test_without_head_uses_logits_alone_with_note(model, why):
    calibrated = calibrate(model, batches(), NormTemperature())
    assert calibrated.calibrator.num_features is None
    line = repr(calibrated)
    assert re.search(f"# logits alone, since {why}.*; 300 samples, ECE", line)
    assert "\n" not in line
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_no_hook_outlives_a_calibrated_model():
    """Each calibration with features left a hook on the model's head."""
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
    generator = torch.Generator().manual_seed(0)
    loader = [(torch.randn(60, 4, generator=generator), torch.arange(60) % 3)]
    for _ in range(2):
        calibrated = fedlas.calibrate(model, loader, "feature-clipping")
        assert len(model[2]._forward_pre_hooks) == 1
        del calibrated
        gc.collect()
        assert not model[2]._forward_pre_hooks


def test_a_scaled_head_has_its_usual_name():
    model = Several(scale=2.0)
    model.fc, model.b = model.b, nn.Identity()
    model.forward = lambda inputs: 2 * model.fc(model.a(inputs).relu())
    assert calibrate(model, batches(), NormTemperature()).calibrator.num_features == 5


def test_features_can_be_others_or_none():
    model = three_layers()
    alone = calibrate(model, batches(), NormTemperature(), features=False)
    assert alone.calibrator.num_features is None
    first = calibrate(model, batches(), NormTemperature(), features=lambda inputs: inputs[:, :2])
    assert first.calibrator.num_features == 2
    p = fedlas.predict(model, [X], features=lambda inputs: inputs[:, :2])
    assert torch.equal(p.tensors().features, X[:, :2])
    torch.testing.assert_close(first(X).detach(), first.calibrator.transform(p).tensors().logits)
    assert not any(module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize(
    ("method", "features", "message"),
    [
        (
            "temperature",
            True,
            "features require a calibrator that uses them; got features for TemperatureScaling",
        ),
        ("temperature", len, "features require a calibrator that uses them"),
        (
            FeatureClipping(),
            False,
            "features must not be False for FeatureClipping, which needs them; got features=False",
        ),
        (NormTemperature(), 3, "features must be None, True, False or a function; got int 3"),
        (
            NormTemperature(),
            lambda inputs: inputs.argmax(1),
            r"must return a tensor \(N, D\); got \(200,\)",
        ),
        (NormTemperature(), lambda inputs: inputs[:3], "features must have shape"),
    ],
)
def test_features_that_are_none(method, features, message):
    with pytest.raises(InputError, match=message):
        calibrate(three_layers(), batches(), method, features=features)


def test_a_head_is_required_where_features_are():
    for options in ({"method": FeatureClipping()}, {"method": NormTemperature(), "features": True}):
        with pytest.raises(InputError, match="one recognizable classifier head"):
            calibrate(nn.Identity(), batches(), **options)


class Embedding(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.layer = nn.Linear(6, 2)

    def forward(self, inputs):
        return self.layer(inputs)


@pytest.mark.parametrize("features", [None, Embedding()], ids=["head", "module"])
def test_files_copies_and_state_dicts(features, tmp_path):
    calibrated = calibrate(Several(), batches(), NormTemperature(), features=features)
    wanted = calibrated(X)
    path = calibrated.save(tmp_path / "model.safetensors")
    options = {} if features is None else {"features": features}
    loaded = CalibratedModel.load(path, Several(), **options)
    assert torch.equal(loaded(X), wanted)
    assert torch.equal(copy.deepcopy(calibrated)(X), wanted)
    assert torch.equal(pickle.loads(pickle.dumps(calibrated))(X), wanted)
    other = CalibratedModel(
        Several(), TemperatureScaling().fit(fedlas.predict(Several(), batches())), "b", **options
    )
    other.load_state_dict(calibrated.state_dict())
    assert torch.equal(other(X), wanted)
    measured = calibrated.before_after(batches(seed=9))
    p = fedlas.predict(Several(), batches(seed=9), features=features or True)
    assert measured.after.nll == pytest.approx(
        fedlas.evaluate(calibrated.calibrator.transform(p))["nll"], rel=1e-5
    )
    if features is not None:
        with pytest.raises(InputError, match="features is required"):
            CalibratedModel.load(path, Several())


def test_dense_outputs_have_features_of_each_position():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, C, 1))
    images, target = torch.randn(6, 2, 5, 4), torch.randint(0, C, (6, 5, 4))
    target[:, 0] = 255
    calibrated = calibrate(model, [(images, target)], NormTemperature(), ignore_index=255)
    assert calibrated.calibrator.num_features == 4
    p = fedlas.predict(model, [(images, target)], features=True, ignore_index=255)
    assert p.num_samples == 6 * 4 * 4
    rows = calibrated.calibrator.transform(p).tensors().logits
    torch.testing.assert_close(
        calibrated(images).movedim(1, -1)[:, 1:].reshape(-1, C).detach(), rows
    )


def test_list_is_ensemble_with_features_of_all_members(tmp_path):
    models = [three_layers(seed) for seed in range(3)]
    calibrated = calibrate(models, batches(), NormTemperature())
    assert calibrated.calibrator.num_features == 15
    p = fedlas.predict(models, [X], features=True)
    mean = torch.stack([model(X).softmax(1) for model in models]).mean(0)
    torch.testing.assert_close(p.tensors().probs, mean.detach())
    torch.testing.assert_close(
        calibrated(X).detach(), calibrated.calibrator.transform(p).tensors().logits
    )
    loaded = CalibratedModel.load(
        calibrated.save(tmp_path / "e.safetensors"), [three_layers(7) for _ in range(3)]
    )
    assert torch.equal(loaded(X), calibrated(X))
    with pytest.raises(InputError, match="different models; got the same model twice"):
        calibrate([models[0], models[0]], batches())
    with pytest.raises(InputError, match=r"logits of one shape; got \(200, 3\), \(200, 4\)"):
        calibrate([models[0], nn.Linear(6, 4)], batches())


def test_a_calibrated_model_is_calibrated_anew():
    model = three_layers()
    once = calibrate(model, batches(), "temperature")
    with pytest.warns(
        fedlas.errors.CalibrationWarning,
        match="calibrated already; a new calibration replaces",
    ):
        again = calibrate(once, batches(seed=4), "temperature")
    assert again.model is model
    assert (
        again.calibrator.temperature
        == calibrate(model, batches(seed=4), "temperature").calibrator.temperature
    )


def test_weights_of_samples_and_labels_elsewhere():
    (x, y), *_ = batches()
    weights = torch.arange(len(y)) % 3
    weighted = calibrate(three_layers(), [(x, weights, y)], "temperature", label=2, weights=1)
    rows = torch.arange(len(y)).repeat_interleave(weights)
    repeated = calibrate(three_layers(), [(x[rows], y[rows])], "temperature")
    assert weighted.calibrator.temperature == pytest.approx(repeated.calibrator.temperature)


def test_objective_finds_head_in_first_batch():
    objective = Objective(Several(), FedLAS(num_classes=C))
    x, y = batches()[0]
    with pytest.raises(InputError, match="one recognizable"):
        objective.find_feature_module(objective.model)
    before = {name: value.clone() for name, value in objective.model.state_dict().items()}
    loss, logits = objective(x, y)
    named = Objective(Several(), FedLAS(num_classes=C), head="b")
    torch.testing.assert_close(loss, named(x, y)[0])
    assert objective.training
    assert all(
        torch.equal(value, before[name]) for name, value in objective.model.state_dict().items()
    )
    assert (
        objective.find_feature_module(objective.model)
        is objective.find_classifier(objective.model)
        is objective.model.b
    )
    assert logits.requires_grad
    nowhere = Objective(Several(scale=2.0), FedLAS(num_classes=C))
    with pytest.raises(InputError, match="one recognizable"):
        nowhere(x, y)


@pytest.mark.system
@pytest.mark.filterwarnings("ignore")  # notices of PyTorch's exporters to their own developers
@pytest.mark.parametrize("form", ["onnx", "torch-export", "torchscript"])
@pytest.mark.parametrize("kind", ["head", "function", "ensemble"])
def test_it_exports_and_the_file_is_measured(kind, form, tmp_path):
    pytest.importorskip("onnxruntime")
    features = (lambda inputs: inputs[:, :2]) if kind == "function" else None
    model = [three_layers(0), three_layers(1)] if kind == "ensemble" else Several()
    calibrated = calibrate(model, batches(), NormTemperature(), features=features)
    path = tmp_path / "model.onnx"
    exported = fedlas.deploy.export(calibrated, path, X, form=form)
    assert exported.difference < 1e-5
    if form == "onnx":
        p = fedlas.predict(path, batches())
        torch.testing.assert_close(
            p.logits, fedlas.predict(calibrated, batches()).logits, rtol=1e-4, atol=1e-5
        )


def test_predictions_with_features_are_what_a_fit_takes():
    p = fedlas.predict(Several(), batches(), features=True)
    fit = NormTemperature().fit(p)
    with pytest.raises(InputError, match="must hold features"):
        fit.transform(Predictions(p.tensors().logits, p.tensors().target))


@pytest.mark.system
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("form", ["onnx", "torch-export", "torchscript"])
def test_auto_uses_the_features_unasked(form, tmp_path):
    """What no logit says: whether the model saw the third input at all."""
    torch.manual_seed(0)
    inputs = torch.randn(1500, 6)
    target = (3 * inputs[:, :C]).argmax(1)
    blind = inputs[:, 5] > 0
    target[blind] = torch.randint(C, (int(blind.sum()),))
    model = nn.Sequential(nn.Linear(6, 6), nn.Identity(), nn.Linear(6, C))
    with torch.no_grad():
        model[0].weight.copy_(torch.eye(6)), model[0].bias.zero_()
        model[2].weight.copy_(3 * torch.eye(6)[:C]), model[2].bias.zero_()
    calibrated = calibrate(model, [(inputs[:700], target[:700])])
    alone = calibrate(model, [(inputs[:700], target[:700])], features=False)
    assert "features 0." in repr(calibrated)
    assert "features 0." not in repr(alone)
    test = [(inputs[700:], target[700:])]
    with_features, without = (
        calibrated.before_after(test).after.nll,
        alone.before_after(test).after.nll,
    )
    assert with_features < 0.95 * without
    path = tmp_path / "model.onnx"
    exported = fedlas.deploy.export(calibrated, path, inputs[:50], form=form)
    assert exported.difference < 1e-5
    loaded = CalibratedModel.load(calibrated.save(tmp_path / "m.safetensors"), copy.deepcopy(model))
    torch.testing.assert_close(loaded(inputs), calibrated(inputs))
