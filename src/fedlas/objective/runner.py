"""Running a model over a loader: yields rows with logits, labels, features, weights, clusters and time.

A row is a sample, or a position of a sample of dense outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from fedlas._core.check import Argument, InputError, check_count, check_logits, describe
from fedlas.features.readers import NoFeatures, Reader
from fedlas.objective.call import (
    LABELS,
    ForwardArguments,
    Key,
    class_logits,
    eval_mode,
    extract_logits,
    move_to_device,
    split_batch,
    to_class_labels,
    to_label_tensor,
)
from fedlas.predictions import MultiLabel, Predictions
from fedlas.predictions.multi_label import UNKNOWN, is_label_matrix

if TYPE_CHECKING:
    from fedlas.objective.head_search import HeadSearch

Rows = dict[str, Tensor]
"""Fields of some rows: ``logits (M, C)``, and optionally ``target``, ``features (M, D)``, ``weights``, ``clusters`` and
``time``."""
MAX_LOGITS = 2**28
"""Most logits and features that are kept, 1 GiB of float32; with more, a random sample of the rows is kept."""
_VOID_LABEL = 255
_KEPT_DTYPES = (torch.float32, torch.float64, torch.int64)


def model_device(model: nn.Module) -> torch.device:
    """Return the device of the model's parameters; the CPU if it has none."""
    return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))


class Runner:
    """Iterable of the rows of all batches of a loader: logits, labels and further fields.

    Args:
        model: The classifier, without wrappers.
        loader: Yields batches, see :func:`fedlas.objective.call.read_batch`.
        device: Device of the inputs; None is that of the model's parameters.
        reader: Runs the model and reads features, if they are needed.
        ignore_index: Label of rows that do not count; None: all count.
        label: Key or position of the labels, where they are elsewhere.
        others: Keys or positions of ``weights``, ``clusters`` and ``time`` in a batch.
        labeled: Whether every batch must have labels.
        observe: Called with logits and features of each batch, on the model's device.
        keep_features: Whether the rows include features.
        multi_label: Whether labels are independent: logits ``(N, L)`` and target 0 or 1 ``(N, L)``; None: decided by
            the first batch.

    Attributes:
        dense: Whether the last batch had more than one position per sample.

    State:
        While it is iterated, the model is in ``eval()``, and no gradient is kept.
    """

    dense = False

    def __init__(
        self,
        model: nn.Module,
        loader: Iterable[Any],
        *,
        device: str | torch.device | None = None,
        reader: Reader | HeadSearch | None = None,
        ignore_index: int | None = -100,
        label: Key | None = None,
        others: dict[str, Key] | None = None,
        labeled: bool = False,
        observe: Callable[[Tensor, Tensor], None] | None = None,
        keep_features: bool = True,
        multi_label: bool | None = False,
    ) -> None:
        no_batches = isinstance(loader, nn.Module | Tensor) or getattr(loader, "ndim", 1) == 0
        if no_batches or not hasattr(loader, "__iter__"):
            raise InputError(
                "the loader must yield batches",
                describe(loader),
                "Pass a DataLoader, or a list of batches.",
            )
        if ignore_index is not None:
            check_count("ignore_index", ignore_index, low=None)
        try:
            self._device = model_device(model) if device is None else torch.device(device)
        except (RuntimeError, TypeError, ValueError) as error:
            raise InputError(
                "device must be a device of torch", describe(device), "Pass 'cpu' or 'cuda'."
            ) from error
        try:
            torch.empty(0, device=self._device)
        except (AssertionError, NotImplementedError, RuntimeError) as error:
            raise InputError(
                "device must be available",
                f"{str(self._device)!r} ({str(error).splitlines()[0]})",
                "Pass 'cpu', or install a PyTorch build for this device.",
            ) from error
        self._model = model
        self._loader = loader
        self._reader = reader or NoFeatures()
        self._ignored = ignore_index
        self._label = label
        self._others = others or {}
        self._labeled = labeled
        self._observe = observe
        self._keep_features = keep_features
        self._multi_label = multi_label
        self._first: tuple[Rows, int] | None = None
        self._rest: Iterator[Any] | None = None
        self._arguments = ForwardArguments.from_model(model)
        self._names: dict[str, int] = {}

    def is_multi_label(self) -> bool:
        """Return whether the labels are independent; runs the first batch if that is unknown."""
        if self._multi_label is None:
            self._rest = iter(self._loader)
            with eval_mode(self._model), torch.no_grad():
                for batch in self._rest:
                    self._first = self._run_batch(batch, 0)
                    break
        return bool(self._multi_label)

    def __iter__(self) -> Iterator[Rows]:
        """Yield the rows of each nonempty batch, on the CPU."""
        batches = 0
        labeled = 0
        count = 0
        samples = 0
        with eval_mode(self._model), torch.no_grad():
            for rows, size in self._iter_batches():
                samples += size
                batches += 1
                labeled += "target" in rows
                count += len(rows["logits"])
                if len(rows["logits"]):
                    yield rows
        if not count:
            what = "one labeled sample" if self._labeled else "one batch"
            raise InputError(
                f"the loader must yield at least {what}",
                "none",
                "Check the data set. A generator can be iterated only once: pass a list or a DataLoader.",
            )
        if labeled not in (0, batches):
            raise InputError(
                "all batches must have labels, or none of them",
                f"labels in {labeled} of {batches} batches",
                "Add the missing labels, or drop all of them.",
            )

    def _iter_batches(self) -> Iterator[tuple[Rows, int]]:
        """Yield the rows and the number of samples of each batch."""
        samples = 0
        if self._first is not None:
            (rows, samples), self._first = self._first, None
            yield rows, samples
        for batch in self._loader if self._rest is None else self._rest:
            rows, size = self._run_batch(batch, samples)
            samples += size
            yield rows, size

    def _run_batch(self, batch: object, first_sample: int) -> tuple[Rows, int]:
        """Return the rows of a batch and its number of samples; ``first_sample``: samples in earlier batches."""
        inputs, labels, others = split_batch(batch, self._label, self._others)
        if self._labeled and to_label_tensor(labels) is None:
            raise self._unlabeled_error(labels)
        positional, named = self._arguments.bind(
            self._model, move_to_device(inputs, self._device), {}
        )
        output, features = self._reader(self._model, positional, named)
        if self._multi_label is None:
            self._multi_label = has_several_labels(
                to_label_tensor(labels), extract_logits(output), self._ignored
            )
        logits_in = extract_logits if self._multi_label else class_logits
        logits = check_logits(logits_in(output))
        if logits.ndim < 2 or (self._multi_label and logits.ndim > 2):
            raise InputError(
                "the model must return logits (N, C)",
                describe(logits),
                "Return one row of logits per sample.",
            )
        self.dense = logits.ndim > 2
        parts = {"logits": logits}
        if features is not None:
            features = self._align_features(features, logits)
            if self._observe is not None:
                self._observe(logits, features)
            if self._keep_features:
                parts["features"] = features
        rows = {
            name: _to_cpu(part.movedim(1, -1).reshape(-1, part.shape[1]))
            for name, part in parts.items()
        }
        if labels is not None and self._multi_label:
            rows["target"] = self._multi_label_targets(labels, logits)
        elif labels is not None:
            rows["target"] = to_class_labels(labels, logits).reshape(-1)
        for name, value in others.items():
            rows[name] = self._broadcast_to_rows(name, value, logits)
        if self.dense and "clusters" not in rows:
            numbers = torch.arange(first_sample, first_sample + len(logits))
            rows["clusters"] = self._broadcast_to_rows("clusters", numbers, logits)
        ignored = self._ignored
        if ignored is not None and labels is not None and not self._multi_label:
            counts = rows["target"].ne(ignored)
            if not bool(counts.all()):
                rows = {name: part[counts] for name, part in rows.items()}
        if "target" in rows and not self._multi_label:
            _check_void_labels(rows["target"], logits.shape[1])
        return rows, len(logits)

    def _multi_label_targets(self, labels: object, logits: Tensor) -> Tensor:
        """Return multi-label targets ``(N, L)``, 0 or 1; ignored labels become unknown."""
        target = to_label_tensor(labels)
        if target is None or target.shape != logits.shape:
            raise InputError(
                f"multi-label targets must be 0 or 1 with the shape of the logits, {tuple(logits.shape)}",
                describe(labels),
                "Pass one column per label.",
            )
        return (
            target.cpu()
            if self._ignored is None
            else target.cpu().masked_fill(target.cpu() == self._ignored, UNKNOWN)
        )

    def _align_features(self, features: Tensor, logits: Tensor) -> Tensor:
        """Return features as ``(N, D)``, or with the positions of dense logits; raise InputError for others."""
        if logits.ndim == 2:
            return features.flatten(1)  # flattens a feature map
        if (features.shape[0], *features.shape[2:]) == (logits.shape[0], *logits.shape[2:]):
            return features
        raise InputError(
            f"features must have the same positions as the logits {tuple(logits.shape)}",
            describe(features),
            "Pass features=False, or a function that returns features for each position.",
        )

    def _broadcast_to_rows(self, name: str, value: object, logits: Tensor) -> Tensor:
        """Return a field given per sample or per position, repeated to one value per row."""
        shape = (logits.shape[0], *logits.shape[2:])
        tensor = value if isinstance(value, Tensor) else self._to_tensor(name, value)
        if tensor.shape == shape[:1] and len(shape) > 1:
            tensor = tensor.reshape(-1, *[1] * (len(shape) - 1)).expand(shape)
        if tuple(tensor.shape) != shape:
            raise InputError(
                f"{name} of a batch must have shape {shape[:1]}",
                describe(value),
                "Pass one value per sample.",
            )
        return tensor.reshape(-1).cpu()

    def _to_tensor(self, name: str, value: Any) -> Tensor:
        """Return a field as a tensor; cluster names are replaced by integer codes in order of appearance."""
        try:
            if name == "clusters" and all(isinstance(entry, str) for entry in value):
                numbers = [self._names.setdefault(entry, len(self._names)) for entry in value]
                return torch.tensor(numbers, dtype=torch.int64)
            return torch.as_tensor(value)
        except (TypeError, ValueError, RuntimeError) as error:
            raise InputError(
                f"{name} of a batch must be a tensor or a list",
                describe(value),
                "Pass one value per sample.",
            ) from error

    def _unlabeled_error(self, target: object) -> InputError:
        """Return the error for a batch without labels."""
        return InputError(
            f"each batch must be (inputs, target), or a mapping with one of {', '.join(LABELS)}",
            "a batch without labels" if target is None else f"labels {describe(target)}",
            "Wrap the loader in a generator that yields such batches.",
        )


def has_several_labels(target: Tensor | None, logits: Any, ignored: int | None = None) -> bool:
    """Return whether a target has several labels per sample: rows of 0 and 1 that do not all sum to 1.

    Args:
        target: Labels of a batch; None if there are none.
        logits: Output of the model for the batch.
        ignored: Label that is ignored; None: no label is.

    Raises:
        InputError: If each row has exactly one 1, which may be one of several labels or a one-hot class.
    """
    is_matrix = isinstance(logits, Tensor) and logits.ndim == 2 and logits.shape[1] > 1
    if target is None or not is_matrix or target.shape != logits.shape:
        return False
    values = target.detach().cpu()
    if ignored not in (None, 0, 1):
        values = torch.where(values == ignored, UNKNOWN, values.double())
    if is_label_matrix(values):
        return True
    if not bool(((values == 0) | (values == 1)).all()):
        return False
    raise InputError(
        "rows of 0 and 1 must not all sum to 1: they can be one-hot classes or several labels",
        f"only such rows, {describe(target)}",
        (
            "Pass ",
            Argument("multi_label", True),
            " for several labels; for one class pass its index, target.argmax(1).",
        ),
    )


def _check_void_labels(target: Tensor, num_classes: int) -> None:
    """Raise InputError if 255 is the only label out of range: segmentation data mark void positions by it."""
    outside = target[(target < 0) | (target >= num_classes)]
    if len(outside) and bool((outside == _VOID_LABEL).all()):
        raise InputError(
            f"labels must be in [0, {num_classes}) or equal to ignore_index",
            f"{_VOID_LABEL} for {len(outside):,} of {len(target):,} labels",
            f"Pass ignore_index={_VOID_LABEL} to leave these positions out.",
        )


def _to_cpu(part: Tensor) -> Tensor:
    """Return the tensor on the CPU; half precision becomes float32."""
    return part.cpu() if part.dtype in _KEPT_DTYPES else part.float().cpu()


def collect_multi_label(runner: Runner) -> MultiLabel:
    """Return the multi-label predictions of all rows."""
    parts = list(runner)
    columns: dict[str, Any] = {name: torch.cat([rows[name] for rows in parts]) for name in parts[0]}
    return MultiLabel(**columns)


def collect_predictions(
    runner: Runner, *, max_logits: int | None, max_rows: int | None = None, dense_only: bool = False
) -> tuple[Predictions, int]:
    """Return predictions of all rows, or of a random sample in order, and the number of all rows.

    Args:
        runner: The model on its loader.
        max_logits: Most logits and features to keep; the sample has at least half as many.
        max_rows: Number of rows of the sample, if there are more.
        dense_only: Whether all rows are kept where outputs are not dense.
    """
    # Each row draws a number in [0, 1). Rows at or above a share are dropped; too many rows halve the share.
    parts: list[tuple[Tensor, Rows]] = []
    total = 0
    share = 1.0
    random = torch.Generator().manual_seed(0)

    def select_below(numbers: Tensor, rows: Rows) -> tuple[Tensor, Rows]:
        lower = numbers < share
        return numbers[lower], {name: column[lower] for name, column in rows.items()}

    def exceeds_limit() -> bool:
        rows = sum(len(numbers) for numbers, _ in parts)
        if max_rows is not None:
            return rows > 2 * max_rows
        if max_logits is None or (dense_only and not runner.dense):
            return False
        wide = [part.shape[1] for part in parts[0][1].values() if part.ndim > 1]
        return rows * sum(wide) > max_logits

    for rows in runner:
        count = len(rows["logits"])
        total += count
        numbers = torch.rand(count, generator=random)
        parts.append((numbers, rows) if share == 1 else select_below(numbers, rows))
        while exceeds_limit():
            share /= 2
            parts = [select_below(*part) for part in parts]
    if max_rows is not None and total > max_rows:
        numbers = torch.cat([each for each, _ in parts])
        share = float(numbers.sort().values[max_rows])
        parts = [select_below(*part) for part in parts]
    columns: dict[str, Any] = {
        name: torch.cat([rows[name] for _, rows in parts]) for name in parts[0][1]
    }
    return Predictions(**columns), total
