"""Pre-trained weights: all of them or an error that lists what does not fit; only the head may be new."""

import json
import pickle
import random
import zipfile
from contextlib import suppress

import pytest
import timm
import torch
from safetensors.torch import save_file

from fedlas.errors import InputError
from fedlas.lab.models import build_model, load_weights, weights_digest


def small(num_classes=4, in_channels=3, width=4):
    return build_model("resnet8", num_classes=num_classes, in_channels=in_channels, width=width)


def vit(num_classes=4, image_size=32):
    return build_model(
        "timm:vit_tiny_patch16_224", num_classes=num_classes, in_channels=3, image_size=image_size
    )


def equal(a, b, *, but=()):
    a, b = a.state_dict(), b.state_dict()
    return [key for key in a if key not in but and not torch.equal(a[key], b[key])] == []


ARRAY = b"\x80\x02c__builtin__\nbytearray\n\x8a\x08" + (2**31).to_bytes(8, "little") + b"\x85R."
"""A pickle of two GB."""


def header(**changes):
    """A safetensors file of one tensor that holds four bytes."""
    text = json.dumps(
        {"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]} | changes}
    ).encode()
    return len(text).to_bytes(8, "little") + text + bytes(4)


class Both(torch.nn.Module):
    """A block of the published network: new channels on both sides of the old ones."""

    def __init__(self, before, after):
        super().__init__()
        self.conv1 = torch.nn.Conv2d(before, after, 3, after // before, padding=1, bias=False)
        self.bn1 = torch.nn.BatchNorm2d(after)
        self.conv2 = torch.nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.bn2 = torch.nn.BatchNorm2d(after)
        self.side, self.stride = (after - before) // 2, after // before

    def forward(self, x):
        residual = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
        x = torch.nn.functional.pad(
            x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.side, self.side)
        )
        return (residual + x).relu()


class Published(torch.nn.Module):
    """The published small residual network, with its names."""

    def __init__(self, blocks, width=16):
        super().__init__()
        self.conv1 = torch.nn.Conv2d(3, width, 3, padding=1, bias=False)
        self.bn1 = torch.nn.BatchNorm2d(width)
        for stage in (1, 2, 3):
            after = width * 2 ** (stage - 1)
            first = Both(after if stage == 1 else after // 2, after)
            others = [Both(after, after) for _ in range(blocks - 1)]
            self.add_module(f"layer{stage}", torch.nn.Sequential(first, *others))
        self.linear = torch.nn.Linear(4 * width, 10)

    def forward(self, images):
        x = self.bn1(self.conv1(images)).relu()
        return self.linear(self.layer3(self.layer2(self.layer1(x))).mean((2, 3)))


def test_published_weights_with_reordered_channels(tmp_path):
    torch.manual_seed(0)
    published = Published(blocks=3)
    published(torch.randn(16, 3, 8, 8))  # moves the statistics of batch norms
    save_file(published.state_dict(), tmp_path / "published.safetensors")
    ours = build_model("resnet20", num_classes=10, in_channels=3)
    assert load_weights(ours, tmp_path / "published.safetensors") == ()
    images = torch.randn(4, 3, 32, 32)
    torch.testing.assert_close(ours.eval()(images), published.eval()(images))


def test_published_weights_of_other_size_name_mismatches(tmp_path):
    file = tmp_path / "published.safetensors"
    save_file(Published(blocks=3).state_dict(), file)
    with pytest.raises(InputError, match=r"180 missing: .*stages\.0\.3"):
        load_weights(build_model("resnet56", num_classes=10, in_channels=3), file)
    with pytest.raises(InputError, match=r"of another shape: bn1\.bias"):
        load_weights(build_model("resnet20", num_classes=10, in_channels=3, width=8), file)


@pytest.fixture
def theirs():
    torch.manual_seed(0)
    return small()


@pytest.mark.parametrize("form", ["pth", "safetensors"])
def test_the_same_model_again(theirs, tmp_path, form):
    path = tmp_path / f"weights.{form}"
    save_file(theirs.state_dict(), path) if form == "safetensors" else torch.save(
        theirs.state_dict(), path
    )
    ours = small()
    assert not equal(ours, theirs)
    assert load_weights(ours, path) == ()
    assert equal(ours, theirs)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {"model": {f"module.{k}": v for k, v in state.items()}},
        lambda state: {f"_orig_mod.model.{k}": v for k, v in state.items()},
        lambda state: {"state_dict": {}, "model": state, "state_dict_ema": state},
        lambda state: {k: v for k, v in state.items() if "num_batches_tracked" not in k},
        lambda state: {k.replace("fc.", "head."): v for k, v in state.items()},
        lambda state: {k: v.double() if v.is_floating_point() else v for k, v in state.items()},
    ],
    ids=[
        "state_dict",
        "data parallel",
        "compiled",
        "average first",
        "no counters",
        "another head's name",
        "double",
    ],
)
def test_as_training_scripts_save_them(theirs, tmp_path, wrap):
    torch.save(wrap(theirs.state_dict()), tmp_path / "w.pt")
    ours = small()
    assert load_weights(ours, tmp_path / "w.pt") == ()
    assert equal(ours, theirs)


def test_head_of_other_classes_stays_untrained(theirs, tmp_path):
    torch.save(theirs.state_dict(), tmp_path / "w.pt")
    ours = small(num_classes=9)
    before = ours.fc.weight.clone()
    (note,) = load_weights(ours, tmp_path / "w.pt")
    assert (
        note
        == "w.pt: the head 'fc' of 4 classes was left out; the one of 9 classes starts untrained"
    )
    assert torch.equal(ours.fc.weight, before)
    assert equal(ours, theirs, but=("fc.weight", "fc.bias"))


def test_transformer_positions_are_interpolated_to_other_size(tmp_path):
    torch.manual_seed(0)
    old, new = vit(image_size=32), vit(num_classes=3, image_size=64)
    save_file(old.state_dict(), tmp_path / "vit.safetensors")
    assert len(load_weights(new, tmp_path / "vit.safetensors")) == 1
    assert new.pos_embed.shape == (1, 17, 192)
    torch.testing.assert_close(new.pos_embed[:, 0], old.pos_embed[:, 0])  # the class token's
    assert equal(old, new, but=("pos_embed", "head.weight", "head.bias"))
    assert timm.is_model("vit_base_patch16_384")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("conv1.weight"), "1 missing: conv1.weight"),
        (lambda s: s.update(extra=torch.zeros(1)), "1 unknown: extra"),
        (
            lambda s: s.update({"fc.weight": torch.zeros(4, 7)}),
            "1 of another shape: fc.weight (4, 7) for (4, 16)",
        ),
        (lambda s: s.pop("fc.weight"), "1 missing: fc.weight"),
        (lambda s: [s.pop(k) for k in list(s) if "stages" in k], "and 25 more"),
        (
            lambda s: s.update({"fc.bias": s["fc.bias"].to_sparse()}),
            "1 of another kind: fc.bias (torch.float32, torch.sparse",
        ),
        (
            lambda s: s.update({"fc.bias": s["fc.bias"].to("meta")}),
            "1 of another kind: fc.bias (torch.float32, torch.str",
        ),
        (
            lambda s: s.update({"fc.bias": s["fc.bias"].cfloat()}),
            "1 of another kind: fc.bias (torch.complex64",
        ),
        (
            lambda s: s.update({"fc.weight": torch.zeros(())}),
            "1 of another shape: fc.weight () for (4, 16)",
        ),
    ],
)
def test_mismatches_are_listed_and_nothing_changes(theirs, tmp_path, change, message):
    state = dict(theirs.state_dict())
    change(state)
    torch.save(state, tmp_path / "w.pt")
    ours = small()
    before = {key: value.clone() for key, value in ours.state_dict().items()}
    with pytest.raises(InputError) as caught:
        load_weights(ours, tmp_path / "w.pt")
    assert message in str(caught.value)
    assert all(torch.equal(value, before[key]) for key, value in ours.state_dict().items())


@pytest.mark.parametrize("other", [{"in_channels": 1}, {"width": 8}])
def test_another_model(theirs, tmp_path, other):
    torch.save(theirs.state_dict(), tmp_path / "w.pt")
    with pytest.raises(InputError, match=r"of another shape: .*conv1\.weight"):
        load_weights(small(**other), tmp_path / "w.pt")


class Evil:
    def __reduce__(self):
        return (pytest.fail, ("code in the file was run",))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("w.pt", b"nonsense"),
        ("w.pt", b""),
        ("text.pt", b"hello\nworld\n"),
        ("page.pt", b"<!DOCTYPE html><html></html>"),
        ("pointer.pt", b"version https://git-lfs.github.com/spec/v1\noid sha256:abc\n"),
        ("number.pt", b"\x80\x02K\x01."),
        ("array.pt", ARRAY),
        ("end.pt", b"PK\5\6" + bytes(18)),
        ("long.safetensors", (2**64 - 1).to_bytes(8, "little") + b"{}"),
        ("deep.safetensors", (90_000).to_bytes(8, "little") + b"[" * 90_000),
        ("list.safetensors", (2).to_bytes(8, "little") + b"[]"),
        ("huge.safetensors", header(shape=[10**12], data_offsets=[0, 4 * 10**12])),
        ("kind.safetensors", header(dtype="Q9")),
        ("w.safetensors", b"nonsense"),
        ("w.safetensors", b""),
        ("evil.pt", pickle.dumps(Evil(), protocol=2)),
    ],
)
def test_what_is_no_file_of_weights(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match="holds only tensors"):
        load_weights(small(), tmp_path / name)


@pytest.mark.parametrize(
    ("what", "message"), [("packed", "compressed"), ("array", "contains a bytearray")]
)
def test_what_would_grow_is_not_loaded(theirs, tmp_path, what, message):
    """A pickle of 30 bytes may ask for an array of any size, and an archive may be a bomb."""
    path = tmp_path / "w.pt"
    torch.save(theirs.state_dict(), path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(
        path, "w", zipfile.ZIP_DEFLATED if what == "packed" else zipfile.ZIP_STORED
    ) as archive:
        for name, content in members.items():
            archive.writestr(
                name, ARRAY if what == "array" and name.endswith("data.pkl") else content
            )
    with pytest.raises(InputError, match=message):
        load_weights(small(), path)


@pytest.mark.parametrize("form", ["pth", "safetensors"])
def test_damaged_anywhere(theirs, tmp_path, form):
    """What loads all the same has other numbers; nothing but the library's own error is raised."""
    path, noise = tmp_path / f"w.{form}", random.Random(0)
    save_file(theirs.state_dict(), path) if form == "safetensors" else torch.save(
        theirs.state_dict(), path
    )
    whole = path.read_bytes()
    for cut in (len(whole) - 1, *(noise.randrange(len(whole)) for _ in range(20))):
        path.write_bytes(whole[:cut])
        with pytest.raises(InputError, match="holds only tensors"):
            load_weights(small(), path)
    # headers are at the beginning, and the directory of an archive is at the end
    for near in (200, len(whole)):
        for _ in range(30):
            damaged = bytearray(whole)
            damaged[noise.randrange(near)] ^= 1 << noise.randrange(8)
            damaged[-1 - noise.randrange(near)] ^= 1 << noise.randrange(8)
            path.write_bytes(damaged)
            with suppress(InputError):
                load_weights(small(), path)


def test_keys_unexpected_by_timm_filter_raise(tmp_path):
    """It reads the second dimension of the position embedding, which this one does not have."""
    own = vit()
    before = {key: value.clone() for key, value in own.state_dict().items()}
    torch.save({"pos_embed": torch.zeros(3)}, tmp_path / "w.pt")
    with pytest.raises(InputError, match=r"weights of this VisionTransformer; got .*pos_embed"):
        load_weights(own, tmp_path / "w.pt")
    assert all(torch.equal(value, before[key]) for key, value in own.state_dict().items())


def test_code_in_a_real_archive_is_not_run(tmp_path):
    torch.save({"conv1.weight": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(InputError, match="holds only tensors"):
        load_weights(small(), tmp_path / "evil.pt")


@pytest.mark.parametrize("content", [[1, 2], {"epoch": 3}, torch.zeros(3), {}])
def test_no_state_dict_in_it(tmp_path, content):
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(InputError, match="must hold a state dict"):
        load_weights(small(), tmp_path / "w.pt")


def test_no_such_file(tmp_path):
    for function in (weights_digest, lambda path: load_weights(small(), path)):
        with pytest.raises(InputError, match="must exist"):
            function(tmp_path / "nowhere.pth")
        with pytest.raises(InputError, match="must exist"):
            function(tmp_path)


def test_the_digest_is_of_the_bytes(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert weights_digest(tmp_path / "a").startswith("ba7816bf")
