"""Losses against the numbers of published implementations (see README.md beside this file)."""

from pathlib import Path

import numpy as np
import pytest
import torch

from fedlas.losses import (
    ACLS,
    CPC,
    DCA,
    FLSD53,
    MDCA,
    MMCE,
    DualFocalLoss,
    EntropyPenalty,
    FedLAS,
    FedLASPlus,
    FocalLoss,
    LabelSmoothing,
    MbLS,
    WeightedMMCE,
)

HERE = Path(__file__).parent
LOSS, GRADIENT = {"rtol": 1e-5, "atol": 1e-7}, {"rtol": 1e-4, "atol": 1e-7}


def golden(name):
    with np.load(HERE / f"{name}.npz") as file:
        return {key: torch.from_numpy(file[key]) for key in file.files}


def reference_loss(data, plus):
    kwargs = {key: float(data[key]) for key in ("alpha", "beta", "momentum")}
    if plus:
        kwargs["margin"] = float(data["margin"])
    kind = FedLASPlus if plus else FedLAS
    criterion = kind(num_classes=int(data["num_classes"]), variant="reference", **kwargs)
    assert criterion.nci.init == (float(data["init_mean"]), float(data["init_std"]))
    criterion.gate.load_state_dict(
        {
            key: data[key.replace(".", "_")]
            for key in ("hidden.weight", "hidden.bias", "out.weight", "out.bias")
        }
    )
    return criterion


@pytest.mark.parametrize("classes", [10, 100, 200])
@pytest.mark.parametrize("plus", [False, True], ids=["fedlas", "fedlas+"])
def test_fedlas_training_steps(classes, plus):
    data = golden(f"fedlas_{'plus_' if plus else ''}c{classes}")
    criterion = reference_loss(data, plus)
    for step in range(len(data["loss"])):
        logits, target, features = (data[key][step] for key in ("logits", "target", "features"))
        logits = logits.clone().requires_grad_()
        criterion.train().zero_grad()
        loss = criterion(logits, target, features=features)
        loss.backward()
        torch.testing.assert_close(loss.double(), data["loss"][step], **LOSS)
        torch.testing.assert_close(logits.grad, data["grad_logits"][step], **GRADIENT)
        for ours, theirs in (
            (criterion.gate.hidden.weight, "grad_hidden_weight"),
            (criterion.gate.out.weight, "grad_out_weight"),
            (criterion.gate.out.bias, "grad_out_bias"),
        ):
            torch.testing.assert_close(ours.grad, data[theirs][step], **GRADIENT)
        torch.testing.assert_close(criterion.nci.mean.double(), data["nci_mean"][step], **LOSS)
        torch.testing.assert_close(criterion.nci.std.double(), data["nci_std"][step], **LOSS)
        if not plus:
            criterion.eval()
            criterion.reduction = "none"
            each = criterion(logits, target, features=features)
            torch.testing.assert_close(each, data["loss_none"][step], **LOSS)
            criterion.reduction = "mean"
    criterion.eval()
    loss = criterion(data["logits"][0], data["target"][0], features=data["features"][0])
    torch.testing.assert_close(loss.double(), data["eval_loss_step0"], **LOSS)


@pytest.mark.parametrize("classes", [10, 100])
@pytest.mark.parametrize(
    ("key", "criterion"),
    [
        ("label_smoothing_alpha0.05", LabelSmoothing(alpha=0.05)),
        ("mbls_margin6_alpha0.1", MbLS(alpha=0.1, margin=6)),
        ("mbls_margin10_alpha0.1", MbLS(alpha=0.1, margin=10)),
        ("acls_reference_margin6", ACLS(margin=6, variant="reference")),
        ("focal_gamma3_mean", FocalLoss(gamma=3)),
        ("flsd53_mean", FLSD53()),
        ("dual_focal_gamma5_mean", DualFocalLoss(gamma=5)),
        ("entropy_penalty_reference_alpha0.1", EntropyPenalty(alpha=0.1, variant="reference")),
        ("cpc_lambda_bdc1_lambda_bec1", CPC(lambda1=1, lambda2=1, variant="reference")),
        ("nll_plus_dca_beta1", DCA(alpha=1)),
    ],
)
def test_baselines(classes, key, criterion):
    data = golden("baselines")
    logits = data[f"logits_c{classes}"].clone().requires_grad_()
    loss = criterion(logits, data[f"target_c{classes}"])
    loss.backward()
    torch.testing.assert_close(loss.double(), data[f"{key}_c{classes}"], **LOSS)
    torch.testing.assert_close(logits.grad, data[f"{key}_c{classes}_grad"], **GRADIENT)


@pytest.mark.parametrize("classes", [10, 100])
@pytest.mark.parametrize(
    ("key", "criterion"),
    [
        ("mmce_term_reference", MMCE(alpha=1, variant="reference")),
        ("mmce_weighted_term_reference", WeightedMMCE(alpha=1, variant="reference")),
        ("mdca_term", MDCA(alpha=1)),
    ],
)
def test_terms(classes, key, criterion):
    """What is recorded without the cross-entropy; in float64, since the difference would cancel in float32."""
    data = golden("baselines")
    logits = data[f"logits_c{classes}"].double().requires_grad_()
    target = data[f"target_c{classes}"]
    term = criterion(logits, target) - torch.nn.functional.cross_entropy(logits, target)
    term.backward()
    torch.testing.assert_close(term, data[f"{key}_c{classes}"], **LOSS)
    torch.testing.assert_close(logits.grad.float(), data[f"{key}_c{classes}_grad"], **GRADIENT)


@pytest.mark.parametrize(
    ("paper", "reference"),
    [(MMCE(), MMCE(variant="reference")), (WeightedMMCE(), WeightedMMCE(variant="reference"))],
    ids=["mmce", "mmce-weighted"],
)
def test_the_papers_form_is_another(paper, reference):
    data = golden("baselines")
    logits, target = data["logits_c10"], data["target_c10"]
    assert paper(logits, target) - reference(logits, target) > 0.1
