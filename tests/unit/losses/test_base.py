"""The shared behavior of every loss, on classes that exist only here."""

import inspect
from typing import Any, ClassVar, Unpack

import pytest
import torch

from fedlas.errors import InputError
from fedlas.losses import FedLAS, FedLASAblation, FedLASPlus, Loss, LossOptions, MultiLabelFedLAS


class Recording(Loss):
    """Needs features and index, and keeps its last batch."""

    needs: ClassVar[frozenset[str]] = frozenset({"features", "index"})

    def per_sample(self, batch):
        self.batch = batch
        return batch.apply_class_weights(batch.logits.square().sum(1))


N, C = 6, 3


def call(criterion, dense=(), **changes):
    torch.manual_seed(0)
    given = {
        "logits": torch.randn(N, C, *dense),
        "target": torch.randint(C, (N, *dense)),
        "features": torch.rand(N, 4),
        "index": torch.arange(N),
    }
    given |= changes
    return criterion(given.pop("logits"), given.pop("target"), **given)


def test_a_batch_is_flattened_position_by_position():
    criterion = Recording()
    logits = torch.arange(N * C * 4.0).reshape(N, C, 2, 2)
    target = torch.randint(C, (N, 2, 2))
    call(criterion, logits=logits, target=target)
    batch = criterion.batch
    assert batch.shape == (N, 2, 2)
    assert batch.logits.shape == (N * 4, C)
    assert batch.logits[5].tolist() == logits[1, :, 0, 1].tolist()
    assert batch.target[5] == target[1, 0, 1]
    assert batch.features.shape == (N, 4)
    assert batch.per_image
    assert not batch.is_soft
    assert batch.valid is None
    assert batch.index.tolist() == list(range(N))


def test_features_per_position_are_flattened_alike():
    criterion = Recording()
    features = torch.arange(N * 2 * 3.0).reshape(N, 2, 3)
    call(criterion, dense=(3,), features=features)
    assert criterion.batch.features[4].tolist() == features[1, :, 1].tolist()
    assert not criterion.batch.per_image


def test_a_missing_need_is_named():
    for need in ("features", "index"):
        with pytest.raises(TypeError, match=rf"Recording: {need} .*None.*{need}={need}"):
            call(Recording(), **{need: None})


def test_what_is_not_needed_is_still_checked():
    class Plain(Recording):
        needs = frozenset()

    call(Plain(), features=None, index=None)
    with pytest.raises(InputError, match="Plain: features"):
        call(Plain(), features=torch.rand(N + 1, 4))
    with pytest.raises(InputError, match="Plain: index"):
        call(Plain(), index=torch.arange(N).int())


def test_soft_targets_are_weighed_by_their_expected_weight():
    target = torch.rand(N, C).softmax(1)
    weight = torch.tensor([1.0, 2.0, 4.0])
    logits = torch.randn(N, C)
    value = call(Recording(weight=weight), logits=logits, target=target)
    torch.testing.assert_close(value, (logits.square().sum(1) * (target @ weight)).mean())


def test_zero_weight_batch_has_mean_zero():
    """The sum of weights is divided by, and F.cross_entropy has NaN there."""
    weight, target = torch.tensor([0.0, 1.0, 1.0]), torch.zeros(N, dtype=torch.int64)
    criterion = Recording(weight=weight)
    assert call(criterion, target=target) == 0
    assert not criterion.batch.valid.any()
    assert call(criterion, target=target.index_fill(0, torch.tensor(0), 1)) > 0
    assert criterion.batch.valid is None  # no mask, and so no cost, where anything counts


def test_weights_are_copied_into_a_buffer():
    weight = torch.ones(C)
    criterion = Recording(weight=weight)
    weight.zero_()
    assert criterion.weight.tolist() == [1.0] * C
    assert set(criterion.state_dict()) == {"weight"}
    assert not criterion.weight.requires_grad
    assert Recording().state_dict() == {}


def test_pooling_advice_fits_the_shape():
    with pytest.raises(
        InputError, match=r"\(6, D\) .*Pool them first, e.g. features.mean\(\(2, 3\)\)"
    ):
        call(Recording(), features=torch.rand(N, 4, 7, 7))
    with pytest.raises(InputError, match=r"features.mean\(2\)"):
        call(Recording(), features=torch.rand(N, 4, 7))
    with pytest.raises(InputError, match=r"\(6, D, 2, 2\)"):
        call(Recording(), dense=(2, 2), features=torch.rand(N, 4, 7, 7))


def test_autocast_is_off_inside_and_on_again_after():
    seen = {}

    class Looks(Recording):
        def per_sample(self, batch):
            seen["inside"] = torch.is_autocast_enabled("cpu")
            return super().per_sample(batch)

    with torch.autocast("cpu", torch.bfloat16):
        call(Looks())
        assert torch.is_autocast_enabled("cpu")
    assert seen == {"inside": False}


def test_the_base_cannot_be_built():
    with pytest.raises(InputError, match="base class"):
        Loss()


class Typed(Recording):
    def __init__(
        self, size, *, alpha: float = 0.5, form="sum", table=None, **options: Unpack[LossOptions]
    ):
        super().__init__(**options)
        self.size, self.alpha, self.form, self.table = size, alpha, form, table


class Heir(Typed):
    pass


class Quoted(Recording):
    def __init__(self, **options: "Unpack[LossOptions]"):
        super().__init__(**options)


class Passing(Typed):
    def __init__(self, **others: Any):
        super().__init__(3, **others)


INDICATOR = ["momentum", "norm_p", "variant", "gate_top"]


@pytest.mark.parametrize(
    ("kind", "own"),
    [(FedLAS, ["num_classes", "alpha", "beta", *INDICATOR, "nci", "gate"]),
     (FedLASPlus, ["num_classes", "alpha", "beta", "margin", *INDICATOR, "nci", "gate"]),
     (FedLASAblation, ["num_classes", "direction", "score", "spread", "alpha", "beta", *INDICATOR]),
     (MultiLabelFedLAS, ["num_labels", "base", "beta", "pos_weight", *INDICATOR, "nci", "gate"])],
)  # fmt: skip
def test_signature_inherits_only_named_base_options(kind, own):
    parameters = inspect.signature(kind).parameters
    assert list(parameters) == [*own, "reduction", "ignore_index", "weight"]
    assert parameters["momentum"].default == 0.95


def test_other_signatures_stay():
    assert list(inspect.signature(Passing).parameters) == ["others"]
    assert list(inspect.signature(Recording().forward).parameters)[:2] == ["logits", "target"]
    with pytest.raises(TypeError, match="unexpected keyword argument 'reductoin'"):
        Typed(3, reductoin="sum")


def test_repr_holds_the_options():
    assert repr(Typed(3)) == "Typed(size=3, alpha=0.5, form='sum')"
    assert repr(Heir(3, ignore_index=0, reduction="sum", weight=[1.0])) == (
        "Heir(size=3, alpha=0.5, form='sum', reduction='sum', ignore_index=0)"
    )
