import pickle
import random
import zipfile

import pytest
import torch

from fedlas.errors import InputError
from fedlas.lab.train import config_differences, load_checkpoint, save_checkpoint

CONFIG = {"loss": {"name": "fedlas", "alpha": 0.1}, "seed": 0, "milestones": [0.5, 0.75]}
STATE = {
    "epoch": 3, "objective": {"w": torch.arange(6.0).view(2, 3)}, "rng": [[1, None, "x"]], "optimizer": {},
    "schedule": {}, "hooks": [], "best": {"epoch": 1, "value": 0.5, "objective": {}},
}  # fmt: skip


@pytest.fixture
def path(tmp_path):
    save_checkpoint(tmp_path / "checkpoint.pt", STATE, CONFIG)
    return tmp_path / "checkpoint.pt"


def test_round_trip(path):
    state = load_checkpoint(path, CONFIG)
    assert state["epoch"] == 3
    assert state["rng"] == STATE["rng"]
    assert torch.equal(state["objective"]["w"], STATE["objective"]["w"])
    assert load_checkpoint(path)["config"] == CONFIG


def test_another_configuration_is_refused_and_every_difference_named(path):
    other = {"loss": {"name": "fedlas+", "alpha": 0.1, "margin": 6}, "seed": 1, "milestones": [0.5]}
    before = path.read_bytes()
    with pytest.raises(InputError) as caught:
        load_checkpoint(path, other)
    message = str(caught.value)
    for part in (
        "loss.name: 'fedlas' before, 'fedlas+' now",
        "loss.margin: absent before, 6 now",
        "seed: 0 before, 1 now",
        "milestones: [0.5, 0.75] before, [0.5] now",
        "another --out",
    ):
        assert part in message
    assert path.read_bytes() == before


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(InputError, match="must exist"):
        load_checkpoint(tmp_path / "none.pt")
    with pytest.raises(InputError, match="complete checkpoint"):
        load_checkpoint(tmp_path)


def refused(path, content):
    path.write_bytes(content)
    with pytest.raises(
        InputError, match=r"^the (checkpoint|file) must .*; got .*checkpoint\.pt.*\. [A-Z]"
    ):
        load_checkpoint(path, CONFIG)
    assert path.read_bytes() == content


def test_truncated_anywhere_empty_or_noise(path):
    whole, noise = path.read_bytes(), random.Random(0)
    for length in {
        0,
        1,
        4,
        100,
        len(whole) // 2,
        len(whole) - 1,
        *(noise.randrange(len(whole)) for _ in range(40)),
    }:
        refused(path, whole[:length])
    for length in (1, 10, 1000):
        for _ in range(20):
            refused(path, noise.randbytes(length))
    for start in (b"\x80\x02", b"\x80\x05", b"PK\x03\x04", b"PK\x05\x06" + b"\0" * 18):
        for _ in range(20):
            refused(path, start + noise.randbytes(200))


def test_damaged_pickle_inside_a_whole_archive(path):
    noise = random.Random(1)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    (key,) = (name for name in members if name.endswith("data.pkl"))
    original = members[key]
    for _ in range(150):
        damaged = bytearray(original)
        for _ in range(3):
            damaged[noise.randrange(len(damaged))] = noise.randrange(256)
        with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
            for name, content in members.items():
                archive.writestr(name, bytes(damaged) if name == key else content)
        try:
            load_checkpoint(path, CONFIG)  # some damage only changes a value: that is fine
        except InputError as error:
            assert str(error).startswith(("the checkpoint must ", "the file must "))  # noqa: PT017 - anything else must fail the test


class Bomb:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return (open, (str(self.target), "w"))


@pytest.mark.parametrize("how", ["torch", "pickle", "nested"])
def test_nothing_in_the_file_is_executed(path, tmp_path, how):
    target = tmp_path / "executed"
    if how == "torch":
        torch.save(Bomb(target), path)
    elif how == "nested":
        torch.save({"format": 1, "config": CONFIG, "epoch": Bomb(target)}, path)
    else:
        path.write_bytes(pickle.dumps(Bomb(target)))
    refused(path, path.read_bytes())
    assert not target.exists()


@pytest.mark.parametrize(
    "content",
    [{"w": torch.zeros(1)}, [1, 2], torch.zeros(2), {"format": 99, "config": {}}, {"format": 1}],
)
def test_other_torch_files(path, content):
    torch.save(content, path)
    refused(path, path.read_bytes())


def test_an_interrupted_save_leaves_the_old_one(path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    before = path.read_bytes()
    monkeypatch.setattr(torch, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(path, STATE, CONFIG)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_differences_of_sections_that_are_absent():
    assert config_differences({"a": {"b": 1}}, {"a": 3}) == ["a: {'b': 1} before, 3 now"]
    assert config_differences({}, {"x": None}) == ["x: absent before, None now"]
    assert config_differences({"x": 1}, {"x": 1.0}) == []


def test_tensor_in_place_of_plain_value(path):
    save_checkpoint(path, STATE | {"format": torch.zeros(2)}, CONFIG)
    with pytest.raises(InputError, match="must be of format 1"):
        load_checkpoint(path)
    save_checkpoint(path, STATE, CONFIG | {"seed": torch.zeros(2)})
    with pytest.raises(InputError, match=r"seed: tensor\(\[0\., 0\.\]\) before, 0 now"):
        load_checkpoint(path, CONFIG)


def test_a_flipped_byte_is_refused_or_changes_nothing(path):
    content, whole = path.read_bytes(), load_checkpoint(path)
    before = [whole.pop("objective")["w"], repr(whole)]
    refusals = 0
    for position in range(0, len(content), 7):
        path.write_bytes(
            content[:position] + bytes([content[position] ^ 4]) + content[position + 1 :]
        )
        try:
            state = load_checkpoint(path)
        except InputError:
            refusals += 1
        else:
            assert torch.equal(state.pop("objective")["w"], before[0])
            assert repr(state) == before[1]
    assert refusals > 100
