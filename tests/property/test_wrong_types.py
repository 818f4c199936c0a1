"""Every argument of every public callable, replaced by values of wrong kinds: a right answer, or a fedlas error.

The callables come from ``__all__``, their valid arguments from defaults and the tables here: a new callable enters by
itself, or fails for want of a valid argument. ``KNOWN`` says what is left to Python and torch, and why.
``PYTHONPATH=tests python -c "from property import test_wrong_types as t; t.show('fedlas.stats')"`` lists failures.
"""

import functools
import importlib
import inspect
import math
import numbers
import tempfile
import warnings
import zlib
from contextlib import chdir
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

import api
import fedlas
import fedlas.integrations.engines
from fedlas import Predictions, calibrators, losses, metrics, plots
from fedlas.binary import Rule
from fedlas.errors import InputError, MissingExtraError
from fedlas.predictions import Columns
from fedlas.stats import compare_ranks
from fedlas.zoo import uncertainty
from property.test_any_call import (
    CLASSES,
    FITTING,
    NUMBERS,
    OF_NUMBERS,
    WIDTH,
    Draw,
    assert_three_parts,
    head,
)

HEAVY = {
    "huggingface",
    "huggingface_hub",
    "lightning",
    "mapie",
    "sklearn",
    "skorch",
    "timm",
    "torchmetrics",
}
"""Integrations, whose libraries take seconds to import: the long test alone calls them."""
SLOW = (
    "fedlas.CalibrationCard", "fedlas.Evaluation", "fedlas.calibrate", "fedlas.calibrators.AutoCalibration",
    "fedlas.card", "fedlas.deploy", "fedlas.lab", "fedlas.plots", "fedlas.report",
)  # fmt: skip
"""Callables that take tenths of a second, likewise."""
LOOP = "the training loop alone calls it"
PART = "a part of a network or loss, whose input the whole has checked"
KNOWN = {
    "fedlas.checks.": "texts and bounds that a programmer writes",
    "fedlas.Objective.forward(inputs": "the user's model refuses them in its own words",
    "fedlas.CalibratedModel.forward": "likewise",
    "fedlas.CalibratedModel.predict_proba": "likewise",
    "fedlas.zoo.ood.odin_score(inputs": "likewise",
    "fedlas.zoo.uncertainty.mc_dropout(loader": "likewise",
    "fedlas.predict(loader": "likewise",
    "fedlas.diagnose.GateMonitor.on_": LOOP,
    "fedlas.diagnose.GateMonitor.load_state_dict": "it takes what state_dict() returned",
    "fedlas.lab.bench": "a call trains; tests/unit/lab/benches/test_bench.py passes what is wrong",
    "fedlas.lab.BenchResult": "only a bench makes it",
    "fedlas.predict(label": "the labels are the user's own",
    "fedlas.CalibratedModel.before_after(label": "likewise",
    "fedlas.predictions.SelfConsistency.notes": "the library alone calls it, with what matches() returned",
    "fedlas.diagnose.NormMonitor.on_": LOOP,
    "fedlas.losses.adaptive_strength": PART,
    "fedlas.losses.BidirectionalCalibrationGate.forward": PART,
    "fedlas.losses.TopLogitsGate.forward": PART,
    "fedlas.losses.NormConfidenceIndicator.forward": PART,
    "fedlas.zoo.uncertainty.KLPenalty.forward": PART,
    "fedlas.zoo.uncertainty.LatentKL.forward": PART,
    "fedlas.zoo.uncertainty.MLPHead.forward": PART,
    "fedlas.zoo.uncertainty.OrthogonalityPenalty": PART,
    "fedlas.zoo.uncertainty.TwoStage.forward": PART,
    "fedlas.zoo.uncertainty.VariationalHead.forward": PART,
    "fedlas.zoo.uncertainty.SampledWeights.forward": PART,
    "fedlas.zoo.uncertainty.DropoutSamples.forward": PART,
    "fedlas.integrations.huggingface_hub.download": "it asks the network",
    "fedlas.integrations.huggingface_hub.from_pretrained": "likewise",
    "fedlas.integrations.huggingface_hub.push_to_hub": "likewise",
    "fedlas.integrations.lightning": "its methods take a trainer, as tests/unit/integrations has it",
    "fedlas.integrations.timm": "likewise",
    "fedlas.integrations.skorch": "likewise",
    "fedlas.integrations.engines.sums_of_batch": "its columns are options, as of tables",
    "fedlas.integrations.engines.apply_dataset": "it takes a data set of an engine, which tests/unit/integrations has",
    "fedlas.integrations.engines.calibrated_batches": "likewise",
    "fedlas.integrations.huggingface.ComputeMetrics.__call__": "transformers alone calls it",
    "fedlas.integrations.drop_in.DropInLoss.forward": "it follows a run of the model, as in tests/unit/integrations",
    "fedlas.integrations.sklearn.CalibratedClassifier(": "fit checks it, as scikit-learn's estimators do",
    "fedlas.integrations.torchmetrics.CalibrationByClass.forward": "torchmetrics passes it on to update",
    "fedlas.plots.new_axes": "for the laboratory's own figures",
    "fedlas.plots.Theme.line": "likewise",
    "fedlas.TableCalibration": "its columns are options, which tests/unit/calibrated names",
    "fedlas.predictions.Columns.find_covariates": "it takes the names of a table",
    "fedlas.predictions.Columns.split_option": "it takes the name of a field",
    "fedlas.Predictions.from_frame": "its columns are options, which tests/unit/predictions names",
    "fedlas.lab.studies": "it takes a finished run, which tests/unit/lab makes",
    "fedlas.lab.benches": "the bench alone calls it",
}
"""By the start of a call's name, why its errors may be of another kind."""

# Values of wrong kinds --------------------------------------------------------------------------------------------


class Empty:
    """A class of a user."""


def some_function():
    """A function of a user."""


WRONG = {
    "None": lambda: None,
    "str": lambda: "nonsense",
    "empty str": lambda: "",
    "int": lambda: 3,
    "-1": lambda: -1,
    "0": lambda: 0,
    "huge int": lambda: 10**30,
    "float": lambda: 0.37,
    "nan": lambda: math.nan,
    "inf": lambda: math.inf,
    "-inf": lambda: -math.inf,
    "complex": lambda: 1j,
    "bool": lambda: True,
    "list": lambda: [1, 2, 3],
    "empty list": list,
    "ragged list": lambda: [[1.0], [2.0, 3.0]],
    "list of str": lambda: ["a", "b"],
    "list of None": lambda: [None, 1.0],
    "tuple": lambda: (0.5, "x"),
    "dict": lambda: {"x": 1},
    "dict of lists": lambda: {"x": [1, "y"]},
    "dict of dicts": lambda: {1: {}},
    "set": lambda: {1, 2},
    "object": object,
    "function": lambda: some_function,
    "class": lambda: Empty,
    "bytes": lambda: b"bytes",
    "module": lambda: nn.Linear(2, 2),
    "generator": lambda: (each for each in "ab"),
    "path": lambda: Path("nothing"),
    **{
        f"{dtype.__name__} array {shape}": functools.partial(np.zeros, shape, dtype)
        for dtype in (np.int64, np.float64, np.bool_, np.complex64, np.object_, np.str_)
        for shape in ((), (0,), (3,), (3, 3, 3))
    },
    **{
        f"{dtype} tensor {shape}": functools.partial(torch.zeros, shape, dtype=dtype)
        for dtype in (torch.int64, torch.bool, torch.complex64, torch.bfloat16, torch.float32)
        for shape in ((), (0,), (3,), (3, 3, 3))
    },
    "sparse tensor": lambda: torch.eye(3).to_sparse(),
    "meta tensor": lambda: torch.zeros(3, 3, device="meta"),
    "gradient": lambda: torch.zeros(3, 3, requires_grad=True),
    "nan tensor": lambda: torch.full((3, 3), math.nan),
    "inf tensor": lambda: torch.full((3, 3), math.inf),
    "nested tensor": lambda: torch.nested.nested_tensor(
        [torch.zeros(2), torch.zeros(3)], layout=torch.jagged
    ),
}


def fits(annotation, value, name):
    """Whether a value may be accepted by a parameter of that annotation and name, so far as these say."""
    kinds = {part.strip() for part in annotation.split("|")}
    if value is None and "None" in kinds:
        return True
    kinds.discard("None")
    number = isinstance(value, numbers.Real) and not isinstance(value, bool | np.bool_)
    if kinds == {"int"}:
        return number and isinstance(value, numbers.Integral)
    if kinds <= {"int", "float"}:
        return number and (
            math.isfinite(value) or (value == math.inf and name in {"norm_p", "order"})
        )
    if kinds == {"bool"}:
        return isinstance(value, bool | np.bool_)
    if kinds == {"str"}:
        return isinstance(value, str)
    if kinds in (
        {"Predictions"},
        {"Predictions", "TopLabel"},
        {"AnyPredictions"},
        {"nn.Module"},
        {"Mapping[str, Any]"},
    ):
        wanted = (
            {"nn.Module": nn.Module, "Mapping[str, Any]": dict}.get(*kinds, Predictions)
            if len(kinds) == 1
            else Predictions
        )
        return isinstance(value, wanted)
    return True


# Valid calls ------------------------------------------------------------------------------------------------------


def ranks_by_first_column(inputs, _):
    return lambda rows: 1 / (1 + np.exp(-np.asarray(rows)[:, 0]))


def network(_=None):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Flatten(), nn.Linear(12, WIDTH), nn.ReLU(), nn.Linear(WIDTH, CLASSES)
    ).eval()


def loader(d):
    images = [d.uniform(6, 3, 2, 2) for _ in range(9)]
    return [(each, network()(each).argmax(1)) for each in images]


def separating_network():
    """A model whose accuracy on :func:`separated_loader` falls with noise."""
    layer = nn.Linear(12, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[-1.0], [1.0]]).expand(2, 12))
        layer.bias.zero_()
    return nn.Sequential(nn.Flatten(), layer).eval()


def separated_loader():
    target = torch.arange(60) % 2
    return [(((target - 0.5) * 2)[:, None, None, None].expand(60, 3, 2, 2).clone(), target)]


def dropout(_):
    return nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(12, CLASSES)).eval()


def of_head(_):
    d = Draw(1000)
    layer = head(d)
    features = d.normal(60, WIDTH)
    return Predictions(layer(features).detach(), d.classes(60), features=features)


def criterion(_):
    return losses.FedLAS(num_classes=CLASSES)


def axes(_):
    return plots.new_axes(plots.LIGHT, size=(3, 3)) if hasattr(plots, "LIGHT") else None


def fitted(d):
    return calibrators.TemperatureScaling().fit(d.predictions(40))


def several_labels(d):
    return fedlas.MultiLabel(d.normal(40, CLASSES), d.classes(40, CLASSES, most=2))


def clustered(d):
    logits, target = d.normal(60, 2), d.classes(60, most=2)
    return Predictions(logits, target, clusters=torch.arange(60) % 6)


def new_path(name):
    """A path in a folder of its own, where nothing is."""
    return lambda _: Path(tempfile.mkdtemp(dir=".")) / name


FITS = FITTING | {
    "model": network,
    "module": lambda _: nn.Linear(2, 2),
    "objective": lambda d: fedlas.Objective(network(), criterion(d), head="3"),
    "loader": loader,
    "val_loader": loader,
    "test_loader": loader,
    "criterion": criterion,
    "calibrator": fitted,
    "score": lambda d: d.uniform(d.samples),
    "confidence": lambda d: 0.5 + d.uniform(d.samples) / 2,
    "correct": lambda d: d.uniform(d.samples) > 0.3,
    "psi": lambda d: d.uniform(d.samples),
    "alpha_i": lambda d: 0.1 * d.uniform(d.samples),
    "value": lambda d: d.uniform(d.samples),
    "scores": lambda d: d.uniform(d.samples),
    "images": lambda d: d.uniform(d.samples, 3, 4, 4),
    "models": lambda d: {"a": d.predictions(30, 2), "b": d.predictions(30, 2)},
    "history": lambda _: {"ce": [{"epoch": 1, "ece": 0.1}, {"epoch": 2, "ece": 0.2}]},
    "metric": lambda _: "ece",
    "label": lambda _: "ECE",
    "curves": lambda d: {"a": ([0.0, 0.5, 1.0], [0.0, 0.7, 1.0])},
    "theme": lambda _: "light",
    "path": new_path("file.npz"),
    "folder": lambda _: "folder",
    "state": lambda _: {},
    "logprobs": lambda _: [[-0.1, -0.2], [-0.3]],
    "answer": lambda _: "90 %",
    "answers": lambda _: ["90 %", "likely", 0.7],
    "test": lambda d: d.predictions(),
    "risk": lambda _: 0.2,
    "frame": lambda d: d.predictions().to_frame(),
    "probs": lambda d: d.normal(d.samples, CLASSES).softmax(1),
    "choices": lambda _: ["a", "b"],
    "pool": lambda d: [d.predictions(9), d.predictions(9)],
    "weights": lambda _: None,
    "unlabeled": lambda d: d.predictions(40),
    "other": lambda _: None,
    "in_features": lambda _: WIDTH,
    "hidden": lambda _: 5,
    "alpha": lambda _: 0.1,
    "beta": lambda _: 2.0,
    "num_epochs": lambda _: 10,
    "num_labels": lambda _: CLASSES,
    "row_map": lambda _: nn.Identity(),
    "in_channels": lambda _: 3,
    "image_size": lambda _: 32,
    "seed": lambda _: 0,
    "val_size": lambda _: 0.2,
    "source": lambda _: "nothing",
    "expected": lambda _: "x must be 1",
    "got": lambda _: 2,
    "fix": lambda _: "Pass 1.",
    "extra": lambda _: "tables",
    "prediction": lambda d: (d.normal(5, CLASSES).numpy(), d.classes(5).numpy()),
    "X": lambda d: d.normal(30, WIDTH).numpy(),
    "y": lambda d: (torch.arange(30) % CLASSES).numpy(),
    "index": lambda d: torch.arange(d.samples),
    "row": lambda _: 0,
    "image": lambda d: d.uniform(3, 8, 8),
    "indices": lambda _: torch.tensor([0, 1]),
    "about": lambda _: {},
}
UINT8 = {
    "images": lambda d: d.classes(d.samples, 3, 4, 4).to(torch.uint8),
    "others": lambda d: d.classes(2, 3, 4, 4).to(torch.uint8),
}
NAMED = {
    "fedlas.binary.choose_threshold": {
        "rule": lambda _: Rule(cost_ratio=3.0),
        "val": lambda d: d.predictions(60, 2),
        "num_samples": lambda _: 60,
    },
    "fedlas.stats.joint_p_value": {
        "observed": lambda _: np.array([1.0, 2.0]),
        "replicates": lambda _: np.arange(80.0).reshape(40, 2),
    },
    "fedlas.stats.partial_pooling": {
        "values": lambda _: np.array([1.0, 2.0, 4.0]),
        "errors": lambda _: np.array([0.5, 0.5, 1.0]),
    },
    "fedlas.stats.random_effects": {
        "values": lambda _: np.array([1.0, 2.0, 4.0]),
        "errors": lambda _: np.array([0.5, 0.5, 1.0]),
    },
    "fedlas.stats.poisson_random_effects": {
        "observed": lambda _: np.array([4.0, 9.0, 6.0]),
        "expected": lambda _: np.array([5.0, 8.0, 5.0]),
    },
    "fedlas.binary.development_size": {
        "parameters": lambda _: 10,
        "prevalence": lambda _: 0.2,
        "auroc": lambda _: 0.8,
    },
    "fedlas.binary.decide": {
        "rule": lambda _: Rule(cost_ratio=3.0),
        "val": lambda d: d.predictions(60, 2),
        "test": lambda d: d.predictions(60, 2),
    },
    "fedlas.stats.RankComparison": {"first": lambda _: "a", "second": lambda _: "b"},
    "fedlas.plots.critical_difference_diagram": {
        "comparison": lambda _: prepared("RankComparison")
    },
    "fedlas.stats.optimism": {
        "fit": lambda _: ranks_by_first_column,
        "y": lambda _: (torch.arange(30) % 2).numpy(),
    },
    "fedlas.MultiLabel": {"target": lambda d: d.classes(d.samples, CLASSES, most=2)},
    "fedlas.MultiLabel.label": {"name": lambda _: "0"},
    "fedlas.MultiLabel.load": {"path": lambda _: prepared("several file")},
    "fedlas.TopLabel.load": {"path": lambda _: prepared("top label file")},
    "fedlas.read_predictions": {"path": lambda _: prepared("predictions file")},
    "fedlas.predictions.one_per_cluster": {"predictions": clustered},
    "fedlas.objective.drifted_predictions": {
        "model": lambda _: separating_network(),
        "loader": lambda _: separated_loader(),
    },
    "fedlas.calibrators.MultiLabelCalibration": {
        "target": lambda d: d.classes(d.samples, CLASSES, most=2)
    },
    "fedlas.calibrators.MultiLabelCalibration.from_method": {"method": lambda _: "platt"},
    "fedlas.calibrators.PartialPooling.fit_labels": {"val": several_labels},
    "fedlas.calibrators.VennAbers.interval": {"test": lambda d: d.predictions(9, 2)},
    "fedlas.calibrators.Multicalibration": {"groups": lambda _: "predicted"},
    "fedlas.zoo.ood.adapt_images": UINT8,
    "fedlas.zoo.ood.count_duplicates": UINT8,
    "fedlas.zoo.ood.knn_score": {"k": lambda _: 5},
    "fedlas.zoo.uncertainty.DropoutSamples": {"model": dropout},
    "fedlas.zoo.uncertainty.mc_dropout": {"model": dropout},
    "fedlas.zoo.uncertainty.SampledWeights": {
        "model": lambda _: uncertainty.to_bayesian(network())
    },
    "fedlas.zoo.uncertainty.LastLayerLaplace": {"train": of_head, "predictions": of_head},
    "fedlas.zoo.uncertainty.greedy_selection": {
        "pool": lambda _: [Draw(7).predictions(30)] * 2,
        "size": lambda _: 1,
    },
    "fedlas.zoo.uncertainty.TwoStage": {"model": network, "old": lambda _: "3"},
    "fedlas.predictions.self_consistency": {"answers": lambda _: [["a", "b"], ["a"]]},
    "fedlas.predictions.SelfConsistency.matches": {"truth": lambda _: ["a", "c"]},
    "fedlas.predictions.p_true": {"logprobs": lambda _: [[-0.1, -3.0]]},
    "fedlas.predictions.Columns": {"groups": lambda _: None},
    "fedlas.losses.CrossFitted.set_targets": {"probs": lambda d: d.normal(64, CLASSES).softmax(1)},
    "fedlas.losses.OneLogit": {
        "criterion": lambda _: losses.LabelSmoothing(),
        "logits": lambda d: d.normal(d.samples),
        "target": lambda d: d.classes(d.samples, most=2),
    },
    "fedlas.losses.labels_as_two_classes": {
        "logits": lambda d: d.normal(9, CLASSES),
        "target": lambda d: d.classes(9, CLASSES, most=2),
    },
    "fedlas.stats.Estimate.from_dict": {
        "content": lambda d: fedlas.estimates(d.predictions(), ["ece"])["ece"].to_dict()
    },
    "fedlas.stats.effective_sample_size": {"weights": lambda _: [1.0, 2.0]},
    "fedlas.stats.mean_interval": {"values": lambda _: [1.0, 2.0, 4.0]},
    "fedlas.stats.paired_bootstrap": dict.fromkeys("ab", lambda _: Draw(7).predictions(30)),
    "fedlas.compare": {
        **dict.fromkeys("ab", lambda _: Draw(7).predictions(30)),
        "groups": lambda d: d.classes(30).tolist(),
    },
    "fedlas.metrics.StreamingGroups": {
        "groups": lambda _: ["a", "b"],
        "other": lambda _: metrics.StreamingGroups(["a", "b"]),
        "state": lambda _: metrics.StreamingGroups(["a", "b"]).state_dict(),
    },
    "fedlas.metrics.StreamingGroups.update": {"groups": lambda d: ["a"] * d.samples},
    "fedlas.metrics.StreamingClasses": {
        "other": lambda _: metrics.StreamingClasses(CLASSES),
        "state": lambda _: metrics.StreamingClasses(CLASSES).state_dict(),
    },
    "fedlas.metrics.StreamingMetrics": {
        "other": lambda _: metrics.StreamingMetrics(CLASSES),
        "state": lambda _: metrics.StreamingMetrics(CLASSES).state_dict(),
    },
    "fedlas.features.find_pool": {
        "model": lambda _: nn.Sequential(
            nn.Conv2d(3, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
        ),
        "pool": lambda _: "1",
    },
    "fedlas.calibrators.AutoCalibration.load": {"path": lambda _: prepared("auto file")},
    "fedlas.calibrators.MultiLabelCalibration.load": {"path": lambda _: prepared("labels file")},
    "fedlas.integrations.huggingface_hub": {
        "card": lambda _: prepared("card file"),
        "model": lambda d: INSTANCES["CalibratedModel"](d),
    },
    "fedlas.integrations.torchmetrics.CalibrationMetric": {"name": lambda _: "ece"},
    "fedlas.integrations.torchmetrics.CalibrationByGroup": {"groups": lambda _: ["a", "b"]},
    "fedlas.integrations.torchmetrics.CalibrationByGroup.update": {
        "groups": lambda d: ["a"] * d.samples
    },
    "fedlas.integrations.mapie.controlled_threshold": {
        "target": lambda _: 0.6,
        "val": lambda d: d.predictions(200),
    },
    "fedlas.integrations.sklearn": {"estimator": lambda _: prepared("estimator")},
    "fedlas.integrations.engines.evaluate_dataset": {
        "dataset": lambda _: Dataset(),
        "columns": lambda _: Columns(probs="p", target="y"),
    },
    "fedlas.deploy.export_model": {
        "out": new_path("model.pt2"),
        "form": lambda _: "torch-export",
        "calibration": lambda d: fedlas.deploy.fit_calibration("temperature", d.predictions(40)),
        "mean": lambda _: [0.5, 0.5, 0.5],
        "std": lambda _: [0.2, 0.2, 0.2],
        "images": lambda _: lambda: [torch.arange(24).reshape(2, 3, 2, 2).to(torch.uint8)],
        "expected": lambda _: expected_of_images(),
    },
    "fedlas.integrations.engines.duckdb_function": {
        "connection": lambda _: Connection(),
        "calibration": lambda _: prepared("table calibration"),
    },
    "fedlas.integrations.engines.estimates_of_sums": {
        "blocks": lambda _: [block(), block()],
        "groups": lambda _: 2,
    },
    "fedlas.calibrated.apply_to_files": {
        "calibration": lambda _: prepared("table calibration"),
        "names": lambda _: [prepared("table file")],
        "out": lambda _: "out.csv",
    },
    "fedlas.calibrated.measure_before_after": dict.fromkeys(
        ("before", "after"), lambda d: d.predictions(30)
    ),
    "fedlas.deploy.build_card": {
        "val": lambda d: d.predictions(60),
        "test": lambda d: d.predictions(60),
        "calibration": lambda d: fedlas.deploy.fit_calibration("temperature", d.predictions(40)),
        "model": lambda _: {"run": "mine", "classes": None},
        "data": lambda _: {"name": "own"},
    },
    "fedlas.plots.net_benefit": {"models": lambda _: {"a": Draw(7).predictions(30, 2)}},
    "fedlas.Predictions.load": {"path": lambda _: prepared("predictions file")},
    "fedlas.CalibratedModel.load": {"path": lambda _: prepared("model file")},
    "fedlas.lab.data.load_dataset": {"name": lambda _: "synthetic"},
    "fedlas.lab.data.split": {"source": lambda _: prepared("source")},
    "fedlas.lab.models.build_model": {"name": lambda _: "mlp"},
    "fedlas.lab.data.shift.Corruption": {
        "image": lambda d: d.classes(3, 8, 8).to(torch.uint8),
        "name": lambda _: "contrast",
        "severity": lambda _: 3,
    },
    "fedlas.zoo.ood.Outputs.load": {"path": lambda _: prepared("outputs file")},
    "fedlas.deploy.Card.read": {"path": lambda _: prepared("card file")},
    "fedlas.deploy.Monitor": {"card": lambda _: prepared("card file")},
    "fedlas.deploy.model_files": {
        "model": lambda d: fedlas.CalibratedModel(network(), fitted(d)),
        "form": lambda _: "torchscript",
        "path": lambda _: "model.pt",
    },
    "fedlas.integrations.drop_in.DropInLoss.add_to_optimizer": {
        "optimizer": lambda _: torch.optim.SGD([torch.zeros(1, requires_grad=True)], 0.1)
    },
    "fedlas.zoo.uncertainty.average": {
        "predictions": lambda d: d.predictions(9),
        "weights": lambda _: None,
    },
    "fedlas.losses.smoothed_cross_entropy": {"alpha": lambda _: 0.1},
    "fedlas.losses.adaptive_strength": {"beta": lambda _: 2.0},
    "fedlas.stats.reject_option": {
        "val": lambda d: d.predictions(60),
        "test": lambda d: d.predictions(30),
    },
    "fedlas.predictions.Predictions.rows": {"index": lambda _: torch.tensor([0])},
    "fedlas.binary": {
        "predictions": lambda d: d.predictions(60, 2),
        "groups": lambda d: d.classes(60, most=2).tolist(),
    },
    "fedlas.binary.heterogeneity": {"predictions": clustered},
    "fedlas.binary.label_measures": {"predictions": several_labels},
    "fedlas.binary.label_group_measures": {
        "predictions": several_labels,
        "groups": lambda d: d.classes(40, most=2).tolist(),
    },
    "fedlas.plots.positive_reliability_diagram": {"predictions": lambda d: d.predictions(60, 2)},
    "fedlas.plots.score_bins": dict.fromkeys(
        ("score", "confidence", "accuracy", "standard_error"), lambda d: [0.1, 0.2, 0.3]
    ),
    "fedlas.checks.check_choice": {"value": lambda _: "a"},
    "fedlas.checks.check_count": {"value": lambda _: 3},
    "fedlas.checks.check_number": {"value": lambda _: 3.0},
    "fedlas.checks.check_dense": {"value": lambda d: d.normal(3)},
    "fedlas.checks.check_finite": {"value": lambda d: d.normal(3)},
}


class Case:
    """A callable with its valid arguments by name."""

    def __init__(self, name, function, target, signature):
        self.name, self.function, self.target = name, function, target
        self.parameters = {
            each.name: each
            for each in signature.parameters.values()
            if each.kind not in (each.VAR_KEYWORD,) and each.name not in {"self", "cls"}
        }

    def annotation(self, name):
        return str(self.parameters[name].annotation)

    def arguments(self, d):
        special = {}
        for prefix, makers in NAMED.items():
            if self.name == prefix or self.name.startswith(f"{prefix}."):
                special |= makers
        if self.name.split(".")[-1] in OF_NUMBERS:
            special |= NUMBERS
        chosen = {}
        for name, parameter in self.parameters.items():
            if name in special:
                chosen[name] = special[name](d)
            elif parameter.default is not parameter.empty and name not in {"criterion", "groups"}:
                chosen[name] = CHEAP.get(name, parameter.default)
            elif name in FITS:
                chosen[name] = FITS[name](d)
            else:
                raise AssertionError(f"{self.name}: put a valid {name} into FITS or NAMED")
        return chosen

    def call(self, d, arguments):
        function = self.function if self.target is None else getattr(self.target(d), self.function)
        positional = []
        for name, parameter in self.parameters.items():
            if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.VAR_POSITIONAL):
                positional.append(arguments[name])
        named = {
            key: value
            for key, value in arguments.items()
            if self.parameters[key].kind
            not in (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.VAR_POSITIONAL)
        }
        return function(*positional, **named)


CHEAP = {"replicates": 40}

RECORDS = {
    "Batch", "Batches", "Calibration", "CalibrationLayer", "Chunk", "Covariates", "CriterionMixin", "CriterionTrainer",
    "ImageFiles", "Images", "JointProgress", "Mixed", "Source",
    "SpiegelhalterTest", "Splits", "StreamedBatches", "ScoreTable", "SqlCall", "Statistic", "Sums", "View",
}  # fmt: skip
"""Classes that the library alone makes, in addition to dataclasses other than these:"""
FROM_USERS = {
    "BayesianConfig",
    "CalibrationScorer",
    "Columns",
    "Corruption",
    "MultiLabel",
    "Outputs",
    "Predictions",
    "TopLabel",
}
BETWEEN_ROOMS = {
    "check_dataset", "corrupt_part", "files_since", "fit_calibration", "load_weights",
    "make_long_tailed", "make_open_set", "open_table", "score_options", "read_calibration", "reduce",
    "survey_images", "weights_digest", "add_label_noise",
}  # fmt: skip
"""Functions that other rooms call, with what they have checked; the command line takes words of a shell."""
INTERNAL = {
    "count_known_labels", "sample_exponents", "find_scores", "fit_map", "fit_subsets", "from_dict", "learn_from",
    "mix_targets", "new_memory_rows", "of_samples", "pair_labels", "patterns", "penalty", "prepare_task", "results",
    "divide_logits", "sample_strengths", "second_target", "with_default_scores",
}  # fmt: skip
"""Methods that only the library calls, in addition to those that take a ``Batch``."""


LABORATORY = {
    f"fedlas.lab.{room}"
    for room in ("benches", "recipes", "report", "results", "runs", "studies", "train", "tune")
}
"""Rooms whose names take what other rooms make: users reach them by commands, which have wrong values of their own."""


def modules(*, heavy):
    for name in sorted(api.public_modules()):
        if (name.rsplit(".", 1)[-1] in HEAVY) <= heavy and name not in LABORATORY:
            yield name, importlib.import_module(name)


def cases(*, heavy=False):
    """Every function, constructor and method with arguments, once."""
    found, seen = {}, set()
    for place, module in modules(heavy=heavy):
        for name in getattr(module, "__all__", ()):
            value = getattr(module, name)
            if not getattr(value, "__module__", "").startswith("fedlas") or value in seen:
                continue
            seen.add(value)
            if inspect.isfunction(value) and name not in BETWEEN_ROOMS and place != "fedlas.cli":
                found[f"{value.__module__}.{name}"] = Case(
                    f"{place}.{name}", value, None, inspect.signature(value)
                )
            elif inspect.isclass(value) and name not in RECORDS:
                for case in of_class(place, value, seen):
                    found[case.name] = case
    return {case.name: case for case in found.values() if case.parameters}


def of_class(place, value, seen):
    if issubclass(value, BaseException | dict):
        return
    record = hasattr(value, "__dataclass_fields__") and value.__name__ not in FROM_USERS
    if not record and not inspect.isabstract(value) and value.__name__ != "CalibrationWarning":
        yield Case(f"{place}.{value.__name__}", value, None, inspect.signature(value))
    if inspect.isabstract(value):
        return
    foreign = [base for base in value.__mro__ if not base.__module__.startswith("fedlas")]
    for base in value.__mro__:
        for name, member in vars(base).items() if base.__module__.startswith("fedlas") else ():
            plain = getattr(member, "__func__", member)
            if (
                not inspect.isfunction(plain)
                or plain in seen
                or name in getattr(value, "__dataclass_fields__", ())
                or (name.startswith("_") and name != "__call__")
            ):
                continue
            signature = inspect.signature(plain)
            overrides = any(name in vars(above) for above in foreign) and name not in {
                "forward",
                "update",
            }
            if (
                overrides
                or name in INTERNAL
                or any(p.annotation == "Batch" for p in signature.parameters.values())
            ):
                continue
            seen.add(plain)
            instance = functools.partial(make_instance, value, place)
            target = (
                (lambda d, value=value: value)
                if isinstance(member, classmethod | staticmethod)
                else instance
            )
            yield Case(f"{place}.{value.__name__}.{name}", name, target, signature)


def make_instance(value, place, d):
    if value.__name__ in INSTANCES:
        return prepared(value.__name__)
    if issubclass(value, calibrators.Calibrator):
        return value().fit(d.predictions(40))
    constructor = Case(f"{place}.{value.__name__}", value, None, inspect.signature(value))
    torch.manual_seed(0)
    return constructor.call(d, constructor.arguments(d))


def sklearn_class(room, name):
    return getattr(importlib.import_module(f"sklearn.{room}"), name)


def calibrated_classifier():
    return importlib.import_module("fedlas.integrations.sklearn").CalibratedClassifier(
        prepared("estimator")
    )


def card_file(d):
    path = Path(tempfile.mkdtemp()) / "card.json"
    fedlas.card(d.predictions(60), d.predictions(60), replicates=0).save(path)
    return path


def outputs_file(d):
    return FITS["outputs"](d).save(Path(tempfile.mkdtemp()) / "outputs.npz", about={})


class Connection:
    """What DuckDB's connection has of interest here."""

    def create_function(self, *_, **__):
        """Take any function."""


class Dataset:
    """What a data set of Ray has of interest here."""

    def __init__(self):
        self.rows = {"p": [0.9, 0.2, 0.6], "y": [1, 0, 0]}

    def schema(self):
        return SimpleNamespace(names=[*self.rows])

    def select_columns(self, names):
        return self

    def map_batches(self, function, *, batch_size, batch_format, fn_kwargs):
        return SimpleNamespace(
            iter_rows=lambda: iter([{"sums": function(self.rows, **fn_kwargs)["sums"][0]}])
        )


def expected_of_images():
    images = torch.arange(24).reshape(2, 3, 2, 2) / 255
    return Predictions(network()((images - 0.5) / 0.2).detach(), [0, 1])


def block():
    frame = {"p": [0.9, 0.2], "y": [1, 0]}
    return fedlas.integrations.engines.sums_of_batch(frame, Columns(probs="p", target="y"))


def table_file(_):
    path = Path(tempfile.mkdtemp()) / "live.csv"
    path.write_text("p\n0.5\n0.7\n")
    return path


INSTANCES = {
    "table file": table_file,
    "table calibration": lambda _: fedlas.calibrate(
        {"p": [0.9, 0.1, 0.2, 0.8] * 50, "y": [1, 0, 0, 1] * 50},
        probs="p",
        target="y",
        method="temperature",
    ),
    "RankComparison": lambda _: compare_ranks(
        {"a": [1.0, 2.0], "b": [2.0, 3.0]}, higher_is_better=False
    ),
    "predictions file": lambda d: d.predictions().save(
        Path(tempfile.mkdtemp()) / "predictions.npz"
    ),
    "estimator": lambda d: sklearn_class("linear_model", "LogisticRegression")().fit(
        FITS["X"](d), FITS["y"](d)
    ),
    "CalibratedClassifier": lambda d: calibrated_classifier().fit(FITS["X"](d), FITS["y"](d)),
    "model file": lambda d: INSTANCES["CalibratedModel"](d).save(
        Path(tempfile.mkdtemp()) / "model.safetensors"
    ),
    "calibrator file": lambda d: fitted(d).save(Path(tempfile.mkdtemp()) / "temperature.json"),
    "auto file": lambda d: (
        calibrators.AutoCalibration()
        .fit(d.predictions(60))
        .save(Path(tempfile.mkdtemp()) / "auto.json")
    ),
    "labels file": lambda d: INSTANCES["MultiLabelCalibration"](d).save(
        Path(tempfile.mkdtemp()) / "labels.json"
    ),
    "source": lambda _: importlib.import_module("fedlas.lab.data").load_dataset("synthetic"),
    "several file": lambda d: several_labels(d).save(Path(tempfile.mkdtemp()) / "several.npz"),
    "top label file": lambda d: fedlas.TopLabel([0.9, 0.6], [True, False]).save(
        Path(tempfile.mkdtemp()) / "top.npz"
    ),
    "SelfConsistency": lambda _: fedlas.predictions.self_consistency([["a", "b", "a"], ["c"]]),
    "MatrixGaussian": lambda d: uncertainty.MatrixGaussian(epochs=1).fit(d.predictions(40)),
    "ProbabilisticBackprop": lambda d: uncertainty.ProbabilisticBackprop(passes=1).fit(
        d.predictions(40)
    ),
    "outputs file": outputs_file,
    "card file": card_file,
    "CalibratedModel": lambda d: fedlas.CalibratedModel(network(), fitted(d)),
    "CalibrationCard": lambda d: fedlas.card(d.predictions(60), d.predictions(60), replicates=0),
    "Evaluation": lambda d: fedlas.report(d.predictions(60), replicates=20),
    "LastLayerLaplace": lambda d: uncertainty.LastLayerLaplace(head(Draw(1000))).fit(of_head(d)),
    "VennAbers": lambda d: calibrators.VennAbers().fit(d.predictions(40, 2)),
    "FeatureClipping": lambda d: calibrators.FeatureClipping(head(d)).fit(d.predictions(40)),
    "MultiLabelCalibration": lambda d: calibrators.MultiLabelCalibration("platt").fit(
        d.normal(40, CLASSES), d.normal(40, CLASSES) > 0
    ),
    "Theme": lambda _: plots.LIGHT,
}


@functools.cache
def prepared(name):
    d = Draw(1000)
    d.samples, d.scale = 12, 3.0
    return INSTANCES[name](d)


def outcome(case, parameter, kind):
    """What is wrong with a call in which one argument is of a wrong kind, or none is; None: nothing."""
    d = Draw(1000)
    d.samples, d.scale = 12, 3.0
    story = f"{case.name}({parameter}={kind})"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            arguments = case.arguments(d)
            if parameter is not None:
                arguments[parameter] = WRONG[kind]()
            case.call(d, arguments)
    except (InputError, MissingExtraError) as error:
        if parameter is None:
            return f"{story}: no valid call: {error}"
        if isinstance(error, InputError):
            assert_three_parts(error, story)
        return None
    except FileNotFoundError as error:
        return None if kind in {"path", "str"} else f"{story}: {error!r}"
    except Exception as error:  # noqa: BLE001  # any other is what this looks for
        if parameter is not None:
            # the documented TypeError of a loss
            need = isinstance(error, TypeError) and "must be passed" in str(error)
            callback = "Callable" in case.annotation(parameter) and kind in {
                "function",
                "class",
                "module",
            }
            if need or callback:
                return None
        return f"{story}: {error!r:.200}"
    if parameter is not None and not fits(case.annotation(parameter), WRONG[kind](), parameter):
        return f"{story}: accepted for {case.annotation(parameter)}"
    return None


def every_call(*, heavy, part=""):
    for name, case in cases(heavy=heavy).items():
        if part in name and not name.startswith(tuple(KNOWN)):
            yield case, None, None
            for parameter in case.parameters:
                # scikit-learn checks what it trains on in its own words.
                if not f"{name}({parameter}".startswith(tuple(KNOWN)) and parameter not in {
                    "X",
                    "y",
                    "sample_weight",
                }:
                    yield from ((case, parameter, kind) for kind in WRONG)


def problems(calls):
    with tempfile.TemporaryDirectory() as folder, chdir(folder):
        return [problem for call in calls if (problem := outcome(*call)) is not None]


def show(part):
    for problem in problems(every_call(heavy=part.startswith("fedlas.integrations"), part=part)):
        print(problem)


def test_400_calls():
    calls = [call for call in every_call(heavy=False) if not call[0].name.startswith(SLOW)]
    # A new name adds calls and moves none: a sample by position would be another after each change.
    calls.sort(key=lambda call: zlib.crc32(f"{call[0].name} {call[1:]}".encode()))
    found = problems(calls[:400])
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "name",
    [
        "fedlas.integrations.engines.duckdb_function",
        "fedlas.integrations.engines.estimates_of_sums",
        "fedlas.calibrated.apply_to_files",
        "fedlas.calibrated.measure_before_after",
        "fedlas.deploy.build_card",
        "fedlas.deploy.export_model",
        "fedlas.integrations.engines.evaluate_dataset",
    ],
)
def test_functions_that_other_rooms_call(name):
    found = problems(every_call(heavy=False, part=name))
    assert not found, "\n".join(found)


@pytest.mark.parametrize("kind", WRONG)
def test_results_are_made_of_mappings(kind):
    for make, names in (
        (lambda **options: fedlas.Comparison(**{"content": {}, **options}), ("content", "groups")),
        (fedlas.stats.EstimateTable, ("content", "null")),
    ):
        for name in names:
            value = WRONG[kind]()
            if isinstance(value, dict) or value is None:
                continue
            with pytest.raises(InputError) as error:
                make(**{name: value})
            assert_three_parts(error.value)


def test_known_errors_name_calls_that_exist():
    names = [
        f"{name}({parameter}"
        for name, case in cases(heavy=False).items()
        for parameter in case.parameters
    ]
    heavy = tuple(f"fedlas.integrations.{name}" for name in HEAVY)
    assert [
        known
        for known in KNOWN
        if not any(name.startswith(known) for name in names) and not known.startswith(heavy)
    ] == []


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("heavy", [False, True])
def test_every_call(heavy):
    found = problems(every_call(heavy=heavy))
    assert not found, "\n".join(found)
