import copy
import shutil

import pytest
import torch
from torch import nn

from fedlas import Objective
from fedlas.diagnose import make_monitors
from fedlas.errors import InputError
from fedlas.lab.data import Batches, load_dataset, split
from fedlas.lab.train import (
    DivergedError,
    OptimizerConfig,
    ScheduleConfig,
    TrainConfig,
    TrainingJob,
    fit,
    load_checkpoint,
    read_log,
)
from fedlas.losses import FedLAS, LabelSmoothing
from fedlas.metrics import evaluate
from fedlas.objective import predict
from runs import FIXED

SPLITS = split(
    load_dataset("synthetic", num_train=150, num_test=20, num_classes=3), seed=0, val_size=40
)


def batches(part, size=32, **options):
    return Batches(part, mean=SPLITS.mean, std=SPLITS.std, batch_size=size, **options)


def objective(criterion=None, seed=0):
    torch.manual_seed(seed)
    inputs = SPLITS.train.images[0].numel()
    model = nn.Sequential(
        nn.Flatten(), nn.Linear(inputs, 8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 3)
    )
    return Objective(model, criterion or FedLAS(num_classes=3), head="4")


def train(module, folder, *, epochs=3, optimizer=None, schedule=None, identity=None, **more):
    hooks = make_monitors(module.criterion, norms=more.pop("watch_norms", False))
    options = {name: more.pop(name) for name in ("on_record",) if name in more}
    return fit(
        TrainingJob(
            module,
            batches(SPLITS.train, shuffle=True, seed=1),
            batches(SPLITS.val, 100),
            folder=folder,
            config=TrainConfig(epochs=epochs, batch_size=32, **FIXED | more),
            optimizer=OptimizerConfig(**{"lr": 0.05, **(optimizer or {})}),
            schedule=schedule or ScheduleConfig(name="constant"),
            identity=identity or {"epochs": epochs},
            hooks=hooks,
            **options,
        )
    )


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


class StoppedError(Exception):
    """Stands for a kill: raised after an epoch, before its checkpoint."""


def stop_after(epoch):
    def hook(record):
        if record["epoch"] == epoch:
            raise StoppedError

    return hook


def without_seconds(history):
    return [{key: value for key, value in record.items() if key != "seconds"} for record in history]


class FromValidation(nn.Module):
    """Cross-entropy times a factor that validation sets."""

    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.tensor(0))
        self.register_buffer("factor", torch.tensor(1.0))

    def forward(self, logits, target):
        return self.factor * nn.functional.cross_entropy(logits, target)

    def update_from_validation(self, predictions):
        self.calls += 1
        self.factor.copy_(1 + predictions.tensors().confidence.mean())


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("every", [1, 2])
def test_stopped_and_resumed_equals_undisturbed(tmp_path, optimizer, precision, every):
    settings = {
        "epochs": 4,
        "precision": precision,
        "checkpoint_every": every,
        "optimizer": {"name": optimizer, "clip_norm": 1.0, "lr": 0.01},
        "schedule": ScheduleConfig(name="cosine", warmup_epochs=1),
    }
    whole = objective()
    fitted = train(whole, tmp_path / "whole", **settings)
    for epoch in (1, 2, 3, 3):
        with pytest.raises(StoppedError):
            train(objective(), tmp_path / "cut", on_record=stop_after(epoch), **settings)
    resumed = objective(seed=99)  # every weight and generator comes from the checkpoint
    again = train(resumed, tmp_path / "cut", **settings)
    assert same(whole.state_dict(), resumed.state_dict())
    assert fitted.best_epoch == again.best_epoch
    assert without_seconds(fitted.history) == without_seconds(again.history)
    assert again.history == read_log(tmp_path / "cut" / "log.jsonl")
    assert [record["epoch"] for record in again.history] == [1, 2, 3, 4]
    a, b = (load_checkpoint(tmp_path / name / "checkpoint.pt") for name in ("whole", "cut"))
    assert same(a["objective"], b["objective"])
    assert str(a["optimizer"]) == str(b["optimizer"])
    assert a["schedule"] == b["schedule"]
    assert str(a["rng"]) == str(b["rng"])
    assert all(
        value.dtype == torch.float32
        for value in a["objective"].values()
        if value.is_floating_point()
    )


def test_finished_run_is_only_loaded(tmp_path):
    fitted = train(objective(), tmp_path)
    stamp = (tmp_path / "checkpoint.pt").stat().st_mtime_ns
    other = objective(seed=5)
    assert train(other, tmp_path, on_record=stop_after(3)) == fitted
    assert (tmp_path / "checkpoint.pt").stat().st_mtime_ns == stamp
    assert same(
        other.state_dict(), load_checkpoint(tmp_path / "checkpoint.pt")["best"]["objective"]
    )


def test_validation_feedback_each_epoch_before_the_checkpoint(tmp_path):
    whole = objective(FromValidation())
    seen = []
    train(whole, tmp_path / "whole", on_record=lambda _: seen.append(int(whole.criterion.calls)))
    assert seen == [1, 2, 3]
    assert (
        load_checkpoint(tmp_path / "whole" / "checkpoint.pt")["objective"]["criterion.calls"] == 3
    )
    with pytest.raises(StoppedError):
        train(objective(FromValidation()), tmp_path / "cut", on_record=stop_after(3))
    saved = load_checkpoint(tmp_path / "cut" / "checkpoint.pt")
    assert (saved["epoch"], int(saved["objective"]["criterion.calls"])) == (2, 2)
    resumed = objective(FromValidation(), seed=4)
    train(resumed, tmp_path / "cut")
    assert same(whole.state_dict(), resumed.state_dict())


def test_another_configuration_changes_nothing(tmp_path):
    train(objective(), tmp_path, epochs=1, identity={"alpha": 0.1})
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    module = objective(seed=3)
    weights = copy.deepcopy(module.state_dict())
    with pytest.raises(InputError, match=r"alpha: 0\.1 before, 0\.2 now"):
        train(module, tmp_path, epochs=1, identity={"alpha": 0.2})
    (tmp_path / "checkpoint.pt").write_bytes(before[tmp_path / "checkpoint.pt"][:-50])
    with pytest.raises(InputError, match="complete checkpoint"):
        train(module, tmp_path, epochs=1, identity={"alpha": 0.1})
    assert same(weights, module.state_dict())
    before[tmp_path / "checkpoint.pt"] = before[tmp_path / "checkpoint.pt"][:-50]
    assert before == {path: path.read_bytes() for path in tmp_path.iterdir()}


def test_checkpoint_of_another_model_under_the_same_configuration(tmp_path):
    train(objective(), tmp_path)
    with pytest.raises(InputError, match=r"this model and loss; got .*criterion"):
        train(objective(LabelSmoothing(alpha=0.1)), tmp_path)


def test_checkpoint_with_the_monitor_of_an_earlier_version(tmp_path):
    with pytest.raises(StoppedError):
        train(objective(), tmp_path, on_record=stop_after(2))
    saved = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    del saved["hooks"][0]["means"]
    torch.save(saved, tmp_path / "checkpoint.pt")
    with pytest.raises(InputError, match="hook lacks 'means'"):
        train(objective(), tmp_path)
    saved["hooks"] = []
    torch.save(saved, tmp_path / "checkpoint.pt")
    with pytest.raises(InputError, match=r"0 hook states for 1"):
        train(objective(), tmp_path)


def test_log_and_best_epoch(tmp_path):
    seen = []
    fitted = train(
        objective(),
        tmp_path,
        epochs=4,
        on_record=seen.append,
        schedule=ScheduleConfig(milestones=[2]),
    )
    assert seen == fitted.history == read_log(tmp_path / "log.jsonl")
    assert [record["lr"] for record in seen] == pytest.approx([0.05, 0.05, 0.005, 0.005])
    accuracies = [record["val"]["accuracy"] for record in seen]
    assert fitted.best_epoch == max(range(4), key=lambda i: (accuracies[i], i)) + 1
    for record in seen:
        assert 0 <= record["train"]["accuracy"] <= 1
        assert record["seconds"] > 0


@pytest.mark.parametrize("average", ["none", "ema"])
def test_norm_monitor_without_indicator_changes_nothing(tmp_path, average):
    watched = train(
        objective(LabelSmoothing()), tmp_path / "watched", watch_norms=True, average=average
    )
    plain = train(objective(LabelSmoothing()), tmp_path / "plain", average=average)
    for record, other in zip(watched.history, plain.history, strict=True):
        found = record.pop("indicator")
        assert 0 < found["std"] < found["mean"]
        assert (
            found["spearman_confidence_low"]
            < found["spearman_confidence"]
            < found["spearman_confidence_high"]
        )
        assert record.keys() == other.keys()
        assert record["val"] == other["val"]


def test_missing_head_fails_before_training(tmp_path):
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(4, 3), nn.Linear(4, 3)

    unnamed = Objective(Two(), LabelSmoothing())
    with pytest.raises(InputError, match="one recognizable classifier head"):
        train(unnamed, tmp_path, watch_norms=True)
    assert not list(tmp_path.iterdir())


def test_norm_monitor_reads_named_head_input(tmp_path):
    module = objective(LabelSmoothing())
    (record,) = train(module, tmp_path, epochs=1, watch_norms=True).history
    found = predict(module, batches(SPLITS.val, 100), features=True, head="4")
    assert record["indicator"]["mean"] == pytest.approx(
        float(found.tensors().features.abs().sum(1).mean()), rel=1e-5
    )
    assert module.find_classifier(copy.deepcopy(module.model)) is not module.model[4]


def test_indicator_is_monitored_instead_of_norm(tmp_path):
    history = train(objective(), tmp_path, watch_norms=True).history
    assert all("gate" in record and "z_mean" in record["indicator"] for record in history)


@pytest.mark.parametrize(("metric", "sign"), [("accuracy", 1), ("nll", -1), ("ece", -1)])
def test_select_keeps_best_or_last_of_ties(tmp_path, metric, sign, monkeypatch):
    values = iter([0.2, 0.7, 0.4, 0.7, 0.4] if sign > 0 else [0.7, 0.2, 0.4, 0.2, 0.4])
    monkeypatch.setattr(
        "fedlas.lab.train.loop.evaluate",
        lambda *_, **__: {"accuracy": 0, "ece": 0, metric: next(values)},
    )
    snapshots = []
    module = objective()
    hook = lambda _: snapshots.append(copy.deepcopy(module.state_dict()))  # noqa: E731
    assert train(module, tmp_path, epochs=5, select=metric, on_record=hook).best_epoch == 4
    assert same(module.state_dict(), snapshots[3])


def test_metrics_that_cannot_select(tmp_path):
    with pytest.raises(InputError, match="Did you mean 'accuracy'"):
        train(objective(), tmp_path, select="acuracy")
    with pytest.raises(InputError, match=r"'true_ece'.*one of: accuracy"):
        train(objective(), tmp_path, select="true_ece")  # needs label probabilities


def test_best_weights_are_those_that_scored(tmp_path):
    module = objective()
    fitted = train(module, tmp_path, epochs=5, select="nll")
    scores = evaluate(predict(module, batches(SPLITS.val, 100)))
    assert scores == fitted.history[fitted.best_epoch - 1]["val"]


def test_clipping_is_over_model_and_loss_together(tmp_path):
    class Large(nn.Module):
        def __init__(self):
            super().__init__()
            self.own = nn.Parameter(torch.zeros(()))

        def forward(self, logits, target):
            return nn.functional.cross_entropy(logits, target) + 1000 * self.own

    module = objective(Large())
    start = copy.deepcopy(module.state_dict())
    optimizer = {"lr": 1.0, "momentum": 0, "weight_decay": 0, "clip_norm": 0.01}
    train(module, tmp_path, epochs=1, optimizer=optimizer)
    moved = {key: (value - start[key]).norm() for key, value in module.state_dict().items()}
    # four steps, all of the norm is the loss's
    assert moved.pop("criterion.own") == pytest.approx(0.01 * 4, rel=1e-3)
    assert max(moved.values()) < 1e-3  # the model moved by what was left


def test_divergence_is_named_and_leaves_the_last_checkpoint(tmp_path):
    class Diverges(nn.Module):
        steps = 0

        def forward(self, logits, target):
            self.steps += 1
            loss = nn.functional.cross_entropy(logits, target)
            return loss * float("nan") if self.steps > 8 else loss

    with pytest.raises(DivergedError, match=r"loss and logits .*finite; got .*epoch 3"):
        train(objective(Diverges()), tmp_path)
    assert load_checkpoint(tmp_path / "checkpoint.pt")["epoch"] == 2
    assert [record["epoch"] for record in read_log(tmp_path / "log.jsonl")] == [1, 2]


def test_nonfinite_validation_logits_are_divergence(tmp_path):
    module = objective(LabelSmoothing())
    module.model[3].register_forward_hook(
        lambda layer, _, out: out if layer.training else out * float("inf")
    )
    with pytest.raises(DivergedError, match="logits must be finite"):
        train(module, tmp_path)
    assert not (tmp_path / "checkpoint.pt").exists()


def test_folder_that_cannot_be_written_to(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="output folder"):
        train(objective(), tmp_path / "file")


def test_bf16_applies_to_forward_pass_only(tmp_path):
    seen = set()
    module = objective()
    module.model[4].register_forward_hook(lambda m, i, out: seen.add((m.training, out.dtype)))
    train(module, tmp_path, epochs=1, precision="bf16")
    assert seen == {(True, torch.bfloat16), (False, torch.float32)}
    assert all(p.dtype == torch.float32 for p in module.parameters())
    assert module.criterion.nci.mean.dtype == torch.float32


@pytest.mark.long
@pytest.mark.skipif(
    not any(map(shutil.which, ("g++", "clang++", "c++"))), reason="inductor needs a C++ compiler"
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")  # the compiler's own imports
def test_compiled_equals_eager(tmp_path):
    eager, compiled = objective(), objective()
    eager.model[3].p = compiled.model[3].p = 0.0  # inductor draws other dropout masks
    train(eager, tmp_path / "eager", epochs=2)
    train(compiled, tmp_path / "compiled", epochs=2, compile=True)
    for key, value in eager.state_dict().items():
        torch.testing.assert_close(compiled.state_dict()[key], value, rtol=1e-3, atol=1e-4)
