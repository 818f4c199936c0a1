"""Calibrates a trained model on held-out data."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, overload

import torch
from torch import Tensor, nn

from fedlas._core.check import InputError, describe
from fedlas.calibrated.batches import LoaderOutputs, bare
from fedlas.calibrated.before_after import in_sample
from fedlas.calibrated.methods import calibrator_of
from fedlas.calibrated.model import CalibratedModel
from fedlas.calibrated.table import TableCalibration
from fedlas.calibrated.table_files import calibrate_table, is_table, table_columns
from fedlas.calibrators import Calibrator
from fedlas.features import FeatureTap, find_head
from fedlas.predictions import Predictions

__all__ = ["calibrate"]

_OWNER = "fedlas.calibrate"
MOST_LOGITS = 2**28
"""Logits that a fit takes, 1 GiB of float32; of more, a random sample of the rows."""


@overload
def calibrate(
    model: nn.Module,
    val_loader: Iterable[Any],
    method: str | Calibrator = "auto",
    head: str | nn.Module | None = None,
    device: str | torch.device | None = None,
    *,
    ignore_index: int | None = -100,
) -> CalibratedModel: ...


@overload
def calibrate(model: Any, *, method: str | Calibrator = "auto", **columns: Any) -> TableCalibration: ...


def calibrate(
    model: Any,
    val_loader: Iterable[Any] = (),
    method: str | Calibrator = "auto",
    head: str | nn.Module | None = None,
    device: str | torch.device | None = None,
    *,
    ignore_index: int | None = -100,
    **columns: Any,
) -> CalibratedModel | TableCalibration:
    """Fit a calibrator on held-out data: of a model, which then returns calibrated logits, or of a table of scores.

    A table is a data frame, or the path of a file; ``probs="p_*", target="y"`` and other fields of
    ``fedlas.predictions.Columns`` say what its columns hold. The result has ``apply(frame)`` and ``save(path)``.

    Args:
        model: Trained classifier to logits ``(N, C)`` or ``(N, C, d1, ...)``, or to an object or mapping with
            ``logits``; one logit ``(N,)`` or ``(N, 1)`` is that of the second of two classes. It is held, not copied,
            and put into ``eval()``.
        val_loader: Samples that are neither training nor test data. Yields ``(inputs, target, ...)`` or mappings with
            ``labels``, ``label``, ``target`` or ``targets``. Inputs are a tensor, a tuple (positional arguments) or a
            mapping (named arguments, or one argument if the model takes it so). Targets are class indices, ``(N,)`` or
            one a position.
        method: Name of a calibrator (``fedlas list calibrators``), or a calibrator with options of your own, of which
            a copy is fitted. ``"auto"`` mixes several, as held-out samples of ``val_loader`` weigh them;
            ``"temperature"`` has one parameter and keeps every predicted class.
        head: The classifier head, if the calibrator needs features: its dotted name, the module, or None to find it.
        device: Device of the inputs; None is that of the model's parameters.
        ignore_index: Label of positions that do not count, here and in ``before_after``; None: all count.
        **columns: Columns of a table in place of ``val_loader``: ``probs``, ``logits`` or ``confidence``, ``target``,
            ``covariates``, ``groups``, ``weights``.

    Raises:
        InputError: If the model is no module or returns no logits, a batch is of another form, shapes or labels do not
            fit, the calibrator is unknown or cannot be part of a model, or there are no samples.

    Note:
        Of more than 2^28 logits (1 GiB; dense outputs) a random sample of the positions is fitted on, at least 2^27 of
        them: the sampling error of so many is far below what a calibrator can change.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> inputs = torch.randn(500, 3)
        >>> target = torch.multinomial(inputs.softmax(1), 1).squeeze(1)
        >>> model = nn.Linear(3, 3)
        >>> with torch.no_grad():
        ...     _ = model.weight.copy_(3 * torch.eye(3)), model.bias.zero_()  # three times too sure
        >>> calibrated = calibrate(model, [(inputs, target)], "temperature")
        >>> round(calibrated.calibrator.temperature)
        3
    """
    anything: object = model
    if columns or is_table(anything):
        return calibrate_table(anything, method, table_columns(columns))
    if not isinstance(anything, nn.Module):
        fix = "Build it first."
        if hasattr(anything, "predict_proba") or hasattr(anything, "decision_function"):
            fix = "It is a scikit-learn classifier: fedlas.integrations.sklearn.CalibratedClassifier(model).fit(X, y)."
        raise InputError(_OWNER, "the model must be an nn.Module", describe(model), fix)
    calibrator, network = calibrator_of(method), bare(model)
    tap = FeatureTap(find_head(network, head)) if "features" in calibrator.needs else None
    try:
        outputs = LoaderOutputs(_OWNER, network, val_loader, device=device, ignore_index=ignore_index, tap=tap)
        val, total = _predictions(outputs)
    finally:
        if tap is not None:
            tap.remove()
    calibrated = CalibratedModel(network, calibrator.fit(val), head, ignore_index=ignore_index)
    share = "" if total == val.num_samples else f"a random sample of {total:,}: "
    calibrated.fitted_on = share + in_sample(calibrator, val)
    return calibrated


def _predictions(outputs: LoaderOutputs) -> tuple[Predictions, int]:
    """Return all predictions, or a random sample of at most :data:`MOST_LOGITS`, and the number of all rows."""
    # Each row has a number in [0, 1); rows above a share are left out, and the share is halved when there are too many.
    parts: list[list[Tensor]] = []
    total, share, random = 0, 1.0, torch.Generator().manual_seed(0)

    def below(columns: list[Tensor]) -> list[Tensor]:
        return [column[columns[0] < share] for column in columns]

    for columns in outputs:
        total += len(columns[1])
        columns = [torch.rand(len(columns[1]), generator=random), *columns]
        parts.append(columns if share == 1 else below(columns))
        while sum(part[1].numel() for part in parts) > MOST_LOGITS:
            share /= 2
            parts = [below(part) for part in parts]
    _, logits, target, *features = (torch.cat(column) for column in zip(*parts, strict=True))
    return Predictions(logits, target, features=features[0] if features else None), total
