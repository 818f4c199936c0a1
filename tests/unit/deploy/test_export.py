import dataclasses
import io
import json
import shutil
from functools import partial

import numpy as np
import pytest
import torch

from commands import command
from fedlas.calibrators import TemperatureScaling, VectorScaling
from fedlas.deploy import FORMATS, export_model, fit_calibration
from fedlas.errors import InputError
from fedlas.lab.runs.load import load_trained_run
from fedlas.lab.studies.export import iter_test_images as images_of
from fedlas.predictions import Predictions

pytestmark = pytest.mark.system

export = partial(command, "export")
CALIBRATORS = {"temperature": TemperatureScaling, "vector": VectorScaling}


@pytest.fixture
def no_card(monkeypatch):
    """Drawing takes longer than exporting."""
    monkeypatch.setattr("fedlas.present.card.CalibrationCard.save", lambda _card, path: path)


def expected(folder, calibrate):
    val, test = (
        Predictions.load(folder / "predictions" / f"{part}.npz") for part in ("val", "test")
    )
    return CALIBRATORS[calibrate]().fit(val).transform(test).probs


def pixels(folder):
    return torch.cat(list(images_of(load_trained_run(folder))))


def test_bytes_come_back_exactly(run_folder):
    trained = load_trained_run(run_folder)
    assert torch.equal(pixels(run_folder), trained.splits.test.images)


def test_the_card_lies_beside_the_file(run_folder, tmp_path, capsys):
    out = tmp_path / "net.pt2"
    assert export(run_folder, format="torch-export", out=out, method="vector", replicates=0) == 0
    assert "300 samples, largest difference of a probability" in capsys.readouterr().out
    card = json.loads((tmp_path / "net.pt2.card.json").read_text())
    assert card["exported"]["file"] == "net.pt2"
    assert card["exported"]["difference"] <= 1e-5
    assert (tmp_path / "net.pt2.card.html").is_file()


def test_torch_export(run_folder, tmp_path, no_card):
    out = tmp_path / "net.pt2"
    export(run_folder, format="torch-export", out=out, method="temperature", replicates=0)
    files = {"metadata.json": ""}
    program = torch.export.load(io.BytesIO(out.read_bytes()), extra_files=files)
    about = json.loads(files["metadata.json"])
    assert json.loads(about["inputs"])[0]["dtype"] == "uint8"
    assert json.loads(about["normalization"])["done by"] == "the model"
    for size in (1, 3, 300):  # the batch is free
        found = program.module()(pixels(run_folder)[:size])[1].detach().numpy()
        np.testing.assert_allclose(found, expected(run_folder, "temperature")[:size], atol=1e-5)


def test_onnx(run_folder, tmp_path, no_card):
    for package in ("onnx", "onnxscript"):
        pytest.importorskip(package)
    runtime = pytest.importorskip("onnxruntime")
    out = tmp_path / "net.onnx"
    export(run_folder, out=out, method="temperature", replicates=0)
    session = runtime.InferenceSession(out, providers=["CPUExecutionProvider"])
    assert [port.name for port in session.get_outputs()] == ["logits", "probs"]
    for size in (1, 3, 300):
        found = session.run(["probs"], {"images": pixels(run_folder)[:size].numpy()})[0]
        np.testing.assert_allclose(found, expected(run_folder, "temperature")[:size], atol=1e-5)
    about = session.get_modelmeta().custom_metadata_map
    val = Predictions.load(run_folder / "predictions" / "val.npz")
    assert (
        json.loads(about["calibration"])["temperature"] == TemperatureScaling().fit(val).temperature
    )
    assert about["run"] == "ce-s3"
    assert "commit" in about


def test_a_model_of_ones_own_needs_no_run(tmp_path):
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3)).eval()
    images = torch.randint(0, 256, (40, 3, 2, 2), dtype=torch.uint8)
    with torch.no_grad():
        said = Predictions(model((images.float() / 255 - 0.5) / 0.25), torch.arange(40) % 3)
    found = export_model(
        model, tmp_path / "net.pt2", form="torch-export", calibration=fit_calibration("vector", said),
        mean=[0.5] * 3, std=[0.25] * 3, images=lambda: images.split(16), expected=said, about={},
    )  # fmt: skip
    assert (found.samples, found.inputs[0]["shape"]) == (40, ["batch", 3, 2, 2])
    probs = torch.export.load(found.path).module()(images)[1].detach()
    wanted = fit_calibration("vector", said).transform(said).probs
    np.testing.assert_allclose(probs, wanted, atol=1e-5)


def test_what_gives_other_probabilities_is_not_left(run_folder, tmp_path, monkeypatch, no_card):
    honest = FORMATS["torch-export"]

    def wrong(model, *rest):
        with torch.no_grad():
            model.model.model.fc.bias[0] += 0.01
        return honest.write(model, *rest)

    monkeypatch.setitem(FORMATS, "torch-export", dataclasses.replace(honest, write=wrong))
    with pytest.raises(InputError, match="within 1e-05; got a difference of"):
        export(run_folder, format="torch-export", out=tmp_path / "net.pt2", replicates=0)
    assert not list(tmp_path.iterdir())


def test_export_distinguishes_device_from_conversion_differences(run_folder, tmp_path):
    copy = tmp_path / "ce-s3"
    shutil.copytree(run_folder, copy)
    test = Predictions.load(copy / "predictions" / "test.npz")
    test.with_logits(test.logits + 0.01 * torch.randn(test.logits.shape).numpy()).save(
        copy / "predictions" / "test.npz"
    )
    with pytest.raises(InputError, match=r"also differs by .* on this machine"):
        export(copy, format="torch-export", replicates=0)
    assert not (copy / "export").exists()


def test_not_a_number_is_no_agreement(run_folder, tmp_path, monkeypatch):
    silent = dataclasses.replace(
        FORMATS["torch-export"],
        read=lambda content: lambda inputs: np.full((300, 10), np.nan)[: len(inputs["images"])],
    )
    monkeypatch.setitem(FORMATS, "torch-export", silent)
    with pytest.raises(InputError, match="conversion changes them"):
        export(run_folder, format="torch-export", out=tmp_path / "net.pt2", replicates=0)
    assert not list(tmp_path.iterdir())


def test_invalid_export_arguments_raise(run_folder, tmp_path):
    for options, message in (
        ({"format": "onx"}, "Did you mean 'onnx'"),
        ({"out": tmp_path / "net.pt"}, r"--out must end in \.onnx"),
        ({"method": "drift-temperature"}, "the calibrator must be one of"),
        ({"inputs": tmp_path / "net.npz"}, "--inputs require the file"),
    ):
        with pytest.raises(InputError, match=message):
            export(run_folder, **options)
    with pytest.raises(InputError, match="the folder must be a run folder"):
        export(tmp_path)
