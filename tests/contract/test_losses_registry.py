"""The contract of every registered loss; a new loss is tested without a change here."""

import copy
import inspect
import io
import pickle
import re
import sys
from typing import ClassVar

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from fedlas.errors import InputError
from fedlas.losses import LOSSES, LearnsFromValidation, Loss
from fedlas.predictions import Predictions

CLASSES, FEATURES = 5, 6
SAMPLES = 64  # size of the training set for ``index``
EXACT = {"rtol": 0.0, "atol": 0.0}
CLOSE = {"rtol": 1e-5, "atol": 1e-6}


@pytest.fixture(params=list(LOSSES))
def name(request):
    return request.param


ONCE = pytest.mark.parametrize("name", ["everything"])
"""For what ``Loss`` and ``prepare`` do for every loss: it is tested once, on a loss with every need."""
DENSE = [n for n in LOSSES if LOSSES[n].metadata.get("dense", True)]
FLAT = pytest.mark.parametrize("name", [n for n in DENSE if "index" not in LOSSES[n].value.needs])
LEARNERS = pytest.mark.parametrize(
    "name", [n for n in LOSSES if issubclass(LOSSES[n].value, LearnsFromValidation)]
)


class Everything(Loss):
    """Represents all losses in the tests of shared checks: it has every need, and each batch changes its state."""

    needs: ClassVar[frozenset[str]] = frozenset(
        {"features", "index", "mixed", "mixed_share", "head_weight"}
    )

    def __init__(self, **shared):
        super().__init__(**shared)
        self.register_buffer("seen", torch.zeros(()))

    def per_sample(self, batch):
        self.seen += 1
        return batch.apply_class_weights(batch.logits.square().sum(1))


def build(name, classes=CLASSES, *, samples=SAMPLES, seed=1, **options):
    torch.manual_seed(seed)
    if name == "everything":
        return Everything(**options)
    return LOSSES.build(name, options, num_classes=classes, num_samples=samples, num_epochs=100)


def inputs(
    criterion,
    samples=8,
    *,
    dense=(),
    classes=CLASSES,
    dtype=torch.float32,
    per_position=True,
    seed=0,
):
    """Keyword arguments of one call, with hard targets."""
    generator = torch.Generator().manual_seed(seed)
    given = {
        "logits": 3
        * torch.randn(samples, classes, *dense, generator=generator, dtype=torch.float64).to(dtype),
        "target": torch.randint(classes, (samples, *dense), generator=generator),
    }
    if "features" in criterion.needs:
        shape = (samples, FEATURES, *(dense if per_position else ()))
        given["features"] = torch.rand(shape, generator=generator) * 4
    if "index" in criterion.needs:
        given["index"] = torch.randperm(samples, generator=generator)
    if "mixed" in criterion.needs:
        given["mixed"] = 3 * torch.randn(
            samples, 2, classes, *dense, generator=generator, dtype=torch.float64
        ).to(dtype)
    if "mixed_share" in criterion.needs:
        given["mixed_share"] = 0.5 + 0.5 * torch.rand(samples, 2, *dense, generator=generator)
    if "head_weight" in criterion.needs:
        given["head_weight"] = torch.randn(classes, FEATURES, generator=generator)
    return given


def rows(given, chosen):
    """The arguments of the chosen samples; the head's weight stays whole."""
    return {
        key: tensor if key == "head_weight" else tensor[chosen] for key, tensor in given.items()
    }


def flattened(given):
    """Dense inputs with every position as a separate sample."""
    axis = {"logits": 1, "features": 1, "mixed": 1, "mixed_share": 1}
    flat = dict(given)
    for key in axis.keys() & given.keys():
        kept = 2 if key == "mixed" else 1  # trailing axes of a position
        flat[key] = (
            given[key]
            .movedim(tuple(range(1, 1 + kept)), tuple(range(-kept, 0)))
            .flatten(0, -kept - 1)
        )
    flat["target"] = given["target"].reshape(-1)
    return flat


def state(criterion):
    return copy.deepcopy(criterion.state_dict())


def assert_same_state(criterion, before):
    after = criterion.state_dict()
    assert after.keys() == before.keys()
    for key, value in before.items():
        torch.testing.assert_close(
            after[key], value, equal_nan=True, **EXACT, msg=lambda text, key=key: f"{key} {text}"
        )


def run(criterion, given, *, grad_output=None):
    """Value, gradient of the logits, gradients of the loss's parameters, and the new state."""
    criterion.zero_grad()
    logits = given["logits"].detach().clone().requires_grad_()
    value = criterion(**{**given, "logits": logits})
    value.backward(torch.ones_like(value) if grad_output is None else grad_output)
    own = {key: p.grad for key, p in criterion.named_parameters() if p.requires_grad}
    return value.detach(), logits.grad, own, state(criterion)


def assert_same_run(ours, theirs, **tolerance):
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, **(tolerance or CLOSE))


# The shape of a loss -------------------------------------------------------------------------------------------------


def test_declaration(name):
    entry, criterion = LOSSES[name], build(name)
    assert issubclass(entry.value, Loss)
    assert {"paper", "year", "url"} <= entry.metadata.keys()
    assert isinstance(entry.metadata["year"], int)
    assert entry.summary.endswith(".") or entry.summary.endswith(":")
    assert criterion.needs <= {"features", "index", "mixed", "mixed_share", "head_weight"}
    assert isinstance(type(criterion).needs, frozenset)
    repr(criterion)
    # Options are keywords with defaults.
    parameters = inspect.signature(LOSSES[name].value).parameters
    offered = {"num_classes", "num_samples", "num_epochs"}
    for key, parameter in parameters.items():
        assert parameter.kind is inspect.Parameter.KEYWORD_ONLY, key
        assert key in offered or parameter.default is not inspect.Parameter.empty, key
    assert {"reduction", "ignore_index", "weight"} <= parameters.keys()


# Numbers -------------------------------------------------------------------------------------------------------------


def assert_finite(result, case):
    value, gradient, own, after = result
    for key, tensor in {"value": value, "gradient": gradient, **own, **after}.items():
        assert torch.isfinite(tensor).all(), f"{case}: {key}"


def test_finite_at_the_ends(name):
    for mode in (True, False):
        criterion = build(name).train(mode)
        given = inputs(criterion)
        given["logits"] = torch.where(given["logits"] > 0, 1e4, -1e4)
        assert_finite(run(criterion, given), f"huge logits, training={mode}")
    criterion = build(name)
    equal = run(criterion, inputs(criterion) | {"logits": torch.zeros(8, CLASSES)})
    assert_finite((*equal[:3], {}), "equal logits")
    for classes in (1, 2):
        criterion = build(name, classes=classes)
        assert_finite(
            (*run(criterion, inputs(criterion, classes=classes))[:3], {}), f"classes={classes}"
        )
    criterion = build(name).eval()
    assert torch.isfinite(run(criterion, inputs(criterion, samples=1))[0]), (
        "eval before any training"
    )


@ONCE
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_equals_float32_on_the_same_rounded_logits(name, dtype):
    half, single = build(name), build(name)
    given = inputs(half, dtype=dtype)
    value, gradient, own, after = run(half, given)
    assert value.dtype == torch.float32
    assert gradient.dtype == dtype
    expected = run(single, given | {"logits": given["logits"].float()})
    torch.testing.assert_close(value, expected[0], **EXACT)
    torch.testing.assert_close(gradient, expected[1].to(dtype), **EXACT)
    torch.testing.assert_close(own, expected[2], **EXACT)
    torch.testing.assert_close(after, expected[3], **EXACT)


@pytest.mark.parametrize("name", [n for n in LOSSES if "features" in LOSSES[n].value.needs])
def test_half_features(name):
    criterion = build(name)
    given = inputs(criterion)
    # A norm beyond the largest float16: it must be computed in float32.
    given["features"] = (given["features"] * 8000).half()
    value, *_, after = run(criterion, given)
    expected, *_, expected_after = run(build(name), given | {"features": given["features"].float()})
    torch.testing.assert_close((value, after), (expected, expected_after), **EXACT)


def test_float64(name):
    double, single = build(name), build(name)
    given = inputs(double, dtype=torch.float64)
    value, gradient, *_ = run(double, given)
    assert value.dtype == gradient.dtype == torch.float64
    expected, *_ = run(single, given | {"logits": given["logits"].float()})
    torch.testing.assert_close(value.float(), expected, **CLOSE)


def test_converted_module(name):
    criterion = build(name, weight=[1.0] * CLASSES).half()
    value, gradient, *_ = run(criterion, inputs(criterion))
    assert value.dtype == gradient.dtype == torch.float32
    # A half-precision gate has rounded weights and may decide differently, so values are not compared.
    assert torch.isfinite(value)
    assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("name", ["everything", "fedlas"])
def test_autocast_changes_nothing(name):
    inside, outside = build(name), build(name)
    given = inputs(inside)
    logits = given["logits"].requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        value = inside(**given)
    assert value.dtype == torch.float32
    value.backward()
    expected = run(outside, given)
    torch.testing.assert_close(value.detach(), expected[0], **EXACT)
    torch.testing.assert_close(logits.grad, expected[1], **EXACT)
    torch.testing.assert_close(state(inside), expected[3], **EXACT)


@pytest.mark.parametrize("target", ["hard", "soft"])
def test_gradients(name, target):
    """First and second order; with create_graph a loss may compute the first in another way: it is the same."""
    criterion = build(name, weight=[0.5, 1.0, 2.0, 1.0, 3.0]).double().eval()
    given = inputs(criterion, 4, dtype=torch.float64)  # on which no penalty stops a gradient
    if target == "soft":
        given["target"] = torch.rand(4, CLASSES, dtype=torch.float64).softmax(1)
    logits = given.pop("logits").requires_grad_()

    def function(z):
        return criterion(z, **given)

    if not LOSSES[name].metadata.get("detached"):
        assert torch.autograd.gradcheck(function, (logits,))
        assert torch.autograd.gradgradcheck(function, (logits,))
    value = criterion.train()(logits, **given)
    plain = torch.autograd.grad(value, logits, retain_graph=True)
    torch.testing.assert_close(torch.autograd.grad(value, logits, create_graph=True), plain)


# Invariances ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", [n for n in LOSSES if LOSSES[n].metadata.get("order_invariant", True)]
)
def test_order_of_the_batch_does_not_matter(name):
    first = trained(name, reduction="none")
    second = copy.deepcopy(first)
    given = inputs(first, 16)
    order = torch.randperm(16)
    value, gradient, own, after = run(first, given)
    permuted = run(second, rows(given, order))
    assert_same_run((value[order], gradient[order], own, after), permuted)


@pytest.mark.parametrize(
    "name", [n for n in LOSSES if LOSSES[n].metadata.get("shift_invariant", True)]
)
def test_shift_invariance(name):
    criterion = build(name)
    given = inputs(criterion, dtype=torch.float64)
    value, gradient, *_ = run(criterion, given)
    moved = {key: given[key] + 100.0 for key in ("logits", "mixed") if key in given}
    shifted = run(build(name), given | moved)
    torch.testing.assert_close((value, gradient), shifted[:2])


def test_reductions_agree(name):
    ignored, runs = 3, {}
    for reduction in ("mean", "sum", "none"):
        criterion = build(name, reduction=reduction)
        given = inputs(criterion)
        given["target"][:ignored] = -100
        runs[reduction] = run(criterion, given)
    each = runs["none"][0]
    assert each.shape == (8,)
    assert (each[:ignored] == 0).all()
    torch.testing.assert_close(runs["sum"][0], each.sum())
    torch.testing.assert_close(runs["mean"][0], each.sum() / (8 - ignored))
    torch.testing.assert_close(runs["sum"][1], runs["none"][1])
    torch.testing.assert_close(runs["mean"][1], runs["sum"][1] / (8 - ignored))


def test_class_weights(name):
    """Weights of 1 change nothing; with others, the reductions agree."""
    plain, weighted = build(name), build(name, weight=torch.ones(CLASSES))
    given = inputs(plain)
    assert_same_run(run(plain, given)[:3], run(weighted, given)[:3])
    weight = torch.tensor([0.0, 1.0, 2.0, 0.5, 3.0])
    each, total, mean = (
        run(criterion, inputs(criterion))[0]
        for criterion in (build(name, weight=weight, reduction=r) for r in ("none", "sum", "mean"))
    )
    target = inputs(build(name))["target"]
    torch.testing.assert_close(total, each.sum())
    torch.testing.assert_close(mean, total / weight[target].sum())


# Ignored positions ---------------------------------------------------------------------------------------------------


WEIGHTS = pytest.mark.parametrize(
    "weight", [None, [0.5, 1.0, 2.0, 1.0, 3.0]], ids=["plain", "weighted"]
)


@WEIGHTS
@pytest.mark.parametrize("ignore_index", [-100, 255, 2])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_any_value_can_mark_what_is_ignored(ignore_index, reduction, weight):
    check_ignored("everything", ignore_index=ignore_index, reduction=reduction, weight=weight)


def test_ignoring_samples_is_leaving_them_out(name):
    check_ignored(name, ignore_index=2, reduction="mean", weight=[0.5, 1.0, 2.0, 1.0, 3.0])


def check_ignored(name, **options):
    """Value, gradients of logits and parameters, and state equal those of the batch without ignored samples."""
    ignore_index = options["ignore_index"]
    masked, without = build(name, **options), build(name, **options)
    given = inputs(masked, 12)
    kept = torch.arange(12) % 3 != 1
    if "index" in given:
        given["index"] = torch.arange(12)
    given["target"] = torch.where(given["target"] == ignore_index, 0, given["target"])
    given["target"][~kept] = ignore_index
    given["logits"][~kept] *= 50  # large, so that any effect is visible
    if "features" in given:
        given["features"][~kept] *= 50
    if "mixed" in given:
        given["mixed"][~kept] *= 50
    for _ in range(2):
        value, gradient, own, after = run(masked, given)
        expected = run(without, rows(given, kept))
        assert (gradient[~kept] == 0).all()
        assert_same_run((value, gradient[kept], own, after), expected)


@FLAT
def test_ignored_positions_of_dense_inputs(name):
    masked, without = build(name), build(name)
    given = inputs(masked, 6, dense=(2, 3))
    given["target"].view(-1)[::3] = -100
    kept = given["target"].reshape(-1) != -100
    value, gradient, own, after = run(masked, given)
    expected = run(without, rows(flattened(given), kept))
    gradient = gradient.movedim(1, -1).reshape(-1, CLASSES)
    assert (gradient[~kept] == 0).all()
    assert_same_run((value, gradient[kept], own, after), expected)


# Weights of 0, masked classes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kind", "looking"),
    [(n, "ignored", False) for n in LOSSES]
    + [
        ("fedlas", kind, looking)
        for kind in ("hard", "soft", "dense", "ignored")
        for looking in (True, False)
    ],
)
def test_nothing_is_learned_from_a_batch_whose_class_weights_are_0(
    name, kind, looking, monkeypatch
):
    """The mean is 0 and not NaN, as F.cross_entropy has it: NaN would stay in the gate and in the model for good."""
    criterion = trained(name, weight=[0.0, 1.0, 2.0, 1.0, 0.0])
    before = state(criterion)
    given = inputs(criterion, dense=(3,) if kind == "dense" else (), per_position=False)
    given["target"] = 4 * (given["target"] % 2)
    if kind == "soft":
        given["target"] = torch.nn.functional.one_hot(given["target"], CLASSES).float()
    if kind == "ignored":
        given["target"][::2] = -100
    if not looking:
        for module in [
            module for key, module in sys.modules.items() if key.startswith("fedlas.losses")
        ]:
            if hasattr(module, "can_read_values"):
                monkeypatch.setattr(module, "can_read_values", lambda _: False)
    value, gradient, own, after = run(criterion, given)
    assert value == 0
    assert (gradient == 0).all()
    assert all((slope == 0).all() for slope in own.values())
    assert_same_state(criterion, before)
    assert after.keys() == before.keys()


class Waits(TorchDispatchMode):
    """Refuses every operation for which an accelerator's host waits: it reads a value, or a shape depends on one."""

    names = re.compile(
        r"aten::(_local_scalar_dense|nonzero|masked_select|equal|is_nonzero|_?unique\w*|argwhere)\b"
    )

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert not self.names.match(func.name()), f"{func} waits for the device"
        return func(*args, **(kwargs or {}))


def test_no_loss_makes_the_host_wait_for_an_accelerator(name, monkeypatch):
    """As on an accelerator, where no loss looks at values."""
    for module in list(sys.modules.values()):
        if module.__name__.startswith("fedlas.") and hasattr(module, "can_read_values"):
            monkeypatch.setattr(module, "can_read_values", lambda tensor: False)
    # PyTorch's own function checks the range of the classes on a CPU, and on no accelerator.
    monkeypatch.setattr(
        torch.nn.functional, "one_hot", lambda target, classes: torch.eye(classes).long()[target]
    )
    criterion = build(name, ignore_index=2, weight=torch.linspace(0.5, 1.5, CLASSES))
    given = inputs(criterion)
    given["logits"].requires_grad_()
    for target in (given["target"], torch.eye(CLASSES)[given["target"]]):
        with Waits():
            criterion(**given | {"target": target}).backward()
    assert given["logits"].grad.isfinite().all()


def masked(criterion, fill, *, soft, seed=0):
    """A batch in which some classes of each row, never that of the target, have the logit ``fill``."""
    given = inputs(criterion, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    mask = torch.rand(8, CLASSES, generator=generator) < 0.4
    mask[torch.arange(8), given["target"]] = False
    given["logits"] = given["logits"].masked_fill(mask, fill)
    if "mixed" in given:
        given["mixed"] = given["mixed"].masked_fill(mask[:, None], fill)
    if soft:
        shares = torch.rand(8, CLASSES, generator=generator).masked_fill(mask, 0)
        given["target"] = shares / shares.sum(1, keepdim=True)
    return given, mask


def test_masked_classes(name):
    """A logit of -inf is the limit of ever lower ones, or the loss says that it has no such limit."""
    for soft, weight in ((False, None), (True, [0.5, 1.0, 2.0, 1.0, 3.0])):
        check_masked(name, soft, weight)


def check_masked(name, soft, weight):
    criterion, limit = trained(name, weight=weight), trained(name, weight=weight)
    given, mask = masked(criterion, float("-inf"), soft=soft)
    if not criterion.masked_classes:
        before = state(criterion)
        with pytest.raises(InputError, match="logits must be finite") as caught:
            criterion(**given)
        assert caught.value.owner == type(criterion).__name__
        assert_same_state(criterion, before)
        return
    value, gradient, own, after = run(criterion, given)
    assert (gradient[mask] == 0).all()
    assert_same_run((value, gradient, own, after), run(limit, masked(limit, -1e4, soft=soft)[0]))


@pytest.mark.parametrize("name", ["everything", "ce"])
def test_a_target_that_is_masked(name):
    criterion = trained(name)
    before = state(criterion)
    for soft in (False, True):
        given = inputs(criterion)
        if soft:
            given["target"] = torch.full((8, CLASSES), 1 / CLASSES)
        given["logits"][3, int(given["target"].argmax() if soft else given["target"][3])] = float(
            "-inf"
        )
        with pytest.raises(InputError, match="-inf"):
            criterion(**given)
    assert_same_state(criterion, before)
    given = inputs(criterion)
    given["logits"][2], given["target"][2] = float("-inf"), -100
    assert torch.isfinite(criterion(**given))  # nothing of this row counts


# Targets and shapes --------------------------------------------------------------------------------------------------


def test_one_hot_equals_hard(name):
    dense = (3,) if name in DENSE else ()
    hard, soft = build(name), build(name)
    given = inputs(hard, dense=dense)
    one_hot = torch.nn.functional.one_hot(given["target"], CLASSES).float().movedim(-1, 1)
    assert_same_run(run(hard, given), run(soft, given | {"target": one_hot}))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32])
def test_other_integer_targets(dtype):
    criterion = build("everything")
    given = inputs(criterion)
    expected = run(build("everything"), given)
    assert_same_run(
        run(criterion, given | {"target": given["target"].to(dtype)}), expected, **EXACT
    )


@FLAT
def test_dense_equals_flattened(name):
    weight = (0.5, 1.0, 2.0, 1.0, 3.0)
    dense_loss, flat_loss = build(name, weight=weight), build(name, weight=weight)
    given = inputs(dense_loss, 4, dense=(2, 3))
    value, gradient, own, after = run(dense_loss, given)
    expected = run(flat_loss, flattened(given))
    assert_same_run((value, gradient.movedim(1, -1).reshape(-1, CLASSES), own, after), expected)


@pytest.mark.parametrize("name", sorted(set(LOSSES) - set(DENSE)))
def test_a_loss_of_one_prediction_a_sample_refuses_dense_inputs(name):
    criterion = build(name)
    before = state(criterion)
    with pytest.raises(InputError, match=r"logits must be \(N, C\)"):
        criterion(**inputs(criterion, dense=(3,), per_position=False))
    assert_same_state(criterion, before)


@pytest.mark.parametrize(
    "name", [n for n in DENSE if LOSSES[n].value.needs & {"features", "index"}]
)
def test_dense_inputs_with_a_need_per_image(name):
    criterion = build(name, reduction="none")
    given = inputs(criterion, 4, dense=(2, 3), per_position=False)
    value, gradient, *_ = run(criterion, given)
    assert value.shape == (4, 2, 3)
    assert torch.isfinite(gradient).all()
    # An image whose positions are all equal must be treated like one sample.
    same = inputs(criterion, 4)
    wide = same | {
        "logits": same["logits"][:, :, None].expand(-1, -1, 3),
        "target": same["target"][:, None].expand(-1, 3),
    }
    first, second = build(name), build(name)
    for _ in range(2):
        value, gradient, own, after = run(first, wide)
        assert_same_run((value, gradient.sum(2), own, after), run(second, same))


def test_inputs_of_any_layout_stay_as_they_are(name):
    criterion = build(name, ignore_index=1)
    given = inputs(criterion)
    before = copy.deepcopy(given)
    run(criterion, given)
    torch.testing.assert_close(given, before, **EXACT)
    criterion = build(name)
    expected = run(build(name), given)
    given["logits"] = given["logits"].t().contiguous().t()
    given["target"] = given["target"].repeat_interleave(2)[::2]
    assert_same_run(run(criterion, given), expected)


# State ---------------------------------------------------------------------------------------------------------------


def trained(name, **options):
    criterion = build(name, **options)
    for seed in range(2):
        run(criterion, inputs(criterion, seed=seed))
    return criterion


def through_pickle(criterion):
    return pickle.loads(pickle.dumps(criterion))


def through_state_dict(criterion):
    fresh = build(next(n for n in LOSSES if LOSSES[n].value is type(criterion)), seed=99)
    file = io.BytesIO()
    torch.save(criterion.state_dict(), file)
    file.seek(0)
    fresh.load_state_dict(torch.load(file, weights_only=True))
    return fresh


def test_copies_continue_equally_and_independently(name):
    original = trained(name)
    twins = [through_pickle(original), through_state_dict(original)]
    given = inputs(original, seed=5)
    for twin in twins:
        assert_same_state(twin, state(original))
    ours = run(original, given)
    for twin in twins:
        assert_same_run(ours, run(twin, given), **EXACT)
    before = [state(twin) for twin in twins]
    run(original, given)
    for twin, old in zip(twins, before, strict=True):
        assert_same_state(twin, old)


def test_eval_changes_nothing(name):
    criterion = trained(name).eval()
    before = state(criterion)
    ours = run(criterion, inputs(criterion, seed=3))
    assert_same_state(criterion, before)
    assert_same_run(run(criterion, inputs(criterion, seed=3)), ours, **EXACT)


def test_no_update_without_gradients(name):
    criterion = trained(name)
    before = state(criterion)
    with torch.inference_mode():
        value = criterion(**inputs(criterion, seed=3))
    assert torch.isfinite(value)
    assert_same_state(criterion, before)
    run(criterion, inputs(criterion, seed=4))  # training still works


def validation(seed, classes=CLASSES, samples=40):
    generator = torch.Generator().manual_seed(seed)
    with torch.inference_mode():  # as fedlas.predict uses it
        logits = 4 * torch.randn(samples, classes, generator=generator)
    return Predictions(logits, torch.randint(classes, (samples,), generator=generator))


def settings(criterion):
    """All plain attributes of the loss and its parts."""
    return [
        {k: v for k, v in vars(m).items() if isinstance(v, int | float | str | tuple)}
        for m in criterion.modules()
    ]


@LEARNERS
def test_the_state_learned_from_validation_is_in_buffers(name):
    criterion = trained(name)
    twin, before = copy.deepcopy(criterion), copy.deepcopy(criterion)
    held, plain = dict(criterion.named_buffers()), settings(criterion)
    for seed in range(12):
        predictions = validation(seed)
        criterion.update_from_validation(predictions)
        torch.testing.assert_close(
            predictions.tensors().logits, validation(seed).tensors().logits, **EXACT
        )
        twin.update_from_validation(predictions)
        # changed in place
        assert all(buffer is held[key] for key, buffer in criterion.named_buffers())
        assert all(torch.isfinite(buffer).all() for buffer in held.values())
        assert_same_state(twin, state(criterion))
    assert settings(criterion) == plain
    for parameter, old in zip(criterion.parameters(), before.parameters(), strict=True):
        torch.testing.assert_close(parameter, old, **EXACT)
    restored = through_state_dict(criterion)
    assert_same_state(restored, state(criterion))
    for one in (criterion, restored):
        one.train()
        one.update_from_validation(validation(99))
    ours = run(criterion, inputs(criterion, seed=7))
    for tensor in (*ours[:2], *ours[2].values(), *ours[3].values()):
        assert torch.isfinite(tensor).all()
    assert_same_run(ours, run(restored, inputs(criterion, seed=7)), **EXACT)


@LEARNERS
def test_validation_of_other_classes(name):
    criterion = trained(name)
    before = state(criterion)
    try:
        criterion.update_from_validation(validation(0, classes=CLASSES + 2))
    except InputError as error:  # a loss may accept any number of classes
        assert "num_classes" in str(error)  # noqa: PT017
        assert_same_state(criterion, before)
    run(criterion, inputs(criterion))


def test_shapes_on_the_meta_device(name):
    """Tools that count operations or memory use it: no value may be read, as on an accelerator."""
    dense = (2, 3) if name in DENSE else ()
    criterion = build(name, reduction="none").to("meta")
    given = {
        key: tensor.to("meta")
        for key, tensor in inputs(criterion, dense=dense, per_position=False).items()
    }
    value = criterion(**given | {"logits": given["logits"].requires_grad_()})
    assert value.shape == (8, *dense)
    value.sum().backward()
    assert given["logits"].grad.shape == (8, CLASSES, *dense)


# Compilation ---------------------------------------------------------------------------------------------------------


@pytest.mark.system
@pytest.mark.parametrize(
    ("name", "kind"),
    [(n, "ignored") for n in LOSSES] + [(n, "dense") for n in ("everything", "fedlas")],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # from PyTorch's tracing
def test_compiled_equals_eager(name, kind):
    torch._dynamo.reset()
    # Where nothing is written to, capturing the graph is all that can fail: the rest is PyTorch's, in tests/long too.
    backend = (
        "aot_eager_decomp_partition" if kind == "dense" or list(build(name).buffers()) else "eager"
    )
    # A memory as small as the batch: backward may then read it again, and must not find this batch's rows in it.
    eager, compiled = build(name, samples=8), build(name, samples=8)
    function = torch.compile(compiled, fullgraph=True, backend=backend)
    for seed in range(2):
        given = inputs(eager, dense=(3,) if kind == "dense" else (), per_position=False, seed=seed)
        if kind != "hard":
            given["target"].view(-1)[::4] = -100
        ours = run(function, given)
        ours = (
            *ours[:2],
            {k.removeprefix("_orig_mod."): v for k, v in ours[2].items()},
            state(compiled),
        )
        assert_same_run(ours, run(eager, given))


# Function transforms --------------------------------------------------------------------------------------------------


def test_torch_func_gives_the_gradients_of_autograd(name):
    criterion = build(name).eval()  # a transform cannot write to buffers, and eval() does not
    given = inputs(criterion)
    logits = given.pop("logits")
    leaf = logits.clone().requires_grad_()
    criterion(leaf, **given).backward()

    def value(logits):
        return criterion(logits, **given)

    torch.testing.assert_close(torch.func.grad(value)(logits), leaf.grad, **CLOSE)
    torch.testing.assert_close(torch.func.jacrev(value)(logits), leaf.grad, **CLOSE)
    stacked = torch.stack([logits, logits + 0.5 * logits.roll(1, 1)])
    each = torch.stack([torch.func.grad(value)(one) for one in stacked])
    torch.testing.assert_close(torch.func.vmap(torch.func.grad(value))(stacked), each, **CLOSE)


def test_a_transform_of_a_loss_in_training_equals_the_loss_or_names_eval(name):
    criterion, plain = build(name), build(name)
    given = inputs(criterion)
    logits = given.pop("logits")
    before = state(criterion)
    leaf = logits.clone().requires_grad_()
    plain(leaf, **given).backward()

    def slopes():
        return torch.func.grad(lambda logits: criterion(logits, **given))(logits)

    if all(torch.equal(value, before[key]) for key, value in plain.state_dict().items()):
        torch.testing.assert_close(slopes(), leaf.grad, **CLOSE)
    else:
        with pytest.raises(InputError, match=r"eval\(\)"):
            slopes()
    assert_same_state(criterion, before)


# Nonsense ------------------------------------------------------------------------------------------------------------


@ONCE
def test_missing_need_is_named(name):
    criterion = build(name)
    before = state(criterion)
    for need in sorted(criterion.needs):
        given = inputs(criterion)
        given.pop(need)
        with pytest.raises(TypeError, match=need):
            criterion(**given)
    assert_same_state(criterion, before)


@pytest.mark.parametrize("name", ["ce"])
def test_needless_extras_are_accepted(name):
    criterion = build(name)
    given = inputs(criterion)
    expected = run(build(name), given)
    extra = {
        "features": torch.rand(8, FEATURES),
        "index": torch.arange(8),
        "mixed": torch.rand(8, 2, CLASSES),
        "mixed_share": torch.rand(8, 2),
        "head_weight": torch.rand(CLASSES, FEATURES),
    } | given
    assert_same_run(run(criterion, extra), expected, **EXACT)


NONSENSE = {
    "logits of one dimension": {"logits": torch.randn(8)},
    "integer logits": {"logits": torch.ones(8, CLASSES, dtype=torch.int64)},
    "complex logits": {"logits": torch.ones(8, CLASSES, dtype=torch.complex64)},
    "logits in a list": {"logits": [[0.0] * CLASSES] * 8},
    "no logits": {"logits": None},
    "no classes": {"logits": torch.randn(8, 0)},
    "target in a list": {"target": [0] * 8},
    "no target": {"target": None},
    "float target": {"target": torch.zeros(8)},
    "bool target": {"target": torch.zeros(8, dtype=torch.bool)},
    "integer one-hot": {"target": torch.eye(8, CLASSES, dtype=torch.int64)},
    "bool one-hot": {"target": torch.eye(8, CLASSES, dtype=torch.bool)},
    "column target": {"target": torch.zeros(8, 1, dtype=torch.int64)},
    "scalar target": {"target": torch.tensor(0)},
    "short target": {"target": torch.zeros(7, dtype=torch.int64)},
    "short soft target": {"target": torch.rand(7, CLASSES)},
    "soft target of other classes": {"target": torch.rand(8, CLASSES + 1)},
    "target too large": {"target": torch.tensor([0, 1, 2, CLASSES, 0, 1, 2, 3])},
    "negative target": {"target": torch.tensor([0, 1, 2, -1, 0, 1, 2, 3])},
    "bad target next to an ignored one": {"target": torch.tensor([0, -100, 2, CLASSES, 0, 1, 2, 3])},
    "soft target above 1": {"target": torch.eye(8, CLASSES) * 2},
    "soft target below 0": {"target": -torch.eye(8, CLASSES)},
    "soft target of NaN": {"target": torch.full((8, CLASSES), float("nan"))},
    "sparse logits": {"logits": torch.eye(8, CLASSES).to_sparse()},
    "sparse target": {"target": torch.arange(8).to_sparse()},
    "sparse soft target": {"target": torch.eye(8, CLASSES).to_sparse()},
    "target elsewhere": {"target": torch.zeros(8, dtype=torch.int64, device="meta")},
    "soft target elsewhere": {"target": torch.eye(8, CLASSES, device="meta")},
    "one row, its target too large": {"logits": torch.randn(1, CLASSES), "target": torch.tensor([CLASSES])},
    "one row of more classes": {"logits": torch.randn(1, CLASSES + 2), "target": torch.tensor([CLASSES + 2])},
    "all ignored": {"target": torch.full((8,), -100)},
    "empty": {"logits": torch.randn(0, CLASSES), "target": torch.zeros(0, dtype=torch.int64)},
    "empty soft": {"logits": torch.randn(0, CLASSES), "target": torch.rand(0, CLASSES)},
}  # fmt: skip


def assert_refused(criterion, kind):
    before = state(criterion)
    given = inputs(criterion) | NONSENSE[kind]
    if kind.startswith(("empty", "one row")):
        given |= rows({key: given[key] for key in criterion.needs}, slice(len(given["logits"])))
    with pytest.raises(InputError) as caught:
        criterion(**given)
    owner = caught.value.owner
    expected, got, fix = caught.value.parts
    assert owner == type(criterion).__name__
    assert expected
    assert got
    assert fix.endswith(".")
    assert_same_state(criterion, before)


@pytest.mark.parametrize("kind", NONSENSE)
def test_nonsense_is_refused_and_changes_nothing(kind):
    criterion = Everything()
    for _ in range(2):  # fresh, and after a batch
        assert_refused(criterion, kind)
        run(criterion, inputs(criterion))
    assert criterion.seen == 2


BAD_NEEDS = {
    "features": {
        "unpooled": torch.rand(8, FEATURES, 2, 2),
        "short": torch.rand(7, FEATURES),
        "flat": torch.rand(8),
        "integer": torch.ones(8, FEATURES, dtype=torch.int64),
        "list": [[1.0] * FEATURES] * 8,
        "of no columns": torch.rand(8, 0),
        "sparse": torch.rand(8, FEATURES).to_sparse(),
        "elsewhere": torch.rand(8, FEATURES, device="meta"),
    },
    "index": {
        "short": torch.arange(7),
        "float": torch.arange(8.0),
        "column": torch.arange(8)[:, None],
        "elsewhere": torch.arange(8, device="meta"),
        "list": list(range(8)),
    },
    "mixed": {
        "short": torch.rand(7, 2, CLASSES),
        "of other classes": torch.rand(8, 2, CLASSES + 1),
        "one version, its axis dropped": torch.rand(8, CLASSES),
        "none": torch.rand(8, 0, CLASSES),
        "elsewhere": torch.rand(8, 2, CLASSES, device="meta"),
        "integer": torch.ones(8, 2, CLASSES, dtype=torch.int64),
        "list": [[[0.0] * CLASSES]] * 8,
    },
    "mixed_share": {
        "short": torch.rand(7, 2),
        "of other versions": torch.rand(8, 3),
        "flat": torch.rand(8),
        "integer": torch.ones(8, 2, dtype=torch.int64),
        "elsewhere": torch.rand(8, 2, device="meta"),
        "list": [[1.0, 1.0]] * 8,
    },
    "head_weight": {
        "of other classes": torch.rand(CLASSES + 1, FEATURES),
        "flat": torch.rand(CLASSES),
        "elsewhere": torch.rand(CLASSES, FEATURES, device="meta"),
        "integer": torch.ones(CLASSES, FEATURES, dtype=torch.int64),
        "list": [[0.0] * FEATURES] * CLASSES,
    },
}


def assert_need_refused(criterion, need, kind):
    before = state(criterion)
    with pytest.raises(InputError, match=f"{type(criterion).__name__}: {need} must be"):
        criterion(**inputs(criterion) | {need: BAD_NEEDS[need][kind]})
    assert_same_state(criterion, before)


@pytest.mark.parametrize(
    ("need", "kind"), [(need, kind) for need, kinds in BAD_NEEDS.items() for kind in kinds]
)
def test_bad_needs_are_refused_and_change_nothing(need, kind):
    criterion = Everything()
    run(criterion, inputs(criterion))
    assert_need_refused(criterion, need, kind)


def test_wrong_number_of_columns(name):
    """A loss built for C classes refuses other logits; a loss for any number of classes accepts them."""
    criterion = trained(name)
    before = state(criterion)
    given = inputs(criterion, classes=CLASSES + 2)
    given["target"] = given["target"] % CLASSES
    if "num_classes" in inspect.signature(type(criterion)).parameters:
        with pytest.raises(
            InputError, match=rf"must have {CLASSES} classes .*got shape \(8, {CLASSES + 2}\)"
        ):
            criterion(**given)
        assert_same_state(criterion, before)
    else:
        assert torch.isfinite(criterion(**given))


@ONCE
def test_weight_of_other_classes(name):
    criterion = build(name, weight=[1.0] * (CLASSES + 1))
    before = state(criterion)
    with pytest.raises(InputError, match="weight"):
        criterion(**inputs(criterion))
    assert_same_state(criterion, before)


@pytest.mark.parametrize("name", [n for n in LOSSES if "index" in LOSSES[n].value.needs])
def test_a_sample_to_evaluate_needs_no_place_in_the_training_set(name):
    criterion, given = trained(name).eval(), inputs(build(name))
    del given["index"]
    value = criterion(**given)
    assert value.item() == pytest.approx(
        F.cross_entropy(given["logits"], given["target"]).item(), abs=1e-5
    )
    with pytest.raises(TypeError, match=r"index=index\)\."):
        criterion.train()(**given)


def test_single_sample_after_training_moves_no_statistics(name):
    criterion = trained(name)
    before = state(criterion)
    given = inputs(criterion, samples=1)
    value, gradient, *_ = run(criterion, given)
    assert torch.isfinite(value)
    assert torch.isfinite(gradient).all()
    if "index" not in criterion.needs:
        assert_same_state(criterion, before)


@pytest.mark.parametrize(
    "options",
    [
        {"reduction": "average"},
        {"reduction": None},
        {"ignore_index": 1.5},
        {"ignore_index": None},
        {"ignore_index": True},
        {"weight": [[1.0, 2.0]]},
        {"weight": 1.0},
        {"weight": [1.0, -1.0]},
        {"weight": [0.0, 0.0]},
        {"weight": [1.0, float("nan")]},
        {"weight": [1.0, float("inf")]},
        {"weight": "balanced"},
        {"weight": ["a", "b"]},
        {"weight": [[1.0], [1.0, 2.0]]},
    ],
    ids=str,
)
def test_shared_constructor_arguments(options):
    with pytest.raises(InputError, match=next(iter(options))) as caught:
        Everything(**options)
    assert caught.value.owner == "Everything"


def test_options_out_of_range(name):
    """The shared options are passed on; every number refuses text, NaN, infinity, a bool and a list by its name."""
    for options in ({"reduction": "average"}, {"ignore_index": 1.5}, {"weight": 1.0}):
        with pytest.raises(InputError, match=next(iter(options))) as caught:
            build(name, **options)
        assert caught.value.owner == LOSSES[name].value.__name__
    parameters = inspect.signature(LOSSES[name].value).parameters.values()
    shared = {"ignore_index"}
    numeric = [
        p.name for p in parameters if isinstance(p.default, int | float) and p.name not in shared
    ]
    signed = LOSSES[name].metadata.get("signed", ())
    assert set(signed) <= set(numeric)
    for option in numeric:
        for bad in (
            "0.1",
            float("nan"),
            -float("inf"),
            True,
            [0.1],
            None,
            *([] if option in signed else [-1.0]),
        ):
            with pytest.raises(InputError, match=option.removesuffix("1").removesuffix("2")):
                build(name, **{option: bad})


@pytest.mark.parametrize("name", ["ce", "fedlas"])
def test_misspelled_option(name):
    with pytest.raises(InputError, match="Did you mean 'reduction'"):
        build(name, reductoin="sum")
