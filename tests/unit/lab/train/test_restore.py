"""A checkpoint that loads and holds nonsense: training resumes as it was or not at all, and the error says why."""

import copy
import shutil

import pytest
import torch
from torch import nn

from fedlas import Objective
from fedlas.cli import main
from fedlas.diagnose import make_monitors
from fedlas.errors import InputError
from fedlas.lab.data import Batches, load_dataset, split
from fedlas.lab.train import OptimizerConfig, ScheduleConfig, TrainConfig, TrainingJob, fit
from fedlas.losses import FedLAS

SPLITS = split(
    load_dataset("synthetic", num_train=150, num_test=20, num_classes=3), seed=0, val_size=40
)


def objective(seed=0):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Flatten(), nn.Linear(SPLITS.train.images[0].numel(), 3))
    return Objective(model, FedLAS(num_classes=3), head="1")


def train(module, folder, optimizer="sgd", average="none"):
    train, val = (
        Batches(
            part,
            mean=SPLITS.mean,
            std=SPLITS.std,
            batch_size=50,
            shuffle=part is SPLITS.train,
            seed=1,
        )
        for part in (SPLITS.train, SPLITS.val)
    )
    return fit(TrainingJob(
        module, train, val, folder=folder, config=TrainConfig(epochs=2, batch_size=50, average=average),
        optimizer=OptimizerConfig(name=optimizer, lr=0.05), schedule=ScheduleConfig(name="constant"),
        identity={"seed": 0}, hooks=make_monitors(module.criterion),
    ))  # fmt: skip


@pytest.fixture(scope="module", params=["sgd", "adamw"])
def trained(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    train(objective(), folder, request.param, average="ema")
    return folder, request.param


GONE = object()
KINDS = [  # where, what is put there, what the error says of it
    ("best", GONE, "best is missing"),
    ("best", None, "best is NoneType None"),
    ("best.objective", {}, "best weights lacks"),
    ("best.objective", {"x": 1}, "best.objective: str 'x' is int 1"),
    ("best.epoch", 7, "best.epoch is int 7, and epoch int 2"),
    ("best.value", "high", "best.value is str 'high'"),
    ("epoch", GONE, "epoch is missing"),
    ("epoch", True, "epoch is bool True"),
    ("epoch", -1, "best.epoch is int 2, and epoch int -1"),
    ("epoch", 10**30, "of 2"),
    ("objective", [], "objective is list"),
    (
        "objective.model.1.weight",
        torch.zeros(2, 2),
        r"model.1.weight is \(2, 2\) torch.float32, not \(3, ",
    ),
    ("objective.model.1.bias", torch.zeros(3).to_sparse(), "model.1.bias is"),
    ("objective.model.1.bias", torch.zeros(3, device="meta"), "model.1.bias is"),
    ("objective.model.1.bias", torch.zeros(3, dtype=torch.int8), "model.1.bias is .*int8"),
    ("objective.other", torch.zeros(3), "weights has other"),
    ("best.objective.model.1.bias", GONE, "best weights lacks model.1.bias"),
    ("optimizer", None, "optimizer is NoneType"),
    ("optimizer", {}, "optimizer: lacks 'param_groups'"),
    ("optimizer.param_groups", [], "optimizer: "),
    ("optimizer.param_groups.0.lr", "fast", "groups\\[0\\].lr is str 'fast'"),
    ("optimizer.param_groups.0.lr", float("nan"), "lr is float nan"),
    ("optimizer.param_groups.0.maximize", 1, "groups\\[0\\].maximize is int 1"),
    ("optimizer.param_groups.0.name", None, "groups\\[0\\].name is NoneType None"),
    ("optimizer.state.0", [1], "it keeps list|optimizer: "),
    ("optimizer.state.0", {"other": 1}, "it keeps dict|lacks 'step'"),
    ("optimizer.state.77", {}, "it keeps dict|it keeps int"),
    ("schedule", [], "schedule is list"),
    ("schedule", {}, "schedule: "),
    ("schedule.last_epoch", 7, "it is at epoch int 7, not 2"),
    ("schedule.base_lrs", "x", "schedule.base_lrs is str"),
    ("average", {}, "average: "),
    ("average", None, "average: "),
    ("hooks", [], "0 hook states for 1 hooks"),
    ("hooks.0", None, "the state of a hook "),
    ("hooks.0.psi", GONE, "the state of a hook lacks 'psi'"),
    ("hooks.0.psi", torch.zeros(2, 2), "the state of a hook psi is"),
    ("hooks.0.means", ["x"], "the state of a hook means are"),
    ("hooks.0.decisions.before", "x", "the state of a hook before is str"),
    ("rng", [], "rng is empty"),
    ("rng.0", None, "random generators: "),
    ("rng.0.python", "x", "random generators: "),
    ("rng.0.python.1", [10**30] * 625, "random generators: "),
    ("rng.0.numpy.2", 10**6, "position 1000000 is outside"),
    ("rng.0.torch", torch.zeros(5), "random generators: "),
]


def put(state, place, value):
    """The state with one value replaced; a key may itself have dots."""
    for key in list(state) if isinstance(state, dict) else range(len(state)):
        if place == str(key) or place.startswith(f"{key}."):
            if place != str(key):
                return put(state[key], place.removeprefix(f"{key}."), value)
            break
    else:
        key = int(place) if place.isdigit() else place
    if value is GONE:
        del state[key]
    else:
        state[key] = value
    return None


@pytest.mark.parametrize(
    ("place", "value", "message"), KINDS, ids=[f"{k[0]}-{n}" for n, k in enumerate(KINDS)]
)
def test_invalid_checkpoint_entry_is_named_changes_nothing(
    trained, tmp_path, place, value, message
):
    folder, optimizer = trained
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    put(state, place, value)
    torch.save(state, tmp_path / "checkpoint.pt")
    files = {path: path.read_bytes() for path in tmp_path.iterdir()}
    module = objective(seed=5)
    before = copy.deepcopy(module.state_dict())
    with pytest.raises(InputError, match=rf"^the checkpoint must .*(?:{message})"):
        train(module, tmp_path, optimizer, average="ema")
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert files == {path: path.read_bytes() for path in tmp_path.iterdir()}


def test_the_state_of_another_optimizer(trained, tmp_path):
    folder, optimizer = trained
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    with pytest.raises(InputError, match="optimizer: "):
        train(objective(), tmp_path, {"sgd": "adamw", "adamw": "sgd"}[optimizer], average="ema")


def test_a_whole_checkpoint_resumes(trained, tmp_path):
    folder, optimizer = trained
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    module = objective(seed=5)
    train(module, tmp_path, optimizer, average="ema")
    best = torch.load(folder / "checkpoint.pt", weights_only=True)["best"]["objective"]
    assert all(torch.equal(value, best[name]) for name, value in module.state_dict().items())


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ("best", GONE, "best is missing"),
        ("config.seed", [[0] * 10**4] * 10, "the same configuration"),
    ],
)
def test_every_subcommand_says_so(runs, tmp_path, capsys, place, value, message):
    folder = shutil.copytree(runs("shared") / "ce-s0", tmp_path / "ce-s0")
    state = torch.load(folder / "checkpoint.pt", weights_only=True)
    put(state, place, value)
    torch.save(state, folder / "checkpoint.pt")
    capsys.readouterr()  # of the training
    for command in (
        ["export", str(folder), "--format", "torchscript"],
        ["runs", "ood", str(folder), "--data", "synthetic", "--scores", "msp"],
        ["runs", "uncertainty", "mc-dropout", str(folder)],
        ["runs", "uncertainty", "last-layer-laplace", str(folder)],
        ["runs", "shift", str(folder)],
    ):
        assert main(command) == 2
        error = capsys.readouterr().err
        assert error.startswith("fedlas: error: ")
        assert "the checkpoint must " in error
        assert message in error
        assert len(error) < 1000
