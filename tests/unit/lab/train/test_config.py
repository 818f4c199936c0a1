import pytest

from fedlas.errors import InputError
from fedlas.lab.train import OptimizerConfig, ScheduleConfig, TrainConfig


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (OptimizerConfig, {"name": "sdg"}),
        (OptimizerConfig, {"lr": -0.1}),
        (OptimizerConfig, {"lr": float("nan")}),
        (OptimizerConfig, {"lr": "0.1"}),
        (OptimizerConfig, {"momentum": 1.5}),
        (OptimizerConfig, {"momentum": 0, "nesterov": True}),
        (OptimizerConfig, {"weight_decay": -1}),
        (OptimizerConfig, {"criterion_lr": -1}),
        (OptimizerConfig, {"clip_norm": 0}),
        (ScheduleConfig, {"name": "cosin"}),
        (ScheduleConfig, {"milestones": [0.5, 0]}),
        (ScheduleConfig, {"factor": 0}),
        (ScheduleConfig, {"factor": 2}),
        (ScheduleConfig, {"warmup_epochs": -1}),
        (TrainConfig, {"epochs": 0}),
        (TrainConfig, {"epochs": 2.0}),
        (TrainConfig, {"epochs": True}),
        (TrainConfig, {"batch_size": 0}),
        (TrainConfig, {"num_bins": 0}),
        (TrainConfig, {"checkpoint_every": 0}),
        (TrainConfig, {"precision": "fp16"}),
    ],
)
def test_invalid_option_is_refused_by_name(kind, values):
    with pytest.raises(
        InputError, match=r"^(optimizer|schedule|train)\..*; got .*\. [A-Z]"
    ) as caught:
        kind(**values)
    assert list(values)[-1] in str(caught.value) or "momentum" in str(caught.value)


def test_nearest_name_is_suggested():
    with pytest.raises(InputError, match="Did you mean 'cosine'"):
        ScheduleConfig(name="cosin")


@pytest.mark.parametrize(
    ("milestones", "epochs", "resolved"),
    [
        ([0.5, 0.75], 20, [10, 15]),
        ([0.5, 0.75], 30, [15, 22]),
        ([150, 250], 350, [150, 250]),
        ([0.5, 8], 10, [5, 8]),
        # never before the first epoch: a one-epoch trial runs at the full rate
        ([0.1, 0.5], 1, [1, 1]),
    ],
)
def test_milestones(milestones, epochs, resolved):
    assert ScheduleConfig(milestones=milestones).milestone_epochs(epochs) == resolved


def test_milestone_after_the_end():
    with pytest.raises(InputError, match=r"before the last epoch \(20\); got \[40\]"):
        ScheduleConfig(milestones=[10, 40]).milestone_epochs(20)
    # not used, so no error
    assert ScheduleConfig(name="cosine", milestones=[10, 40]).milestone_epochs(20)
