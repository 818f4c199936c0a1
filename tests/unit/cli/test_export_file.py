"""fedlas export of a saved CalibratedModel."""

import json
from functools import partial
from typing import get_args, get_type_hints

import numpy as np
import pytest
import torch
from torch import nn

from commands import command
from fedlas import CalibratedModel, Predictions, deploy
from fedlas.calibrators import CALIBRATORS
from fedlas.cli import main
from fedlas.deploy import FORMATS
from fedlas.errors import InputError

pytestmark = pytest.mark.system
export_file = partial(command, "export")
CODE = """
import torch
from torch import nn


def build():
    torch.manual_seed(5)
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 4))


class Words(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding, self.score = nn.Embedding(20, 8), nn.Linear(8, 4)

    def forward(self, ids, mask):
        weight = mask.unsqueeze(2).float()
        return {"logits": self.score((self.embedding(ids) * weight).sum(1) / weight.sum(1))}


def no_model():
    return "resnet"


constant = 5
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A user's folder: code, a saved model of one input and one of two, and inputs of both."""
    (tmp_path / "users_code.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(__import__("sys").modules, "users_code", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    import users_code

    torch.manual_seed(0)
    logits = 3 * torch.randn(200, 4)
    val = Predictions(logits, torch.multinomial((logits / 2).softmax(1), 1).squeeze(1))
    calibrator = CALIBRATORS["platt"].value().fit(val)
    CalibratedModel(users_code.build(), calibrator).save("one.safetensors")
    CalibratedModel(users_code.Words(), calibrator).save("two.safetensors")
    np.savez("one.npz", inputs=torch.randn(70, 3, 2, 2).numpy())
    np.savez(
        "two.npz",
        ids=torch.randint(0, 20, (70, 5)).numpy(),
        mask=torch.ones(70, 5, dtype=torch.int64).numpy(),
    )
    return tmp_path


@pytest.mark.parametrize("form", [form for form in FORMATS if form != "sql"])  # of tables
@pytest.mark.parametrize(("name", "function"), [("one", "build"), ("two", "Words")])
@pytest.mark.filterwarnings("ignore")  # of the lines that load a file, PyTorch's own
def test_it_is_checked_and_the_printed_lines_run(folder, form, name, function, capsys):
    if form == "onnx":
        for package in ("onnx", "onnxruntime", "onnxscript"):
            pytest.importorskip(package)
    arguments = [
        f"{name}.safetensors",
        "--model",
        f"users_code:{function}",
        "--inputs",
        f"{name}.npz",
    ]
    assert main(["export", *arguments, "--format", form]) == 0
    said = capsys.readouterr().out
    assert "70 samples, largest difference of a probability" in said
    assert {"one": "float32 [batch, 3, 2, 2]", "two": "ids int64 [batch, 5], from 0 to 19"}[
        name
    ] in said
    lines = [line.strip() for line in said.splitlines() if line.startswith("    ")]
    assert len(lines) == 4
    found = {}
    exec("\n".join(lines), found)
    import users_code

    model = CalibratedModel.load(f"{name}.safetensors", getattr(users_code, function)())
    given = {
        key: torch.zeros(1, *value.shape[1:], dtype=value.dtype)
        for key, value in arrays(name).items()
    }
    wanted = model(given["inputs"]) if name == "one" else model(**given)
    close = {"rtol": 1e-5, "atol": 1e-5, "equal_nan": True}  # a mask of zeros leaves no word
    torch.testing.assert_close(torch.as_tensor(found["logits"]), wanted, **close)
    torch.testing.assert_close(torch.as_tensor(found["probs"]), wanted.softmax(1), **close)


def arrays(name):
    with np.load(f"{name}.npz") as archive:
        return {key: torch.from_numpy(archive[key]) for key in archive}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # TorchScript is, for PyTorch
def test_the_description_is_in_the_file(folder):
    export_file(
        folder / "one.safetensors",
        model="users_code:build",
        inputs=folder / "one.npz",
        format="torchscript",
    )
    files = {"metadata.json": ""}
    torch.jit.load(folder / "one.pt", _extra_files=files)
    about = json.loads(files["metadata.json"])
    assert json.loads(about["calibration"])["method"] == "platt"
    assert json.loads(about["inputs"])[0]["shape"] == ["batch", 3, 2, 2]


def test_invalid_export_arguments_are_rejected(folder):
    file, inputs = folder / "one.safetensors", folder / "one.npz"
    np.savez("uneven.npz", a=np.zeros(3), b=np.zeros(4))
    for model, data, options, message in (
        (
            "users_code:bild",
            inputs,
            {},
            "must name an importable function; got users_code:bild",
        ),
        ("no_such_module:build", inputs, {}, "No module named"),
        ("users_code", inputs, {}, "must name an importable function"),
        (
            "users_code:constant",
            inputs,
            {},
            "must return an nn.Module; got int from users_code:constant",
        ),
        ("users_code:no_model", inputs, {}, "must return an nn.Module"),
        ("users_code:Words", inputs, {}, "must have the weights of"),
        ("users_code:build", folder / "none.npz", {}, "must be an .npz file of numeric arrays"),
        ("users_code:build", folder / "uneven.npz", {}, "the same number of samples"),
        (
            "users_code:build",
            inputs,
            {"format": "safetensors"},
            "--format must be one of onnx, torch-export",
        ),
        (
            "users_code:build",
            inputs,
            {"method": "none"},
            "--method and --data require a run folder",
        ),
        ("users_code:build", inputs, {"format": "onx"}, "Did you mean 'onnx'"),
        ("users_code:build", inputs, {"out": folder / "net.bin"}, r"--out must end in \.onnx"),
    ):
        with pytest.raises(InputError, match=message):
            export_file(file, model=model, inputs=data, **options)
    with pytest.raises(InputError, match=r"written by CalibratedModel\.save"):
        export_file(inputs, model="users_code:build", inputs=inputs)
    assert main(["export", str(file)]) == 2
    assert sorted(path.suffix for path in folder.glob("one.*")) == [".npz", ".safetensors"]


@pytest.mark.parametrize(
    ("noise", "message"),
    [
        (lambda logits: torch.randn_like(logits), "within 1e-05; got a difference of"),
        (
            lambda logits: torch.randn(len(logits), 4),
            "batches of any size; got RuntimeError for a batch of 64: ",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_export_must_reproduce_the_model(folder, monkeypatch, noise, message):
    import users_code

    class Noisy(nn.Sequential):
        def forward(self, inputs):
            logits = super().forward(inputs)
            return logits + noise(logits)

    built = users_code.build()
    monkeypatch.setattr(users_code, "build", lambda: Noisy(*built))
    with pytest.raises(InputError, match=message):
        export_file(
            folder / "one.safetensors",
            model="users_code:build",
            inputs=folder / "one.npz",
            format="torchscript",
        )
    assert not (folder / "one.pt").exists()


def temperature():
    """Fitted on predictions that are too sure."""
    logits = 3 * torch.randn(200, 4, generator=torch.Generator().manual_seed(0))
    target = torch.multinomial(
        (logits / 2).softmax(1), 1, generator=torch.Generator().manual_seed(1)
    )[:, 0]
    return CALIBRATORS["temperature"].value().fit(Predictions(logits, target))


def test_image_height_and_width_can_be_free(folder, capsys):
    runtime = pytest.importorskip("onnxruntime")
    pooled = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    ).eval()
    model = CalibratedModel(pooled, temperature())
    images = torch.randn(5, 3, 8, 8)
    exported = deploy.export(model, "net.onnx", images, free_axes=(2, 3))
    assert exported.inputs[0]["shape"] == ["batch", 3, "inputs_2", "inputs_3"]
    session = runtime.InferenceSession("net.onnx", providers=["CPUExecutionProvider"])
    wide = torch.randn(2, 3, 10, 12)
    np.testing.assert_allclose(
        session.run(None, {"inputs": wide.numpy()})[0], model(wide).detach(), atol=1e-5
    )
    # A model that fixes the axis, and axes that there are not.
    named = {"model": "users_code:build", "inputs": folder / "one.npz"}
    for axes, message in (
        ([2], "accept any size of each free axis"),
        ([4], r"axis of an input.*inputs \(70, 3, 2, 2\)"),
        (["height"], "AXIS or NAME:AXIS"),
        (["other:2"], "axis of an input"),
    ):
        with pytest.raises(InputError, match=message):
            export_file(folder / "one.safetensors", **named, free_axes=axes)


@pytest.mark.parametrize(
    "inputs", [None, [], {}, {"a": 3}, "abc", np.zeros((3, 2)), torch.tensor(1.0)], ids=repr
)
def test_inputs_of_a_wrong_type_are_refused(inputs, tmp_path):
    model = CalibratedModel(nn.Identity(), temperature())
    with pytest.raises(InputError, match="inputs must be a dense tensor"):
        deploy.export(model, tmp_path / "net.onnx", inputs)
    with pytest.raises(InputError, match="a fitted CalibratedClassifier"):
        deploy.export(inputs, tmp_path / "net.onnx", torch.zeros(3, 4))


@pytest.mark.parametrize("name", ["logistic", "forest", "bayes", "support"])
@pytest.mark.filterwarnings("ignore")  # of skl2onnx, and of the few samples
def test_scikit_learn_goes_out_as_onnx(name, tmp_path):
    pytest.importorskip("skl2onnx")
    runtime = pytest.importorskip("onnxruntime")
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.frozen import FrozenEstimator
    from sklearn.linear_model import LogisticRegression
    from sklearn.naive_bayes import GaussianNB
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import LinearSVC

    from fedlas.integrations.sklearn import CalibratedClassifier

    generator = np.random.default_rng(0)
    classes = 2 if name in ("logistic", "support") else 3
    rows, target = generator.normal(size=(300, 5)), np.arange(300) % classes
    rows[:, 0] += target
    estimator = {
        "logistic": make_pipeline(StandardScaler(), LogisticRegression()),
        "forest": FrozenEstimator(
            RandomForestClassifier(5, random_state=0).fit(rows[:150], target[:150])
        ),
        "bayes": GaussianNB(),
        "support": LinearSVC(),
    }[name]
    model = CalibratedClassifier(estimator, "temperature", cv=0.5).fit(rows, target)
    exported = deploy.export(model, tmp_path / "net.onnx", rows)
    assert exported.difference < 1e-5
    session = runtime.InferenceSession(tmp_path / "net.onnx", providers=["CPUExecutionProvider"])
    probs = session.run(["probs"], {"X": rows.astype(exported.inputs[0]["dtype"])})[0]
    np.testing.assert_allclose(
        probs, model.predict_proba(rows.astype(exported.inputs[0]["dtype"])), atol=1e-5
    )
    with pytest.raises(InputError, match="form must be 'onnx'"):
        deploy.export(model, tmp_path / "net.pt2", rows, form="torch-export")
    with pytest.raises(InputError, match="numeric array"):
        deploy.export(model, tmp_path / "two.onnx", "rows")


def test_export_names_every_format():
    assert get_args(get_type_hints(deploy.export)["form"]) == tuple(FORMATS)
