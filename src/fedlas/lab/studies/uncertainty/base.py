"""What a method for uncertainty takes, finished runs, and what it returns, predictions; and the methods by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from fedlas._core.ranks import new_accelerator
from fedlas._core.registry import Registry
from fedlas.lab.recipes.plan import Run
from fedlas.lab.runs.load import Trained, load_trained
from fedlas.predictions import Predictions


@dataclass(frozen=True)
class Member:
    """A finished run that a method starts from.

    Attributes:
        run: As it was planned; ``run.folder`` is its folder.
        metrics: Contents of its ``metrics.json``.
        label: Its name among others; None is that of its folder.
    """

    run: Run
    metrics: Mapping[str, Any]
    label: str | None = None

    @property
    def name(self) -> str:
        """Its name among the runs that a method takes."""
        return self.label or self.run.folder.resolve().name

    def predictions(self, part: str) -> Predictions:
        """What it said of ``"val"`` or ``"test"``, without the features.

        Raises:
            InputError: If the file is missing or cannot be read.
        """
        whole = Predictions.load(self.run.folder / "predictions" / f"{part}.npz")
        return Predictions(whole.logits, whole.target, label_probs=whole.label_probs)

    def trained(self) -> Trained:
        """Its model with the best weights, on the accelerator if there is one, its loss and its data; each time anew.

        Raises:
            InputError: As :func:`fedlas.lab.runs.load.load_trained`.
        """
        trained = load_trained(self.run.folder, data=self.run.recipe.data.root)
        return replace(trained, objective=trained.objective.to(new_accelerator().device))


@dataclass(frozen=True)
class Result:
    """What a method returns.

    Attributes:
        test: Predictions on the test part; logits are log-probabilities up to a constant a sample.
        val: The same on validation; None if no validation part is fair to all runs. No temperature is fitted then.
        notes: What a reader of the numbers should know; they stand in the report.
        parameters: Numbers that have to be kept to predict; None is the sum over the runs' models.
        details: Plain values for ``metrics.json``, such as the weights of an ensemble's members.
    """

    test: Predictions
    val: Predictions | None = None
    notes: Sequence[str] = ()
    parameters: int | None = None
    details: Mapping[str, Any] = field(default_factory=dict)


Method = Callable[..., Result]
"""``method(runs: Sequence[Member], *, option=default, ...) -> Result``. One that has a parameter ``folder: Path`` gets
a folder of its own inside the result's, where what it trains can go on after a kill."""

UNCERTAINTY: Registry[Method] = Registry("uncertainty method")
"""Methods by name. Metadata: ``title`` (its name as a heading), ``paper`` (its title), ``year``, ``url``, ``least`` and
``most`` (how many runs it takes; None for any number)."""
