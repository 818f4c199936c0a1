"""CalibratedModel: what it returns, and that it saves, compiles, exports and moves like the model."""

import copy
import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

import fedlas
from fedlas import CalibratedModel, Objective, Predictions, calibrate
from fedlas.calibrators import FeatureClipping, TemperatureScaling, VectorScaling
from fedlas.errors import InputError

CLASSES = 4
# The networks have random weights, of which a fit warns.
pytestmark = pytest.mark.filterwarnings("ignore::fedlas.errors.CalibrationWarning")


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(6, 16), nn.ReLU(), nn.Dropout(), nn.BatchNorm1d(16), nn.Linear(16, CLASSES)
    )


def batches(seed=1, samples=300):
    torch.manual_seed(seed)
    inputs = torch.randn(samples, 6)
    return [
        (part, (part[:, :CLASSES] + 0.5 * torch.randn(len(part), CLASSES)).argmax(1))
        for part in inputs.split(100)
    ]


METHODS = {
    "temperature": lambda: TemperatureScaling(),
    "vector": lambda: VectorScaling(num_folds=None),
    "feature-clipping": lambda: FeatureClipping(),
}


@pytest.fixture(params=METHODS, ids=METHODS.keys())
def calibrated(request):
    return calibrate(network(), batches(), METHODS[request.param](), head="4")


def expected(calibrated, inputs):
    """By the way that does without a module."""
    with torch.no_grad():
        features, logits = calibrated.model[:4](inputs), calibrated.model(inputs)
    said = Predictions(logits, torch.zeros(len(inputs), dtype=torch.int64), features=features)
    return calibrated.calibrator.transform(said)


def test_it_returns_calibrated_logits(calibrated):
    inputs = batches(2)[0][0]
    wanted = expected(calibrated, inputs)
    assert not calibrated.training
    assert not calibrated.model.training
    torch.testing.assert_close(
        calibrated(inputs).detach(), wanted.tensors().logits, rtol=1e-5, atol=1e-5
    )
    probs = calibrated.predict_proba(inputs)
    torch.testing.assert_close(probs, wanted.tensors().probs, rtol=1e-5, atol=1e-5)
    assert not probs.requires_grad
    calibrated(inputs).sum().backward()
    assert calibrated.model[0].weight.grad is not None


def test_saved_and_loaded(calibrated, tmp_path):
    inputs = batches(2)[0][0]
    path = calibrated.save(tmp_path / "new" / "model.safetensors")
    assert b"pickle" not in path.read_bytes()
    other = network(seed=5)
    loaded = CalibratedModel.load(str(path), other)
    assert torch.equal(loaded(inputs), calibrated(inputs))
    assert loaded.model is other
    assert type(loaded.calibrator) is type(calibrated.calibrator)
    assert not loaded.training
    # The package of the format reads the same weights.
    for name, value in pytest.importorskip("safetensors.torch").load_file(path).items():
        assert torch.equal(value, calibrated.model.state_dict()[name])


def test_state_dict_holds_model_and_calibrator(calibrated, tmp_path):
    inputs = batches(2)[0][0]
    torch.save(calibrated.state_dict(), tmp_path / "state.pt")
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    assert {name.split(".")[0] for name in state} == {"model", "_extra_state"}
    other = calibrate(network(seed=5), batches(), method="matrix")
    other = CalibratedModel(other.model, other.calibrator, head="4")
    other.load_state_dict(state)
    assert torch.equal(other(inputs), calibrated(inputs))
    assert other.calibrator.to_dict() == calibrated.calibrator.to_dict()


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS.keys())
def test_one_calibrator_serves_several_models(method, tmp_path):
    """Each model has its own fit, also where the calibrator is fitted again; the one that was passed stays unfitted."""
    shared = method()
    first = calibrate(network(), batches(), shared, head="4")
    before = first.calibrator.to_dict()
    calibrate(network(seed=5), batches(3), shared, head="4")
    assert first.calibrator.to_dict() == before
    assert shared.num_classes is None
    direct = CalibratedModel(network(), first.calibrator, head="4")
    first.calibrator.fit(replace(expected(first, batches(3)[0][0]), target=batches(3)[0][1]))
    assert direct.calibrator.to_dict() == before
    again = CalibratedModel.load(direct.save(tmp_path / "a.safetensors"), network())
    assert torch.equal(again(batches()[0][0]), direct(batches()[0][0]))


def test_a_head_is_registered_once():
    model = network()
    given, named = (
        calibrate(model, batches(), FeatureClipping(), head) for head in (model[4], "4")
    )
    named.load_state_dict(given.state_dict())
    assert [*given.state_dict()] == [*named.state_dict()]
    assert torch.equal(copy.deepcopy(given)(batches()[0][0]), named(batches()[0][0]))
    with pytest.raises(InputError, match="must be a module of the model"):
        calibrate(model, batches(), FeatureClipping(), nn.Linear(16, CLASSES))


@pytest.mark.parametrize(
    "state",
    [
        None,
        3,
        "x",
        {},
        torch.zeros(3),
        torch.zeros(2, 2),
        b"\xff",
        b"",
        b"{}",
        b"[1]",
        b"[" * 100_000,
    ],
)
def test_a_state_dict_without_a_calibrator_is_refused(calibrated, state):
    extra = (
        torch.frombuffer(bytearray(state), dtype=torch.uint8)
        if isinstance(state, bytes) and state
        else state
    )
    with pytest.raises(InputError):
        copy.deepcopy(calibrated).load_state_dict(
            {**calibrated.state_dict(), "_extra_state": extra}
        )


def test_copies_and_casts(calibrated):
    inputs = batches(2)[0][0]
    assert torch.equal(copy.deepcopy(calibrated)(inputs), calibrated(inputs))
    half = copy.deepcopy(calibrated).bfloat16()
    assert half(inputs.bfloat16()).dtype == torch.bfloat16
    probs = half.predict_proba(inputs.bfloat16())
    assert probs.dtype == torch.float32
    torch.testing.assert_close(probs, calibrated.predict_proba(inputs), rtol=0.1, atol=0.05)
    assert torch.equal(half.model[4].weight, calibrated.model[4].weight.bfloat16())


@pytest.mark.system
@pytest.mark.filterwarnings("ignore")  # notices of PyTorch's exporters to their own developers
def test_it_exports(calibrated, tmp_path):
    inputs = torch.cat([part for part, _ in batches(2)])
    wanted = calibrated(inputs).detach()
    size = torch.export.Dim("batch")
    program = torch.export.export(
        calibrated, (inputs[:7],), dynamic_shapes={"inputs": ({0: size},)}
    )
    torch.testing.assert_close(program.module()(inputs).detach(), wanted, rtol=1e-5, atol=1e-5)
    traced = torch.jit.trace(calibrated, inputs[:7])
    traced.save(tmp_path / "model.pt")
    torch.testing.assert_close(
        torch.jit.load(tmp_path / "model.pt")(inputs), wanted, rtol=1e-5, atol=1e-5
    )
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    shapes = {"inputs": ({0: size},)}
    path = tmp_path / "model.onnx"
    torch.onnx.export(
        calibrated,
        (inputs[:7],),
        path,
        dynamo=True,
        verbose=False,
        dynamic_shapes=shapes,
        input_names=["x"],
    )
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    found = torch.from_numpy(session.run(None, {"x": inputs.numpy()})[0])
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


def test_it_compiles(calibrated):
    inputs = batches(2)[0][0]
    compiled = torch.compile(calibrated, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(inputs), calibrated(inputs))


class OutputOf(nn.Module):
    """A model with keyword arguments and an output of named parts."""

    def __init__(self):
        super().__init__()
        self.score = nn.Linear(6, CLASSES)

    def forward(self, left, right=None, *, scale=1.0):
        return SimpleNamespace(logits=scale * self.score(left if right is None else left + right))


class OneMapping(nn.Module):
    """A model that takes one mapping and returns one."""

    def __init__(self):
        super().__init__()
        self.score = nn.Linear(6, CLASSES)

    def forward(self, batch):
        return {"logits": self.score(batch["x"])}


def test_inputs_of_any_form():
    (inputs, target), *_ = batches()
    model = OutputOf()
    named = calibrate(model, [{"left": inputs, "labels": target}], "temperature")
    several = calibrate(model, [((inputs, torch.zeros_like(inputs)), target)], "temperature")
    single = calibrate(model, [(inputs, target, "more")], "temperature")
    assert (
        named.calibrator.temperature
        == several.calibrator.temperature
        == single.calibrator.temperature
    )
    wanted = single.predict_proba(inputs)
    assert torch.equal(named.predict_proba({"left": inputs}), wanted)
    assert torch.equal(named.predict_proba((inputs, torch.zeros_like(inputs))), wanted)
    torch.testing.assert_close(named(left=inputs, scale=2.0), 2 * named(inputs))
    # a mapping of one entry would be taken for its value
    both = {"x": inputs, "id": torch.arange(len(inputs))}
    mapping = calibrate(OneMapping(), [(both, target)])
    assert torch.equal(mapping.predict_proba(both), mapping(both).detach().softmax(1))
    assert isinstance(
        calibrate(Objective(model, nn.CrossEntropyLoss()), [(inputs, target)]).model, OutputOf
    )


def test_refused(tmp_path):
    fitted = TemperatureScaling().fit(
        Predictions(torch.randn(50, CLASSES), torch.randint(0, CLASSES, (50,)))
    )
    with pytest.raises(InputError, match=r"nn\.Module; got function"):
        CalibratedModel(batches, fitted)
    with pytest.raises(InputError, match=r"of fedlas\.calibrators; got str 'temperature'"):
        CalibratedModel(network(), "temperature")
    event = TemperatureScaling().fit(fedlas.TopLabel([0.9, 0.8, 0.7], [True, False, True]))
    with pytest.raises(
        InputError, match=r"of fedlas\.calibrators; got TemperatureScaling.* fitted on a TopLabel"
    ):
        CalibratedModel(nn.Identity(), event)
    with pytest.raises(InputError, match=r"CalibratedModel: .*fitted first"):
        CalibratedModel(network(), TemperatureScaling())
    with pytest.raises(InputError, match=r"logits must have shape \(N, 4\).*got \(2, 6\)"):
        CalibratedModel(nn.Identity(), fitted)(torch.zeros(2, 6))
    with pytest.raises(InputError, match="must return logits"):
        CalibratedModel(nn.LSTM(3, 3), fitted)(torch.zeros(2, 3))


def test_files_that_are_none_leave_the_model_alone(tmp_path):
    saved = calibrate(network(), batches(), TemperatureScaling())
    path, other = saved.save(tmp_path / "a.safetensors"), nn.Linear(6, CLASSES)
    before = other.weight.clone()
    with pytest.raises(InputError, match=r"weights .*weight is missing; bias is missing"):
        CalibratedModel.load(path, other)
    assert torch.equal(other.weight, before)
    wide = nn.Sequential(nn.Linear(6, 17), *network()[1:])
    with pytest.raises(InputError, match=r"0.weight is \(16, 6\), not \(17, 6\)"):
        CalibratedModel.load(path, wide)
    with pytest.raises(InputError, match=r"must be an nn\.Module"):
        CalibratedModel.load(path, "resnet")
    weights = load_file(path)
    with safe_open(path, "pt") as file:
        about = file.metadata()
    save_file(weights, tmp_path / "plain.safetensors")
    damaged = {**about, "fedlas.calibrator": json.dumps({"format": "fedlas.calibrator/1"})}
    save_file(weights, tmp_path / "damaged.safetensors", damaged)
    (tmp_path / "short.safetensors").write_bytes(path.read_bytes()[:-9])
    save_file(weights, tmp_path / "headed.safetensors", {**about, "fedlas.about": '{"head": 3}'})
    for name, message in (
        ("none", "No such file"),
        ("plain", "the file holds no calibration"),
        ("damaged", "must have format"),
        ("short", "not a readable safetensors"),
        ("headed", "must be written by CalibratedModel.save"),
    ):
        with pytest.raises(InputError, match=message):
            CalibratedModel.load(tmp_path / f"{name}.safetensors", network())
    assert fedlas.CalibratedModel is CalibratedModel
