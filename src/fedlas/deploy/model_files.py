"""Export of calibrated models to files, each verified against the model before it is written."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fedlas._core.check import InputError, check_choice, check_number, describe, is_dense
from fedlas._core.defaults import ExportFormat, SqlDialect
from fedlas._core.extras import MissingExtraError
from fedlas._core.files import to_path
from fedlas._core.kinds import check_argument_types
from fedlas.calibrated import CalibratedModel, TableCalibration
from fedlas.deploy.exported import (
    BATCH_SIZE,
    Exported,
    Samples,
    build_metadata,
    check_and_write,
    describe_input,
)
from fedlas.deploy.formats import FORMATS, DeployedModel, FreeAxes
from fedlas.deploy.pipeline_onnx import export_pipeline, is_calibrated_pipeline
from fedlas.deploy.sklearn_onnx import export_sklearn
from fedlas.predictions import MultiLabel, Predictions, TopLabel
from fedlas.predictions.any_predictions import require_predictions
from fedlas.predictions.tensors import binary_logits, safe_log, to_log_odds

if TYPE_CHECKING:
    from fedlas.deploy.calibration import Calibration

TOLERANCE = 1e-5
"""Largest accepted difference between a probability of the file and of the model."""
IMAGE_INPUT = "images"
"""Input name of an exported image model."""


@check_argument_types
def export_model(
    model: nn.Module,
    out: Path,
    *,
    form: str,
    calibration: Calibration,
    mean: Sequence[float],
    std: Sequence[float],
    images: Callable[[], Iterable[Tensor]],
    expected: Predictions,
    about: Mapping[str, Any],
    tolerance: float = TOLERANCE,
) -> Exported:
    """Export an image model with normalization and calibration, after verifying the probabilities of the file."""
    # ``images`` yields all uint8 batches (n, channels, H, W) at each call; ``expected_probs`` are the predictions of
    # the model on these images, before calibration.
    check_number("tolerance", tolerance, low=0)
    inner = model if calibration.calibrator is None else CalibratedModel(model, calibration)
    deployed = DeployedModel(inner, mean=mean, std=std).eval()
    probs = require_predictions(calibration.transform(expected)).probs.astype(np.float64)
    normalization = {
        "mean": list(mean),
        "std": list(std),
        "of": "pixel / 255",
        "done by": "the model",
    }
    about = {**about, "calibration": calibration.to_dict(), "normalization": normalization}

    def samples() -> Iterator[tuple[dict[str, Tensor], NDArray[np.floating[Any]]]]:
        done = 0
        for batch in images():
            yield {IMAGE_INPUT: batch}, probs[done : done + len(batch)]
            done += len(batch)
        if done != len(probs):
            expected_text = (
                f"the test part must have {len(probs)} samples, as the predictions of the run"
            )
            raise InputError(expected_text, done, "Train the run again.")

    example = {IMAGE_INPUT: next(iter(images()))}
    return _write_exported(
        deployed, out, form, example, samples(), about, tolerance, ranges={IMAGE_INPUT: (0, 255)}
    )


@check_argument_types
def export(
    model: object,
    path: str | Path,
    inputs: object = None,
    *,
    form: ExportFormat = "onnx",
    by_name: bool | None = None,
    free_axes: Sequence[int] | FreeAxes = (),
    dialect: SqlDialect | None = None,
    keep: Sequence[str] = (),
    about: Mapping[str, Any] | None = None,
    tolerance: float = TOLERANCE,
) -> Exported:
    """Export a calibrated model to a file, after checking that the file reproduces the model's probabilities.

    Args:
        model: A :class:`~fedlas.CalibratedModel`; or a fitted ``CalibratedClassifier`` of scikit-learn, in ONNX, whose
            estimator ``skl2onnx`` converts, or a ``Pipeline`` that ends in one, with an input for each column of a
            frame that it uses; or a :class:`~fedlas.TableCalibration`. It does not change.
        path: The file.
        inputs: Real samples ``(N, ...)`` to check with, as the model takes them; a mapping for a model of several. The
            calibration of a table needs none.
        form: Format of the file; ``sql``, a SELECT, is for the calibration of a table whose calibrator has a formula.
        by_name: Whether the model takes the inputs as keyword arguments; None: if they are a mapping.
        free_axes: Axes whose size the file leaves free, such as ``(2, 3)`` for the height and width of images, or by
            input ``{"images": (2, 3)}``. The first axis, the batch, always is, and so is the length of tokens ``(N,
            L)`` unless the model fixes it. TorchScript fixes no size by itself.
        dialect: The database that ``sql`` is for; None is ``"duckdb"``.
        keep: Further columns of the table that the statement of ``sql`` returns, such as an id.
        about: Metadata to store in the file, as JSON values.
        tolerance: Largest accepted difference of a probability.

    Raises:
        InputError: If the model cannot be exported to this format or fixes a free axis, or the file gives other
            probabilities. No file is then written.
        MissingExtraError: If a package of the form is not installed.
    """
    check_choice("form", form, FORMATS)
    check_number("tolerance", tolerance, low=0)
    if dialect is not None:
        check_choice("dialect", dialect, get_args(SqlDialect))
    if form != "sql" and (dialect is not None or keep):
        name = "keep" if dialect is None else "dialect"
        raise InputError(
            "must be left out unless the format is sql", form, "Leave it out.", argument=name
        )
    if isinstance(model, TableCalibration):
        module = TableModule(model, dialect or "duckdb", keep).eval()
        return _export_table(module, to_path(path), form, dict(about or {}), tolerance)
    is_pipeline = is_calibrated_pipeline(model)
    if is_pipeline or (hasattr(model, "estimator_") and hasattr(model, "calibrator_")):
        if form != "onnx":
            raise InputError(
                "form must be 'onnx' for a scikit-learn model", form, "Leave form out."
            )
        write = export_pipeline if is_pipeline else export_sklearn
        return write(model, to_path(path), inputs, dict(about or {}), tolerance)
    if not isinstance(model, CalibratedModel):
        fix = "Pass the result of fedlas.calibrate(model, val_loader)."
        raise InputError(
            "model must be a CalibratedModel, a fitted CalibratedClassifier or a TableCalibration",
            describe(model),
            fix,
        )
    by_name = not isinstance(inputs, Tensor) if by_name is None else by_name
    tensors = _check_inputs({"inputs": inputs} if isinstance(inputs, Tensor) else inputs)
    axes = _check_free_axes(free_axes, tensors)
    deployed = DeployedModel(model, names=list(tensors) if by_name else None).eval()
    number = len(next(iter(tensors.values())))

    starts = range(0, number, BATCH_SIZE)
    parts = [
        {name: value[start : start + BATCH_SIZE] for name, value in tensors.items()}
        for start in starts
    ]
    if axes:  # another size of each free axis, so that a fixed size is detected
        parts.append(_lengthen_free_axes(parts[0], axes))
        try:
            with torch.no_grad():
                deployed(*parts[-1].values())
        except (RuntimeError, ValueError, IndexError) as error:
            got = f"{type(error).__name__} at 1.5 times the size: {str(error)[:200]}"
            raise InputError(
                "the model must accept any size of each free axis",
                got,
                "Leave out axes of fixed size.",
            ) from error

    def samples() -> Iterator[tuple[Mapping[str, Tensor], NDArray[np.floating[Any]]]]:
        for part in parts:
            with torch.no_grad():
                yield part, deployed(*part.values())[1].double().numpy()

    about = {**(about or {}), "calibration": model.fitted.to_dict()}
    return _write_exported(
        deployed, to_path(path), form, tensors, samples(), about, tolerance, axes=axes
    )


def _export_table(
    module: TableModule, out: Path, form: str, about: dict[str, Any], tolerance: float
) -> Exported:
    """Export a table calibration, a map from scores and covariates to probabilities."""
    inputs = module.example()
    calibration = module.calibration
    covariates = calibration.covariates
    about |= {
        "columns": list(calibration.scores),
        "unit": str(calibration.columns.kind),
        "classes": list(calibration.classes),
        "covariates": [] if covariates is None else list(covariates.inputs),
        "calibration": calibration.fitted.to_dict(),
    }
    samples = [(inputs, module.expected_probs(inputs).double().numpy())]
    return _write_exported(module, out, form, inputs, samples, about, tolerance)


def _check_inputs(inputs: object) -> dict[str, Tensor]:
    fix = "Pass a tensor (N, ...), or a mapping from input names to tensors."
    if (
        not isinstance(inputs, Mapping)
        or not inputs
        or not all(
            is_dense(v) and not v.is_meta and not v.is_complex() and v.ndim for v in inputs.values()
        )
    ):
        raise InputError(
            "inputs must be a dense tensor (N, ...) or a mapping of such tensors",
            describe(inputs),
            fix,
        )
    sizes = {len(value) for value in inputs.values()}
    if len(sizes) != 1 or 0 in sizes:
        raise InputError(
            "all inputs must have the same number of samples, at least 1", sorted(sizes), fix
        )
    return {str(name): value for name, value in inputs.items()}


def _check_free_axes(free_axes: Sequence[int] | FreeAxes, inputs: Mapping[str, Tensor]) -> FreeAxes:
    is_list = isinstance(free_axes, list | tuple)
    by_input: Any = (
        free_axes if not is_list else dict.fromkeys(inputs, free_axes) if free_axes else {}
    )
    if not isinstance(by_input, Mapping):
        raise InputError(
            "free axes must be a list of axes, or a mapping from inputs to lists",
            describe(free_axes),
            "Pass for example (2, 3).",
        )
    for name, axes in by_input.items():
        most = inputs[name].ndim if name in inputs else 0
        if not isinstance(axes, list | tuple) or not all(
            isinstance(axis, int) and 0 < axis < most for axis in axes
        ):
            shapes = ", ".join(f"{each} {tuple(value.shape)}" for each, value in inputs.items())
            got = f"{describe(axes)} for {name!r}"
            raise InputError(
                "each free axis must be an axis of an input, 1 or higher",
                got,
                f"The inputs are: {shapes}.",
            )
    return by_input


def _lengthen_free_axes(inputs: Mapping[str, Tensor], axes: FreeAxes) -> dict[str, Tensor]:
    """Return the inputs lengthened by half along each free axis."""
    longer = dict(inputs)
    for name, axis in ((name, axis) for name, each in axes.items() for axis in each):
        value = longer[name]
        longer[name] = torch.cat(
            [value, value.narrow(axis, 0, (value.shape[axis] + 1) // 2)], dim=axis
        )
    return longer


def _write_exported(
    deployed: nn.Module,
    out: Path,
    form: str,
    example: Mapping[str, Tensor],
    samples: Samples,
    about: Mapping[str, Any],
    tolerance: float,
    *,
    axes: FreeAxes | None = None,
    ranges: Mapping[str, tuple[float, float]] | None = None,
) -> Exported:
    """Convert the model, compare the result with the model on all samples, and write the file if they agree."""
    inputs = [
        describe_input(name, value, axes or {}, ranges or {}) for name, value in example.items()
    ]
    example_rows = {
        name: value[torch.arange(3) % len(value)].clone() for name, value in example.items()
    }
    try:
        content = FORMATS[form].write(
            deployed, example_rows, axes or {}, build_metadata(about, inputs)
        )
    except (InputError, MissingExtraError):
        raise
    except Exception as error:  # whatever a tracer finds in a model it cannot follow
        reason = next(
            (line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__
        )
        got = f"{type(error).__name__}: {reason[:300]}"
        fix = "Try another format, or leave the free axes out." if axes else "Try another format."
        raise InputError(f"the model must be convertible to {form}", got, fix) from error

    def reference(batch: Mapping[str, Tensor]) -> NDArray[np.floating[Any]]:
        with torch.inference_mode():
            probs: NDArray[np.floating[Any]] = deployed(*batch.values())[1].double().numpy()
        return probs

    return check_and_write(out, form, content, inputs, example_rows, reference, samples, tolerance)


_EXAMPLE_ROWS = 256
"""Example rows on which an exported table calibration is compared."""


class TableModule(nn.Module):
    """Module that maps scores and covariates of a table to calibrated logits and probabilities, in float64."""

    def __init__(
        self, calibration: TableCalibration, dialect: SqlDialect, keep: Sequence[str]
    ) -> None:
        super().__init__()
        self.fitted = calibration.fitted
        self.layer = self.fitted.module()
        self.kind = calibration.columns.kind
        self.percent = calibration.columns.percent
        self.dialect: SqlDialect = dialect
        self.keep = tuple(keep)
        self.single = len(calibration.scores) == 1 and not calibration.in_lists
        self.calibration = calibration

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Return calibrated logits and probabilities ``(N, C)`` for scores ``(N, columns)``, covariates ``(N, D)``."""
        scores = inputs[0] / 100.0 if self.percent else inputs[0]
        if self.fitted.multi_label:
            # A missing score makes the whole row missing.
            scores = scores + 0.0 * scores.sum(dim=1, keepdim=True)
            logits = scores if self.kind == "logits" else to_log_odds(scores)
        # A single column holds the second of two classes, or the confidence of a top label.
        elif self.kind == "logits":
            logits = binary_logits(scores[:, 0]) if self.single else scores
        else:
            probs = torch.cat([1.0 - scores, scores], dim=1) if self.single else scores
            logits = safe_log(probs)
        calibrated = self.layer(logits, *inputs[1:])
        return calibrated, self.fitted.probs(calibrated)

    def example(self) -> dict[str, Tensor]:
        """Return example inputs for verifying an export: scores of all magnitudes, some missing, and covariates."""
        random = torch.Generator().manual_seed(0)
        classes = 2 if self.single else self.fitted.num_classes or 2
        spread = torch.linspace(0.1, 12.0, _EXAMPLE_ROWS, dtype=torch.float64).unsqueeze(1)
        logits = spread * torch.randn(_EXAMPLE_ROWS, classes, generator=random, dtype=torch.float64)
        scores = logits if self.kind == "logits" else self.fitted.probs(logits)
        scores = (scores[:, 1:] if self.single else scores) * (100.0 if self.percent else 1.0)
        for column in range(scores.shape[1]):
            scores[-2 - column, column] = torch.nan
        scores[-1] = torch.nan
        inputs = {"scores": scores}
        if self.calibration.covariates is not None:
            levels = torch.tensor(self.calibration.covariates.levels, dtype=torch.float64)
            numbers = torch.randn(_EXAMPLE_ROWS, len(levels), generator=random, dtype=torch.float64)
            shares = torch.rand(_EXAMPLE_ROWS, len(levels), generator=random, dtype=torch.float64)
            codes = (shares * (levels + 1)).floor()  # the last one is none of the values
            inputs["covariates"] = torch.where(levels > 0, codes, numbers)
        return inputs

    def expected_probs(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return the probabilities of the calibrator, ``(N, C)``; NaN in rows with a missing score."""
        complete = inputs["scores"].isfinite().all(dim=1)
        rows = {name: value[complete] for name, value in inputs.items()}
        complete_probs = self._calibrated_probs(rows["scores"], rows.get("covariates"))
        probs = complete_probs.new_full((len(complete), complete_probs.shape[1]), torch.nan)
        probs[complete] = complete_probs
        return probs

    def _calibrated_probs(self, scores: Tensor, features: Tensor | None) -> Tensor:
        transform: Callable[..., Any] = self.fitted.transform
        scores = scores / 100.0 if self.percent else scores
        if self.fitted.multi_label:
            build = MultiLabel if self.kind == "logits" else MultiLabel.from_probs
            labels: Tensor = transform(build(scores, features=features)).tensors().probs
            return labels
        if self.kind == "confidence":
            unknown = torch.zeros(len(scores), dtype=torch.bool)
            after = transform(TopLabel(scores[:, 0], unknown)).tensors().confidence
            return torch.stack([1.0 - after, after], dim=1)
        if self.kind == "logits":
            both = binary_logits(scores[:, 0]) if self.single else scores
            return transform(Predictions(both, features=features)).tensors().probs
        return (
            transform(
                Predictions.from_probs(scores[:, 0] if self.single else scores, features=features)
            )
            .tensors()
            .probs
        )
