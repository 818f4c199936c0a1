"""Objective: finds and feeds what the criterion needs, on real architectures, and leaves the model as it was."""

import copy
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import SimpleNamespace

import pytest
import torch
import torchvision.models as zoo
from torch import nn

import fedlas
from fedlas import Objective
from fedlas.errors import CalibrationWarning, InputError
from fedlas.integrations.drop_in import DropInLoss
from fedlas.losses import LOSSES, FedLAS, LabelSmoothing, Mixed

C = 4
MODELS = {
    "resnet18": (lambda: zoo.resnet18(num_classes=C), 32, "fc"),
    "mobilenet_v3_small": (lambda: zoo.mobilenet_v3_small(num_classes=C), 32, "classifier.3"),
    "vgg11": (lambda: slim_vgg(), 32, "classifier.6"),
    "densenet121": (lambda: zoo.densenet121(num_classes=C), 32, "classifier"),
    "vit": (lambda: zoo.VisionTransformer(32, 16, 1, 2, 8, 16, num_classes=C), 32, "heads.head"),
}


def slim_vgg():
    """VGG-11 without its 120 million parameters of fully connected layers between features and head."""
    model = zoo.vgg11(num_classes=C, init_weights=False)
    model.classifier[0] = nn.Linear(512 * 7 * 7, 16)
    model.classifier[3] = nn.Linear(16, 16)
    model.classifier[6] = nn.Linear(16, C)
    return model


class OfImages(nn.Linear):
    """A linear layer on flattened images."""

    def forward(self, images):
        return super().forward(images.flatten(1))


def mlp():
    torch.manual_seed(0)
    return nn.Sequential(OfImages(24, 8), nn.ReLU(), nn.Linear(8, C))


def data(samples=5):
    torch.manual_seed(1)
    return torch.randn(samples, 1, 4, 6), torch.randint(C, (samples,))


@pytest.mark.parametrize("name", MODELS)
def test_torchvision(name):
    build, size, head = MODELS[name]
    with torch.device("meta"):
        model = build()
    model = model.to_empty(device="cpu")
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.02)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
    keys = list(model.state_dict())
    objective = fedlas.Objective(model, FedLAS(num_classes=C))
    images, target = torch.randn(2, 3, size, size), torch.tensor([0, 1])
    objective.eval()  # the same features from both passes, whatever the drop-out
    loss, logits = objective(images, target)
    features = {}
    handle = model.get_submodule(head).register_forward_pre_hook(
        lambda _, args: features.update(seen=args[0])
    )
    torch.testing.assert_close(model(images), logits)
    handle.remove()
    torch.testing.assert_close(objective.criterion(logits, target, features=features["seen"]), loss)
    loss.backward()
    assert model.get_submodule(head).weight.grad.abs().sum() > 0
    assert list(model.state_dict()) == keys


@pytest.mark.filterwarnings("ignore:.*update_from_validation")
@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_trains(name):
    torch.manual_seed(0)
    objective = fedlas.Objective(
        mlp(), LOSSES.build(name, {}, num_classes=C, num_samples=64, num_epochs=100), head="2"
    )
    inputs, target = data(64)
    optimizer = torch.optim.SGD(fedlas.param_groups(objective), lr=0.2, momentum=0.9)
    before = (objective.model(inputs).argmax(1) == target).float().mean()
    for _ in range(60):
        loss, logits = objective(inputs, target, index=torch.arange(64))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert logits.shape == (64, C)
    assert (objective.model(inputs).argmax(1) == target).float().mean() > before + 0.2


def test_any_criterion_will_do():
    inputs, target = data()
    for criterion in (nn.CrossEntropyLoss(), LabelSmoothing(alpha=0.0)):
        # no head is looked for: nothing here needs features
        objective = fedlas.Objective(mlp(), criterion)
        loss, logits = objective(inputs, target)
        torch.testing.assert_close(loss, nn.functional.cross_entropy(logits, target))
        assert not objective.model[2]._forward_pre_hooks


def test_index_is_passed_only_if_needed():
    class Needs(nn.Module):
        needs = frozenset({"index"})

        def forward(self, logits, target, *, index=None):
            if index is None:
                raise TypeError("Needs: index must be passed")
            return index.sum()

    inputs, target = data()
    assert fedlas.Objective(mlp(), Needs())(inputs, target, index=torch.arange(5))[0] == 10
    with pytest.raises(TypeError, match="index"):
        fedlas.Objective(mlp(), Needs())(inputs, target)
    fedlas.Objective(mlp(), nn.CrossEntropyLoss())(inputs, target, index=torch.arange(5))


def test_an_unknown_need_is_refused():
    class Needs(nn.Module):
        needs = frozenset({"attention"})

    with pytest.raises(InputError, match=r"needs .*subset of.*attention"):
        fedlas.Objective(mlp(), Needs())


@pytest.mark.parametrize(
    "pair", [("model", "ce"), (mlp, nn.CrossEntropyLoss()), (mlp(), "fedlas"), (mlp(), None)]
)
def test_what_is_not_a_module_is_refused(pair):
    with pytest.raises(InputError, match=r"must be an nn\.Module"):
        fedlas.Objective(*pair)


def test_heads():
    three = nn.Sequential(nn.Linear(6, C), nn.ReLU(), nn.Linear(C, C))
    assert fedlas.Objective(three, FedLAS(num_classes=C)).find_feature_module(three) is three[2]
    model = mlp()
    # the only layer with C outputs
    assert fedlas.Objective(model, FedLAS(num_classes=C))._tap is not None
    fedlas.Objective(model, FedLAS(num_classes=C), head=model[2])
    named = nn.ModuleDict({"encoder": nn.Linear(4, 4), "final": nn.Linear(4, C)})
    with pytest.raises(InputError, match="Did you mean 'final'"):
        fedlas.Objective(named, FedLAS(num_classes=C), head="fianl")


def test_a_head_for_another_number_of_classes():
    """It was said that the model has no linear layer."""
    message = r"head with 100 outputs, .*got Sequential with 2 \(Linear.*out_features=4.*4 outputs.*num_classes=4"
    with pytest.raises(InputError, match=message):
        fedlas.Objective(mlp(), FedLAS(num_classes=100))
    with pytest.raises(InputError, match=r"100 outputs, .*fc \(Linear.*out_features=10"):
        fedlas.Objective(zoo.resnet18(num_classes=10), FedLAS(num_classes=100))
    with pytest.raises(InputError, match=r"with 100 outputs, .*classifier.1 \(Conv2d.*10 outputs"):
        fedlas.Objective(zoo.squeezenet1_1(num_classes=10), FedLAS(num_classes=100))
    with pytest.raises(InputError, match="ReLU with no linear layer"):
        fedlas.Objective(nn.ReLU(), FedLAS(num_classes=100))


class TwoInputs(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.fc = nn.Linear(24, C)

    def forward(self, images, masks, *, scale=1.0):
        return self.fc((images * masks).flatten(1)) * scale


@pytest.mark.parametrize(
    "criterion", [FedLAS, lambda **_: nn.CrossEntropyLoss()], ids=["features", "none"]
)
def test_models_of_two_inputs(criterion):
    model = TwoInputs()
    objective = fedlas.Objective(model, criterion(num_classes=C))
    images, target = data()
    masks = (images > 0).float()
    expected = model(images, masks)
    for inputs in ((images, masks), [images, masks], {"masks": masks, "images": images}):
        assert torch.equal(objective(inputs, target)[1], expected)
    assert torch.equal(objective(images, target, masks=masks)[1], expected)
    assert torch.equal(objective((images, masks), target, scale=2.0)[1], 2 * expected)
    with pytest.raises(
        InputError, match=r"^Objective: .*TwoInputs\.forward .*\(images, masks, scale=\); got one"
    ):
        objective(images, target)


class Repeated(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(24, C)
        self.runs = 1

    def forward(self, inputs, *, scale=1.0):
        logits = torch.zeros(len(inputs), C)
        for _ in range(self.runs):
            logits = self.fc(inputs.flatten(1)) * scale
        return logits


@pytest.mark.parametrize("runs", [0, 2])
def test_a_head_that_does_not_run_once(runs):
    objective = fedlas.Objective(Repeated(), FedLAS(num_classes=C))
    objective.model.runs = runs
    before = copy.deepcopy(objective.state_dict())
    with pytest.raises(InputError, match=rf"exactly once.*{runs} runs"):
        objective(*data())
    torch.testing.assert_close(dict(objective.state_dict()), dict(before), rtol=0, atol=0)
    objective.model.runs = 1
    objective(*data())


def test_failed_forward_cancels_the_tap():
    class Fails(Repeated):
        def forward(self, inputs):
            logits = super().forward(inputs)
            if self.runs == 1:
                raise ArithmeticError("out of luck")
            return logits

    objective = fedlas.Objective(Fails(), FedLAS(num_classes=C))
    with pytest.raises(ArithmeticError, match="out of luck"):
        objective(*data())
    assert objective._tap._capture.captured is None
    objective.model.runs = 2
    objective.model(data()[0])
    assert objective._tap._capture.captured is None


class Norms(nn.Module):
    """A loss a sample, of its features alone."""

    needs = frozenset({"features"})

    def forward(self, logits, target, features):
        return features.norm(dim=1)


@pytest.mark.parametrize("call", [fedlas.Objective, DropInLoss])
def test_threads_have_features_of_their_own(call):
    """Eight threads in one forward pass: all have run the head before any of them asks for its features."""
    model, together = mlp(), threading.Barrier(8, timeout=300)
    loss = call(model, Norms(), head="2")
    run = loss if call is fedlas.Objective else lambda x, y: (loss(model(x), y), None)
    inputs, target = data()
    batches = [(inputs * scale, target) for scale in range(1, 9)]
    expected = [run(*batch)[0] for batch in batches]

    def wait(*_):
        together.wait()

    model[0].register_forward_hook(wait)
    model[2].register_forward_hook(wait)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda batch: run(*batch)[0], batches))
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_model_keywords_are_passed_on():
    objective = fedlas.Objective(Repeated(), FedLAS(num_classes=C))
    inputs, target = data()
    _, logits = objective(inputs, target, scale=2.0)
    torch.testing.assert_close(logits, objective.model(inputs) * 2)


def test_nothing_is_kept_outside_a_call():
    objective = fedlas.Objective(mlp(), FedLAS(num_classes=C))
    inputs, target = data()
    loss, _ = objective(inputs, target)
    loss.backward()
    objective.model(inputs)
    assert objective._tap._capture.captured is None


def test_a_refused_batch_changes_nothing_and_keeps_nothing():
    objective = fedlas.Objective(mlp(), FedLAS(num_classes=C))
    inputs, target = data()
    objective(inputs, target)
    before = copy.deepcopy(objective.state_dict())
    with pytest.raises(InputError, match=r"target must be in \[0, 4\)"):
        objective(inputs, target + C)
    torch.testing.assert_close(dict(objective.state_dict()), dict(before), rtol=0, atol=0)
    assert objective._tap._capture.captured is None


class Wrapped(nn.Module):
    def __init__(self, wrap):
        super().__init__()
        self.body, self.wrap = mlp(), wrap

    def forward(self, inputs):
        return self.wrap(self.body(inputs))


def test_outputs_with_logits():
    inputs, target = data()
    objective = fedlas.Objective(
        Wrapped(lambda z: SimpleNamespace(logits=z)), FedLAS(num_classes=C)
    )
    loss, logits = objective(inputs, target)
    assert isinstance(logits, torch.Tensor)
    assert loss.requires_grad


@pytest.mark.parametrize(
    "wrap", [lambda z: (z,), lambda z: {"a": z}, lambda z: None], ids=["tuple", "dict", "None"]
)
@pytest.mark.parametrize(
    "criterion", [FedLAS(num_classes=C), nn.CrossEntropyLoss()], ids=["fedlas", "ce"]
)
def test_other_outputs_are_refused(wrap, criterion):
    objective = fedlas.Objective(Wrapped(wrap), criterion)
    with pytest.raises(InputError, match="the model must return logits"):
        objective(*data())


def test_state():
    model = mlp()
    keys = list(model.state_dict())
    objective = fedlas.Objective(model, FedLAS(num_classes=C))
    objective(*data())
    assert list(model.state_dict()) == keys
    state = objective.state_dict()
    assert {key.split(".")[0] for key in state} == {"model", "criterion"}
    assert {"criterion.nci.mean", "criterion.nci.std", "criterion.gate.out.weight"} <= state.keys()
    other = fedlas.Objective(mlp(), FedLAS(num_classes=C))
    other.load_state_dict(state)
    torch.testing.assert_close(other.eval()(*data()), objective.eval()(*data()), rtol=0, atol=0)


def test_modes_and_devices_follow():
    objective = fedlas.Objective(mlp(), FedLAS(num_classes=C)).eval()
    assert not objective.criterion.nci.training
    assert next(objective.double().criterion.gate.parameters()).dtype == torch.float64
    inputs, target = data()
    assert objective(inputs.double(), target)[0].dtype == torch.float64


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda o: pickle.loads(pickle.dumps(o))], ids=["deepcopy", "pickle"]
)
def test_copies_are_on_their_own(copied):
    objective = fedlas.Objective(mlp(), FedLAS(num_classes=C))
    objective(*data())
    twin = copied(objective)
    torch.testing.assert_close(twin(*data()), objective(*data()), rtol=0, atol=0)
    before = copy.deepcopy(objective.state_dict())
    with torch.no_grad():
        twin.model[0].weight.zero_()
    twin(*data(7))
    torch.testing.assert_close(dict(objective.state_dict()), dict(before), rtol=0, atol=0)


def test_two_objectives_on_one_model():
    model = mlp()
    first, second = (
        fedlas.Objective(model, FedLAS(num_classes=C)),
        fedlas.Objective(model, FedLAS(num_classes=C)),
    )
    first(*data())
    second(*data())
    assert first.criterion.nci.mean == second.criterion.nci.mean


def test_no_grad_and_autocast():
    objective = fedlas.Objective(mlp(), FedLAS(num_classes=C))
    with torch.no_grad():
        loss, _ = objective(*data())
    assert torch.isfinite(loss)
    assert objective.criterion.nci.num_batches_tracked == 0
    with torch.autocast("cpu", torch.bfloat16):
        loss, logits = objective(*data())
    assert logits.dtype == torch.bfloat16
    assert loss.dtype == torch.float32
    loss.backward()


@pytest.mark.system
# one of each need
@pytest.mark.parametrize("name", ["ce", "fedlas", "own-average", "rankmixup-mrl", "sphor"])
# PyTorch's own, while it traces
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
def test_compiled_equals_eager(name):
    torch._dynamo.reset()
    torch.manual_seed(0)
    eager = fedlas.Objective(
        mlp(), LOSSES.build(name, {}, num_classes=C, num_samples=64, num_epochs=100), head="2"
    )
    twin = copy.deepcopy(eager)
    compiled = torch.compile(twin, fullgraph=True, backend="aot_eager")
    index = torch.arange(5)
    for _ in range(2):
        runs = []
        for function, owner in ((eager, eager), (compiled, twin)):
            owner.zero_grad()
            batch = data()  # which seeds the generator too
            loss, logits = function(*batch, index=index)
            loss.backward()
            runs.append(
                (loss, logits, [p.grad for p in owner.parameters()], dict(owner.state_dict()))
            )
        torch.testing.assert_close(runs[0], runs[1])
    assert twin._tap is None or twin._tap._traced.captured is None


def test_param_groups():
    objective = fedlas.Objective(mlp(), FedLAS(num_classes=C))
    model, gate = fedlas.param_groups(objective, weight_decay=0.1)
    assert (model["name"], model["weight_decay"], len(model["params"])) == ("model", 0.1, 4)
    assert (gate["name"], gate["weight_decay"], len(gate["params"])) == ("criterion", 0.0, 4)
    assert "lr" not in gate
    _, gate = fedlas.param_groups(objective, weight_decay=0.1, lr=0.5, decay_criterion=True)
    assert (gate["weight_decay"], gate["lr"]) == (0.1, 0.5)
    optimizer = torch.optim.AdamW(fedlas.param_groups(objective, lr=0.5), lr=0.01)
    assert [group["lr"] for group in optimizer.param_groups] == [0.01, 0.5]
    objective.criterion.gate.requires_grad_(False)
    objective.model[0].requires_grad_(False)
    (only,) = fedlas.param_groups(objective)
    assert len(only["params"]) == 2
    (only,) = fedlas.param_groups(fedlas.Objective(mlp(), LabelSmoothing()))
    assert only["weight_decay"] == 0.0


@pytest.fixture
def one_process():
    torch.distributed.init_process_group(
        "gloo", store=torch.distributed.HashStore(), rank=0, world_size=1
    )
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="this PyTorch has no gloo")
def test_wrapped_objective_is_unwrapped(one_process):
    objective = fedlas.Objective(mlp(), FedLAS(num_classes=C))
    images, target = data()
    expected = fedlas.predict(objective, [(images, target)]).tensors().logits
    for wrap in (
        nn.parallel.DistributedDataParallel,
        nn.DataParallel,
        partial(torch.compile, backend="eager"),
    ):
        wrapped = wrap(objective)
        assert torch.equal(fedlas.predict(wrapped, [(images, target)]).tensors().logits, expected)
        groups = fedlas.param_groups(wrapped, weight_decay=0.1)
        assert [len(group["params"]) for group in groups] == [4, 4]
    inside = fedlas.Objective(
        nn.parallel.DistributedDataParallel(mlp()), FedLAS(num_classes=C), head="module.2"
    )
    assert torch.equal(fedlas.predict(inside, [(images, target)]).tensors().logits, expected)


@pytest.mark.parametrize("what", [mlp(), nn.DataParallel(mlp()), None])
def test_param_groups_of_what_is_no_objective(what):
    with pytest.raises(InputError, match=r"param_groups: .*Objective.*got (Sequential|NoneType)"):
        fedlas.param_groups(what)


def test_a_shared_parameter_is_in_one_group():
    model = mlp()
    criterion = FedLAS(num_classes=C)
    criterion.shared = model[0].weight
    groups = fedlas.param_groups(fedlas.Objective(model, criterion))
    torch.optim.SGD(groups, lr=0.1)


@pytest.mark.parametrize(
    "options", [{"weight_decay": -1.0}, {"weight_decay": "1e-4"}, {"lr": -0.1}, {"lr": "fast"}]
)
def test_param_groups_refuses_nonsense(options):
    with pytest.raises(InputError, match=f"param_groups: {next(iter(options))}"):
        fedlas.param_groups(fedlas.Objective(mlp(), FedLAS(num_classes=C)), **options)


class Recorder(nn.Module):
    """A criterion that keeps what it was given."""

    def __init__(self, *needs, mix=None):
        super().__init__()
        self.needs = frozenset(needs)
        if mix is not None:
            self.mix = mix

    def forward(self, logits, target, **given):
        self.target, self.given = target, given
        return logits.sum()


def test_head_weight_is_the_heads_own_parameter():
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
    objective = Objective(model, Recorder("head_weight"), head="2")
    objective(torch.randn(5, 4), torch.zeros(5, dtype=torch.int64))
    assert objective.criterion.given["head_weight"] is model[2].weight
    assert set(objective.criterion.given) == {"head_weight"}
    twin = copy.deepcopy(objective)
    twin(torch.randn(5, 4), torch.zeros(5, dtype=torch.int64))
    assert twin.criterion.given["head_weight"] is twin.model[2].weight
    assert not any("head" in key for key in objective.state_dict())


def test_head_weight_of_a_head_without_one():
    model = nn.Sequential(nn.Linear(4, 3), nn.Flatten())
    with pytest.raises(InputError, match="the criterion needs its weight"):
        Objective(model, Recorder("head_weight"), head="1")


def test_a_criterion_that_mixes():
    def mix(inputs, target):
        return Mixed(
            inputs=inputs + 1,
            target=target.flip(0),
            views=(inputs * 2, inputs * 3),
            shares=inputs[:, :2],
        )

    model = nn.Linear(4, 3)
    objective = Objective(model, Recorder("mixed", "mixed_share", "index", mix=mix))
    inputs, target, index = torch.randn(5, 4), torch.arange(5) % 3, torch.arange(5)
    _, logits = objective(inputs, target, index=index)
    torch.testing.assert_close(logits, model(inputs + 1))
    assert torch.equal(objective.criterion.target, target.flip(0))
    expected = torch.stack((model(inputs * 2), model(inputs * 3)), dim=1)
    torch.testing.assert_close(objective.criterion.given["mixed"], expected)
    assert objective.criterion.given["mixed_share"].tolist() == inputs[:, :2].tolist()
    assert torch.equal(objective.criterion.given["index"], index)
    objective.eval()
    _, logits = objective(inputs, target, index=index)
    torch.testing.assert_close(logits, model(inputs))
    assert "mixed" not in objective.criterion.given


class Probable(nn.Sequential):
    """Ends in a softmax over the classes, its second axis."""

    def __init__(self, dense=False):
        layer = nn.Conv1d(6, 3, 1) if dense else nn.Linear(6, 3)
        super().__init__(layer, nn.Softmax(dim=1))


@pytest.mark.parametrize("shape", [(), (5,)])
def test_final_softmax_warns_once(shape):
    objective = fedlas.Objective(Probable(bool(shape)), nn.CrossEntropyLoss())
    inputs, target = torch.randn(12, 6, *shape), torch.randint(3, (12, *shape))
    with pytest.warns(
        CalibrationWarning, match="model must return logits.*Remove the final softmax"
    ):
        objective(inputs, target)
    objective(inputs, target)


def test_logits_and_an_evaluation_are_not_warned_of():
    inputs, target = torch.randn(12, 6), torch.randint(3, (12,))
    fedlas.Objective(Probable(), nn.CrossEntropyLoss()).eval()(inputs, target)
    fedlas.Objective(nn.Linear(6, 3), nn.CrossEntropyLoss())(inputs, target)
    several = nn.Sequential(nn.Linear(6, 3), nn.Sigmoid())  # of independent labels
    fedlas.Objective(several, nn.BCELoss())(inputs, torch.ones(12, 3))
