"""A classifier and its calibration as one module."""

from __future__ import annotations

import copy
import json
import weakref
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from fedlas._core.check import InputError, check_choice, check_count, describe
from fedlas._core.files import parse_json, to_path
from fedlas.calibrated.before_after import BeforeAfter, before_and_after
from fedlas.calibrated.calibration import AnyCalibrator, Calibration
from fedlas.calibrated.file import read_file, write_file
from fedlas.calibrators import Calibrator, MultiLabelCalibration
from fedlas.features import find_head
from fedlas.features.head import find_submodule
from fedlas.features.readers import ComputedFeatures, HeadInput, NoFeatures, Reader
from fedlas.objective.call import ForwardArguments, class_logits, extract_logits, move_to_device
from fedlas.objective.network import to_network
from fedlas.objective.runner import model_device

__all__ = ["CalibratedModel"]

Heads = str | nn.Module | Sequence[str | nn.Module] | None
COMPUTED = "computed"
"""In a file: features come from a function, which the file does not hold."""


class CalibratedModel(nn.Module):
    """A classifier that returns calibrated logits; :func:`fedlas.calibrate` fits one.

    Args:
        model: Any classifier with logits ``(N, C)`` or ``(N, C, d1, ...)``, or an object or mapping with ``logits``; an
            :class:`~fedlas.Objective` around one is taken apart, and a list of models is an ensemble. It is held, not
            copied.
        calibrator: A fitted one; of independent labels a ``MultiLabelCalibration``; or a
            :class:`~fedlas.deploy.Calibration`, whose notes the model then has as well.
        head: The classifier head, if the calibrator uses features: its dotted name, the module, or None to find it; of
            an ensemble a list.
        ignore_index: Label of positions that do not count when it is measured; None: all count.
        features: Function of the model's inputs that returns features ``(N, D)``, if they are not the head's input. A
            module becomes a part of the calibrated model.

    Attributes:
        model: The classifier.
        calibrator: A copy of the calibrator.
        fitted: The calibrator with what is known of it: its method, what is saved, whether it uses features.
        feature_function: The function that ``features`` was, or None.
        calibration: The layer that follows the model.
        fitted_on: Samples of the fit, and their ECE before and after, as text; None if unknown. It is computed when it
            is read for the first time.

    Raises:
        InputError: If the model is no module, or the calibrator is not fitted, was fitted on a ``TopLabel``, or
            cannot be a layer; or if it uses features, and no head is found.

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
        model: object,
        calibrator: AnyCalibrator | Calibration,
        head: Heads = None,
        *,
        ignore_index: int | None = -100,
        features: Callable[..., Tensor] | None = None,
    ) -> None:
        super().__init__()
        network = to_network(model)
        fitted = calibrator if isinstance(calibrator, Calibration) else Calibration(calibrator)
        inner = fitted.calibrator
        if not isinstance(inner, Calibrator | MultiLabelCalibration) or inner.top_label:
            raise InputError(
                "calibrator must be a class-wise or multi-label calibrator of fedlas.calibrators",
                f"{describe(inner)}{' fitted on a TopLabel' * isinstance(inner, Calibrator)}",
                "Fit one, e.g. TemperatureScaling().fit(val); or call fedlas.calibrate(model, val_loader).",
            )
        if ignore_index is not None:
            check_count("ignore_index", ignore_index, low=None)
        self.model = network
        self.ignore_index = ignore_index
        # In a list, a head is not registered a second time.
        self._named_heads: list[Any] = list(head) if isinstance(head, list | tuple) else [head]
        self.feature_function = features
        self._fit: Callable[[], str] | None = None
        self._fitted_on: str | None = None
        self._reader: Reader = NoFeatures()
        self._adopt(copy.deepcopy(fitted))
        self.eval()

    @property
    def fitted_on(self) -> str | None:
        """Summary of the fit as text: the number of samples, and their ECE before and after; None if unknown."""
        if self._fit is not None:
            self._fitted_on = self._fit()
            self._fit = None
        return self._fitted_on

    def _set_summary(self, fit: str | Callable[[], str]) -> None:
        """Set the text of :attr:`fitted_on`, or a function that computes it at the first use."""
        self._fit = fit if callable(fit) else lambda: fit

    @property
    def multi_label(self) -> bool:
        """Whether the model is multi-label: independent labels with sigmoid probabilities."""
        return self.fitted.multi_label

    @property
    def calibrator(self) -> AnyCalibrator:
        """The fitted calibrator."""
        return self.fitted.required_calibrator

    @property
    def called_as(self) -> nn.Module:
        """The underlying model, which defines the arguments of a call."""
        inner = getattr(self.model, "called_as", self.model)
        return inner if isinstance(inner, nn.Module) else self.model

    def __repr__(self) -> str:
        fit = "" if self.fitted_on is None else f"  # {self.fitted_on}"
        return f"CalibratedModel({type(self.model).__name__}, {self.calibrator!r}){fit}"

    def __getstate__(self) -> dict[str, Any]:
        # The samples of the fit stay behind.
        return {**self.__dict__, "_fitted_on": self.fitted_on, "_fit": None}

    def forward(self, *inputs: Any, **options: Any) -> Tensor:
        """Return calibrated logits in the shape and dtype of the model's logits; takes the model's arguments.

        Raises:
            InputError: If the model returns no logits, or those of another number of classes.
        """
        return self.calibration(*self._outputs(inputs, options))

    def predict_proba(self, inputs: object = None, **named: Any) -> Tensor:
        """Return calibrated probabilities ``(N, C, ...)`` of a batch, at least float32, without gradients.

        With independent labels, each is a sigmoid ``(N, L)``.

        Args:
            inputs: Inputs as a loader yields them: a tensor, a tuple (of positional arguments) or a mapping (of named
                ones, or one argument if the model takes it so); moved to the model's device.
            **named: In place of ``inputs``, the keywords of :meth:`forward`: ``predict_proba(**batch)``.

        Raises:
            InputError: As :meth:`forward`.
        """
        if (inputs is None) is not bool(named):
            raise InputError(
                "exactly one of inputs and keyword arguments must be passed",
                "both" if named else "neither",
                "Pass a batch, or the arguments of forward by name.",
            )
        batch = move_to_device(named if inputs is None else inputs, model_device(self))
        positional, options = ForwardArguments.from_model(self.model).bind(self.model, batch, {})
        with torch.no_grad():
            logits, *features = self._outputs(positional, options)
            # In full precision from here on: half precision has three digits, and a softmax amplifies errors.
            wide = torch.promote_types(logits.dtype, torch.float32)
            calibrated: Tensor = self.calibration(logits.to(wide), *features)
            return self.fitted.probs(calibrated)

    def before_after(
        self,
        test_loader: Iterable[Any],
        *,
        device: str | torch.device | None = None,
        ignore_index: int | Literal["fitted"] | None = "fitted",
        label: int | str | None = None,
        weights: int | str | None = None,
        clusters: int | str | None = None,
    ) -> BeforeAfter:
        """Return accuracy, NLL and ECE on test data before and after calibration; prints as a table.

        Args:
            test_loader: As the loader of :func:`fedlas.calibrate`, with other samples.
            device: Device of the inputs; None is that of the model's parameters.
            ignore_index: Label of positions that do not count; None: all count; "fitted" is that of the model.
            label: Key or position of the labels in a batch, where they are elsewhere.
            weights: Key or position of the weight of each sample in a batch.
            clusters: Key or position of the cluster of each sample in a batch, such as its patient: the floor, and the
                warning of a rise, then take whole clusters as independent. Dense outputs have no floor, and take none.

        Raises:
            InputError: As :func:`fedlas.calibrate`.
        """
        if isinstance(ignore_index, str):
            check_choice("ignore_index", ignore_index, ["fitted"])
            ignored = self.ignore_index
        else:
            ignored = ignore_index
            if ignored is not None:
                check_count("ignore_index", ignored, low=None)
        return before_and_after(
            self.model,
            self.calibration,
            test_loader,
            device=device,
            ignore_index=ignored,
            reader=self._reader,
            label=label,
            others={
                name: key
                for name, key in {"weights": weights, "clusters": clusters}.items()
                if key is not None
            },
            multi_label=self.multi_label,
        )

    def save(self, path: str | Path) -> Path:
        """Save weights and calibration as a safetensors file, without code or pickles, and return the path.

        The weights have the names that they have in the model, so that other tools read the file as one of its weights.
        A function of features is code, and a module of such is not part of the file: pass it to :meth:`load`.

        Raises:
            InputError: If the calibrator cannot be saved, the model's state holds more than tensors, another file
                is there, or the folder is not writable.
        """
        source = COMPUTED if isinstance(self._reader, ComputedFeatures) else None
        about = {"head": self._head_names(), "ignore_index": self.ignore_index, "features": source}
        return write_file(path, self.model.state_dict(), self.fitted, about)

    @classmethod
    def load(
        cls,
        path: str | Path,
        model: object,
        head: Heads = None,
        *,
        features: Callable[..., Tensor] | None = None,
    ) -> Self:
        """Load a file that :meth:`save` wrote into a model of the same architecture.

        Args:
            path: The file.
            model: Built by you, since the file holds no code; its weights are overwritten. A list, if the file holds an
                ensemble.
            head: As for the constructor; None is the one that the file names.
            features: The function of the features, if the fit had one.

        Raises:
            InputError: If the file cannot be read or is none, or its weights are those of another architecture: the
                model is then unchanged. If its features come from a function, and none is passed.
        """
        weights, calibration, about = read_file(to_path(path))
        network = to_network(model)
        _check_fit(to_path(path), weights, network.state_dict())
        if about.get("features") == COMPUTED and features is None:
            raise InputError(
                "features is required: this calibration uses a function of the inputs",
                "none",
                "Pass the function that fedlas.calibrate was given: load(path, model, features=function).",
            )
        heads = about.get("head") if head is None else head
        loaded = cls(
            network, calibration, heads, ignore_index=about.get("ignore_index"), features=features
        )
        network.load_state_dict(weights)
        return loaded

    def get_extra_state(self) -> Tensor:
        """Return the calibrator serialized as JSON bytes, for ``state_dict``."""
        return torch.frombuffer(
            bytearray(json.dumps(self.fitted.saved_parameters()).encode()), dtype=torch.uint8
        )

    def set_extra_state(self, state: Tensor) -> None:
        """Restore the calibrator from a ``state_dict``.

        Raises:
            InputError: If it is none.
        """
        try:
            content = parse_json(bytes(state.tolist()).decode())
        except (AttributeError, TypeError, ValueError) as error:
            raise InputError(
                "_extra_state of a state dict must be a calibrator as JSON bytes",
                describe(state),
                "Load the state_dict() of a CalibratedModel.",
            ) from error
        self._adopt(Calibration.from_dict(content, source="the state dict"))

    def _adopt(self, fitted: Calibration) -> None:
        layer = fitted.module()
        if not fitted.uses_features:
            self._reader.remove()
            self._reader = NoFeatures()
        elif isinstance(self._reader, NoFeatures):
            self._reader = self._new_reader()
            # The head may outlive this module, and would keep a hook of each calibration.
            weakref.finalize(self, self._reader.remove).atexit = False
        self.fitted = fitted
        device = model_device(self.model)
        # A fit is made on the CPU.
        self.calibration = layer if device.type == "cpu" else layer.to(device)

    def _new_reader(self) -> Reader:
        if self.feature_function is not None:
            return ComputedFeatures(self.feature_function)
        networks = list(getattr(self.model, "members", [self.model]))
        if self._named_heads == [None]:
            return HeadInput([find_head(network) for network in networks])
        return HeadInput([_part(self.model, head) for head in self._named_heads])

    def _outputs(self, inputs: Sequence[Any], options: dict[str, Any]) -> list[Tensor]:
        """Return a list of the model's logits and, if the calibrator uses them, the features."""
        output, features = self._reader(self.model, inputs, options)
        logits = (extract_logits if self.multi_label else class_logits)(output)
        if features is None:
            return [logits]
        return [logits, features.flatten(1) if logits.ndim == 2 else features]

    def _head_names(self) -> list[str] | None:
        """Return the names of the heads, or None if any is not in the model; the model itself is named ``""``."""
        heads: Sequence[Any] = self._reader.heads or self._named_heads
        names = {id(module): name for name, module in self.model.named_modules()}
        paths = [names.get(id(head)) if isinstance(head, nn.Module) else head for head in heads]
        return None if None in paths else [str(name) for name in paths]


def _part(model: nn.Module, head: str | nn.Module | None) -> nn.Module:
    """Return the head by name or module; the empty name is the model itself."""
    return model if head == "" else find_submodule("head", model, head or "")


def _check_fit(path: Path, weights: dict[str, Tensor], expected: dict[str, Any]) -> None:
    """Raise InputError if the names or shapes of saved weights differ from those of the model."""
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
            f"the model must have the weights of {path}",
            "; ".join(wrong[:3]) + more,
            "Build the architecture that was saved, with the same options.",
        )
