import logging
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import fedlas
from fedlas.errors import CalibrationWarning
from fedlas.losses import CrossEntropy, FedLAS, OneLogit

L = pytest.importorskip("lightning")
from fedlas.integrations.lightning import CalibrationCallback  # noqa: E402

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*LeafSpec"),  # Lightning's own use of PyTorch
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*exists and is not empty"),
    pytest.mark.filterwarnings("ignore:.*The number of training batches"),
]
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)


def data(samples=60, seed=0):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(samples, 6, generator=generator)
    return TensorDataset(images, images[:, :3].argmax(1), torch.arange(samples))


class Module(L.LightningModule):
    def __init__(self, criterion=None, model=None, calls=True, head=None):
        super().__init__()
        torch.manual_seed(0)
        model = model or nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
        head = head or ("2" if isinstance(model, nn.Sequential) else None)
        self.objective = fedlas.Objective(model, criterion or FedLAS(num_classes=3), head=head)
        self.calls = calls

    def training_step(self, batch, _):
        return self.objective(batch[0], batch[1], index=batch[2])[0]

    def validation_step(self, batch, _):
        if self.calls:
            self.objective(batch[0], target=batch[1])

    test_step = validation_step

    def configure_optimizers(self):
        return torch.optim.SGD(
            fedlas.param_groups(self.objective, weight_decay=0.01), lr=0.1, momentum=0.9
        )


def trainer(folder, callback, **options):
    usual = {"max_epochs": 2, "logger": False, "accelerator": "cpu", "enable_checkpointing": False}
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "log_every_n_steps": 1}
    return L.Trainer(default_root_dir=folder, callbacks=[callback], **usual | quiet | options)


def loader(samples=60, seed=0):
    return DataLoader(data(samples, seed), batch_size=20)


def state_of(module, run, callback):
    return {
        **{f"module.{name}": value for name, value in module.state_dict().items()},
        **{
            f"momentum.{i}": s["momentum_buffer"]
            for i, s in enumerate(run.optimizers[0].state.values())
        },
        "psi": callback.state_dict()["monitor"]["psi"],
        "before": callback.state_dict()["monitor"]["decisions"]["before"],
        "means": torch.tensor(callback.state_dict()["monitor"]["means"]),
    }


def test_stopped_and_gone_on_is_as_never_stopped(tmp_path):
    whole, callback = Module(), CalibrationCallback()
    run = trainer(tmp_path, callback, max_epochs=4)
    run.fit(whole, loader(), loader(40, 1))
    expected = state_of(whole, run, callback)

    first = trainer(tmp_path, CalibrationCallback(), max_epochs=2)
    first.fit(Module(), loader(), loader(40, 1))
    first.save_checkpoint(tmp_path / "half.ckpt")
    module, resumed = Module(FedLAS(num_classes=3)), CalibrationCallback()
    nn.init.zeros_(module.objective.criterion.gate.out.weight)  # what the checkpoint must overwrite
    run = trainer(tmp_path, resumed, max_epochs=4)
    run.fit(module, loader(), loader(40, 1), ckpt_path=tmp_path / "half.ckpt", weights_only=True)
    found = state_of(module, run, resumed)

    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(found[name], value), name
    assert int(found["module.objective.criterion.nci.num_batches_tracked"]) == 12
    assert len(resumed.records) == 2
    assert resumed.records == callback.records[2:]
    # counted against the epoch before the stop
    assert resumed.records[0]["gate"]["train_flips"] is not None


def test_logged_are_the_numbers_of_evaluate(tmp_path):
    module, callback = Module(), CalibrationCallback(metrics=["accuracy", "ece", "nll"])
    run = trainer(tmp_path, callback)
    run.fit(module, loader(), loader(50, 1))
    expected = fedlas.evaluate(fedlas.predict(module.objective, loader(50, 1)))
    for name in ("accuracy", "ece", "nll"):
        assert run.callback_metrics[f"val_{name}"].item() == pytest.approx(expected[name], abs=1e-6)
    record = callback.records[-1]
    assert run.callback_metrics["gate_plus"].item() == pytest.approx(record["gate"]["plus"])
    assert record["indicator"]["mean"] == pytest.approx(float(module.objective.criterion.nci.mean))
    (tested,) = run.test(module, loader(30, 2), verbose=False)
    expected = fedlas.evaluate(fedlas.predict(module.objective, loader(30, 2)))
    assert tested["test_ece"] == pytest.approx(expected["ece"], abs=1e-6)
    assert len(callback.records) == 2  # a test is not watched


def test_metrics_can_choose_a_checkpoint(tmp_path):
    keeper = L.pytorch.callbacks.ModelCheckpoint(
        tmp_path / "best", monitor="val_nll", filename="{epoch}"
    )
    usual = {"max_epochs": 2, "logger": False, "accelerator": "cpu", "enable_progress_bar": False}
    run = L.Trainer(
        default_root_dir=tmp_path,
        callbacks=[CalibrationCallback(), keeper],
        enable_model_summary=False,
        **usual,
    )
    run.fit(Module(), loader(), loader(50, 1))
    assert float(keeper.best_model_score) == pytest.approx(float(run.callback_metrics["val_nll"]))


class Learner(CrossEntropy):
    def __init__(self, **options):
        super().__init__(**options)
        self.seen = []

    def update_from_validation(self, predictions):
        self.seen.append(predictions)


def test_criterion_learns_only_from_validation_during_fit(tmp_path):
    criterion = Learner()
    module, callback = Module(criterion), CalibrationCallback()
    run = trainer(tmp_path, callback, num_sanity_val_steps=2)
    run.fit(module, loader(), loader(50, 1))
    assert [seen.num_samples for seen in criterion.seen] == [50, 50]
    assert torch.equal(
        criterion.seen[-1].tensors().logits,
        fedlas.predict(module.objective, loader(50, 1)).tensors().logits,
    )
    run.validate(module, loader(50, 1), verbose=False)
    run.test(module, loader(50, 1), verbose=False)
    assert len(criterion.seen) == 2
    assert callback.records == []
    assert callback.state_dict() == {}


class Dense(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Conv1d(1, 3, 1)

    def forward(self, inputs):
        return self.fc(inputs[:, None])


def test_dense_outputs_are_measured_where_they_count(tmp_path):
    target = torch.randint(0, 3, (40, 6), generator=torch.Generator().manual_seed(0))
    target[:, 4:] = 9
    parts = DataLoader(TensorDataset(data(40).tensors[0], target, torch.arange(40)), batch_size=20)
    module = Module(FedLAS(num_classes=3, ignore_index=9), Dense(), head="fc")
    callback = CalibrationCallback(metrics=["accuracy"])
    run = trainer(tmp_path, callback, max_epochs=1)
    run.fit(module, parts, parts)
    with torch.no_grad():
        right = module.objective.model(data(40).tensors[0]).argmax(1)[:, :4] == target[:, :4]
    assert run.callback_metrics["val_accuracy"].item() == pytest.approx(
        right.double().mean().item()
    )
    assert callback.records == []


def test_what_is_wrong_is_said(tmp_path):
    with pytest.raises(ValueError, match="validation_step must call"):
        trainer(tmp_path, CalibrationCallback()).fit(Module(calls=False), loader(), loader(50, 1))
    with pytest.raises(ValueError, match=r"fedlas\.Objective named 'x'; got Module"):
        trainer(tmp_path, CalibrationCallback(objective="x")).fit(Module(), loader(), loader(50, 1))
    with pytest.raises(ValueError, match=r"num_bins .*whole number"):
        CalibrationCallback(num_bins=0)


def test_nothing_stays_behind(tmp_path):
    module = Module()
    hooks = [len(part._forward_hooks) + len(part._forward_pre_hooks) for part in module.modules()]
    trainer(tmp_path, CalibrationCallback(), max_epochs=1).fit(module, loader(), loader(50, 1))
    assert hooks == [
        len(part._forward_hooks) + len(part._forward_pre_hooks) for part in module.modules()
    ]


@pytest.mark.parametrize("package", ["lightning", "transformers", "timm", "skorch"])
@pytest.mark.system
def test_missing_package_error_names_the_install_command(package):
    extra, module = {"transformers": ("hf", "huggingface")}.get(package, (package, package))
    program = f"import sys; sys.modules[{package!r}] = None; import fedlas.integrations.{module}"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert f"pip install '.[{extra}]'" in done.stderr


def test_a_model_of_one_logit_is_measured(tmp_path):
    images, target, index = data().tensors
    two = DataLoader(TensorDataset(images, target.clamp(max=1), index), batch_size=20)
    module = Module(
        OneLogit(FedLAS(num_classes=2)), nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 1))
    )
    run = trainer(tmp_path, CalibrationCallback(metrics=["accuracy", "nll"]))
    run.fit(module, two, two)
    with torch.no_grad():
        logits = module.objective.model.eval()(images)[:, 0]
    expected = F.binary_cross_entropy_with_logits(logits, target.clamp(max=1).float())
    assert float(run.callback_metrics["val_nll"]) == pytest.approx(expected.item(), abs=1e-5)


class WithoutGate(Module):
    def configure_optimizers(self):
        return torch.optim.SGD(self.objective.model.parameters(), lr=0.1)


def test_an_optimizer_without_the_gate_is_named(tmp_path):
    run = trainer(tmp_path, CalibrationCallback(), max_epochs=16)
    with pytest.warns(CalibrationWarning, match="FedLAS: the optimizer must include"):
        run.fit(WithoutGate(), loader(), loader(40, 1))
