"""Monitors of gate and indicator during training: one record per epoch, with alarms."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from fedlas._core.check import InputError, describe
from fedlas._core.kinds import check_argument_types
from fedlas.diagnose.gate import DirectionRecorder, flipped_share, gate_report, replace_non_finite
from fedlas.diagnose.indicator import indicator_statistics
from fedlas.losses.nci import feature_norms

if TYPE_CHECKING:
    from fedlas.predictions import Predictions

STUCK_SHARE = 0.999
"""Share of held-out samples with one direction from which a gate counts as stuck."""
STUCK_EPOCHS = 3
"""Consecutive epochs after which a stuck gate raises an alarm."""
FAR_DEVIATIONS = 3.0
"""Standard deviations from which a sample's Z counts as far out; 0.3 % of normally distributed norms are."""
SATURATED_SHARE = 0.2
"""Share of far-out held-out samples from which the indicator counts as saturated."""
DRIFT_DEVIATIONS = 1.0
"""Mean Z of held-out samples, or change of the running mean in an epoch in standard deviations, that is drift."""
LONG_DRIFT_DEVIATIONS = 3.0
"""Change of the running mean in :data:`LONG_DRIFT_EPOCHS` epochs, in standard deviations, that is drift."""
LONG_DRIFT_EPOCHS = 10
SPREAD_FACTOR = 4.0
"""Factor by which the standard deviation of held-out Z may differ from 1, either way, without an alarm."""


@check_argument_types
def find_gated_loss(criterion: nn.Module | None) -> Any:
    """Return the gated loss: ``criterion``, a loss nested in it as ``base``, or None.

    Example:
        >>> from fedlas.losses import CrossEntropy, FedLAS
        >>> find_gated_loss(FedLAS(num_classes=3)).alpha, find_gated_loss(CrossEntropy())
        (0.05, None)
    """
    while criterion is not None:
        if all(
            hasattr(criterion, name)
            for name in ("nci", "gate", "smoothing", "alpha", "sample_directions")
        ):
            return criterion
        criterion = getattr(criterion, "base", None)
    return None


@torch.no_grad()
def gate_outputs(criterion: Any, logits: Tensor, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return score ``Z``, direction ``psi`` and strength ``alpha_i`` per sample, ``(N,)`` each, on the CPU.

    Args:
        criterion: From :func:`find_gated_loss`. Its state does not change, in ``train()`` or ``eval()``.
        logits: ``(N, C)``.
        features: What its indicator reads, ``(N, D)``.
    """
    score = criterion.nci(features)
    psi = criterion.sample_directions(score, criterion.gate(logits))
    score, psi, alpha_i = (
        part.float().cpu() for part in (score, psi, criterion.smoothing(logits, features))
    )
    return score, psi, alpha_i


def alarm_kind(alarm: str) -> str:
    """Return the kind of an alarm: its text without the numbers.

    Example:
        >>> alarm_kind("gate stuck on +1 for 4 epochs"), alarm_kind("indicator saturated: 22% of the samples")
        ('gate stuck on +1', 'indicator saturated')
    """
    return alarm.split(":")[0].split(" by ")[0].split(" for ")[0]


class GateMonitor:
    """Monitor of a loss's gate and indicator during training.

    Args:
        criterion: A loss with ``nci``, ``gate``, ``alpha``, ``smoothing`` and ``sample_directions``.

    State:
        :meth:`on_batch` and :meth:`on_held_out` collect; :meth:`on_epoch` summarizes and clears. Between epochs the
        directions of all samples are kept, one byte each, so that flips can be counted; ``state_dict`` holds them.
        The criterion's state never changes.

    Example:
        >>> from fedlas import Predictions
        >>> from fedlas.losses import FedLAS
        >>> monitor = GateMonitor(FedLAS(num_classes=3).eval())
        >>> logits = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
        >>> monitor.on_held_out(logits, features=torch.rand(50, 8))
        >>> sorted(monitor.on_epoch(Predictions(logits, torch.arange(50) % 3)))
        ['alarms', 'gate', 'indicator']
    """

    def __init__(self, criterion: Any) -> None:
        self.criterion = criterion
        self.decisions = DirectionRecorder()
        self._batches: list[tuple[Tensor, Tensor, Tensor]] = []
        self._last_directions = torch.empty(0, dtype=torch.int8)
        self._means: list[float] = []  # the running mean after each of the last epochs
        self._stuck_epochs = 0
        self._stuck_direction = ""

    @torch.no_grad()
    def on_batch(self, logits: Tensor, index: Tensor | None) -> None:
        """Record the gate's directions for a training batch: ``logits (B, C)`` of the samples ``index (B,)``.

        Call it before the optimizer's step, so that the gate is the one that the step trains with. If the loss's gate
        does not decide, the directions do not follow from the logits, and there are no ``train_flips``.
        """
        if (
            self.criterion.gate_decides
            and index is not None
            and logits.ndim == 2
            and len(logits) == len(index)
        ):
            self.decisions.record(self.criterion.gate(logits), index)

    @torch.no_grad()
    def on_held_out(self, logits: Tensor, features: Tensor) -> None:
        """Record a held-out batch of the model in ``eval()``: ``logits (B, C)`` and the indicator's ``features``."""
        self._batches.append(gate_outputs(self.criterion, logits, features))

    def on_epoch(
        self, predictions: Predictions, gather: Callable[[Any], list[Any]] | None = None
    ) -> dict[str, Any]:
        """Summarize the epoch and return its record.

        Args:
            predictions: Predictions of the batches given to :meth:`on_held_out`, in their order.
            gather: Returns its argument from every process; None if this is the only process.

        Returns:
            ``indicator`` (running moments; mean and standard deviation of the held-out Z; the numbers of
            :func:`~fedlas.diagnose.indicator_statistics`), ``gate`` (see :class:`~fedlas.diagnose.GateReport`;
            ``flips`` of held-out and ``train_flips`` of training samples since the epoch before) and ``alarms``,
            sentences. None where there is no number.

        Raises:
            InputError: If :meth:`on_held_out` was not called since the last epoch.
        """
        if not self._batches:
            raise InputError(
                "there must be at least one held-out batch since the last epoch",
                "none",
                "Call on_held_out(logits, features) for each validation batch before on_epoch.",
            )
        score, psi, alpha_i = (torch.cat(parts) for parts in zip(*self._batches, strict=True))
        self._batches = []
        psi8 = psi.to(torch.int8)
        # Decisions on the held-out samples, compared with the last epoch's.
        flips = (
            flipped_share(self._last_directions, psi8)
            if len(self._last_directions) == len(psi8)
            else math.nan
        )
        self._last_directions = psi8

        # The indicator: its moments, and how it relates to confidence and correctness.
        nci = self.criterion.nci
        indicator = {
            # an indicator of a user's own may have no moments
            "mean": float(getattr(nci, "mean", math.nan)),
            "std": float(getattr(nci, "std", math.nan)),
            "z_mean": float(score.mean()),
            "z_std": float(score.std(correction=0)),
            "z_far": float((score.abs() >= FAR_DEVIATIONS).double().mean()),
            **indicator_statistics(score, predictions),
        }
        # The gate: its decisions on held-out and on training samples.
        report = gate_report(
            psi, alpha_i, predictions.tensors().correct, alpha=self.criterion.alpha
        )
        directions = (
            self.decisions.pop_directions()
        )  # of the training samples that this process saw
        train_flips = self.decisions.end_epoch(
            [directions] if gather is None else gather(directions)
        )
        gate = {**report.as_dict(), "flips": flips, "train_flips": train_flips}

        alarms = self._alarms(indicator, gate)
        self._means = [*self._means, indicator["mean"]][-LONG_DRIFT_EPOCHS:]
        return {
            "indicator": replace_non_finite(indicator),
            "gate": replace_non_finite(gate),
            "alarms": alarms,
        }

    def _alarms(self, indicator: Mapping[str, Any], gate: Mapping[str, Any]) -> list[str]:
        alarms = []
        gate_module = self.criterion.gate
        learns = isinstance(gate_module, nn.Module) and any(
            p.requires_grad for p in gate_module.parameters()
        )
        name, sign = max(("plus", "+1"), ("minus", "-1"), key=lambda way: gate[way[0]])
        on = sign if learns and gate[name] >= STUCK_SHARE else ""
        self._stuck_epochs = (
            (self._stuck_epochs if on == self._stuck_direction else 0) + 1 if on else 0
        )
        self._stuck_direction = on
        if self._stuck_epochs >= STUCK_EPOCHS:
            alarms.append(f"gate stuck on {sign} for {self._stuck_epochs} epochs")
        if indicator["z_far"] >= SATURATED_SHARE:
            share = f"{indicator['z_far']:.0%} of the held-out samples"
            alarms.append(
                f"indicator saturated: {share} {FAR_DEVIATIONS:g} or more standard deviations from the running mean"
            )
        if math.isfinite(indicator["std"]):
            alarms += self._moment_alarms(indicator)
        return alarms

    def _moment_alarms(self, indicator: Mapping[str, Any]) -> list[str]:
        alarms = []
        mean_offset = indicator["z_mean"]
        spread = indicator["z_std"]
        if abs(mean_offset) > DRIFT_DEVIATIONS:
            alarms.append(
                f"held-out norms off the running mean by {mean_offset:+.1f} standard deviations"
            )
        if not 1 / SPREAD_FACTOR <= spread <= SPREAD_FACTOR:
            alarms.append(
                f"held-out norms spread by {spread:.2g} running standard deviations, and not about one"
            )
        if not self._means or not indicator["std"]:
            return alarms
        short_drift, long_drift = (
            abs(indicator["mean"] - mean) / indicator["std"]
            for mean in (self._means[-1], self._means[0])
        )
        if short_drift > DRIFT_DEVIATIONS:
            alarms.append(
                f"running mean moved by {short_drift:.1f} standard deviations in an epoch"
            )
        elif len(self._means) == LONG_DRIFT_EPOCHS and long_drift > LONG_DRIFT_DEVIATIONS:
            alarms.append(
                f"running mean drifts: {long_drift:.1f} standard deviations in {LONG_DRIFT_EPOCHS} epochs"
            )
        return alarms

    def state_dict(self) -> dict[str, Any]:
        """Return the state of flip counts and alarms, for a checkpoint."""
        return {
            "decisions": self.decisions.state_dict(),
            "psi": self._last_directions,
            "means": self._means,
            "stuck": self._stuck_epochs,
            "stuck_on": self._stuck_direction,
        }

    @check_argument_types
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the state that :meth:`state_dict` returned.

        Raises:
            KeyError: If something is missing; nothing changes then.
            ValueError: If something is of another kind; nothing changes then.
        """
        decisions, psi, means, stuck, on = (
            state[name] for name in ("decisions", "psi", "means", "stuck", "stuck_on")
        )
        for name, value, kind in (
            ("psi", psi, Tensor),
            ("means", means, list),
            ("stuck", stuck, int),
            ("on", on, str),
        ):
            if not isinstance(value, kind) or getattr(value, "ndim", 1) != 1:
                raise ValueError(f"{name} is {describe(value)}")
        if not all(isinstance(mean, int | float) for mean in means):
            raise ValueError(f"means are {describe(means)}")
        self.decisions.load_state_dict(decisions)
        self._last_directions, self._means, self._stuck_epochs, self._stuck_direction = (
            psi,
            list(means),
            int(stuck),
            str(on),
        )


class NormMonitor:
    """Monitor of the L1 norm of the features, a baseline without gate and alarms.

    Its correlations are the baseline for those of an indicator: a network's norms follow its confidence to some degree
    without any gate.

    State:
        :meth:`on_held_out` collects; :meth:`on_epoch` summarizes and clears. Nothing is kept between epochs.

    Example:
        >>> from fedlas import Predictions
        >>> monitor = NormMonitor()
        >>> logits = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
        >>> monitor.on_held_out(logits, features=torch.ones(50, 8))
        >>> monitor.on_epoch(Predictions(logits, torch.arange(50) % 3))["indicator"]["mean"]
        8.0
    """

    def __init__(self) -> None:
        self._norms: list[Tensor] = []

    def on_batch(self, logits: Tensor, index: Tensor | None) -> None:
        """Ignore a training batch."""

    @torch.no_grad()
    def on_held_out(self, logits: Tensor, features: Tensor) -> None:  # noqa: ARG002 (the signature of a hook)
        """Record a held-out batch of the model in ``eval()``: ``features (B, D)``, the head's input."""
        self._norms.append(feature_norms(features.float()).cpu())

    def on_epoch(
        self,
        predictions: Predictions,
        gather: Callable[[Any], list[Any]] | None = None,  # noqa: ARG002
    ) -> dict[str, Any]:
        """Summarize the epoch and return its record.

        Args:
            predictions: Predictions of the batches given to :meth:`on_held_out`, in their order.
            gather: Not used.

        Returns:
            ``indicator``: mean and standard deviation of the held-out norms, and the numbers of
            :func:`~fedlas.diagnose.indicator_statistics` (standardizing the norms would change no correlation). None
            where there is no number.
        """
        norms = torch.cat(self._norms)
        self._norms = []
        moments = {"mean": float(norms.mean()), "std": float(norms.std(correction=0))}
        return {
            "indicator": replace_non_finite({**moments, **indicator_statistics(norms, predictions)})
        }

    def state_dict(self) -> dict[str, Any]:
        """Return an empty state."""
        return {}

    @check_argument_types
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Accept an empty state."""


@check_argument_types
def make_monitors(criterion: nn.Module, *, norms: bool = False) -> list[GateMonitor | NormMonitor]:
    """Return the monitors for a loss: of gate and indicator if the loss has them, else none or a norm monitor.

    Args:
        criterion: The loss.
        norms: Whether to monitor the feature norm if the loss has no indicator.

    Example:
        >>> from fedlas.losses import CrossEntropy, FedLAS
        >>> [type(each).__name__ for each in make_monitors(FedLAS(num_classes=3))], make_monitors(CrossEntropy())
        (['GateMonitor'], [])
    """
    gated = find_gated_loss(criterion)
    if gated is not None:
        return [GateMonitor(gated)]
    return [NormMonitor()] if norms else []
