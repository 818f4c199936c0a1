"""A classifier and its calibration as one module."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from fedlas._core.check import InputError, check_count, describe
from fedlas._core.files import checked_path, parse_json
from fedlas.calibrated.batches import bare, device_of, run
from fedlas.calibrated.before_after import BeforeAfter, before_and_after
from fedlas.calibrated.file import read_file, write_file
from fedlas.calibrators import Calibrator
from fedlas.features import FeatureTap, find_head
from fedlas.features.head import check_model
from fedlas.objective.objective import class_logits

__all__ = ["CalibratedModel"]


class CalibratedModel(nn.Module):
    """A model that returns calibrated logits; :func:`fedlas.calibrate` fits and makes one.

    Args:
        model: Any classifier with logits ``(N, C)`` or ``(N, C, d1, ...)``, or an object or mapping with ``logits``; an
            :class:`~fedlas.Objective` around one is taken apart. It is held, not copied.
        calibrator: A fitted one.
        head: The classifier head, if the calibrator needs features: its dotted name, the module, or None to find it.
        ignore_index: Label of positions that do not count when it is measured; None: all count.

    Attributes:
        model: The classifier.
        calibrator: A copy of the calibrator.
        calibration: The layer that follows the model.
        fitted_on: Samples of the fit, and their ECE before and after, as text; None if unknown.

    Raises:
        InputError: If the model is no module, or the calibrator is not fitted, was fitted on a ``TopLabel``, or
            cannot be a layer.

    State:
        In ``eval()`` from the start, and so is the model. ``state_dict()`` has the model's under ``model.`` and the
        calibrator as bytes of JSON, which ``load_state_dict`` puts in the place of the present one. Calibrated numbers
        keep their precision when the model is cast to half. With features there is a hook on the head.

    Example:
        >>> from fedlas import Predictions
        >>> from fedlas.calibrators import TemperatureScaling
        >>> val = Predictions([[3.0, 0.0], [3.0, 0.0], [0.0, 3.0], [3.0, 0.0]], [0, 0, 1, 1])
        >>> calibrated = CalibratedModel(nn.Identity(), TemperatureScaling().fit(val))
        >>> calibrated.predict_proba(torch.tensor([[3.0, 0.0]]))
        tensor([[0.7500, 0.2500]])
    """

    def __init__(
        self,
        model: nn.Module,
        calibrator: Calibrator,
        head: str | nn.Module | None = None,
        *,
        ignore_index: int | None = -100,
    ) -> None:
        super().__init__()
        check_model("CalibratedModel", model)
        if not isinstance(calibrator, Calibrator) or calibrator.top_label:
            raise InputError(
                "CalibratedModel",
                "the calibrator must be one of fedlas.calibrators, and for classes",
                f"{describe(calibrator)}{' for right and wrong' * isinstance(calibrator, Calibrator)}",
                "Fit one, e.g. TemperatureScaling().fit(val); or call fedlas.calibrate(model, val_loader).",
            )
        if ignore_index is not None:
            check_count("CalibratedModel", "ignore_index", ignore_index, low=None)
        # In a list, the head is not registered a second time.
        self.model, self._head, self.ignore_index = bare(model), [head], ignore_index
        self._tap: FeatureTap | None = None
        self.fitted_on: str | None = None
        self._adopt(calibrator)
        self.eval()

    def __repr__(self) -> str:
        fit = "" if self.fitted_on is None else f"  # {self.fitted_on}"
        return f"CalibratedModel({type(self.model).__name__}, {self.calibrator!r}){fit}"

    def forward(self, *inputs: Any, **options: Any) -> Tensor:
        """Return calibrated logits, of the shape and dtype of the model's; the arguments are the model's.

        Raises:
            InputError: If the model returns no logits, or those of another number of classes.
        """
        return self.calibration(*self._outputs(self.model, *inputs, **options))

    def predict_proba(self, inputs: Any = None, **named: Any) -> Tensor:
        """Return calibrated probabilities ``(N, C, ...)`` of a batch, at least float32, without gradients.

        Args:
            inputs: Inputs as a loader yields them: a tensor, a tuple (of positional arguments) or a mapping (of named
                ones, or one argument if the model takes it so); moved to the model's device.
            **named: In place of ``inputs``, the keywords of :meth:`forward`: ``predict_proba(**batch)``.

        Raises:
            InputError: As :meth:`forward`.
        """
        if (inputs is None) is not bool(named):
            expected, fix = "inputs must be passed once", "Pass a batch, or the arguments of forward by name."
            raise InputError("CalibratedModel.predict_proba", expected, "both" if named else "none", fix)
        inputs = named if inputs is None else inputs
        with torch.no_grad():
            logits, *features = self._outputs(partial(run, "CalibratedModel", self.model, inputs, device_of(self)))
            # In full precision from here on: half precision has three digits, and a softmax amplifies errors.
            wide = torch.promote_types(logits.dtype, torch.float32)
            return self.calibration(logits.to(wide), *features).softmax(dim=1)

    def before_after(self, test_loader: Iterable[Any], *, device: str | torch.device | None = None) -> BeforeAfter:
        """Measure accuracy, NLL and ECE on test data without and with the calibration; print it to see a table.

        Args:
            test_loader: As the loader of :func:`fedlas.calibrate`, with other samples.
            device: Device of the inputs; None is that of the model's parameters.

        Raises:
            InputError: As :func:`fedlas.calibrate`.
        """
        return before_and_after(
            self.model, self.calibration, test_loader, device=device, ignore_index=self.ignore_index, tap=self._tap
        )

    def save(self, path: str | Path) -> Path:
        """Write weights and calibration as a safetensors file, and return the path; it holds no code and no pickle.

        The weights have the names that they have in the model, so that other tools read the file as one of its weights.

        Raises:
            InputError: If the calibrator cannot be saved, the model's state holds more than tensors, or the folder is
                not writable.
        """
        about = {"head": self._head_name(), "ignore_index": self.ignore_index}
        return write_file(path, self.model.state_dict(), self.calibrator, about)

    @classmethod
    def load(cls, path: str | Path, model: nn.Module, head: str | nn.Module | None = None) -> Self:
        """Read what :meth:`save` wrote into a model of the same architecture.

        Args:
            path: The file.
            model: Built by you, since the file holds no code; its weights are overwritten.
            head: As for the constructor; None is the one that the file names.

        Raises:
            InputError: If the file cannot be read or is none, or its weights are those of another architecture: the
                model is then unchanged.
        """
        weights, calibrator, about = read_file(checked_path(path))
        check_model("CalibratedModel.load", model)
        network = bare(model)
        _check_fit(checked_path(path), weights, network.state_dict())
        loaded = cls(
            network, calibrator, about.get("head") if head is None else head, ignore_index=about.get("ignore_index")
        )
        network.load_state_dict(weights)
        return loaded

    def get_extra_state(self) -> Tensor:
        """Return the calibrator as bytes of JSON, for ``state_dict``."""
        return torch.frombuffer(bytearray(json.dumps(self.calibrator.plain()).encode()), dtype=torch.uint8)

    def set_extra_state(self, state: Tensor) -> None:
        """Adopt the calibrator of a ``state_dict``.

        Raises:
            InputError: If it is none.
        """
        try:
            content = parse_json(bytes(state.tolist()).decode())
        except (AttributeError, TypeError, ValueError) as error:
            expected = "_extra_state of a state dict must be a calibrator, as bytes of JSON"
            fix = "Load the state_dict() of a CalibratedModel."
            raise InputError("CalibratedModel", expected, describe(state), fix) from error
        self._adopt(Calibrator.from_plain(content, source="the state dict"))

    def _adopt(self, calibrator: Calibrator) -> None:
        layer = calibrator.module()
        if "features" in calibrator.needs and self._tap is None:
            self._tap = FeatureTap(find_head(self.model, *self._head))
        self.calibrator, self.calibration = copy.deepcopy(calibrator), layer.to(device_of(self.model))

    def _outputs(self, call: Any, *inputs: Any, **options: Any) -> list[Tensor]:
        """Return the model's logits, and the features if the calibrator needs them."""
        if self._tap is None:
            return [class_logits("CalibratedModel", call(*inputs, **options))]
        self._tap.start()
        try:
            logits = class_logits("CalibratedModel", call(*inputs, **options))
            return [logits, self._tap.stop()]
        finally:
            self._tap.cancel()

    def _head_name(self) -> str | None:
        head = self._head[0]
        if not isinstance(head, nn.Module):
            return head
        return next((name for name, module in self.model.named_modules() if module is head), None)


def _check_fit(path: Path, weights: dict[str, Tensor], expected: dict[str, Any]) -> None:
    """Refuse weights of another architecture before any is copied."""
    wrong = [f"{name} is missing" for name in expected if name not in weights]
    wrong += [f"{name} is unknown" for name in weights if name not in expected]
    wrong += [
        f"{name} is {tuple(value.shape)}, not {tuple(expected[name].shape)}"
        for name, value in weights.items()
        if name in expected and value.shape != expected[name].shape
    ]
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise InputError(
            "CalibratedModel.load",
            f"the model must have the weights of {path}",
            "; ".join(wrong[:3]) + more,
            "Build the architecture that was saved, with the same options.",
        )
