"""What every registered calibrator must do; a new one needs no line here."""

import copy
import functools
import importlib.util
import inspect
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch

from fedlas import Predictions, predict
from fedlas.calibrators import CALIBRATORS, CalibrationWarning, Calibrator, fit_mixture
from fedlas.deploy.sql_maps import sql_calibrator_names
from fedlas.lab.data import Batches, load_dataset
from fedlas.lab.models import build_model
from fedlas.metrics import evaluate, true_ece

# A fit that warns is a fit that succeeded; whether it should warn is tested where the calibrator is.
pytestmark = pytest.mark.filterwarnings("ignore::fedlas.calibrators.CalibrationWarning")


@pytest.fixture(params=CALIBRATORS.entries(), ids=lambda entry: entry.name)
def entry(request):
    for package in request.param.metadata.get("packages", ()):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"needs {package}")
    return request.param


def predictions(samples=200, classes=4, seed=0, dtype=torch.float32):
    """Twice as sure as they should be; logits are a linear function of the features, the same for every seed."""
    torch.manual_seed(seed)
    logits = torch.randn(samples, classes, dtype=torch.float64) * 4
    target = torch.multinomial((logits / 2).softmax(1), 1).squeeze(1)
    mixing = torch.randn(
        classes + 2, classes + 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    features = (
        torch.cat([logits, torch.randn(samples, 2, dtype=torch.float64)], dim=1)
        @ torch.linalg.qr(mixing).Q
    )
    return Predictions(logits.to(dtype), target, features=features.to(dtype))


@functools.cache
def fitted(name):
    """The calibrator fitted on ``predictions()``, made once for all tests that only read it."""
    return CALIBRATORS[name].value().fit(predictions())


@pytest.fixture(scope="module")
def overconfident():
    """Validation and test predictions of a network that knows its few `synthetic` training images by heart."""
    source = load_dataset("synthetic", num_train=1600, num_test=2000)
    torch.manual_seed(0)
    model = build_model("mlp", num_classes=10, in_channels=1, image_size=8)
    parts = [
        source.train.take(torch.arange(800)),
        source.train.take(torch.arange(800, 1600)),
        source.test,
    ]
    train, *held_out = (Batches(part, mean=(0.5,), std=(0.29,), batch_size=800) for part in parts)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(100):
        for images, target, _ in train:
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(images), target).backward()
            optimizer.step()
    found = [predict(model, batches, features=True) for batches in held_out]
    return [
        replace(p, label_probs=part.label_probs) for p, part in zip(found, parts[1:], strict=True)
    ]


def test_metadata(entry):
    assert issubclass(entry.value, Calibrator)
    assert not inspect.isabstract(entry.value)
    assert isinstance(entry.value.keeps_argmax, bool)
    assert entry.summary.endswith(".")
    for name in ("title", "paper", "url"):
        assert isinstance(entry.metadata.get(name), str), name
    assert entry.metadata["url"].startswith("https://")
    assert isinstance(entry.metadata.get("year"), int)
    assert isinstance(entry.metadata.get("packages", ()), tuple)
    assert isinstance(entry.metadata.get("part", "val"), str)
    assert isinstance(entry.value.needs, frozenset)
    assert entry.value.needs <= {"features"}


def test_fit_returns_itself_and_needs_no_arguments(entry):
    calibrator = entry.value()
    assert calibrator.num_classes is None
    assert calibrator.fit(predictions()) is calibrator
    assert calibrator.num_classes == 4


def test_labels_are_for_the_fit_alone(entry):
    """Without them a fit is refused, and a transform is the same; so it is with other labels."""
    labeled = predictions(seed=1)
    bare = labeled.without_target()
    calibrator = entry.value()
    with pytest.raises(ValueError, match="fit: predictions must have labels"):
        calibrator.fit(bare)
    assert calibrator.num_classes is None
    expected = fitted(entry.name).transform(labeled)
    calibrated = fitted(entry.name).transform(bare)
    assert not calibrated.has_target
    assert torch.equal(calibrated.tensors().logits, expected.tensors().logits)
    other = replace(labeled, target=(labeled.tensors().target + 1) % 4)
    assert torch.equal(
        fitted(entry.name).transform(other).tensors().logits, expected.tensors().logits
    )


def test_before_fit(entry, tmp_path):
    name = entry.value.__name__
    for act, argument in {
        "transform": predictions(),
        "save": tmp_path / "x.json",
        "module": None,
    }.items():
        with pytest.raises(ValueError, match=rf"{name}\.{act}: .*fitted first"):
            getattr(entry.value(), act)(*([] if argument is None else [argument]))
    assert list(tmp_path.iterdir()) == []


def test_another_number_of_classes(entry):
    with pytest.raises(ValueError, match=r"logits .*\(N, 4\) .*got \(200, 5\)"):
        fitted(entry.name).transform(predictions(classes=5))


def test_what_it_needs(entry):
    val, test = predictions(), predictions(seed=1)
    for name in entry.value.needs:
        calibrator = entry.value()
        with pytest.raises(ValueError, match=rf"{entry.value.__name__}\.fit: .*hold {name}"):
            calibrator.fit(replace(val, **{name: None}))
        assert calibrator.num_classes is None
        calibrator.fit(val)
        with pytest.raises(ValueError, match=rf"{entry.value.__name__}\.transform: .*hold {name}"):
            calibrator.transform(replace(test, **{name: None}))
        wider = np.concat([getattr(test, name), np.ones((200, 1))], axis=1)
        with pytest.raises(ValueError, match=rf"{name} .*\(N, 6\).*got \(200, 7\)"):
            calibrator.transform(replace(test, **{name: wider}))
    wanted = entry.value.needs | entry.value.wants
    bare = {name: None for name in ("features", "label_probs") if name not in wanted}
    after = entry.value().fit(replace(val, **bare)).transform(replace(test, **bare))
    assert torch.equal(after.tensors().logits, fitted(entry.name).transform(test).tensors().logits)


@pytest.mark.parametrize("wrong", [None, torch.zeros(2, 4), "val.npz"])
def test_anything_but_predictions_is_refused(wrong):
    calibrator = CALIBRATORS["temperature"].value()
    with pytest.raises(ValueError, match=r"\.fit: .*Predictions; got"):
        calibrator.fit(wrong)
    assert calibrator.num_classes is None
    with pytest.raises(ValueError, match=r"\.transform: .*Predictions; got"):
        calibrator.fit(predictions()).transform(wrong)


def test_transform_is_pure_and_keeps_everything_but_the_logits(entry):
    test = predictions(seed=1)
    test = replace(test, label_probs=test.tensors().probs)
    before = test.tensors().logits.clone()
    first, second = fitted(entry.name).transform(test), fitted(entry.name).transform(test)
    assert torch.equal(first.tensors().logits, second.tensors().logits)
    assert torch.equal(test.tensors().logits, before)
    for name in ("target", "features", "label_probs"):
        assert np.array_equal(getattr(first, name), getattr(test, name))
    if entry.value.keeps_argmax:
        assert torch.equal(first.tensors().predicted, test.tensors().predicted)
    for dtype in (torch.float32, torch.float64):
        double = (
            entry.value().fit(predictions(dtype=dtype))
            if dtype is torch.float64
            else fitted(entry.name)
        )
        assert double.transform(predictions(seed=1, dtype=dtype)).tensors().logits.dtype == dtype


def test_calibrates_the_validation_set(entry):
    val = predictions(1000)
    before, after = evaluate(val), evaluate(entry.value().fit(val).transform(val))
    assert after["nll"] <= before["nll"]
    assert after["ece"] < before["ece"]


def test_undoes_over_confidence(entry, overconfident):
    """Measured against the known label probabilities, on samples that the fit has not seen."""
    val, test = overconfident
    before = true_ece(test)
    assert before > 0.2
    after = true_ece(entry.value().fit(val).transform(test))
    assert after < entry.metadata["leaves"] * before


@pytest.mark.parametrize(
    "name", sorted({kind for kind, _ in fit_mixture._default_members(predictions())[0].values()})
)
def test_a_usual_member_of_auto_has_a_formula_in_sql(name):
    assert name in sql_calibrator_names(), (
        "auto is exported to SQL: add its map to deploy/sql_maps.py"
    )


@pytest.mark.filterwarnings("default::fedlas.calibrators.CalibrationWarning")
def test_a_fit_that_changes_nothing_warns(entry):
    torch.manual_seed(0)
    one_class = Predictions(
        torch.randn(50, 1), torch.zeros(50, dtype=torch.long), features=torch.rand(50, 3)
    )
    with pytest.warns(CalibrationWarning, match="changes no validation probability"):
        calibrator = entry.value().fit(one_class)
    assert bool((calibrator.transform(one_class).tensors().confidence == 1).all())


def test_copies_and_files_are_the_same(entry, tmp_path):
    test, calibrator = predictions(seed=1), fitted(entry.name)
    path = calibrator.save(tmp_path / "new" / "calibrator")
    assert [p.name for p in path.parent.iterdir()] == ["calibrator"]
    assert b"pickle" not in path.read_bytes()
    copies = (
        Calibrator.load(str(path)), entry.value.load(path), copy.deepcopy(calibrator),
        pickle.loads(pickle.dumps(calibrator)),
    )  # fmt: skip
    expected = calibrator.transform(test).tensors().logits
    for copied in copies:
        assert type(copied) is entry.value
        assert torch.equal(copied.transform(test).tensors().logits, expected)


def test_fitting_again_forgets(entry):
    test = predictions(seed=1)
    used = entry.value().fit(predictions(100, seed=3, classes=5)).fit(predictions())
    assert torch.equal(
        used.transform(test).tensors().logits, fitted(entry.name).transform(test).tensors().logits
    )


def test_tiny_validation_sets(entry):
    for shape in ((1, 1), (1, 2), (2, 2), (3, 50)):
        val = predictions(*shape)
        assert torch.isfinite(entry.value().fit(val).transform(val).tensors().logits).all(), shape


def test_order_of_the_validation_samples(entry):
    val = predictions()
    first = fitted(entry.name).transform(val).tensors().logits
    flipped = Predictions(
        val.tensors().logits.flip(0),
        val.tensors().target.flip(0),
        features=val.tensors().features.flip(0),
    )
    second = entry.value().fit(flipped).transform(val).tensors().logits
    torch.testing.assert_close(first, second, rtol=1e-5, atol=1e-6)


def test_the_warning_is_a_user_warning():
    assert issubclass(CalibrationWarning, UserWarning)


def test_as_a_module_it_is_the_same(entry):
    """Float32 within 1e-5, in every layout and precision, and with gradients."""
    test, calibrator = predictions(seed=1), copy.deepcopy(fitted(entry.name))
    if entry.name == "multicalibration":
        with pytest.raises(ValueError, match="depends on logits"):
            calibrator.module()
        return
    layer, wanted = calibrator.module(), calibrator.transform(test)
    parts = [test.tensors().logits] + [test.tensors().features] * (
        calibrator.num_features is not None
    )
    assert not layer.state_dict()
    torch.testing.assert_close(layer(*parts), wanted.tensors().logits, rtol=1e-5, atol=1e-5)
    # Positions of an image, with the classes second, also where memory has them last.
    dense = [part.view(10, 5, 4, -1).movedim(-1, 1) for part in parts]
    for given in (dense, [part.contiguous() for part in dense]):
        found = layer(*given)
        assert found.shape == given[0].shape
        torch.testing.assert_close(
            found.movedim(1, -1).reshape(200, -1), wanted.tensors().logits, rtol=1e-5, atol=1e-5
        )
    # Half precision rounds what comes in and goes out, not what was fitted.
    for dtype in (torch.float16, torch.bfloat16):
        halves = [part.to(dtype) for part in parts]
        calibrated = copy.deepcopy(layer).to(dtype)(*halves)
        assert calibrated.dtype == dtype
        assert torch.equal(calibrated, layer(*(part.float() for part in halves)).to(dtype))
    # A fit that comes later does not reach it; gradients do.
    calibrator.fit(predictions(100, seed=5))
    given = parts[0].clone().requires_grad_()
    after = layer(given, *parts[1:])
    torch.testing.assert_close(after.detach(), wanted.tensors().logits, rtol=1e-5, atol=1e-5)
    if entry.name not in ("histogram-binning", "venn-abers"):  # which are flat
        after.square().sum().backward()
        assert torch.isfinite(given.grad).all()
        sure = parts[0].mul(10).requires_grad_()  # some probabilities are exactly 1
        torch.nn.functional.cross_entropy(layer(sure, *parts[1:]), test.tensors().target).backward()
        assert torch.isfinite(sure.grad).all()
    with pytest.raises(ValueError, match=r"logits .*\(N, 4\) .*got \(2, 5\)"):
        layer(torch.zeros(2, 5), *parts[1:])


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_as_a_module_it_is_the_same_of_rounded_probabilities(entry, dtype):
    """Zeros are raised in the same precision, so that probabilities on an edge stay on its side."""
    if entry.value.needs or entry.name == "multicalibration":
        pytest.skip("of logits alone")
    probs = (predictions(500, 3).tensors().probs * 100).round() / 100
    probs, target = probs / probs.sum(1, keepdim=True), predictions(500, 3).tensors().target
    val, test = (
        Predictions.from_probs(probs[at].to(dtype), target[at])
        for at in (slice(300), slice(300, None))
    )
    calibrator = entry.value().fit(val)
    assert calibrator.least_log is not None
    found, wanted = (
        calibrator.module()(test.tensors().logits).softmax(1),
        calibrator.transform(test).tensors().probs,
    )
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5 if dtype != torch.float16 else 2e-3)


class Every(torch.nn.Module):
    """The layers of all calibrators that have one, so that an exporter, which is slow, runs once."""

    def __init__(self):
        super().__init__()
        entries = [entry for entry in CALIBRATORS.entries() if entry.name != "multicalibration"]
        self.layers = torch.nn.ModuleDict(
            {entry.name: fitted(entry.name).module() for entry in entries}
        )
        self.needs_features = {
            entry.name: fitted(entry.name).num_features is not None for entry in entries
        }

    def forward(self, logits, features):
        return {
            name: layer(logits, features) if self.needs_features[name] else layer(logits)
            for name, layer in self.layers.items()
        }


@pytest.mark.system
@pytest.mark.filterwarnings("ignore")  # notices of PyTorch's exporters to their own developers
def test_as_modules_they_export(tmp_path):
    """To torch.export, TorchScript and ONNX, each for any number of samples."""
    layers, test = Every(), predictions(seed=1)
    parts = (test.tensors().logits, test.tensors().features)
    few, expected = tuple(part[:7] for part in parts), layers(*parts)
    shapes = tuple({0: torch.export.Dim("batch")} for _ in parts)
    program = torch.export.export(layers, few, dynamic_shapes=shapes)
    exported = {
        "torch.export": program.module()(*parts),
        "TorchScript": torch.jit.trace(layers, few, strict=False)(*parts),
    }
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    torch.onnx.export(
        program, few, tmp_path / "layers.onnx", dynamo=True, verbose=False, dynamic_shapes=shapes,
        input_names=["logits", "features"], output_names=list(expected),
    )  # fmt: skip
    session = runtime.InferenceSession(tmp_path / "layers.onnx", providers=["CPUExecutionProvider"])
    outputs = session.run(
        list(expected), {"logits": parts[0].numpy(), "features": parts[1].numpy()}
    )
    exported["ONNX"] = {
        name: torch.from_numpy(output) for name, output in zip(expected, outputs, strict=True)
    }
    for form, found in exported.items():
        for name, logits in expected.items():
            torch.testing.assert_close(
                found[name].softmax(1), logits.softmax(1), rtol=1e-5, atol=1e-5,
                msg=lambda text, where=f"{name} as {form}": f"{where}: {text}",
            )  # fmt: skip
