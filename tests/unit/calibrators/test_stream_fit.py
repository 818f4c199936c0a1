import weakref

import pytest
import torch

from fedlas import Predictions
from fedlas._core.check import InputError
from fedlas.calibrators import CalibrationWarning, TemperatureScaling, VectorScaling
from fedlas.calibrators._fit.temperature_search import lower_median

KINDS = {
    "temperature": lambda: TemperatureScaling(),
    "lowest ECE": lambda: TemperatureScaling(objective="ece"),
    "vector": lambda: VectorScaling(num_folds=None),
}


class Batches:
    """Batches made anew in each pass, which are counted."""

    def __init__(self, val, size):
        self.val, self.size, self.passes = val, size, 0

    def __iter__(self):
        self.passes += 1
        yield from zip(self.val.logits.split(self.size), self.val.target.split(self.size), strict=True)


def numbers(calibrator):
    names = ["temperature"] if isinstance(calibrator, TemperatureScaling) else ["weight", "bias"]
    return torch.cat([torch.as_tensor(getattr(calibrator, name), dtype=torch.float64).reshape(-1) for name in names])


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("factor", [0.3, 2.5])
def test_it_is_the_fit_in_memory(generated, kind, factor):
    val = generated(3000, 5, distort=lambda logits: factor * logits + torch.arange(5.0))
    batches = Batches(val, 700)
    streamed = kind().fit_stream(batches)
    torch.testing.assert_close(numbers(streamed), numbers(kind().fit(val)), rtol=1e-6, atol=1e-6)
    assert streamed.num_classes == 5
    assert batches.passes <= 30
    torch.testing.assert_close(numbers(kind().fit_stream([val])), numbers(streamed), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_pixels(generated, kind):
    """Positions of images, the classes second."""
    val = generated(2 * 3 * 5 * 40, 4)
    logits = val.logits.view(40, 3, 5, 2, 4).movedim(-1, 1)
    target = val.target.view(40, 3, 5, 2)
    dense = [(logits[:30], target[:30]), (logits[30:], target[30:])]
    torch.testing.assert_close(numbers(kind().fit_stream(dense)), numbers(kind().fit(val)), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("exponent", [-120, 120])
def test_logits_of_any_size(generated, exponent):
    val = generated(800)
    scaled = Predictions(val.logits.double() * 2.0 ** min(exponent, 90), val.target)
    for kind in KINDS["temperature"], KINDS["vector"]:
        fitted, wanted = kind().fit_stream(Batches(scaled, 300)), kind().fit(scaled)
        torch.testing.assert_close(numbers(fitted), numbers(wanted), rtol=1e-6, atol=0.0)


def test_held_temperatures_and_warnings_are_the_same():
    """Of a sure model without a mistake, whose temperature the two expected mistakes decide."""
    torch.manual_seed(0)
    logits = 4 * torch.randn(400, 3)
    val = Predictions(logits, logits.argmax(1))
    with pytest.warns(CalibrationWarning, match="0 of 400 validation samples are mistakes"):
        wanted = TemperatureScaling().fit(val)
    with pytest.warns(CalibrationWarning, match="0 of 400 validation samples are mistakes"):
        found = TemperatureScaling().fit_stream(Batches(val, 90))
    assert found.temperature == pytest.approx(wanted.temperature, rel=1e-9)
    assert found.temperature < 1
    with pytest.warns(CalibrationWarning, match="every validation label"):
        VectorScaling(num_folds=None).fit_stream(Batches(val, 90))


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_no_batch_is_kept(generated, kind):
    """Memory does not grow with the batches: of all that were made, the fit holds the last one at most."""
    val, made, alive = generated(900), [], []

    class Watched(Batches):
        def __iter__(self):
            for logits, target in super().__iter__():
                alive.append(sum(reference() is not None for reference in made))
                fresh = logits.clone()
                made.append(weakref.ref(fresh))
                yield fresh, target
                del fresh

    kind().fit_stream(Watched(val, 100))
    assert len(made) >= 9
    assert max(alive) <= 1


def test_median_of_bits():
    torch.manual_seed(0)
    for values in (torch.rand(1001), torch.rand(4000) ** 40, torch.tensor([0.0, 0.0, 5e-324, 1e308]), torch.zeros(3)):
        parts = values.double().split(97)
        pairs = [(part, torch.ones_like(part)) for part in parts]
        assert lower_median(lambda pairs=pairs: pairs) == float(values.double().median())


def test_nonsense(generated):
    val = generated(60)
    pair = (val.logits, val.target)
    for batches, message in (
        (iter([pair]), "iterated several times"),
        (val, "iterated several times"),
        ([], "at least one sample"),
        ([pair, (torch.zeros(2, 3), torch.zeros(2, dtype=torch.int64))], "must have the 4 classes of the first"),
        ([val.logits], r"must be Predictions, or \(logits, target\)"),
        ([(val.logits, val.target + 4)], r"target must be in \[0, 4\)"),
    ):
        calibrator = TemperatureScaling()
        with pytest.raises(InputError, match=message):
            calibrator.fit_stream(batches)
        assert calibrator.num_classes is None

    class Shrinks(Batches):
        def __iter__(self):
            batches = list(super().__iter__())
            return iter(batches if self.passes < 3 else batches[:1])

    with pytest.raises(InputError, match="same samples each time"):
        TemperatureScaling().fit_stream(Shrinks(val, 30))
    with pytest.raises(InputError, match="num_folds must be None"):
        VectorScaling().fit_stream([pair])
