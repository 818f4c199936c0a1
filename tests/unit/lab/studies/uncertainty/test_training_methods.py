"""Methods that train or fit something themselves, on a tiny run, through the registry."""

from importlib.util import find_spec

import numpy as np
import pytest
import torch
from torch import nn

from fedlas._core.streams import derive_seed, seed_everything
from fedlas.errors import InputError
from fedlas.features import find_head
from fedlas.lab.recipes import load_recipe, plan_runs
from fedlas.lab.runs import (
    RunFolder,
    build_objective,
    execute,
    load_trained_run,
    predict_part,
    prepare_data,
)
from fedlas.lab.studies.uncertainty import UNCERTAINTY
from fedlas.lab.studies.uncertainty.ensembles import orthogonal_ensemble
from fedlas.lab.train import load_checkpoint, read_log
from fedlas.lab.train.log import append_log
from fedlas.predictions import Predictions
from fedlas.zoo.ood import Outputs, detection_metrics
from fedlas.zoo.uncertainty import MLPHead, VariationalHead
from fedlas.zoo.uncertainty.bayes_by_backprop import kl_divergence
from fedlas.zoo.uncertainty.orthogonality import (
    inter_orthogonality,
    layer_filters,
    self_orthogonality,
)

pytestmark = pytest.mark.system

needs_bayesian = pytest.mark.skipif(
    find_spec("torch_uncertainty") is None or find_spec("lightning") is None,
    reason="needs torch-uncertainty",
)
needs_laplace = pytest.mark.skipif(find_spec("laplace") is None, reason="needs laplace-torch")

TINY = [
    "train.epochs=2", "train.batch_size=50", "data.train_size=100", "data.val_size=50", "data.test_size=50",
    "model.hidden=[8]",
]  # fmt: skip
FAST = {
    "linear-head": {"epochs": 2},
    "two-stage": {"epochs": 2, "hidden": 6},
    "two-stage-variational": {"epochs": 2, "hidden": 6, "samples": 4},
    "orthogonal-ensemble": {"members": 2},
    "bayes-by-backprop": {"samples": 3},
    "last-layer-laplace": {"structure": "full"},
    "matrix-gaussian": {"epochs": 2, "hidden": 6, "samples": 4},
    "probabilistic-backprop": {"passes": 1, "hidden": 6},
}
EACH = [
    pytest.param(name, marks=mark)
    for name, mark in [
        ("linear-head", ()), ("two-stage", ()), ("two-stage-variational", ()), ("orthogonal-ensemble", ()),
        ("bayes-by-backprop", needs_bayesian), ("last-layer-laplace", needs_laplace),
        ("matrix-gaussian", ()), ("probabilistic-backprop", ()),
    ]
]  # fmt: skip
# in seconds, so without a checkpoint
FITTED = ("last-layer-laplace", "matrix-gaussian", "probabilistic-backprop")
TRAINED = [each for each in EACH if each.values[0] not in FITTED]


def build(name, runs, options, *, folder):
    return UNCERTAINTY.build(name, options, runs=runs, folder=folder)


def done(out, *overrides, loss="fedlas"):
    run = plan_runs(
        load_recipe("synthetic", [*TINY, *overrides]), losses=[loss], seeds=[0], out=out
    )[0]
    execute(run)
    return RunFolder(run.folder)


@pytest.fixture(scope="module")
def member(tmp_path_factory):
    return done(tmp_path_factory.mktemp("runs"))


@pytest.mark.parametrize("name", EACH)
def test_predictions_match_samples_and_run_is_unchanged(member, tmp_path, name):
    before = {path: path.read_bytes() for path in member.run.folder.rglob("*") if path.is_file()}
    result = build(name, [member], FAST[name], folder=tmp_path / "own")
    assert {
        path: path.read_bytes() for path in member.run.folder.rglob("*") if path.is_file()
    } == before
    for part in ("val", "test"):
        made, saved = getattr(result, part), member.predictions(part)
        assert np.array_equal(made.target, saved.target)
        assert np.array_equal(made.label_probs, saved.label_probs)
        assert made.logits.shape == saved.logits.shape
        assert not np.allclose(made.probs, saved.probs, atol=1e-3)
    assert result.parameters > 0


@pytest.mark.parametrize("name", EACH)
def test_the_same_again(member, tmp_path, name):
    first = build(name, [member], FAST[name], folder=tmp_path / "a")
    torch.rand(3)  # whatever was drawn before
    again = build(name, [member], FAST[name], folder=tmp_path / "b")
    assert np.array_equal(first.test.logits, again.test.logits)
    assert np.array_equal(first.val.logits, again.val.logits)


class StopError(Exception):
    pass


@pytest.mark.parametrize("name", TRAINED)
def test_stopped_and_started_again(member, tmp_path, monkeypatch, name):
    whole = build(name, [member], FAST[name], folder=tmp_path / "whole")

    def stop(log, record):
        append_log(log, record)
        calls.append(record)
        if len(calls) == 2:
            raise StopError

    calls = []
    with monkeypatch.context() as patch:
        patch.setattr("fedlas.lab.train.loop.append_log", stop)
        with pytest.raises(StopError):
            build(name, [member], FAST[name], folder=tmp_path / "stopped")
    again = build(name, [member], FAST[name], folder=tmp_path / "stopped")
    assert np.array_equal(again.test.logits, whole.test.logits)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "stopped").rglob("*")}
    # nothing is trained again
    finished = build(name, [member], FAST[name], folder=tmp_path / "stopped")
    assert np.array_equal(finished.test.logits, whole.test.logits)
    assert {
        path: path.stat().st_mtime_ns for path in (tmp_path / "stopped").rglob("*.pt")
    }.items() <= before.items()


@pytest.mark.parametrize(
    "name", ["linear-head", "two-stage", "two-stage-variational", "orthogonal-ensemble"]
)
def test_another_configuration_in_the_same_folder_is_refused(member, tmp_path, name):
    build(name, [member], FAST[name], folder=tmp_path)
    other = {"self_weight": 0.5} if name == "orthogonal-ensemble" else {"lr": 0.5}
    with pytest.raises(InputError, match="same configuration"):
        build(name, [member], {**FAST[name], **other}, folder=tmp_path)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("linear-head", {"hidden": 6}, "options must be parameters of"),
        ("two-stage", {"epochs": 0}, "epochs"),
        ("two-stage", {"hidden": 0}, "hidden"),
        ("two-stage", {"lr": 0.0}, "lr"),
        ("two-stage", {"loss": "cee"}, "Did you mean"),
        ("two-stage", {"samples": 3}, "options must be parameters of"),
        ("two-stage-variational", {"kl_weight": -1.0}, "kl_weight"),
        ("two-stage-variational", {"samples": 0}, "samples"),
        ("orthogonal-ensemble", {"members": 1}, "members"),
        ("orthogonal-ensemble", {"inter_weight": -1.0}, "inter_weight"),
        ("bayes-by-backprop", {"samples": 0}, "samples"),
        ("bayes-by-backprop", {"prior_pi": 2.0}, "options must be parameters of"),
        ("last-layer-laplace", {"structure": "kroon"}, "Did you mean 'kron'"),
        ("matrix-gaussian", {"covariance": "dag"}, "Did you mean 'diag'"),
        ("probabilistic-backprop", {"prior": "learnt"}, "Did you mean 'learned'"),
        ("linear-head", {"loss": "cross-fitted"}, "must not need out-of-fold targets"),
    ],
)
def test_invalid_options_fail_before_writing(member, tmp_path, name, options, message):
    with pytest.raises(InputError, match=message):
        build(name, [member], options, folder=tmp_path / "own")
    assert not (tmp_path / "own").exists()


def test_second_stage_has_its_own_epochs(member, tmp_path):
    assert (
        build(
            "linear-head", [member], {"epochs": 1, "loss": "ps-kd"}, folder=tmp_path / "own"
        ).test.num_samples
        == 50
    )


@pytest.mark.parametrize("name", ["linear-head", "two-stage", "two-stage-variational"])
def test_untrained_second_stage_predicts_with_new_head(member, tmp_path, name):
    result = build(name, [member], {**FAST[name], "lr": 1e-12}, folder=tmp_path)
    seed = derive_seed(member.run.seed, name)
    seed_everything(derive_seed(seed, "head"))
    make = {
        "linear-head": lambda: nn.Linear(8, 10),
        "two-stage": lambda: MLPHead(8, 6, 10),
        "two-stage-variational": lambda: VariationalHead(8, 6, 10, samples=4, seed=seed),
    }
    head = make[name]()
    saved = Predictions.load(member.run.folder / "predictions" / "test.npz")
    with torch.no_grad():
        torch.testing.assert_close(
            result.test.tensors().logits, head.eval()(saved.tensors().features)
        )


def test_a_linear_head_measures_the_classes_held_out(tmp_path):
    """Both stages of SpHOR, and every figure recomputed from what the run saved and what the head predicts."""
    first = done(
        tmp_path / "runs",
        "data.hold_out_classes=[7, 8, 9]",
        "train.save_features=true",
        loss="sphor",
    )
    assert load_trained_run(first).objective.criterion.projector.in_features == 8
    result = build("linear-head", [first], {"epochs": 2}, folder=tmp_path / "own")
    known = first.predictions("test").tensors()
    unknown = Outputs.load(first.part_path("ood-held-out"))[0]
    trained = load_trained_run(first)
    # The head that was trained, from the checkpoint of the second stage.
    state = load_checkpoint(tmp_path / "own" / "checkpoint.pt")["best"]["objective"]
    head = nn.Linear(8, 7)
    head.load_state_dict(
        {key: state[f"model.{_head_name(trained)}.{key}"] for key in ("weight", "bias")}
    )
    with torch.no_grad():
        known_logits, unknown_logits = head(known.features), head(unknown.features)
    torch.testing.assert_close(result.test.tensors().logits, known_logits, rtol=1e-4, atol=1e-4)
    right = (known_logits.argmax(1) == known.target).numpy()
    found = detection_metrics(-known_logits.amax(1), -unknown_logits.amax(1), id_correct=right)
    assert result.details["auroc"] == pytest.approx(found["auroc"], abs=1e-3)
    assert result.details["oscr"] == pytest.approx(found["oscr"], abs=1e-3)
    assert result.notes[-1].endswith(
        f"AUROC {result.details['auroc']:.4f}, OSCR {result.details['oscr']:.4f}"
    )


def _head_name(trained):
    head = find_head(trained.objective.model)
    return "model." + next(
        name for name, module in trained.objective.model.named_modules() if module is head
    )


def test_members_of_an_orthogonal_ensemble(member, tmp_path):
    options = {"members": 3, "self_weight": 0.05, "inter_weight": 2.0}
    result = orthogonal_ensemble([member], folder=tmp_path / "kept apart", **options)
    orthogonal_ensemble(
        [member], folder=tmp_path / "free", members=3, self_weight=0.0, inter_weight=0.0
    )
    found = {}
    for kind in ("kept apart", "free"):
        rows = []
        for number in range(3):
            folder = tmp_path / kind / f"member{number}"
            assert len(read_log(folder / "log.jsonl")) == 2
            objective = build_objective(member.run, prepare_data(member.run))
            objective.load_state_dict(
                load_checkpoint(folder / "checkpoint.pt")["best"]["objective"]
            )
            rows.append(layer_filters(objective.model))
        found[kind] = sum(
            inter_orthogonality(rows[i][name], rows[j][name]).item()
            for i in range(3)
            for j in range(i)
            for name in rows[0]
        )
        assert all(
            not torch.equal(rows[i][name], rows[j][name])
            for i in range(3)
            for j in range(i)
            for name in rows[0]
        )
    assert found["kept apart"] < 0.9 * found["free"]
    # Without weights the first member is the run.
    assert result.details["members"] == 3
    alone = load_checkpoint(tmp_path / "free" / "member0" / "checkpoint.pt")["best"]["objective"]
    saved = load_checkpoint(member.run.folder / "checkpoint.pt")["best"]["objective"]
    assert all(torch.equal(alone[key], saved[key]) for key in saved)


def test_self_orthogonality_alone(member, tmp_path):
    sums = {}
    for weight in (0.0, 1.0):
        folder = tmp_path / str(weight)
        orthogonal_ensemble(
            [member], folder=folder, members=2, self_weight=weight, inter_weight=0.0
        )
        objective = build_objective(member.run, prepare_data(member.run))
        objective.load_state_dict(
            load_checkpoint(folder / "member0" / "checkpoint.pt")["best"]["objective"]
        )
        sums[weight] = sum(
            self_orthogonality(rows).item() for rows in layer_filters(objective.model).values()
        )
    assert sums[1.0] < 0.9 * sums[0.0]


@needs_laplace
def test_laplace_reads_the_training_part(member):
    result = build(
        "last-layer-laplace", [member], {"structure": "full", "prior_precision": 5.0}, folder=None
    )
    assert result.details["prior_precision"] == 5.0
    saved = Predictions.load(member.run.folder / "predictions" / "test.npz")
    trained = load_trained_run(member)
    head, features = trained.objective.model.fc, saved.tensors().features
    train = predict_part(
        trained.objective, trained.splits, trained.splits.train, batch_size=50, features=True
    ).tensors()
    ones = torch.ones(100, 1, dtype=torch.float64)
    inputs, probs = torch.cat([train.features.double(), ones], 1), train.logits.double().softmax(1)
    curvature = torch.diag_embed(probs) - probs[:, :, None] * probs[:, None, :]
    size = inputs.shape[1] * 10
    matrix = torch.einsum("ncd,ni,nj->cidj", curvature, inputs, inputs).reshape(size, size)
    covariance = torch.linalg.inv(matrix + 5.0 * torch.eye(size, dtype=torch.float64)).reshape(
        10, 9, 10, 9
    )
    phi = torch.cat([features.double(), torch.ones(50, 1, dtype=torch.float64)], 1)
    variance = torch.stack([((phi @ covariance[c, :, c]) * phi).sum(1) for c in range(10)], dim=1)
    expected = (head(features) / (1 + torch.pi / 8 * variance).sqrt().float()).softmax(1)
    torch.testing.assert_close(result.test.tensors().probs, expected, atol=1e-4, rtol=1e-3)


@needs_bayesian
def test_a_bayesian_run_predicts_as_it_is(member, tmp_path):
    bayesian = done(tmp_path / "runs", "model.bayesian=true", "optimizer.weight_decay=0")
    plain, own = member.run.config(), bayesian.run.config()
    assert "bayesian" not in plain["model"]
    assert own["model"]["bayesian"]["kl_weight"] == 1.0
    assert RunFolder(bayesian.run.folder).run.config() == own
    assert Predictions.load(bayesian.run.folder / "predictions" / "test.npz").features is not None
    splits = prepare_data(bayesian.run)
    objective = build_objective(bayesian.run, splits)
    loss, logits = objective(torch.zeros(4, 1, 8, 8), splits.train.target[:4])
    data_only = objective.criterion(
        logits, splits.train.target[:4], features=torch.ones(4, 8)
    ).item()
    assert objective.penalty.num_samples == 100
    assert loss.item() - kl_divergence(objective.model).item() / 100 == pytest.approx(
        data_only, abs=0.5
    )
    folder = tmp_path / "own"
    found = build("bayes-by-backprop", [bayesian], {"samples": 3}, folder=folder)
    assert not folder.exists()  # nothing to train
    twin = build("bayes-by-backprop", [member], {"samples": 3}, folder=folder)
    np.testing.assert_allclose(
        twin.test.logits, found.test.logits, rtol=1.3e-6, atol=1e-5
    )  # trained anew like it
    with pytest.raises(InputError, match="Bayesian layers"):
        build("orthogonal-ensemble", [bayesian], {}, folder=tmp_path / "none")
    # on the mean weights
    second = build("two-stage", [bayesian], FAST["two-stage"], folder=tmp_path / "second")
    assert second.test.num_samples == 50


def test_the_option_in_a_recipe():
    recipe = load_recipe(
        "synthetic", ["model.bayesian.prior_sigma=0.3", "optimizer.weight_decay=0"]
    )
    assert recipe.model.bayesian.prior_sigma == 0.3
    assert load_recipe("synthetic", ["model.bayesian=false"]).model.bayesian is None
    with pytest.raises(InputError, match=r"weight_decay .*0 with model\.bayesian"):
        load_recipe("synthetic", ["model.bayesian=true"])
    with pytest.raises(InputError, match="prior_sigma"):
        load_recipe("synthetic", ["model.bayesian.prior_sigma=-1", "optimizer.weight_decay=0"])
    with pytest.raises(InputError, match=r"'model\.bayesian\.prior_pi'"):
        load_recipe("synthetic", ["model.bayesian.prior=1", "optimizer.weight_decay=0"])
