import copy

import pytest
import torch
from torch import nn

from fedlas import Objective
from fedlas._core.ranks import new_accelerator
from fedlas.errors import InputError
from fedlas.lab.data import Batches, load_dataset, split
from fedlas.lab.train import (
    OptimizerConfig,
    ScheduleConfig,
    TrainConfig,
    TrainingJob,
    build_schedule,
    fit,
    load_checkpoint,
)
from fedlas.lab.train.average import AVERAGES, update_batch_norm_stats
from fedlas.losses import FedLAS
from fedlas.metrics import evaluate
from fedlas.objective import predict
from runs import FIXED

SPLITS = split(
    load_dataset("synthetic", num_train=150, num_test=20, num_classes=3), seed=0, val_size=40
)
PLAIN = {"average": "none"}
EMA = {"average": "ema", "average_decay": 0.7}
SWA = {"average": "swa", "average_start": 0.4}


def batches(part, size=32, **options):
    return Batches(part, mean=SPLITS.mean, std=SPLITS.std, batch_size=size, **options)


def objective(seed=0):
    torch.manual_seed(seed)
    size = SPLITS.train.images[0].numel()
    layers = [
        nn.Flatten(),
        nn.Linear(size, 8),
        nn.BatchNorm1d(8),
        nn.ReLU(),
        nn.Dropout(0.2),
        nn.Linear(8, 3),
    ]
    return Objective(nn.Sequential(*layers), FedLAS(num_classes=3), head="5")


class StoppedError(Exception):
    """Stands for a kill: raised after an epoch, before its checkpoint."""


def train(module, folder, *, epochs=5, stop=None, watch=None, **config):
    def on_record(record):
        if watch is not None:
            watch(record)
        if record["epoch"] == stop:
            raise StoppedError

    return fit(
        TrainingJob(
            module,
            batches(SPLITS.train, shuffle=True, seed=1),
            batches(SPLITS.val, 100),
            folder=folder,
            config=TrainConfig(epochs=epochs, batch_size=32, **FIXED | config),
            optimizer=OptimizerConfig(lr=0.05),
            schedule=ScheduleConfig(name="constant"),
            identity=config,
            on_record=on_record,
        )
    )


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def of_model(state):
    return {
        key.removeprefix("model."): value
        for key, value in state.items()
        if key.startswith("model.")
    }


def plain(value):
    """Nested tensors as lists, to compare whole checkpoints."""
    if isinstance(value, torch.Tensor):
        return value.tolist()
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value


class Recorder:
    """Steps an average over made-up weights, and keeps sums to compare it with."""

    def __init__(self, **config):
        self.model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
        self.config = TrainConfig(**config)
        self.weights = AVERAGES[self.config.average](self.model, self.config)
        self.seen = []

    def move(self, epoch):
        generator = torch.Generator().manual_seed(len(self.seen))
        with torch.no_grad():
            for value in self.model.state_dict().values():
                if value.is_floating_point():
                    value.copy_(torch.randn(value.shape, generator=generator))
                else:
                    value += 1
        self.seen.append(copy.deepcopy(self.model.state_dict()))
        self.weights.step(epoch)


def test_exponential_average_by_hand():
    recorder = Recorder(epochs=4, average="ema", average_decay=0.3)
    for epoch in (1, 1, 2, 2, 3):
        recorder.move(epoch)
    # The decay of each step is the smaller of 0.3 and (1 + t) / (10 + t).
    decays = [2 / 11, 3 / 12, 0.3, 0.3]
    found = recorder.weights.model.state_dict()
    for key in found:
        value = recorder.seen[0][key]
        for new, decay in zip(recorder.seen[1:], decays, strict=True):
            value = (
                new[key]
                if key.endswith("num_batches_tracked")
                else decay * value + (1 - decay) * new[key]
            )
        torch.testing.assert_close(found[key], value)
    assert found["1.num_batches_tracked"] == 5


def test_exponential_average_from_its_start():
    recorder = Recorder(epochs=4, average="ema", average_start=0.5)
    recorder.move(1)
    recorder.move(2)
    assert recorder.weights.model is recorder.model
    recorder.move(3)
    assert recorder.weights.model is not recorder.model
    assert same(recorder.weights.model.state_dict(), recorder.seen[2])


def test_mean_of_the_ends_of_epochs_by_hand():
    recorder = Recorder(epochs=4, average="swa", average_start=0.25)
    data = [
        (torch.randn(n, 2, generator=torch.Generator().manual_seed(n)), None) for n in (6, 6, 3)
    ]
    ends = []
    for epoch in (1, 2, 3, 4):
        recorder.move(epoch)
        recorder.move(epoch)
        recorder.weights.end_epoch(epoch, data, new_accelerator())
        ends.append(recorder.seen[-1])
    found = recorder.weights.model.state_dict()
    for key in ("0.weight", "0.bias", "1.weight", "1.bias"):
        torch.testing.assert_close(found[key], sum(end[key] for end in ends[1:]) / 3)
    outputs = [inputs @ found["0.weight"].T + found["0.bias"] for inputs, _ in data]
    torch.testing.assert_close(found["1.running_mean"], sum(o.mean(0) for o in outputs) / 3)
    torch.testing.assert_close(found["1.running_var"], sum(o.var(0) for o in outputs) / 3)


def test_frozen_batch_norms_keep_their_statistics():
    class Frozen(nn.BatchNorm1d):
        def train(self, mode=True):
            return super().train(False)

    model = nn.Sequential(
        nn.BatchNorm1d(2), Frozen(2), nn.BatchNorm1d(2, track_running_stats=False)
    )
    model[1].running_mean.fill_(7.0)
    update_batch_norm_stats(model, [(torch.full((4, 2), 3.0), None)], new_accelerator())
    assert model[0].running_mean.tolist() == [3, 3]
    assert model[1].running_mean.tolist() == [7, 7]
    assert model[0].momentum == 0.1
    assert not any(module.training for module in model.modules())


def test_a_model_without_batch_norms_is_not_run():
    def refuse(*_):
        raise AssertionError

    model = nn.Linear(2, 2)
    model.forward = refuse
    update_batch_norm_stats(model, [(torch.zeros(1, 2), None)], new_accelerator())


@pytest.mark.parametrize("config", [EMA, SWA], ids=["ema", "swa"])
def test_average_is_validated_kept_and_used(tmp_path, config):
    averaged = objective()
    gates = []
    fitted = train(
        averaged,
        tmp_path / "averaged",
        select="nll",
        watch=lambda _: gates.append(averaged.criterion.gate.out.weight.detach().clone()),
        **config,
    )
    train(objective(), tmp_path / "raw", **PLAIN)
    saved = load_checkpoint(tmp_path / "averaged" / "checkpoint.pt")
    # Final weights are the best epoch's average, and give the log's numbers for it.
    assert same(averaged.state_dict(), saved["best"]["objective"])
    again = evaluate(predict(averaged, batches(SPLITS.val, 100)))
    assert fitted.history[fitted.best_epoch - 1]["val"] == again
    # The average is of the path, not the path of the average: what is trained knows nothing of it.
    if config is EMA:
        assert same(
            of_model(saved["objective"]),
            of_model(load_checkpoint(tmp_path / "raw/checkpoint.pt")["objective"]),
        )
    assert not torch.equal(
        saved["objective"]["model.1.weight"], saved["best"]["objective"]["model.1.weight"]
    )
    # The loss's own state is not averaged.
    assert torch.equal(averaged.criterion.gate.out.weight, gates[fitted.best_epoch - 1])


def test_best_epoch_is_an_average_once_averaging_starts(tmp_path):
    """The epochs before averaging score perfectly, and must not be chosen."""
    from fedlas.lab.train import loop

    perfect = {"accuracy": 1.0, "nll": 0.0, "ece": 0.0}
    calls = []

    def rigged(predictions, num_bins):
        calls.append(predictions)
        return perfect if len(calls) < 4 else evaluate(predictions, num_bins=num_bins)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "evaluate", rigged)
        assert train(objective(), tmp_path / "swa", average="swa", average_start=0.6).best_epoch > 3
        calls.clear()
        assert train(objective(), tmp_path / "none", **PLAIN).best_epoch == 3


@pytest.mark.parametrize("every", [1, 2])
@pytest.mark.parametrize("config", [EMA, SWA], ids=["ema", "swa"])
def test_stopped_and_resumed_equals_undisturbed(tmp_path, config, every):
    settings = {**config, "checkpoint_every": every}
    whole = objective()
    fitted = train(whole, tmp_path / "whole", **settings)
    for epoch in (1, 2, 3, 5):
        with pytest.raises(StoppedError):
            train(objective(), tmp_path / "cut", stop=epoch, **settings)
    resumed = objective(seed=9)  # every weight, average and generator comes from the checkpoint
    again = train(resumed, tmp_path / "cut", **settings)
    assert same(whole.state_dict(), resumed.state_dict())
    assert fitted.best_epoch == again.best_epoch
    a, b = (plain(load_checkpoint(tmp_path / name / "checkpoint.pt")) for name in ("whole", "cut"))
    assert a == b


@pytest.mark.parametrize(
    ("config", "first"),
    [
        ({"average": "ema"}, 1),
        ({"average": "swa"}, 16),
        ({"average": "swa", "epochs": 1}, 1),
        ({"average": "swa", "epochs": 2}, 2),
        ({"average": "ema", "average_start": 0.5}, 11),
        ({"average": "ema", "average_start": 1.0}, 20),
    ],
)
def test_first_epoch_of_averaging(config, first):
    assert TrainConfig(**{"epochs": 20, **config}).first_averaged_epoch == first


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"average": "emma"}, "Did you mean 'ema'"),
        ({"average_decay": 1.5}, "average_decay"),
        ({"average_start": -0.1}, "average_start"),
    ],
)
def test_invalid_average_options_are_refused(config, message):
    with pytest.raises(InputError, match=message):
        TrainConfig(**config)


def test_rate_of_the_schedule_for_averaging():
    config = ScheduleConfig(name="swa", milestones=[0.2, 0.6], factor=0.25)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.4)
    schedule, rates = build_schedule(optimizer, config, epochs=10), []
    for _ in range(10):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates == pytest.approx([0.4, 0.4, 0.4, 0.325, 0.25, 0.175, 0.1, 0.1, 0.1, 0.1])
    at_once = build_schedule(
        optimizer, ScheduleConfig(name="swa", milestones=[1, 1], factor=0.25), epochs=3
    )
    assert [at_once.lr_lambdas[0](epoch) for epoch in range(3)] == [1, 0.25, 0.25]


@pytest.mark.parametrize(
    ("milestones", "message"),
    [([0.5], "two milestones"), ([0.7, 0.4], "must increase"), ([0.5, 10], "before the last")],
)
def test_invalid_milestones_are_refused(milestones, message):
    with pytest.raises(InputError, match=message):
        ScheduleConfig(name="swa", milestones=milestones).milestone_epochs(10)
