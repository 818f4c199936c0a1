"""Where the map before the global pool is, what reading it gives, and what is said when there is none."""

import copy

import pytest
import torch
import torchvision.models as zoo
from torch import nn

from fedlas import Objective
from fedlas.errors import InputError
from fedlas.features import FeatureTap, find_pool
from fedlas.lab.models import build_model
from fedlas.losses import AdaFace, FedLAS, LabelSmoothing

C = 4


def images(samples=5, size=8):
    return torch.randn(samples, 3, size, size, generator=torch.Generator().manual_seed(0))


def small(seed=0):
    torch.manual_seed(seed)
    return build_model("resnet8", num_classes=C, in_channels=3, image_size=8, width=4)


@pytest.mark.parametrize(
    ("build", "name"),
    [
        (lambda: zoo.resnet18(num_classes=C), "avgpool"),
        (lambda: zoo.googlenet(num_classes=C, aux_logits=False, init_weights=False), "avgpool"),
        (lambda: zoo.efficientnet_b0(num_classes=C), "avgpool"),
        (lambda: zoo.maxvit_t(num_classes=C, input_size=(224, 224)), "classifier.0"),
        (small, "pool"),
        (lambda: build_model("resnet18", num_classes=C, in_channels=3, dropout=0.5), "avgpool"),
    ],
    ids=["resnet18", "googlenet", "efficientnet", "maxvit", "resnet8", "resnet18 with dropout"],
)
def test_known_places(build, name):
    with torch.device("meta"):
        model = build()
    assert find_pool(model) is model.get_submodule(name)


@pytest.mark.parametrize(
    "build", [lambda: zoo.vit_b_16(), lambda: zoo.mobilenet_v2(), lambda: nn.Linear(3, 2)]
)
def test_none_in_sight(build):
    with torch.device("meta"):
        model = build()
    with pytest.raises(InputError, match=r"such as 'avgpool'; got \w+"):
        find_pool(model)


def test_by_name_and_by_module():
    model = small()
    assert find_pool(model, "stages.2") is model.stages[2]
    assert find_pool(model, model.stages) is model.stages
    with pytest.raises(InputError, match="Did you mean 'pool'"):
        find_pool(model, "pol")
    with pytest.raises(InputError, match="must be a module"):
        find_pool(model, nn.Linear(2, 2))
    with pytest.raises(InputError, match=r"must be an nn\.Module"):
        find_pool("resnet18")


def test_the_map_is_what_the_pool_averages():
    model = small().eval()
    head, whole = FeatureTap(model.fc), FeatureTap(model.pool, flatten=True)
    for tap in (head, whole):
        tap.start()
    model(images())
    pooled, rows = head.stop(), whole.stop()
    assert rows.shape == (5, 16 * 2 * 2)
    assert (rows >= 0).all()
    torch.testing.assert_close(rows.reshape(5, 16, 4).mean(2), pooled)
    torch.testing.assert_close(rows.norm(p=1, dim=1), 4 * pooled.norm(p=1, dim=1))


def test_a_row_is_no_map():
    layer = nn.Linear(4, 2)
    tap = FeatureTap(layer, flatten=True)
    tap.start()
    layer(torch.zeros(3, 4))
    with pytest.raises(InputError, match=r"must be a feature map \(N, D, \.\.\.\); got \(3, 4\)"):
        tap.stop()
    with pytest.raises(InputError, match=r"pool .*exactly once.*features='avgpool'"):
        tap.stop()


@pytest.mark.parametrize("norm_p", [1, 2, float("inf")])
def test_the_criterion_is_given_the_map(norm_p):
    model, target = small(), torch.randint(C, (5,))
    torch.manual_seed(1)
    objective = Objective(model, FedLAS(num_classes=C, norm_p=norm_p), features="map")
    twin = copy.deepcopy(objective)
    loss, logits = objective(images(), target)
    maps = []
    twin.model.pool.register_forward_pre_hook(lambda _, args: maps.append(args[0].flatten(1)))
    torch.testing.assert_close(twin.criterion(twin.model(images()), target, features=maps[0]), loss)
    expected = maps[0].norm(p=norm_p, dim=1).mean()
    torch.testing.assert_close(objective.criterion.nci.mean, expected.detach())
    loss.backward()
    assert logits.shape == (5, C)


def test_map_and_mean_differ_beyond_l1_norm():
    target = torch.randint(C, (16,), generator=torch.Generator().manual_seed(2))

    def scores(features, norm_p):
        objective = Objective(small(), FedLAS(num_classes=C, norm_p=norm_p), features=features)
        seen = []
        objective.criterion.nci.register_forward_hook(lambda module, args, out: seen.append(out))
        objective(images(16), target)
        return seen[0]

    # A factor of the norm is a factor of its mean and deviation; only the small number beside the deviation remains.
    torch.testing.assert_close(scores("map", 1), scores("head", 1), rtol=0.02, atol=1e-3)
    for norm_p in (2, float("inf")):
        assert (scores("map", norm_p) - scores("head", norm_p)).abs().max() > 0.1


def test_named_module_follows_a_model_copy():
    objective = Objective(small(), FedLAS(num_classes=C), features="stages.1")
    objective(images(), torch.tensor([0, 1, 2, 3, 0]))
    other = small(1)
    assert objective.find_feature_module(other) is other.stages[1]
    assert Objective(small(), FedLAS(num_classes=C)).find_feature_module(other) is other.fc
    assert Objective(small(), nn.CrossEntropyLoss()).find_feature_module(other) is None


@pytest.mark.parametrize("criterion", [LabelSmoothing(), AdaFace()], ids=["ls", "adaface"])
def test_refused_where_there_is_no_choice(criterion):
    with pytest.raises(InputError, match="unless the criterion needs features"):
        Objective(small(), criterion, features="map")


@pytest.mark.parametrize("features", [None, 3, ["map"]])
def test_invalid_features_raise(features):
    with pytest.raises(InputError, match="features must name a module"):
        Objective(small(), FedLAS(num_classes=C), features=features)


@pytest.mark.system
@pytest.mark.filterwarnings(
    "ignore:<class 'torch.autograd.function.Function'> should not be instantiated"
)
def test_traced_without_a_break():
    objective = Objective(small(), FedLAS(num_classes=C), features="map")
    target = torch.tensor([0, 1, 2, 3, 0])
    objective(images(), target)
    twin = copy.deepcopy(objective)
    traced = torch.compile(objective, fullgraph=True, backend="eager")
    torch.testing.assert_close(traced(images(), target)[0], twin(images(), target)[0])
