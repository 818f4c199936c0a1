"""Models of torchvision, timm and transformers, with random weights: the three lines work, and so does ONNX."""

import copy

import pytest
import torch

from fedlas import CalibratedModel, calibrate
from fedlas.deploy import export

# Of random weights, and PyTorch's exporters to their own developers.
pytestmark = pytest.mark.filterwarnings("ignore")
CLASSES = 5

TINY = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
}  # of transformers


def torchvision_network():
    return pytest.importorskip("torchvision").models.squeezenet1_1(num_classes=CLASSES)


def timm_network():
    return pytest.importorskip("timm").create_model(
        "test_resnet", pretrained=False, num_classes=CLASSES
    )


def hugging_face_images():
    transformers = pytest.importorskip("transformers")
    return transformers.ViTForImageClassification(
        transformers.ViTConfig(**TINY, image_size=64, num_labels=CLASSES)
    )


def hugging_face_text():
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(**TINY, vocab_size=50, num_labels=CLASSES)
    return transformers.BertForSequenceClassification(config)


def images():
    return [(torch.randn(8, 3, 64, 64), torch.randint(0, CLASSES, (8,))) for _ in range(2)]


def pixel_values():
    return [{"pixel_values": inputs, "labels": target} for inputs, target in images()]


def words():
    ids = [torch.randint(0, 50, (8, 6)) for _ in range(2)]
    return [
        {
            "input_ids": part,
            "attention_mask": torch.ones_like(part),
            "labels": torch.randint(0, CLASSES, (8,)),
        }
        for part in ids
    ]


CASES = {
    "torchvision": (torchvision_network, images),
    "timm": (timm_network, images),
    "images of Hugging Face": (hugging_face_images, pixel_values),
    "text of Hugging Face": (hugging_face_text, words),
}


def inputs_of(batch):
    return (
        {k: v for k, v in batch.items() if k != "labels"} if isinstance(batch, dict) else batch[0]
    )


@pytest.mark.parametrize(("build", "loader"), CASES.values(), ids=CASES)
def test_the_three_lines(build, loader, tmp_path):
    torch.manual_seed(0)
    model, batches = build(), loader()
    calibrated = calibrate(model, batches, "temperature")
    assert calibrated.before_after(batches).samples == 16
    inputs = inputs_of(batches[0])
    probs = calibrated.predict_proba(inputs)
    assert probs.shape == (8, CLASSES)
    raw = model(**inputs).logits if isinstance(inputs, dict) else model(inputs)
    torch.testing.assert_close(probs, (raw / calibrated.calibrator.temperature).softmax(1).detach())
    again = CalibratedModel.load(calibrated.save(tmp_path / "model.safetensors"), build())
    assert torch.equal(again.predict_proba(inputs), probs)
    # Half precision, and the channels last in memory.
    half = copy.deepcopy(calibrated).bfloat16()
    cast = (
        {k: v.bfloat16() if v.is_floating_point() else v for k, v in inputs.items()}
        if isinstance(inputs, dict)
        else None
    )
    torch.testing.assert_close(
        half.predict_proba(cast or inputs.bfloat16()), probs, rtol=0.1, atol=0.05
    )
    if not isinstance(inputs, dict):
        last = copy.deepcopy(calibrated).to(memory_format=torch.channels_last)
        turned = inputs.contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(last.predict_proba(turned), probs, rtol=1e-3, atol=1e-4)


@pytest.mark.system
@pytest.mark.parametrize("case", ["torchvision", "timm", "text of Hugging Face"])
def test_onnx_holds_the_calibration(case, tmp_path):
    for package in ("onnx", "onnxruntime", "onnxscript"):
        pytest.importorskip(package)
    torch.manual_seed(0)
    build, loader = CASES[case]
    batches = loader()
    calibrated, inputs = calibrate(build(), batches, "platt"), inputs_of(batches[0])
    found = export(calibrated, tmp_path / "net.onnx", inputs)
    assert found.difference <= 1e-5
    assert found.samples == 8


def test_segmentation_of_torchvision():
    models = pytest.importorskip("torchvision").models.segmentation
    torch.manual_seed(0)
    model = models.lraspp_mobilenet_v3_large(
        weights=None, weights_backbone=None, num_classes=CLASSES
    )
    target = torch.randint(0, CLASSES, (2, 32, 32))
    target[:, :4] = 255
    inputs = torch.randn(2, 3, 32, 32)
    calibrated = calibrate(model, [(inputs, target)], ignore_index=255)
    assert calibrated(inputs).shape == (2, CLASSES, 32, 32)
    assert calibrated.before_after([(inputs, target)]).samples == 2 * 28 * 32


def test_features_of_a_transformer():
    """The head reads one token of many; clipping sees what the head sees."""
    torch.manual_seed(0)
    model, batches = hugging_face_text(), words()
    calibrated = calibrate(model, batches, "feature-clipping")
    inputs = inputs_of(batches[0])
    seen = []
    model.classifier.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    logits = calibrated(**inputs)
    threshold = calibrated.calibrator.threshold
    wanted = model.classifier(seen[0].clamp(-threshold, threshold))
    # Up to one number a row, which cancels in the softmax.
    torch.testing.assert_close(logits.softmax(1), wanted.softmax(1), rtol=1e-4, atol=1e-4)
