import copy
import pickle
import subprocess
import sys

import pytest
import torch
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassCalibrationError

from fedlas import Predictions, evaluate
from fedlas.integrations.torchmetrics import (
    CalibrationByClass,
    CalibrationByGroup,
    CalibrationMetric,
    CalibrationMetrics,
)
from fedlas.metrics import METRICS, StreamingMetrics, calibration_by_class, calibration_by_group
from gloo import RANKS, in_processes

C = 7
NAMES = ["accuracy", "nll", "ece", "classwise_ece", "smooth_ece", "ks"]


def data(samples=501, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(samples, C, generator=generator)
    return logits, torch.multinomial((logits / 2).softmax(1), 1, generator=generator).squeeze(1)


def filled(metric, logits, target, sizes=(100, 1, 400)):
    for rows in torch.arange(len(logits)).split(list(sizes)):
        metric.update(logits[rows], target[rows])
    return metric


def test_a_dictionary_of_what_evaluate_computes():
    logits, target = data()
    found = filled(CalibrationMetrics(C), logits, target).compute()
    expected = evaluate(Predictions(logits, target))
    assert found.pop("adaptive_ece") == pytest.approx(expected.pop("adaptive_ece"), abs=1e-3)
    assert {name: value.item() for name, value in found.items()} == expected


def test_single_metric_is_a_scalar_with_direction():
    logits, target = data()
    metric = filled(CalibrationMetric("ece", num_classes=C, num_bins=10), logits, target)
    assert metric.compute().item() == evaluate(Predictions(logits, target), num_bins=10)["ece"]
    assert metric.higher_is_better is False
    assert CalibrationMetric("accuracy", num_classes=C).higher_is_better is True
    assert isinstance(metric, Metric)


@pytest.mark.parametrize("norm", ["l1", "max", "l2"])
def test_against_torchmetrics_own(norm):
    logits, target = data()
    ours = CalibrationMetric({"l1": "ece", "max": "mce", "l2": "rmsce"}[norm], num_classes=C)
    theirs = MulticlassCalibrationError(C, n_bins=15, norm=norm)
    assert filled(ours, logits, target).compute().item() == pytest.approx(
        filled(theirs, logits, target).compute().item(), rel=1e-4
    )


def test_forward_gives_the_batch_and_keeps_the_whole():
    logits, target = data()
    metric = CalibrationMetric("ece", num_classes=C)
    for rows in torch.arange(501).split([100, 1, 400]):
        assert (
            metric(logits[rows], target[rows]).item()
            == evaluate(Predictions(logits[rows], target[rows]))["ece"]
        )
    assert metric.compute().item() == evaluate(Predictions(logits, target))["ece"]


def test_in_a_collection_beside_others():
    logits, target = data()
    collection = MetricCollection(
        {
            name: CalibrationMetric(name, num_classes=C)
            for name in ("ece", "mce", "accuracy", "top5")
        }
        | {"theirs": MulticlassAccuracy(C, average="micro")}
    )
    # On the first batch accuracy and top-5 accuracy agree: their sums must not be taken for the same thing.
    collection.update(10 * torch.eye(C), torch.arange(C))
    collection.update(logits, target)
    whole = Predictions(
        torch.cat((10 * torch.eye(C), logits)), torch.cat((torch.arange(C), target))
    )
    found = collection.compute()
    for name in ("ece", "mce", "accuracy", "top5"):
        assert found[name].item() == METRICS[name].value(whole), name
    assert found["theirs"].item() == pytest.approx(found["accuracy"].item())
    flat = MetricCollection([CalibrationMetrics(C, metrics=["ece", "nll"])])
    flat.update(logits, target)
    assert flat.compute().keys() == {"ece", "nll"}


def test_reset_copy_and_pickle():
    logits, target = data()
    metric = filled(CalibrationMetrics(C, metrics=NAMES), logits, target)
    expected = metric.compute()
    for other in (copy.deepcopy(metric), metric.clone(), pickle.loads(pickle.dumps(metric))):
        assert other.compute() == expected
    metric.reset()
    metric.update(logits[:50], target[:50])
    first = {name: value.item() for name, value in metric.compute().items()}
    assert first["ece"] == evaluate(Predictions(logits[:50], target[:50]))["ece"]


def test_a_checkpoint_holds_the_sums():
    logits, target = data()
    metric = CalibrationMetric("classwise_ece", num_classes=C)
    metric.persistent(True)
    filled(metric, logits, target)
    other = CalibrationMetric("classwise_ece", num_classes=C)
    other.persistent(True)
    other.load_state_dict(metric.state_dict())
    other.update(logits, target)
    # every sample twice
    assert other.compute() == pytest.approx(metric.compute().item(), rel=1e-12)


def test_changing_module_precision_keeps_float64_sums():
    logits, target = data()
    metric = CalibrationMetric("ece", num_classes=C).half().to(torch.float16)
    metric.set_dtype(torch.float16)
    filled(metric, logits, target)
    assert metric.compute().item() == evaluate(Predictions(logits, target))["ece"]


def test_errors_are_those_of_the_library():
    with pytest.raises(ValueError, match="Did you mean 'ece'"):
        CalibrationMetric("ecee", num_classes=C)
    metric = CalibrationMetric("ece", num_classes=3)
    with pytest.raises(ValueError, match=r"logits must be \(N, 3\)"):
        metric.update(*data())
    with (
        pytest.warns(UserWarning, match="before"),
        pytest.raises(ValueError, match="at least one sample must have been added"),
    ):
        CalibrationMetric("ece", num_classes=3).compute()


@pytest.mark.parametrize("collected", [False, True])
@pytest.mark.parametrize("call", ["update", "forward"])
def test_a_refused_batch_changes_nothing(call, collected):
    """Also by ``forward``, for which torchmetrics takes the state away while it measures the batch."""
    logits, target = data()
    metric = CalibrationMetrics(C, metrics=["ece", "ace", "accuracy"])
    owner = (
        MetricCollection({"first": metric, "second": CalibrationByClass(C)})
        if collected
        else metric
    )
    owner.update(logits, target)
    owner.update(logits, target)
    parts = list(owner.values()) if collected else [metric]
    before = [{name: value.clone() for name, value in part.metric_state.items()} for part in parts]
    expected = owner.compute()
    for wrong in (target + C, target[:3]):
        with pytest.raises(ValueError, match="target must"):
            getattr(owner, call)(logits, wrong)
    for part, state in zip(parts, before, strict=True):
        torch.testing.assert_close(part.metric_state, state, rtol=0, atol=0)
    torch.testing.assert_close(owner.compute(), expected, rtol=0, atol=0)
    owner(logits, target)
    torch.testing.assert_close(
        metric.compute()["accuracy"], expected.get("accuracy", expected.get("first_accuracy"))
    )


def test_failed_batch_leaves_state_unchanged(monkeypatch):
    logits, target = data()
    metric = CalibrationMetrics(C, metrics=["ece", "accuracy"])
    metric.update(logits, target)
    before = {name: value.clone() for name, value in metric.metric_state.items()}
    whole = StreamingMetrics.state_dict
    # As if the last sum could not be brought to the device of the state.
    monkeypatch.setattr(
        StreamingMetrics, "state_dict", lambda self: whole(self) | {[*whole(self)][-1]: None}
    )
    with pytest.raises(AttributeError):
        metric.update(logits, target)
    monkeypatch.undo()
    torch.testing.assert_close(metric.metric_state, before, rtol=0, atol=0)


def test_tables_by_class_and_group():
    logits, target = data()
    site = torch.arange(501) % 3
    by_class, by_group = CalibrationByClass(C, num_bins=9), CalibrationByGroup(range(4), num_bins=9)
    for rows in torch.arange(501).split([100, 1, 400]):
        by_class.update(logits[rows], target[rows])
        by_group.update(logits[rows], target[rows], site[rows])
    whole = Predictions(logits, target)
    for metric, table, missing in (
        (by_class, calibration_by_class(whole, num_bins=9), 0),
        (by_group, calibration_by_group(whole, site, num_bins=9), 1),
    ):
        for other in (metric, pickle.loads(pickle.dumps(metric)), metric.half()):
            for name, column in other.compute().items():
                assert column.tolist()[: len(table)] == [
                    getattr(row, name) for row in table.values()
                ], name
                assert column.isnan().sum() == missing
    collection = MetricCollection(
        {"ab": CalibrationByGroup(["a", "b"]), "ba": CalibrationByGroup(["b", "a"])}
    )
    # looks alike to both
    collection.update(torch.zeros(2, C), torch.zeros(2, dtype=torch.long), groups=["a", "b"])
    collection.update(logits[:9], target[:9], groups=["a"] * 9)
    found = collection.compute()
    assert (found["ab_num_samples"].tolist(), found["ba_num_samples"].tolist()) == (
        [10, 1],
        [1, 10],
    )
    batch = by_group(logits[:9], target[:9], groups=site[:9])
    assert batch["num_samples"].tolist()[:3] == [3, 3, 3]
    assert by_group.compute()["num_samples"].nansum() == 510
    with pytest.raises(ValueError, match="groups must be among"):
        by_group.update(logits[:1], target[:1], groups=[9])


@pytest.mark.system
def test_importing_fedlas_does_not_import_torchmetrics():
    program = "import sys, fedlas, fedlas.integrations; print('torchmetrics' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"


@pytest.mark.system
def test_without_torchmetrics_the_error_says_what_to_install():
    program = """
import sys
sys.modules["torchmetrics"] = None
import fedlas.integrations.torchmetrics
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert "pip install '.[torchmetrics]'" in done.stderr


def worker(rank, folder):
    logits, target = data()
    rows = slice(0, 137) if rank == 0 else slice(137, None)
    metric = CalibrationMetrics(C, metrics=NAMES)
    metric.update(logits[rows], target[rows])
    synced = metric.compute()
    # sync must not have left the others' samples here
    metric.update(logits[rows], target[rows])
    torch.save((synced, metric.compute()), f"{folder}/{rank}.pt")
    by_class, by_group = CalibrationByClass(C), CalibrationByGroup(range(3))
    by_class.update(logits[rows], target[rows])
    by_group.update(logits[rows], target[rows], (torch.arange(501) % 3)[rows])
    torch.save((by_class.compute(), by_group.compute()), f"{folder}/tables-{rank}.pt")


@pytest.mark.system
def test_ranks_are_added_up(tmp_path):
    in_processes(worker, str(tmp_path))
    logits, target = data()
    once = filled(CalibrationMetrics(C, metrics=NAMES), logits, target)
    expected = once.compute()
    twice = filled(once, logits, target).compute()
    by_class, by_group = CalibrationByClass(C), CalibrationByGroup(range(3))
    by_class.update(logits, target)
    by_group.update(logits, target, torch.arange(501) % 3)
    for rank in range(RANKS):
        values = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        torch.testing.assert_close(values, (expected, twice), rtol=1e-12, atol=1e-15)
        tables = torch.load(tmp_path / f"tables-{rank}.pt", weights_only=True)
        whole = (by_class.compute(), by_group.compute())
        torch.testing.assert_close(tables, whole, rtol=1e-12, atol=1e-15, equal_nan=True)
