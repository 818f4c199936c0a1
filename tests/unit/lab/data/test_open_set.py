import pytest
import torch

from fedlas.errors import InputError
from fedlas.lab.data import Images, Source, load_dataset
from fedlas.lab.data.shift import make_open_set


@pytest.fixture(scope="module")
def source():
    return load_dataset("digits")


def test_every_image_is_known_or_unknown(source):
    divided = make_open_set(source, [3, "7"])
    assert divided.held_out == ("3", "7")
    assert divided.known.classes == ("0", "1", "2", "4", "5", "6", "8", "9")
    kept = (source.test.target != 3) & (source.test.target != 7)
    assert torch.equal(divided.known.test.images, source.test.images[kept])
    assert torch.equal(divided.unknown.images, source.test.images[~kept])
    assert len(divided.known.train) == int(
        ((source.train.target != 3) & (source.train.target != 7)).sum()
    )


def test_classes_keep_their_images_under_new_numbers(source):
    divided = make_open_set(source, ["7", 3])
    for part, old in ((divided.known.train, source.train), (divided.known.test, source.test)):
        names = [divided.known.classes[k] for k in part.target.tolist()]
        assert names == [str(k) for k in old.target.tolist() if k not in (3, 7)]
    names = [divided.held_out[k] for k in divided.unknown.target.tolist()]
    assert names == [str(k) for k in source.test.target.tolist() if k in (3, 7)]


def test_numeric_text_is_a_class_name():
    images = Images(torch.zeros(6, 1, 2, 2, dtype=torch.uint8), torch.tensor([0, 0, 1, 1, 2, 2]))
    source = Source("mine", images, images, ("2", "1", "0"))
    assert make_open_set(source, ["2"]).held_out == ("2",)
    assert make_open_set(source, [2]).held_out == ("0",)


def test_label_probabilities_become_conditional():
    source = load_dataset("synthetic", num_train=200, num_test=60, num_classes=4)
    divided = make_open_set(source, [1])
    kept = source.test.target != 1
    old = source.test.label_probs[kept][:, [0, 2, 3]]
    torch.testing.assert_close(divided.known.test.label_probs, old / old.sum(1, keepdim=True))
    assert divided.unknown.label_probs is None


def test_the_transform_stays(source):
    divided = make_open_set(source, [0])
    assert (divided.known.flip, divided.known.mean, divided.known.name) == (
        source.flip,
        source.mean,
        source.name,
    )


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ([], "leave at least two"), (list(range(9)), "leave at least two"), ([1, 1], "leave at least two"),
        ([1, "1"], "leave at least two"), ([10], "numbers from 0 to 9"), ([-1], "numbers from 0 to 9"),
        (["ten"], "names of classes"), ([True], "numbers from 0 to 9"), ([1.0], "numbers from 0 to 9"),
    ],
)  # fmt: skip
def test_refuses(source, classes, message):
    with pytest.raises(InputError, match=message):
        make_open_set(source, classes)


def test_held_out_classes_need_test_images():
    images = Images(torch.zeros(6, 1, 2, 2, dtype=torch.uint8), torch.tensor([0, 0, 1, 1, 2, 2]))
    source = Source("mine", images, images.take(torch.arange(4)), ("a", "b", "c"))
    with pytest.raises(InputError, match="held-out"):
        make_open_set(source, ["c"])
    assert len(make_open_set(source, ["b"]).known.test) == 2
