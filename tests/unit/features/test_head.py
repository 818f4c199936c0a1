"""Where the head is: in the models people use, and what is said when nobody can tell."""

from collections import OrderedDict

import pytest
import torch
import torchvision.models as zoo
from torch import nn

from fedlas import find_head
from fedlas.errors import InputError

C = 10


def tiny_vit():
    return zoo.VisionTransformer(
        32, 16, num_layers=1, num_heads=2, hidden_dim=8, mlp_dim=16, num_classes=C
    )


@pytest.mark.parametrize("known", [True, False], ids=["with num_classes", "without"])
@pytest.mark.parametrize(
    ("build", "name"),
    [
        (lambda: zoo.resnet18(num_classes=C), "fc"),
        (lambda: zoo.mobilenet_v3_small(num_classes=C), "classifier.3"),
        (lambda: zoo.vgg11(num_classes=C), "classifier.6"),
        (lambda: zoo.densenet121(num_classes=C), "classifier"),
        (lambda: zoo.googlenet(num_classes=C, aux_logits=True, init_weights=False), "fc"),
        (lambda: zoo.convnext_tiny(num_classes=C), "classifier.2"),
        (tiny_vit, "heads.head"),
    ],
    ids=[
        "resnet18",
        "mobilenet_v3_small",
        "vgg11",
        "densenet121",
        "googlenet",
        "convnext_tiny",
        "vit",
    ],
)
def test_torchvision(build, name, known):
    with torch.device("meta"):
        model = build()
    assert find_head(model, num_classes=C if known else None) is model.get_submodule(name)


def test_a_convolution_can_be_the_head():
    with torch.device("meta"):
        model = zoo.squeezenet1_1(num_classes=C)
    assert find_head(model, num_classes=C) is model.classifier[1]


class Named(nn.Module):
    def __init__(self, **modules):
        super().__init__()
        for name, module in modules.items():
            setattr(self, name, module)


def test_timm_says_itself():
    model = Named(fc=nn.Linear(8, 16), top=nn.Linear(16, C))
    model.get_classifier = lambda: model.top
    assert find_head(model) is model.top
    model.get_classifier = lambda: None  # a model without a classifier
    assert find_head(model, num_classes=C) is model.top


def test_hugging_face_places():
    for name in ("classifier", "score", "classification_head"):
        model = Named(encoder=nn.Linear(8, 8), **{name: nn.Linear(8, C)})
        assert find_head(model) is getattr(model, name)


def test_an_attribute_with_other_outputs_is_passed_over():
    model = Named(fc=nn.Linear(8, 16), last=nn.Linear(16, C))
    assert find_head(model, num_classes=C) is model.last


def test_attribute_that_is_no_module_is_skipped():
    model = Named(body=nn.Linear(8, C))
    model.head = "linear"
    assert find_head(model) is model.body


def test_the_model_may_be_the_head():
    model = nn.Linear(4, C)
    assert find_head(model) is model


def test_a_last_layer_of_a_classifier_wins():
    model = Named(classifier=nn.Sequential(nn.Linear(8, C), nn.ReLU(), nn.Linear(C, C)))
    assert find_head(model, num_classes=C) is model.classifier[2]


def test_ambiguity_names_the_candidates():
    model = Named(a=nn.Linear(4, C), b=nn.ReLU(), c=nn.Linear(C, C))
    with pytest.raises(InputError, match=r"10 outputs; got Named .*c \(Linear.*head='"):
        find_head(model, num_classes=C)
    assert find_head(model, "c") is model.c


def test_modules_in_sequence_end_in_the_head():
    model = nn.Sequential(
        OrderedDict(a=nn.Linear(4, C), b=nn.ReLU(), c=nn.Linear(C, C), d=nn.Flatten())
    )
    assert find_head(model) is find_head(model, num_classes=C) is model.c
    with torch.device("meta"):
        wrapped = nn.Sequential(nn.BatchNorm2d(3), zoo.vgg11(num_classes=C))
    assert find_head(wrapped) is wrapped[1].classifier[6]


def test_the_only_one_that_fits():
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, C))
    assert find_head(model, num_classes=C) is find_head(model) is model[2]
    named = Named(a=model[0], b=model[2])
    assert find_head(named, num_classes=C) is model[2]
    with pytest.raises(InputError, match=r"recognizable .*head; got Named with a "):
        find_head(named)


def test_no_linear_layer():
    for model in (nn.Conv2d(3, C, 3), nn.Sequential()):
        with pytest.raises(InputError, match="no linear layer"):
            find_head(model)


def test_by_name_and_by_module():
    model = Named(body=nn.Sequential(nn.Linear(4, 8)), fc=nn.Linear(8, C))
    assert find_head(model, "body.0") is model.body[0]
    assert find_head(model, model.body) is model.body


@pytest.mark.parametrize("name", ["fcc", "", "body.1", "."])
def test_a_wrong_name(name):
    model = Named(body=nn.Sequential(nn.Linear(4, 8)), fc=nn.Linear(8, C))
    with pytest.raises(InputError, match="head must name a module") as caught:
        find_head(model, name)
    if name == "fcc":
        assert caught.value.parts[2] == "Did you mean 'fc'?"


def test_a_module_of_another_model():
    with pytest.raises(InputError, match="head must be a module"):
        find_head(nn.Linear(4, C), nn.Linear(4, C))


@pytest.mark.parametrize("head", [3, ["fc"], object()])
def test_a_head_that_is_neither(head):
    with pytest.raises(InputError, match="head must"):
        find_head(nn.Linear(4, C), head)


def test_a_model_that_is_none():
    with pytest.raises(InputError, match="model must be"):
        find_head("resnet18")


def test_a_large_model_does_not_flood_the_message():
    with torch.device("meta"):
        model = zoo.densenet121(num_classes=C)
    with pytest.raises(InputError, match=r"one of: features, .* and \d+ more") as caught:
        find_head(model, "zzzzzzzz")
    assert len(str(caught.value)) < 1200
