import pytest
import timm
import torch
from torch import nn

from fedlas.errors import InputError
from fedlas.features import find_head
from fedlas.lab.models import build_model

TINY = "timm:vit_tiny_patch16_224"


def test_any_size_that_was_asked_for():
    model = build_model(TINY, num_classes=5, in_channels=1, image_size=32)
    assert model(torch.zeros(2, 1, 32, 32)).shape == (2, 5)
    assert find_head(model, num_classes=5) is model.head
    assert build_model("timm:test_resnet", num_classes=5, in_channels=3)(
        torch.zeros(2, 3, 40, 40)
    ).shape == (2, 5)


def test_options_reach_timm():
    model = build_model(
        TINY,
        num_classes=5,
        in_channels=3,
        image_size=32,
        dropout=0.3,
        drop_path=0.2,
        global_pool="avg",
    )
    assert model.head_drop.p == 0.3
    assert model.blocks[-1].drop_path1.drop_prob == pytest.approx(0.2)
    assert model.global_pool == "avg"
    plain = build_model(TINY, num_classes=5, in_channels=3, image_size=32)
    assert not [m for m in plain.modules() if isinstance(m, nn.Dropout) and m.p]


def test_the_same_seed_gives_the_same_weights():
    models = []
    for _ in range(2):
        torch.manual_seed(3)
        models.append(build_model(TINY, num_classes=5, in_channels=3, image_size=32))
    assert all(torch.equal(a, b) for a, b in zip(*(m.parameters() for m in models), strict=True))


def test_nothing_is_downloaded(monkeypatch):
    monkeypatch.setattr(
        timm.models._builder, "load_pretrained", lambda *a, **k: pytest.fail("a download")
    )
    build_model("timm:test_vit.r160_in1k", num_classes=5, in_channels=3, image_size=160)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "timm:vit_tny_patch16_224",
            "timm must have a model of that name; got 'timm:vit_tny_patch16_224'. Did you mean",
        ),
        ("timm:", "timm must have a model of that name"),
        ("timm:resnet50.nonsense", "Did you mean 'resnet50."),
        ("tim:resnet50", "Did you mean 'timm'"),
        ("resnet49", "Did you mean 'resnet"),
    ],
)
def test_unknown_names(name, message):
    with pytest.raises(InputError) as caught:
        build_model(name, num_classes=2, in_channels=3)
    assert message in str(caught.value)


def test_what_timm_refuses_is_said_in_our_words():
    with pytest.raises(
        InputError, match=r"timm .*in_chans=3, drop_rate=0.0, global_pool=nonsense, img_size=32"
    ):
        build_model(TINY, num_classes=5, in_channels=3, image_size=32, global_pool="nonsense")
    with pytest.raises(InputError, match="Did you mean 'drop_path'"):
        build_model(TINY, num_classes=5, in_channels=3, image_size=32, drop_pth=0.1)
    with pytest.raises(InputError, match="drop_path must be"):
        build_model(TINY, num_classes=5, in_channels=3, image_size=32, drop_path=1)
