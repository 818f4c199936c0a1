"""The calibration of a table as a file that any language applies: it gives what ``apply`` gives."""

import numpy as np
import pytest
import torch

import fedlas

pytestmark = pytest.mark.system


def drawn(rows, classes):
    random = torch.Generator().manual_seed(classes)
    logits = torch.randn(rows, classes, generator=random, dtype=torch.float64)
    return 3 * logits, torch.multinomial(logits.softmax(1), 1, generator=random)[:, 0].numpy()


@pytest.mark.parametrize("kind", ["probs", "logits", "single", "confidence"])
def test_the_file_gives_what_apply_gives(tmp_path, kind):
    onnxruntime = pytest.importorskip("onnxruntime")
    logits, target = drawn(300, 2 if kind == "single" else 3)
    values = logits if kind == "logits" else logits.softmax(1)
    table = {f"s_{k}": column.numpy() for k, column in enumerate(values.T)}
    names = {"probs": "s_*", "target": "y"} if kind == "probs" else {"logits": "s_*", "target": "y"}
    columns = list(table)
    if kind == "single":
        names, columns = {"probs": "s_1", "target": "y"}, ["s_1"]
    if kind == "confidence":
        table = {"c": values.amax(1).numpy(), "y": (values.argmax(1).numpy() == target)}
        names, columns = {"confidence": "c", "correct": "y"}, ["c"]
    method = "platt" if kind == "confidence" else "vector"
    calibration = fedlas.calibrate({"y": target, **table}, method=method, **names)
    exported = fedlas.deploy.export(calibration, tmp_path / "cal.onnx")
    assert exported.difference < 1e-6
    session = onnxruntime.InferenceSession(str(exported.path))
    scores = np.stack([table[name] for name in columns], axis=1)
    calibrated, probs = session.run(None, {"scores": scores})
    after = calibration.apply({name: table[name] for name in columns})
    got = probs if kind == "probs" else calibrated if kind == "logits" else probs[:, 1:]
    wanted = np.stack([after[f"calibrated_{name}"] for name in columns], axis=1)
    if kind == "logits":
        got, wanted = (torch.tensor(each).softmax(1).numpy() for each in (got, wanted))
    np.testing.assert_allclose(got, wanted, atol=1e-6)
