"""A loss that learns from validation says so where the training loop passes nothing on."""

import warnings

import pytest
import torch

from fedlas.errors import CalibrationWarning, InputError
from fedlas.losses import CALS, MDCA, AdaFocal, Controlled, FedLAS, OneLogit, Tempered, TemperedPast
from fedlas.predictions import Predictions

LOGITS, TARGET = (
    torch.randn(4, 3, generator=torch.Generator().manual_seed(0)),
    torch.tensor([0, 1, 2, 0]),
)


def one_pass(criterion):
    criterion(LOGITS, TARGET, index=torch.arange(4))


def test_the_third_pass_without_validation_warns_once():
    criterion = TemperedPast(num_classes=3, num_samples=4, num_epochs=5)
    one_pass(criterion)
    one_pass(criterion)
    with pytest.warns(CalibrationWarning, match="update_from_validation") as caught:
        one_pass(criterion)
    assert caught[0].filename == __file__
    one_pass(criterion)  # warnings are errors


@pytest.mark.parametrize(
    "criterion", [AdaFocal(), Tempered(), Controlled(base="ls")], ids=lambda x: type(x).__name__
)
def test_the_second_evaluation_without_validation_warns_once(criterion):
    for epoch in range(3):
        one_pass(criterion.train())
        if epoch == 1:
            with pytest.warns(CalibrationWarning, match="update_from_validation"):
                criterion.eval()
        criterion.eval()
        criterion.eval()


def test_a_loop_that_validates_is_left_alone():
    criterion = TemperedPast(num_classes=3, num_samples=4, num_epochs=5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(4):
            one_pass(criterion.train())
            criterion.eval()
            criterion.update_from_validation(Predictions(LOGITS, TARGET))


def test_only_a_loss_around_one_that_learns_learns():
    assert not hasattr(FedLAS(num_classes=3), "update_from_validation")
    assert not hasattr(MDCA(), "update_from_validation")
    assert not hasattr(OneLogit(FedLAS(num_classes=2)), "update_from_validation")
    criterion = MDCA(base=MDCA(base="adafocal"))
    before = {name: value.clone() for name, value in criterion.state_dict().items()}
    criterion.update_from_validation(Predictions(10 * LOGITS, TARGET))
    assert any(
        not torch.equal(value, before[name]) for name, value in criterion.state_dict().items()
    )


def test_wrong_class_count_raises_and_keeps_state():
    criterion = Tempered(base=CALS(num_classes=3))
    with pytest.raises(InputError, match="must have 3 classes"):
        criterion.update_from_validation(Predictions([[9.0, 0.0], [9.0, 0.0]], [0, 1]))
    assert criterion.temperature.item() == 1


def test_weights_count_or_are_refused():
    weighted = Predictions(LOGITS, TARGET, weights=torch.tensor([1.0, 0.0, 2.0, 1.0]))
    with pytest.raises(InputError, match="no sample weights, which this loss does not use"):
        Controlled(base="ls").update_from_validation(weighted)
    criterion, repeated = Tempered(), Tempered()
    criterion.update_from_validation(weighted)
    rows = torch.tensor([0, 2, 2, 3])
    repeated.update_from_validation(Predictions(LOGITS[rows], TARGET[rows]))
    assert criterion.temperature.item() == pytest.approx(repeated.temperature.item())
