"""Any call of a public function ends in one of two ways: a right answer, or a three-part error with nothing changed.

Registries give the names, signatures the arguments. A call is made from its number alone, so a number that a failure
names repeats it: ``PYTHONPATH=tests/property python -c "import test_any_call as t; t.check(4711)"``.
"""

import copy
import dataclasses
import inspect
import math
import random
import reprlib
import warnings
import zlib
from collections.abc import Mapping

import numpy as np
import pytest
import sklearn.isotonic
import sklearn.neighbors  # noqa: F401  # these draw random numbers when they are imported
import torch
from torch import nn

from fedlas import Predictions, binary, calibrators, losses, metrics, stats
from fedlas.calibrators import CALIBRATORS
from fedlas.errors import CalibrationWarning, InputError
from fedlas.losses import LOSSES
from fedlas.metrics import METRICS
from fedlas.stats import Difference
from fedlas.zoo import ood
from fedlas.zoo.ood import OOD_SCORES

# A reason for each known failure, by the name of the call and a part of what it says; empty is the aim.
_STATS = "values that are no list of numbers, in the statistics; for their owner"
KNOWN = {
    ("fedlas.stats.", "TypeError"): _STATS,
    ("fedlas.stats.", "could not convert string"): _STATS,
    ("fedlas.stats.compare_to_best", "AttributeError"): _STATS,
    ("fedlas.stats.compare_to_best", "intermediate overflow"): "means of 1e308; for the same",
    ("odin", "mat1 and mat2"): "the user's own model refuses the images; its error is passed on",
}

CLASSES, WIDTH = 3, 4


# Arguments that fit ---------------------------------------------------------------------------------------------------


class Draw:
    """Numbers that depend on a seed alone, and arguments that fit together."""

    def __init__(self, seed):
        self.pick = random.Random(seed)
        self.generator = torch.Generator().manual_seed(seed)
        self.samples = self.pick.choice([1, 2, 5, 12, 30])
        self.scale = self.pick.choice([0.0, 0.3, 3.0, 3.0, 1e4])

    def normal(self, *shape):
        return torch.randn(shape, generator=self.generator)

    def uniform(self, *shape):
        return torch.rand(shape, generator=self.generator)

    def classes(self, *shape, most=CLASSES):
        return torch.randint(most, shape, generator=self.generator)

    def predictions(self, samples=None, classes=CLASSES, *, features=True):
        samples = samples or self.samples
        return Predictions(
            self.scale * self.normal(samples, classes),
            self.classes(samples, most=classes),
            features=self.normal(samples, WIDTH) if features else None,
            label_probs=self.normal(samples, classes).softmax(1),
        )

    def argument(self, name, default):
        """An argument of that name that fits the others."""
        make = FITTING.get(name)
        return default if make is None else make(self)


def model(draw):
    linear = nn.Linear(12, CLASSES)
    with torch.no_grad():
        for parameter in linear.parameters():
            parameter.copy_(draw.normal(*parameter.shape))
    return nn.Sequential(nn.Flatten(), linear).eval()


def head(draw):
    linear = nn.Linear(WIDTH, CLASSES)
    with torch.no_grad():
        for parameter in linear.parameters():
            parameter.copy_(draw.normal(*parameter.shape))
    return linear


FITTING = {
    "logits": lambda d: d.scale * d.normal(d.samples, CLASSES),
    "logit": lambda d: d.scale * d.normal(d.samples),
    "target": lambda d: d.classes(d.samples),
    "features": lambda d: d.normal(d.samples, WIDTH),
    "index": lambda d: torch.arange(d.samples),
    "mixed": lambda d: d.normal(d.samples, 2, CLASSES),
    "mixed_share": lambda d: 0.5 + d.uniform(d.samples, 2) / 2,
    "head_weight": lambda d: d.normal(CLASSES, WIDTH),
    "predictions": lambda d: d.predictions(),
    "a": lambda d: d.predictions(d.samples),
    "b": lambda d: d.predictions(d.samples),
    "val": lambda d: d.predictions(40),
    "train": lambda d: d.predictions(40),
    "outputs": lambda d: ood.Outputs(d.normal(d.samples, CLASSES), d.normal(d.samples, WIDTH)),
    "reference": lambda d: ood.Reference(d.predictions(40), d.predictions(40), head(d)),
    "batch": lambda d: d.normal(d.samples, WIDTH),
    "held_out": lambda d: d.normal(30, WIDTH),
    "trees": lambda _: 3,
    "head": head,
    "model": model,
    "inputs": lambda d: d.uniform(d.samples, 3, 2, 2),
    "std": lambda _: [0.5, 0.5, 0.5],
    "images": lambda d: d.uniform(d.samples, 3, 4, 4),
    "others": lambda d: d.uniform(2, 3, 4, 4),
    "channels": lambda _: 3,
    "size": lambda _: 4,
    "groups": lambda d: d.classes(d.samples).tolist(),
    "id_score": lambda d: d.normal(d.samples).tolist(),
    "ood_score": lambda d: d.normal(d.samples).numpy(),
    "id_correct": lambda d: (d.normal(d.samples) > 0).numpy(),
    "values": lambda d: {name: d.normal(4).tolist() for name in ("x", "y", "z")},
    "p_values": lambda d: d.uniform(4).tolist(),
    "difference": lambda d: 0.1 + float(d.uniform(1)),
    "higher_is_better": lambda _: True,
    "k": lambda _: 1,
    "dimension": lambda _: 2,
    "num_classes": lambda _: CLASSES,
    "num_labels": lambda _: CLASSES,
    "num_samples": lambda _: 64,
    "num_partitions": lambda _: 2,
    "replicates": lambda _: 40,
    "criterion": lambda _: losses.LabelSmoothing(),
    "name": lambda d: d.pick.choice(list(OOD_SCORES)),
    "alpha": lambda d: d.pick.choice([0.0, 0.1, 0.5]),
    "weight": lambda _: None,
    "owner": lambda _: "anybody",
}
NUMBERS = {
    "a": lambda d: d.normal(5).tolist(),
    "b": lambda d: d.normal(5).tolist(),
    "spread": lambda d: 0.1 + float(d.uniform(1)),
}
"""Of functions that compare lists of numbers rather than predictions."""


# Arguments that do not fit -------------------------------------------------------------------------------------------


ODD_INTS = [-1, 0, 1, 2, 7, True, None, "3", 3.0, 2.5, math.nan, math.inf, np.int64(3), [3], 1j]
ODD_FLOATS = [
    -1,
    0,
    1,
    0.5,
    2.0,
    -0.5,
    math.nan,
    math.inf,
    -math.inf,
    1e308,
    1e-308,
    True,
    None,
    "0.1",
    [0.1],
    10**400,
    1j,
]
ODD_TEXTS = ["", "nonsense", None, 3, ["ece"], "ece", "CE", "\x1b[31m", b"ece"]
GARBAGE = [
    None,
    "text",
    3,
    1.5,
    [],
    {},
    [[0.0, 1.0]],
    object,
    torch.zeros(()),
    np.zeros(3),
    b"x",
    [None, 1],
]


def odd_tensor(draw, value):
    """A tensor like ``value`` in some respects."""
    floating, pick = value.is_floating_point(), draw.pick
    filled = value.clone()
    if value.numel():
        place = pick.randrange(value.numel())
        odd = (
            [math.nan, math.inf, -math.inf, 1e30, -1e35, 1e-40, 0.0]
            if floating
            else [-1, -100, CLASSES, 2**40, 0]
        )
        filled.view(-1)[place] = pick.choice(odd)
    return pick.choice([
        lambda: filled,
        lambda: filled,
        lambda: value.double() if floating else value.int(),
        lambda: value.half() if floating else value.to(torch.uint8),
        lambda: value.bfloat16(),
        lambda: value.to(torch.float8_e4m3fn),
        lambda: value.double() * pick.choice([1e10, 1e39, 1e300]),
        lambda: value.long(),
        lambda: value.bool(),
        lambda: value.to(torch.complex64),
        lambda: value[:0],
        lambda: value[..., :0],
        lambda: value[:1],
        lambda: value[..., :1],
        lambda: value[1:],
        lambda: value.unsqueeze(0),
        lambda: value.unsqueeze(-1),
        lambda: value.flatten(),
        lambda: value.sum(),
        lambda: value.movedim(0, -1),
        lambda: value.movedim(0, -1).contiguous().movedim(-1, 0),
        lambda: value[:1].expand(value.shape),
        lambda: value.flip(0),
        lambda: value.to_sparse(),
        lambda: value.to("meta"),
        lambda: value.clone().requires_grad_() if floating else value,
        lambda: value.numpy(),
        lambda: value.tolist(),
        lambda: torch.full_like(value, pick.choice([0, 1, CLASSES])),
        lambda: nn.functional.one_hot(value.clamp(0, CLASSES - 1).long(), CLASSES).float(),
        lambda: pick.choice(GARBAGE),
    ])()  # fmt: skip


def odd_predictions(draw, value):
    """Other predictions, or none."""
    pick, samples = draw.pick, value.num_samples
    logits, target, features = value.logits, value.target, value.features
    return pick.choice([
        lambda: draw.predictions(1),
        lambda: draw.predictions(2),
        lambda: draw.predictions(samples, classes=1),
        lambda: draw.predictions(samples, classes=2),
        lambda: draw.predictions(samples, classes=7),
        lambda: draw.predictions(samples, features=False),
        lambda: Predictions(np.zeros_like(logits), target, features),
        lambda: Predictions(np.float64(logits), np.zeros_like(target), features),
        lambda: Predictions(logits, logits.argmax(1), features),
        lambda: Predictions(logits, logits.argmin(1), features),
        lambda: Predictions(np.sign(logits) * 1e30, target, features),
        lambda: Predictions(np.float64(logits) * 1e-30, target, features),
        lambda: Predictions(logits, target, np.zeros_like(features)),
        lambda: Predictions(logits, target, np.sign(features) * 1e30),
        lambda: Predictions(logits, target, np.int64(features)),
        lambda: value.tensors().logits,
        lambda: ood.Outputs.from_predictions(value),
        lambda: pick.choice(GARBAGE),
    ])()  # fmt: skip


def odd(draw, value):
    """Something else in the place of ``value``."""
    pick = draw.pick
    if isinstance(value, torch.Tensor):
        return odd_tensor(draw, value)
    if isinstance(value, Predictions):
        return odd_predictions(draw, value)
    if isinstance(value, bool):
        return pick.choice([not value, None, "yes", 2])
    if isinstance(value, int):
        return pick.choice(ODD_INTS)
    if isinstance(value, float):
        return pick.choice(ODD_FLOATS)
    if isinstance(value, str):
        return pick.choice(ODD_TEXTS)
    if isinstance(value, np.ndarray):
        return pick.choice(
            [
                value[:0],
                value[:1],
                value * np.nan,
                value[:, None],
                value.tolist(),
                value > 0,
                None,
                "text",
            ]
        )
    if isinstance(value, list) and value:
        return pick.choice(
            [
                [],
                value[:1],
                [*value[1:], math.nan],
                [*value[1:], 1e308],
                [*value[1:], "x"],
                [value],
                *GARBAGE,
            ]
        )
    if isinstance(value, Mapping):
        return pick.choice(
            [
                {},
                {"x": []},
                {key: each[:1] for key, each in value.items()},
                {"x": [1e308] * 3},
                *GARBAGE,
            ]
        )
    return pick.choice(GARBAGE)


# Calls ----------------------------------------------------------------------------------------------------------------


def call_of_a_loss(name):
    """Forward and backward of a criterion that has seen a batch or not."""

    def make(draw):
        torch.manual_seed(draw.pick.randrange(10))
        options = {"reduction": draw.pick.choice(["mean", "sum", "none"])}
        if draw.pick.random() < 0.2:
            options["weight"] = draw.pick.choice(
                [[0.0, 0.0, 1.0], [1.0, 2.0, 3.0], [1.0, 0.0, 0.0]]
            )
        criterion = LOSSES.build(name, options, num_classes=CLASSES, num_samples=64, num_epochs=100)
        names = ["logits", "target", *sorted(criterion.needs)]
        if draw.pick.random() < 0.5:
            draw.samples = max(2, draw.samples)
            criterion(**{key: draw.argument(key, None) for key in names})

        def call(**given):
            logits = given["logits"]
            if isinstance(logits, torch.Tensor) and logits.is_floating_point():
                given["logits"] = logits = logits.detach().requires_grad_()
            value = criterion(**given)
            slopes = []
            if value.requires_grad and not value.is_meta:
                slopes = torch.autograd.grad(
                    value.sum(),
                    [logits, *criterion.parameters()],
                    allow_unused=True,
                    materialize_grads=True,
                )
            return value, list(slopes)

        return call, {key: draw.argument(key, None) for key in names}, criterion

    return make


def call_of_a_method(name, method, **arguments):
    """Another method of a criterion."""

    def make(draw):
        torch.manual_seed(draw.pick.randrange(10))
        criterion = LOSSES.build(name, num_classes=CLASSES, num_samples=64, num_epochs=100)
        return (
            getattr(criterion, method),
            {key: make(draw) for key, make in arguments.items()},
            criterion,
        )

    return make


def call_of_a_calibrator(name):
    """Options, fit and transform."""

    def make(draw):
        options = options_of(CALIBRATORS[name].value, draw)
        given = {"val": draw.predictions(40), "test": draw.predictions()}
        if name == "feature-clipping":
            options["head"] = head(draw)

        def call(val, test, **options):
            return CALIBRATORS.build(name, options).fit(val).transform(test)

        return call, {**given, **options}, None

    return make


def call_of_a_function(function, *, numbers=False):
    def make(draw):
        arguments = options_of(function, draw)
        if numbers:
            arguments |= {key: NUMBERS[key](draw) for key in arguments if key in NUMBERS}
        return function, arguments, None

    return make


def call_of_streaming(build):
    def make(draw):
        streaming = build()
        given = {"logits": draw.argument("logits", None), "target": draw.argument("target", None)}
        if "groups" in inspect.signature(streaming.update).parameters:
            given["groups"] = draw.argument("groups", None)

        def call(**given):
            streaming.update(**given)
            return streaming.compute()

        return call, given, streaming

    return make


def options_of(function, draw):
    parameters = inspect.signature(function).parameters.values()
    return {
        p.name: draw.argument(p.name, None if p.default is p.empty else p.default)
        for p in parameters
        if p.kind != p.VAR_KEYWORD
    }


def all_calls():
    """Every call by name."""
    calls = {f"loss {name}": call_of_a_loss(name) for name in LOSSES}
    for name in LOSSES:
        for method, arguments in METHODS.items():
            if callable(getattr(LOSSES[name].value, method, None)):
                calls[f"{method} of {name}"] = call_of_a_method(name, method, **arguments)
    calls |= {f"calibrator {name}": call_of_a_calibrator(name) for name in CALIBRATORS}
    events = [entry for entry in METRICS.entries() if entry.subject == "event"]
    registered = [*METRICS.entries(), *OOD_SCORES.entries()]
    calls |= {
        entry.name: call_of_a_function(entry.value) for entry in registered if entry not in events
    }
    calls |= {
        entry.name: call_of_a_function(getattr(binary, entry.name.removeprefix("event_")))
        for entry in events
    }
    seen = {entry.value for entry in registered}
    calls["Predictions"] = call_of_a_function(Predictions)
    for room in (losses, metrics, stats, calibrators, ood):
        for name in room.__all__:
            value = getattr(room, name)
            if (
                inspect.isfunction(value)
                and value not in seen
                and "    Raises:" in (value.__doc__ or "")
            ):
                calls[f"{room.__name__}.{name}"] = call_of_a_function(
                    value, numbers=name in OF_NUMBERS
                )
            elif (
                inspect.isclass(value)
                and "    Raises:" in (value.__doc__ or "")
                and not inspect.isabstract(value)
            ):
                calls[f"{room.__name__}.{name}"] = call_of_a_function(value)
    calls["StreamingMetrics.update"] = call_of_streaming(lambda: metrics.StreamingMetrics(CLASSES))
    calls["StreamingClasses.update"] = call_of_streaming(lambda: metrics.StreamingClasses(CLASSES))
    calls["StreamingGroups.update"] = call_of_streaming(
        lambda: metrics.StreamingGroups(range(CLASSES))
    )
    return calls


METHODS = {
    "mix": {"inputs": lambda d: d.uniform(d.samples, 3, 4, 4), "target": FITTING["target"]},
    "smoothing": {"logits": FITTING["logits"], "features": FITTING["features"]},
    "update_from_validation": {"predictions": FITTING["predictions"]},
}
OF_NUMBERS = {
    "effect_size",
    "mean_interval",
    "paired_t_test",
    "seeds_needed",
    "sign_test",
    "wilcoxon_test",
}


NAN = {"fedlas.metrics.reliability_bins": "the mean of an empty bin"}
"""Calls whose answer may hold NaN."""
DRAWS = {
    f"fedlas.losses.{name}" for name in losses.__all__ if inspect.isclass(getattr(losses, name))
}
DRAWS |= {f"mix of {name}" for name in LOSSES}
"""Calls that draw from the global generator: a gate is initialized, as any module of PyTorch is, and samples mixed."""


# Two outcomes ---------------------------------------------------------------------------------------------------------


def check(number):
    """Make the call of that number; anything but the two outcomes is an ``AssertionError``."""
    draw = Draw(number)
    # A new name takes a few numbers from each call, and moves none from one old call to another.
    name = max(CALLS, key=lambda each: zlib.crc32(f"{each} {number}".encode()))
    call, given, module = CALLS[name](draw)
    changed = draw.pick.choices([0, 1, 2], [1, 4, 1])[0]
    keys = [key for key in given if key != "owner"]
    for key in draw.pick.sample(keys, min(changed, len(keys))):
        given[key] = odd(draw, given[key])
    story = f"call {number}, {name}({', '.join(f'{key}={brief(value)}' for key, value in given.items())})"

    before, state, generators = copied(given), content_of(module), global_generators()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.simplefilter("ignore", CalibrationWarning)
            result = call(**given)
    except InputError as error:
        assert_three_parts(error, story)
        assert content_of(module) == state, f"the error left other state in {story}"
    except Exception as error:
        if (
            name.startswith(("loss ", "smoothing "))
            and "must be passed" in str(error)
            and any(each is None for each in given.values())
        ):
            return  # a need that was not passed: the documented TypeError
        raise AssertionError(f"{type(error).__name__}: {error} in {story}") from error
    else:
        if usual(before) and name not in NAN:
            assert finite(result), f"the answer {brief(result)} of {story}"
    assert same(given, before), f"an argument changed in {story}"
    if name not in DRAWS:
        assert global_generators() == generators, f"a global generator moved in {story}"


def assert_three_parts(error, story="an error"):
    """What was expected, what came, and what to do as a sentence."""
    expected, got, fix = error.parts
    assert error.owner, story
    assert expected, story
    assert got, story
    assert len(got) < 1000, f"{story}: {got}"
    assert fix[:1].isupper() or not fix[:1].isalpha(), f"{story}: {fix}"
    assert fix.endswith((".", "?")), f"{story}: {fix}"
    assert str(error).isprintable(), f"{story}: {error!r}"


def usual(given):
    """Whether all numbers are such that the answer must be finite."""
    return all(
        not isinstance(value, torch.Tensor)
        or value.is_meta
        or not value.is_floating_point()
        or bool((value.to_dense().double().abs() <= 1e6).all())
        for value in given.values()
    )


def finite(value):
    if isinstance(value, torch.Tensor):
        return (
            value.is_meta
            or not value.is_floating_point()
            or bool(torch.isfinite(value.double()).all())
        )
    if isinstance(value, np.ndarray):
        return value.dtype.kind not in "fc" or bool(np.isfinite(value).all())
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, Mapping):
        return all(map(finite, value.values()))
    if isinstance(value, list | tuple):
        return all(map(finite, value))
    if isinstance(value, nn.Module):
        return all(map(finite, value.state_dict().values()))
    if isinstance(value, Difference) and value.interval is None:  # its ends are NaN then
        return finite(dataclasses.replace(value, low=0.0, high=0.0))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return all(finite(getattr(value, field.name)) for field in dataclasses.fields(value))
    return True


def copied(given):
    return {
        key: value.detach().clone() if isinstance(value, torch.Tensor) else copy.deepcopy(value)
        for key, value in given.items()
    }


def same(given, before):
    return all(content_of(value) == content_of(before[key]) for key, value in given.items())


def content_of(value):
    """All that belongs to a value, so that equal ones have equal results; NaN equals itself."""
    if isinstance(value, torch.Tensor):
        plain = value.layout is torch.strided and not value.is_meta and value.numel()
        numbers = (
            value.detach().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
            if plain
            else str(value)
        )
        return str(value.dtype), tuple(value.shape), numbers
    if isinstance(value, nn.Module):
        return {key: content_of(each) for key, each in value.state_dict().items()}
    if isinstance(value, Predictions | ood.Outputs):
        return tuple(
            content_of(each)
            for each in (
                value.logits,
                value.features,
                getattr(value, "target", None),
            )
        )
    if isinstance(
        value, metrics.StreamingMetrics | metrics.StreamingClasses | metrics.StreamingGroups
    ):
        return {key: content_of(each) for key, each in value.state_dict().items()}
    return repr(value)


def global_generators():
    _, keys, *rest = np.random.get_state()
    return torch.get_rng_state().numpy().tobytes(), random.getstate(), keys.tobytes(), rest


def brief(value):
    if isinstance(value, torch.Tensor):
        kind = f"{str(value.dtype).removeprefix('torch.')}{tuple(value.shape)}"
        return (
            f"{kind}"
            if value.is_meta or value.layout is not torch.strided
            else f"{kind} {str(value.tolist())[:120]}"
        )
    if isinstance(value, Predictions):
        return f"Predictions({brief(value.tensors().logits)}, {brief(value.tensors().target)})"
    return reprlib.repr(value)


CALLS = all_calls()


def failures(numbers):
    found = []
    for number in numbers:
        try:
            check(number)
        except AssertionError as error:
            if not any(name in str(error) and part in str(error) for name, part in KNOWN):
                found.append(str(error)[:1500])
    return found


def test_500_calls():
    found = failures(range(500))
    assert not found, "\n".join(found)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_20000_calls():
    found = failures(range(20_000))
    assert not found, "\n".join(found)
