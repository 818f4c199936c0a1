"""``fedlas.calibrate``: fits a calibrator to a trained model or a table of scores."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, overload

from fedlas._core.check import Argument, InputError, describe, warn_user
from fedlas.calibrated.before_after import describe_fit, labels_before_after
from fedlas.calibrated.calibration import AnyCalibrator, Calibration, unfitted_calibrator
from fedlas.calibrated.model import CalibratedModel
from fedlas.calibrators import Calibrator, MultiLabelCalibration
from fedlas.calibrators.fit_notes import fit_with_notes
from fedlas.features.readers import ComputedFeatures, NoFeatures, Reader
from fedlas.objective.head_search import HeadSearch
from fedlas.objective.network import to_network
from fedlas.objective.runner import MAX_LOGITS, Runner, collect_multi_label, collect_predictions
from fedlas.predictions.any_predictions import is_table

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from fedlas.calibrated.tables.table_calibration import TableCalibration
    from fedlas.predictions import MultiLabel

__all__ = ["calibrate"]

_HELD = 2**22
"""Most logits that are kept until the summary of the fit is read; for more, the summary is computed at once."""


@overload
def calibrate(
    model: object,
    val_loader: Iterable[Any],
    method: str | Calibrator | MultiLabelCalibration = "auto",
    head: str | nn.Module | None = None,
    device: str | torch.device | None = None,
    *,
    features: bool | Callable[..., Tensor] | None = None,
    ignore_index: int | None = -100,
    label: int | str | None = None,
    weights: int | str | None = None,
    clusters: int | str | None = None,
    time: int | str | None = None,
    multi_label: bool | None = None,
) -> CalibratedModel: ...


@overload
def calibrate(
    model: object, *, method: str | Calibrator = "auto", **columns: Any
) -> TableCalibration: ...


def calibrate(
    model: object,
    val_loader: Iterable[Any] = (),
    method: str | Calibrator | MultiLabelCalibration = "auto",
    head: str | nn.Module | None = None,
    device: str | torch.device | None = None,
    *,
    features: bool | Callable[..., Tensor] | None = None,
    ignore_index: int | None = -100,
    label: int | str | None = None,
    weights: int | str | None = None,
    clusters: int | str | None = None,
    time: int | str | None = None,
    multi_label: bool | None = None,
    **columns: Any,
) -> CalibratedModel | TableCalibration:
    """Calibrate a trained model, or a table of scores, on held-out data.

    A calibrated model returns calibrated logits.

    A table is a data frame, or the path of a file; ``probs="p_*", target="y"`` and other fields of
    ``fedlas.predictions.Columns`` say what its columns hold. The result has ``apply(frame)`` and ``save(path)``.

    Args:
        model: Trained classifier to logits ``(N, C)`` or ``(N, C, d1, ...)``, or to an object or mapping with
            ``logits``; one logit ``(N,)`` or ``(N, 1)`` is that of the second of two classes. It is held, not copied,
            and put into ``eval()``. A list of models is an ensemble, and an ``.onnx`` file is run by onnxruntime. A
            calibrated model is calibrated anew: its old calibration is taken off, which a warning says.
        val_loader: Samples that are neither training nor test data. Yields ``(inputs, target, ...)`` or mappings with
            ``labels``, ``label``, ``target`` or ``targets``. Inputs are a tensor, a tuple (positional arguments) or a
            mapping (named arguments, or one argument if the model takes it so). Targets are class indices, ``(N,)`` or
            one a position.
        method: Name of a calibrator (``fedlas list calibrators``), or a calibrator with options of your own, of which
            a copy is fitted. ``"auto"`` mixes several, as held-out samples of ``val_loader`` weigh them;
            ``"temperature"`` has one parameter and keeps every predicted class. For several labels a sample ``"auto"``
            is ``MultiLabelCalibration()``, and any other calibrator is fitted to each label.
        head: The classifier head, if the calibrator uses features: its dotted name, the module, or None to find it as
            the module whose output is the logits.
        device: Device of the inputs; None is that of the model's parameters.
        features: Side information of a calibrator that uses features. None: the input of the classifier head, or logits
            alone where no head is found, which ``print(calibrated)`` then says. False: logits alone. A function of the
            model's inputs: what it returns, ``(N, D)``, such as embeddings or metadata.
        ignore_index: Label of positions that do not count, here and in ``before_after``; None: all count.
        label: Key or position of the labels in a batch, where they are elsewhere.
        weights: Key or position of the weight of each sample in a batch, or the column of a table.
        clusters: Key or position of the cluster of each sample in a batch (its patient, its user), or the column of a
            table: a fit that holds samples out holds whole clusters out. Positions of dense outputs are in the cluster
            of their sample; without ``clusters``, each sample is one.
        time: Key or position of the time of each sample in a batch, a number, or the column of a table, which may hold
            dates: where a fit holds samples out, none is judged by later ones.
        multi_label: Whether a sample may have several labels, each with a sigmoid: logits and labels 0 or 1 ``(N, L)``.
            None: if the labels of the first batch are rows of 0 and 1 that do not all sum to 1.
        **columns: Columns of a table in place of ``val_loader``: ``probs``, ``logits`` or ``confidence``, ``target``,
            ``covariates``, ``groups``; or ``labels`` of several labels a sample.

    Raises:
        InputError: If the model is no module or returns no logits, a batch is of another form, shapes or labels do not
            fit, the calibrator is unknown or cannot be part of a model, or there are no samples; or features are asked
            for that the calibrator does not use, or that are not there.

    Note:
        With more than 2^28 logits and features (1 GiB) a random sample of the rows is fitted on, at least 2^27 of
        them: the sampling error of so many is far below what a calibrator can change.

    Example:
        >>> import torch
        >>> _ = torch.manual_seed(0)
        >>> inputs = torch.randn(500, 3)
        >>> target = torch.multinomial(inputs.softmax(1), 1).squeeze(1)
        >>> model = torch.nn.Linear(3, 3)
        >>> with torch.no_grad():
        ...     _ = model.weight.copy_(3 * torch.eye(3)), model.bias.zero_()  # three times too sure
        >>> calibrated = calibrate(model, [(inputs, target)], "temperature")
        >>> round(calibrated.calibrator.temperature)
        3
    """
    named = {"weights": weights, "clusters": clusters, "time": time}
    others = {name: place for name, place in named.items() if place is not None}
    if columns or is_table(model):
        from fedlas.calibrated.tables.files import calibrate_table
        from fedlas.predictions.tables.roles import columns_from_kwargs

        columns |= others
        return calibrate_table(model, method, columns_from_kwargs(columns))
    network = to_network(model)
    if isinstance(network, CalibratedModel):
        network = network.model
        warn_user(
            "fedlas.calibrate: the model is calibrated already; a new calibration replaces the old one."
        )
    calibrator = unfitted_calibrator(method)
    if isinstance(calibrator, MultiLabelCalibration):
        multi_label = True
    reader = _reader(calibrator, features, head)
    runner = Runner(
        network,
        val_loader,
        device=device,
        reader=reader,
        ignore_index=ignore_index,
        label=label,
        others=others,
        labeled=True,
        multi_label=multi_label,
    )
    try:
        if runner.is_multi_label():
            calibrator = unfitted_calibrator(method, multi_label=True)
        fitted, line = _fit(calibrator, runner)
    finally:
        reader.remove()
    calibrated = CalibratedModel(
        network,
        fitted,
        list(reader.heads) or head,
        ignore_index=ignore_index,
        features=reader.function if isinstance(reader, ComputedFeatures) else None,
    )
    note = getattr(reader, "note", "")
    calibrated._set_summary((lambda: f"logits alone, since {note}; {line()}") if note else line)
    return calibrated


def _fit(calibrator: AnyCalibrator, runner: Runner) -> tuple[Calibration, Callable[[], str]]:
    """Fit the calibrator, and return the calibration and a function that computes the one-line summary of the fit."""
    if isinstance(calibrator, MultiLabelCalibration):
        labels = collect_multi_label(runner)
        of_labels = Calibration(*fit_with_notes(calibrator, labels, warn=warn_user))
        return of_labels, lambda: _labels_in_sample(calibrator, labels)
    val, total = collect_predictions(runner, max_logits=MAX_LOGITS)
    fitted = Calibration(*fit_with_notes(calibrator, val, warn=warn_user))
    share = "" if total == val.num_samples else f"a random sample of {total:,}: "
    if val.tensors().logits.numel() <= _HELD:
        return fitted, lambda: share + describe_fit(val, calibrator.transform(val))
    text = share + describe_fit(val, calibrator.transform(val))
    return fitted, lambda: text


def _labels_in_sample(calibrator: MultiLabelCalibration, labels: MultiLabel) -> str:
    both = labels_before_after(labels, calibrator.transform(labels))
    before, after = (100 * stage.ece for stage in (both.before, both.after))
    text = f"{labels.num_labels} labels of {labels.num_samples:,}, macro ECE {before:.2f} %"
    return f"{text} before, {after:.2f} % after on them"


def _reader(
    calibrator: AnyCalibrator,
    features: bool | Callable[..., Tensor] | None,
    head: str | nn.Module | None,
) -> Reader | HeadSearch:
    """Return the reader of the features that the calibrator needs or the user requests."""
    needed = "features" in calibrator.needs
    used = needed or "features" in getattr(calibrator, "wants", ())
    if features is False or features is None:
        if needed and features is False:
            raise InputError(
                f"must not be False for {type(calibrator).__name__}, which needs them",
                Argument("features", False),
                "Leave features out, or choose another method.",
                argument="features",
            )
        is_read = used and features is None
        return HeadSearch(head, required=needed) if is_read else NoFeatures()
    if not used:
        raise InputError(
            "features require a calibrator that uses them",
            f"features for {type(calibrator).__name__}",
            ("Leave features out, or choose ", Argument("method", "auto"), "."),
        )
    if features is True:
        return HeadSearch(head, required=True)
    function: Any = features
    if callable(function):
        return ComputedFeatures(function)
    raise InputError(
        "features must be None, True, False or a function",
        describe(features),
        "Pass None for the head's input, False for logits alone, or a function of the model's inputs.",
    )
