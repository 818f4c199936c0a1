"""The head in whole libraries: what the tap reads is what the head makes the logits of.

Models are built on the meta device: shapes and the identity of tensors are real, the numbers are not there.
"""

import pytest
import timm
import torch
import torchvision.models as zoo
from torch import nn
from torchvision.models import regnet

from fedlas import FeatureTap, Objective, find_head
from fedlas.errors import InputError
from fedlas.losses import FedLAS

C = 7

TORCHVISION = sorted(zoo.list_models(module=zoo))
_TIMM = """
resnet18 resnetv2_50 resnext50_32x4d wide_resnet50_2 seresnet18 legacy_seresnet18 skresnet18 res2net50_14w_8s resnest14d
densenet121 vgg11_bn efficientnet_b0 tf_efficientnetv2_b0 mobilenetv2_100 mobilenetv3_small_050 mobilenetv4_conv_small
mnasnet_small ghostnet_050 hardcorenas_a lcnet_050 tinynet_e fbnetc_100 rexnet_100 mixnet_s regnetx_002 regnety_002
repvgg_a0 convnext_atto convnextv2_atto inception_v3 inception_v4 inception_resnet_v2 xception41 dla34 dpn68
ese_vovnet19b_dw hrnet_w18_small selecsls42 cspresnet50 darknet53 nfnet_l0 gernet_s tresnet_m halonet26t botnet26t_256
vit_tiny_patch16_224 vit_base_patch16_384 deit_tiny_patch16_224 deit3_small_patch16_224 beit_base_patch16_224
eva02_tiny_patch14_224 swin_tiny_patch4_window7_224 swinv2_tiny_window8_256 cait_xxs24_224 coat_lite_tiny
coatnet_0_rw_224 maxvit_tiny_tf_224 mvitv2_tiny pvt_v2_b0 pit_ti_224 twins_pcpvt_small tnt_s_patch16_224 visformer_tiny
xcit_nano_12_p16_224 poolformer_s12 caformer_s18 mixer_s32_224 resmlp_12_224 gmlp_ti16_224 convmixer_768_32
edgenext_xx_small mobilevit_xxs mobileone_s0 fastvit_t8 efficientvit_b0 efficientvit_m0 focalnet_tiny_srf davit_tiny
gcvit_xxtiny nest_tiny inception_next_atto hgnetv2_b0 tiny_vit_5m_224 hiera_tiny_224 mambaout_femto starnet_s1
"""
TIMM = _TIMM.split()
_SEVERAL_HEADS = """
deit_tiny_distilled_patch16_224 pit_ti_distilled_224 levit_128s efficientformer_l1 efficientformerv2_s0 swiftformer_xs
repvit_m0_9 crossvit_tiny_240 volo_d1_224
"""
SEVERAL_HEADS = _SEVERAL_HEADS.split()
"""Their logits are a mean or a sum over heads, so no head's input is the features."""
MAP_AFTER_HEAD = {"squeezenet1_0", "squeezenet1_1"}
"""Their head runs on a map that is pooled after it, so a sample has no feature vector."""
FAST = {
    "resnet18",
    "inception_v3",
    "mobilenet_v3_small",
    "vit_tiny_patch16_224",
    "dla34",
    "convnext_atto",
}

slow = pytest.mark.long


def sample(names):
    return [pytest.param(name, marks=() if name in FAST else slow) for name in names]


@pytest.fixture(autouse=True)
def widths_of_regnets_are_numbers(monkeypatch):
    """torchvision computes them with tensors, which hold nothing on the meta device."""
    compute = regnet.BlockParams.from_init_params

    def on_cpu(*args, **kwargs):
        with torch.device("cpu"):
            return compute(*args, **kwargs)

    monkeypatch.setattr(regnet.BlockParams, "from_init_params", on_cpu)


def of_torchvision(name):
    given = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    size = {"inception_v3": 299, "swin_v2_t": 256, "vit_h_14": 224}.get(name, 224)
    with torch.device("meta"):
        return zoo.get_model(name, weights=None, num_classes=C, **given), size


def of_timm(name):
    with torch.device("meta"):
        model = timm.create_model(name, num_classes=C)
    return model, model.default_cfg["input_size"][1]


def logits_and_features(model, size):
    """Logits, the tapped features, and what the head made of them."""
    head, made = find_head(model, num_classes=C), []
    handle = head.register_forward_hook(lambda module, args, output: made.append(output))
    tap = FeatureTap(head)
    tap.start()
    output = model(torch.empty(2, 3, size, size, device="meta"))
    features = tap.stop()
    handle.remove()
    tap.remove()
    return getattr(output, "logits", output), features, made[0], head


def check(model, size):
    logits, features, made, head = logits_and_features(model, size)
    assert logits.shape == (2, C)
    assert features.shape == (2, head.weight.shape[1])
    # Nothing happens to what the head returns, but that a 1 x 1 convolution's two last axes are dropped.
    assert made is logits or (isinstance(head, nn.Conv2d) and made.shape == (2, C, 1, 1))


@pytest.mark.parametrize("training", [True, False], ids=["training", "eval"])
@pytest.mark.parametrize("name", sample(name for name in TORCHVISION if name not in MAP_AFTER_HEAD))
def test_torchvision(name, training):
    """In training inception and googlenet return logits of auxiliary heads as well."""
    model, size = of_torchvision(name)
    check(model.train(training), size)


@pytest.mark.parametrize("name", sample(TIMM))
def test_timm(name):
    model, size = of_timm(name)
    check(model.eval(), size)


def test_the_sample_is_part_of_the_whole():
    assert {*TORCHVISION, *TIMM} >= FAST
    assert len(TIMM) >= 50
    assert len(set(TIMM)) == len(TIMM)


@pytest.mark.parametrize(
    "name", [SEVERAL_HEADS[0], *(pytest.param(name, marks=slow) for name in SEVERAL_HEADS[1:])]
)
def test_several_heads_are_refused(name):
    model, _ = of_timm(name)
    with pytest.raises(InputError, match=r"one head; got \w+ .*with several heads"):
        find_head(model, num_classes=C)


def test_several_heads_can_be_told_apart_by_name():
    model, _ = of_timm(SEVERAL_HEADS[0])
    assert find_head(model, "head") is model.head


@pytest.mark.parametrize("name", ["squeezenet1_1"])
def test_map_pooled_after_head_needs_flattening(name):
    model = zoo.get_model(name, num_classes=C)
    images, target = torch.randn(2, 3, 48, 48), torch.tensor([0, 1])
    with pytest.raises(InputError, match=r"'classifier\.1' .*map .*features='classifier\.1'"):
        Objective(model, FedLAS(num_classes=C))(images, target)
    loss, _ = Objective(model, FedLAS(num_classes=C), features="classifier.1")(images, target)
    loss.backward()
    assert torch.isfinite(loss)


def test_real_numbers_too():
    """Once on the CPU, with a convolution for a head: the features times its weight are the logits."""
    torch.manual_seed(0)
    model = timm.create_model("dla34", num_classes=C).eval()
    head = find_head(model)
    tap = FeatureTap(head)
    tap.start()
    with torch.no_grad():
        logits = model(torch.randn(2, 3, 32, 32))
    features = tap.stop()
    torch.testing.assert_close(features @ head.weight.flatten(1).T + head.bias, logits)
