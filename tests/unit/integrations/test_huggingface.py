import logging
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fedlas import Predictions, evaluate
from fedlas.errors import CalibrationWarning
from fedlas.losses import FedLAS, LabelSmoothing, Loss, MultiLabelLoss, OwnAverage

transformers = pytest.importorskip("transformers")
from fedlas.integrations.drop_in import mean_divisor  # noqa: E402
from fedlas.integrations.huggingface import CRITERION_FILE, ComputeMetrics, CriterionTrainer  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:.*pin_memory")
logging.getLogger("transformers").setLevel(logging.ERROR)
transformers.utils.logging.disable_progress_bar()

C = 5
SIZES = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
}
STILL = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


def image_model():
    torch.manual_seed(0)
    config = transformers.ViTConfig(
        image_size=4, patch_size=2, num_channels=1, num_labels=C, **SIZES
    )
    return transformers.ViTForImageClassification(config)


def bert(kind):
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=30, max_position_embeddings=12, num_labels=C, **SIZES, **STILL
    )
    return kind(config)


def images(samples=24, seed=0):
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randn(samples, 1, 4, 4, generator=generator)
    target = pixels.flatten(1)[:, :C].argmax(1)
    return [{"pixel_values": x, "labels": y} for x, y in zip(pixels, target, strict=True)]


def texts(samples=8, tokens=False, seed=0):
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(1, 30, (samples, 10), generator=generator)
    target = ids % C if tokens else ids[:, 0] % C
    if tokens:  # the first samples have few labels, so that parts of a batch weigh differently
        target[: samples // 2, 2:] = -100
        target[:2] = -100  # and one may have none
    return [{"input_ids": x, "labels": y} for x, y in zip(ids, target, strict=True)]


def trainer(
    folder,
    model,
    criterion,
    train,
    *,
    made=CriterionTrainer,
    metrics=None,
    evaluated=None,
    **options,
):
    usual = {
        "num_train_epochs": 2,
        "learning_rate": 0.01,
        "per_device_train_batch_size": 8,
        "use_cpu": True,
    }
    usual |= {
        "report_to": "none",
        "disable_tqdm": True,
        "save_strategy": "no",
        "logging_strategy": "no",
        "seed": 1,
    }
    usual |= {"lr_scheduler_type": "constant", "remove_unused_columns": False, "weight_decay": 0.1}
    args = transformers.TrainingArguments(str(folder), **usual | options)
    return made(
        model,
        args,
        criterion=criterion,
        train_dataset=train,
        eval_dataset=evaluated,
        compute_metrics=metrics,
    )


def test_stopped_and_gone_on_is_as_never_stopped(tmp_path):
    whole = trainer(
        tmp_path / "whole", image_model(), FedLAS(num_classes=C), images(), num_train_epochs=4
    )
    whole.train()
    first = trainer(
        tmp_path / "half",
        image_model(),
        FedLAS(num_classes=C),
        images(),
        num_train_epochs=2,
        save_strategy="epoch",
    )
    first.train()
    model, criterion = image_model(), FedLAS(num_classes=C)
    for parameter in [*model.parameters(), *criterion.parameters()]:
        nn.init.zeros_(parameter)  # what the checkpoint must overwrite
    rest = trainer(
        tmp_path / "half", model, criterion, images(), num_train_epochs=4, save_strategy="no"
    )
    rest.train(resume_from_checkpoint=True)
    expected = {
        **whole.model.state_dict(),
        **{f"criterion.{k}": v for k, v in whole.criterion.state_dict().items()},
    }
    found = {
        **rest.model.state_dict(),
        **{f"criterion.{k}": v for k, v in rest.criterion.state_dict().items()},
    }
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(found[name], value), name
    assert int(found["criterion.nci.num_batches_tracked"]) == 12
    assert len(rest.optimizer.param_groups) == len(whole.optimizer.param_groups)


def test_gate_has_own_group_and_model_keeps_keys(tmp_path):
    criterion, model = FedLAS(num_classes=C), image_model()
    before = {name: value.clone() for name, value in criterion.gate.state_dict().items()}
    keys = set(model.state_dict())
    run = trainer(tmp_path, model, criterion, images())
    run.train()
    group = run.optimizer.param_groups[-1]
    assert {id(p) for p in group["params"]} == {id(p) for p in criterion.gate.parameters()}
    assert group["weight_decay"] == 0
    assert all(
        not torch.equal(value, before[name]) for name, value in criterion.gate.state_dict().items()
    )
    run.save_model(tmp_path / "final")
    assert set(run.model.state_dict()) == keys
    again = transformers.ViTForImageClassification.from_pretrained(tmp_path / "final")
    assert torch.equal(again.classifier.weight, run.model.classifier.weight)
    state = torch.load(tmp_path / "final" / CRITERION_FILE, weights_only=True)
    assert float(state["nci.mean"]) == float(criterion.nci.mean)


def centerd(features, valid=None):
    return features.abs().sum(1) - 10.0


LOSSES = {
    "cross-entropy": lambda: nn.CrossEntropyLoss(),
    "weighted": lambda: LabelSmoothing(alpha=0.1, weight=[1.0, 2.0, 0.5, 0.0, 3.0]),
    # running moments would move with each part
    "fedlas": lambda: FedLAS(num_classes=C, alpha=0.2, nci=centerd),
}


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("tokens", [True, False])
def test_accumulated_parts_are_one_batch(tmp_path, name, tokens):
    kind = (
        transformers.BertForTokenClassification
        if tokens
        else transformers.BertForSequenceClassification
    )
    found = []
    for size, parts in ((8, 1), (2, 4)):
        torch.manual_seed(3)
        criterion = LOSSES[name]()
        options = {
            "per_device_train_batch_size": size,
            "gradient_accumulation_steps": parts,
            "max_steps": 3,
        }
        options |= {"optim": "sgd", "learning_rate": 0.1, "max_grad_norm": 0.0}
        run = trainer(tmp_path, bert(kind), criterion, texts(tokens=tokens), **options)
        run.train()
        found.append([p.detach() for p in (*run.model.parameters(), *criterion.parameters())])
    for one, many in zip(*found, strict=True):
        torch.testing.assert_close(many, one, atol=2e-6, rtol=1e-4)


def test_one_step_is_the_gradient_of_the_mean(tmp_path):
    model = bert(transformers.BertForTokenClassification)
    samples = texts(tokens=True)
    batch = {key: torch.stack([sample[key] for sample in samples]) for key in samples[0]}
    reference = bert(transformers.BertForTokenClassification)
    logits = reference(input_ids=batch["input_ids"]).logits
    F.cross_entropy(logits.flatten(0, 1), batch["labels"].flatten()).backward()
    options = {
        "optim": "sgd",
        "learning_rate": 0.5,
        "max_grad_norm": 0.0,
        "max_steps": 1,
        "weight_decay": 0.0,
    }
    run = trainer(tmp_path, model, nn.CrossEntropyLoss(), samples, **options)
    run.train()
    with torch.no_grad():
        expected = reference.classifier.weight - 0.5 * reference.classifier.weight.grad
    torch.testing.assert_close(run.model.classifier.weight.detach(), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.int64])
@pytest.mark.parametrize("weight", [None, [1.0, 9.0, 1.0, 1.0, 1.0]])
def test_several_labels_divide_by_how_many_are_known(tmp_path, dtype, weight):
    criterion = MultiLabelLoss(num_labels=C, base="ce", weight=weight)
    run = trainer(
        tmp_path, bert(transformers.BertForSequenceClassification), criterion, texts(tokens=False)
    )
    labels = torch.randint(2, (8, C)).to(dtype)
    labels[0, 0] = -100
    logits = torch.randn(8, C)
    mean = criterion(logits, labels)
    criterion.reduction = "sum"
    torch.testing.assert_close(
        criterion(logits, labels) / mean_divisor(run.criterion, labels), mean
    )


@pytest.mark.parametrize("batch_by_batch", [True, False])
def test_metrics_of_tokens_that_count(tmp_path, batch_by_batch):
    model = bert(transformers.BertForTokenClassification)
    run = trainer(
        tmp_path,
        model,
        FedLAS(num_classes=C),
        None,
        metrics=ComputeMetrics(["accuracy", "ece"], num_bins=10),
        evaluated=texts(tokens=True),
        batch_eval_metrics=batch_by_batch,
        per_device_eval_batch_size=3,
    )
    samples = texts(tokens=True)
    labels = torch.stack([sample["labels"] for sample in samples])
    with torch.no_grad():
        logits = model.eval()(
            input_ids=torch.stack([sample["input_ids"] for sample in samples])
        ).logits
    expected = evaluate(Predictions(logits[labels != -100], labels[labels != -100]), num_bins=10)
    for _ in range(2):  # nothing of the first is left in the second
        found = run.evaluate()
        assert found["eval_accuracy"] == expected["accuracy"]
        assert found["eval_ece"] == pytest.approx(expected["ece"], abs=1e-6)


def test_the_best_checkpoint_brings_its_criterion(tmp_path):
    worse = [{**sample, "labels": (sample["labels"] + 1) % C} for sample in images()]
    options = {"save_strategy": "epoch", "eval_strategy": "epoch", "load_best_model_at_end": True}
    run = trainer(
        tmp_path,
        image_model(),
        FedLAS(num_classes=C),
        images(),
        evaluated=worse,
        num_train_epochs=3,
        **options,
    )
    run.train()
    best = torch.load(f"{run.state.best_model_checkpoint}/{CRITERION_FILE}", weights_only=True)
    # the first epochs are the best, since the labels are wrong
    assert int(best["nci.num_batches_tracked"]) < 9
    for name, value in run.criterion.state_dict().items():
        assert torch.equal(value, best[name]), name


class Learner(LabelSmoothing):
    seen = ()

    def update_from_validation(self, predictions):
        self.seen = (*self.seen, predictions)


def test_a_criterion_learns_from_each_evaluation_while_training(tmp_path):
    criterion = Learner()
    run = trainer(
        tmp_path, image_model(), criterion, images(), evaluated=images(10, 1), eval_strategy="epoch"
    )
    run.train()
    run.evaluate()
    assert [seen.num_samples for seen in criterion.seen] == [10, 10]
    with torch.no_grad():
        pixels = torch.stack([sample["pixel_values"] for sample in images(10, 1)])
        torch.testing.assert_close(
            criterion.seen[-1].tensors().logits, run.model.eval()(pixels).logits
        )


class LastToken(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(30, 8)
        self.score = nn.Linear(8, C)

    def forward(self, input_ids):
        return {"logits": self.score(self.embed(input_ids))[:, -1]}


def test_a_head_on_every_token_needs_a_pool(tmp_path):
    run = trainer(tmp_path, LastToken(), FedLAS(num_classes=C), texts(), max_steps=1)
    with pytest.raises(ValueError, match=r"head's input .*\(N, D\).*pool="):
        run.train()

    def made(*args, **kwargs):
        return CriterionTrainer(*args, pool=lambda features, inputs: features[:, -1], **kwargs)

    run = trainer(tmp_path, LastToken(), FedLAS(num_classes=C), texts(), max_steps=1, made=made)
    run.train()
    assert int(run.criterion.nci.num_batches_tracked) == 1


def test_what_is_wrong_is_said(tmp_path):
    with pytest.raises(ValueError, match="a loss with reduction 'mean'"):
        trainer(tmp_path, image_model(), FedLAS(num_classes=C, reduction="sum"), images())
    with pytest.raises(ValueError, match=r"criterion .*only loss"):
        trainer(
            tmp_path, image_model(), FedLAS(num_classes=C), images(), label_smoothing_factor=0.1
        )
    with pytest.raises(ValueError, match="each batch must have 'labels'"):
        trainer(
            tmp_path,
            image_model(),
            FedLAS(num_classes=C),
            [{"pixel_values": torch.zeros(1, 4, 4)}] * 8,
        ).train()
    run = trainer(
        tmp_path / "other", image_model(), nn.CrossEntropyLoss(), images(), save_strategy="epoch"
    )
    run.train()
    file = tmp_path / "other" / "checkpoint-6" / CRITERION_FILE
    resumed = trainer(tmp_path / "other", image_model(), FedLAS(num_classes=C), images())
    state = torch.ones(999)
    torch.save({"weight": state}, file)
    content = file.read_bytes()
    place = content.index(state.numpy().tobytes())
    file.write_bytes(content[:place] + b"x" + content[place + 1 :])
    with pytest.raises(ValueError, match=r"criterion's state in criterion\.pt.*checksum"):
        resumed.train(resume_from_checkpoint=True)
    file.unlink()
    with pytest.raises(ValueError, match=r"criterion's state .*criterion\.pt"):
        resumed.train(resume_from_checkpoint=True)
    with pytest.raises(ValueError, match="'adaptive'"):
        ComputeMetrics(["adaptive"])
    with pytest.raises(ValueError, match="target must be class indices"):
        ComputeMetrics()(
            SimpleNamespace(predictions=np.zeros((3, C)), label_ids=np.zeros((4,), int))
        )


def test_soft_token_labels_give_mean_of_hard_labels(tmp_path):
    run = trainer(
        tmp_path, bert(transformers.BertForTokenClassification), nn.CrossEntropyLoss(), None
    )
    hard = torch.randint(C, (4, 10))
    assert (
        int(mean_divisor(run.criterion, F.one_hot(hard, C).movedim(-1, 1).float()))
        == int(mean_divisor(run.criterion, hard))
        == 40
    )


class Plain(nn.Module):
    """A model whose forward names no labels."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(16, C)

    def forward(self, pixel_values):
        return {"logits": self.head(pixel_values.flatten(1))}


@pytest.mark.parametrize("options", [{"remove_unused_columns": True}, {"batch_eval_metrics": True}])
def test_a_forward_without_labels_is_trained_and_evaluated(tmp_path, options):
    metrics = ComputeMetrics(["accuracy"])
    criterion = FedLAS(num_classes=C)
    options = {"eval_strategy": "epoch", **options}
    run = trainer(
        tmp_path, Plain(), criterion, images(), metrics=metrics, evaluated=images(10, 1), **options
    )
    run.train()
    assert 0 <= run.evaluate()["eval_accuracy"] <= 1


def test_metrics_are_three_and_all_on_demand():
    batch = SimpleNamespace(predictions=np.eye(C)[[0, 1, 2, 0]], label_ids=np.array([0, 1, 2, 3]))
    assert list(ComputeMetrics()(batch)) == ["accuracy", "nll", "ece"]
    every = ComputeMetrics(None)(batch)
    assert set(every) > {"accuracy", "nll", "ece", "brier"}
    assert every["nll"] == ComputeMetrics()(batch)["nll"]


def test_gate_is_added_to_a_model_only_optimizer(tmp_path):
    model, criterion = image_model(), FedLAS(num_classes=C)
    before = [each.clone() for each in criterion.gate.parameters()]

    def made(model, args, **options):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        return CriterionTrainer(model, args, optimizers=(optimizer, None), **options)

    trainer(tmp_path, model, criterion, images(96), made=made).train()
    after = criterion.gate.parameters()
    assert not all(torch.equal(*pair) for pair in zip(before, after, strict=True))


class Scaled(Loss):
    """Has a parameter of its own."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def per_sample(self, batch):
        return self.scale * batch.cross_entropy()


def test_plain_trainer_without_loss_parameters_warns(tmp_path):
    loss = Scaled()

    def made(model, args, criterion, **options):
        def compute(outputs, labels, num_items_in_batch=None):
            return criterion(outputs["logits"], labels)

        return transformers.Trainer(model, args, compute_loss_func=compute, **options)

    run = trainer(tmp_path, Plain(), loss, images(160), made=made, label_names=["labels"])
    with pytest.warns(
        CalibrationWarning, match="Scaled: the optimizer must include the 1 parameters"
    ):
        run.train()


def test_evaluation_ignores_the_training_index(tmp_path):
    criterion = OwnAverage(num_classes=C, num_samples=24)
    numbered = [{**sample, "index": torch.tensor(place)} for place, sample in enumerate(images())]
    run = trainer(
        tmp_path, Plain(), criterion, numbered, evaluated=numbered, per_device_eval_batch_size=24
    )
    run.train()
    pixels, labels = (
        torch.stack([sample[key] for sample in images()]) for key in ("pixel_values", "labels")
    )
    with torch.no_grad():
        expected = F.cross_entropy(run.model.eval()(pixels)["logits"], labels)
    assert run.evaluate()["eval_loss"] == pytest.approx(expected.item(), abs=1e-5)
