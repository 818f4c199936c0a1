"""Watches gate and indicator while a model trains: one record an epoch, and alarms."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from fedlas.diagnose.association import association_values
from fedlas.diagnose.gate import Decisions, flip_share, gate_report
from fedlas.predictions import Predictions

STUCK = 0.999
"""Share of held-out samples with one direction from which a gate counts as stuck."""
STUCK_EPOCHS = 3
"""Epochs in a row it must be so."""
SATURATED = 0.5
"""Share of held-out samples with a strength at an end of its range from which the indicator counts as saturated."""
DRIFT = 1.0
"""Mean Z of held-out samples, or move of the running mean in an epoch in standard deviations, that counts as drift."""


class Gated(Protocol):
    """What a loss must have to be watched: an indicator, a gate, and the strength they make."""

    nci: Any
    gate: Any
    alpha: float

    def smoothing(self, logits: Tensor, features: Tensor) -> Tensor:
        """Strengths ``(N,)`` without any change of state."""


def monitor_of(criterion: nn.Module) -> Monitor | None:
    """A monitor if the loss has an indicator and a gate, whatever its class; else None."""
    gated = all(hasattr(criterion, name) for name in ("nci", "gate", "smoothing", "alpha"))
    return Monitor(criterion) if gated else None  # type: ignore[arg-type]  # has just been checked


class Monitor:
    """Collects what gate and indicator do, and sums it up after each epoch.

    Args:
        criterion: A loss with ``nci``, ``gate``, ``alpha`` and ``smoothing``.

    State:
        :meth:`trained` and :meth:`held_out` collect; :meth:`end_epoch` sums up and lets go. Between epochs the
        directions of all samples are kept, a byte each, so that flips can be counted; ``state_dict`` holds them.
        The criterion's state is never changed.
    """

    def __init__(self, criterion: Gated) -> None:
        self.criterion = criterion
        self.decisions = Decisions()
        self._held: list[tuple[Tensor, Tensor, Tensor]] = []
        self._psi = torch.empty(0, dtype=torch.int8)
        self._mean, self._stuck = math.nan, 0

    @torch.no_grad()
    def trained(self, logits: Tensor, index: Tensor | None) -> None:
        """A training batch: the gate's directions for ``logits (B, C)`` of the samples ``index (B,)``.

        Call it before the optimizer's step, so that the gate is the one that was trained on.
        """
        if index is not None and logits.ndim == 2 and len(logits) == len(index):
            self.decisions.see(self.criterion.gate(logits), index)

    @torch.no_grad()
    def held_out(self, logits: Tensor, features: Tensor) -> None:
        """A held-out batch, seen by the model in ``eval()``: ``logits (B, C)`` and what the indicator reads."""
        psi = self.criterion.gate(logits)
        parts = (self.criterion.nci(features), psi, self.criterion.smoothing(logits, features))
        score, psi, alpha_i = (part.detach().float().cpu() for part in parts)
        self._held.append((score, psi, alpha_i))

    def end_epoch(self, predictions: Predictions, directions: list[Tensor] | None = None) -> dict[str, Any]:
        """The epoch's record.

        Args:
            predictions: Of the batches given to :meth:`held_out`, in their order.
            directions: ``decisions.epoch()`` of each process; None is this one alone.

        Returns:
            ``indicator`` (running moments; mean and standard deviation of the held-out Z; its correlations with
            confidence, correctness and signed gap), ``gate`` (see :class:`~fedlas.diagnose.GateReport`; ``flips`` of
            held-out and ``train_flips`` of training samples since the epoch before) and ``alarms``, sentences. None
            where there is no number.
        """
        score, psi, alpha_i = (torch.cat(parts) for parts in zip(*self._held, strict=True))
        self._held = []
        psi8 = psi.to(torch.int8)
        flips = flip_share(self._psi, psi8) if len(self._psi) == len(psi8) else math.nan
        self._psi = psi8
        indicator = self._indicator(score, predictions)
        report = gate_report(psi, alpha_i, predictions.correct, alpha=self.criterion.alpha)
        gate = {**report.as_dict(), "flips": flips, "train_flips": self.decisions.end_epoch(directions)}
        alarms = self._alarms(indicator, gate)
        self._mean = indicator["mean"]
        return {"indicator": _without_nan(indicator), "gate": _without_nan(gate), "alarms": alarms}

    def _indicator(self, score: Tensor, predictions: Predictions) -> dict[str, Any]:
        known = score.isfinite()  # a watcher must not end a run over an overflowing norm
        confidence, correct = predictions.confidence.double(), predictions.correct
        values = {"confidence": confidence, "correct": correct, "gap": confidence - correct.double()}
        found = {
            f"{measure}_{name}": number
            for name, value in values.items()
            for measure, number in association_values(score[known], value[known]).items()
        }
        moments = {
            name: float(getattr(self.criterion.nci, name, math.nan))  # a replaced indicator may have none
            for name in ("mean", "std")
        }
        return {**moments, "z_mean": float(score.mean()), "z_std": float(score.std(correction=0)), **found}

    def _alarms(self, indicator: Mapping[str, Any], gate: Mapping[str, Any]) -> list[str]:
        alarms = []
        learns = any(p.requires_grad for p in _parameters(self.criterion.gate))
        one_way = max(("plus", "minus"), key=lambda name: gate[name])
        self._stuck = self._stuck + 1 if learns and gate[one_way] >= STUCK else 0
        if self._stuck >= STUCK_EPOCHS:
            sign = "+1" if one_way == "plus" else "-1"
            alarms.append(f"gate stuck on {sign} for {self._stuck} epochs")
        if gate["saturated"] >= SATURATED:
            alarms.append(f"indicator saturated: {gate['saturated']:.0%} of the strengths at an end of their range")
        if abs(indicator["z_mean"]) > DRIFT:
            alarms.append(f"held-out norms off the running mean by {indicator['z_mean']:+.1f} standard deviations")
        moved = abs(indicator["mean"] - self._mean) / indicator["std"] if indicator["std"] else math.nan
        if moved > DRIFT:
            alarms.append(f"running mean moved by {moved:.1f} standard deviations in an epoch")
        return alarms

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint must hold for flips and alarms to go on."""
        return {"decisions": self.decisions.state_dict(), "psi": self._psi, "mean": self._mean, "stuck": self._stuck}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what :meth:`state_dict` returned."""
        self.decisions.load_state_dict(state["decisions"])
        self._psi, self._mean, self._stuck = state["psi"], float(state["mean"]), int(state["stuck"])


def _parameters(part: Any) -> list[nn.Parameter]:
    return list(part.parameters()) if isinstance(part, nn.Module) else []


def _without_nan(content: Mapping[str, Any]) -> dict[str, Any]:
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in content.items()}
