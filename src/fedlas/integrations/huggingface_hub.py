"""Hugging Face Hub: a calibrated model with its calibration card as model card, in a folder or a repository."""

from __future__ import annotations

import inspect
import json
import math
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from torch import nn

from fedlas._core.check import InputError, check_choice, describe
from fedlas._core.extras import require
from fedlas._core.files import (
    check_path_component,
    is_file,
    is_same_file,
    to_path,
    write_atomically,
    write_json,
    write_text,
)
from fedlas._core.kinds import check_argument_types
from fedlas._core.outputs import FileKind, check_output_path, is_of_kind, marked_kind
from fedlas._core.text import printable
from fedlas.calibrated import CalibratedModel
from fedlas.deploy.card import CARD as CARD_KIND
from fedlas.deploy.card import Card, CardSource
from fedlas.metrics.metric import Metric, find_measure

require("huggingface_hub", extra="hub")

from huggingface_hub import (  # noqa: E402 (after require, whose error names the extra)
    EvalResult,
    HfApi,
    ModelCard,
    ModelCardData,
    snapshot_download,
)

__all__ = ["download", "from_pretrained", "model_card", "push_to_hub", "save_pretrained"]

WEIGHTS = "model.safetensors"
CARD = "card.json"
README = "README.md"
_LIBRARY = "fedlas"
_LIBRARY_LINE = f"library_name: {_LIBRARY}\n"
_MALFORMED_CARD = (
    ArithmeticError,
    AttributeError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""Errors that a malformed card raises."""
_ARROWS: dict[bool | None, str] = {True: " ↑", False: " ↓"}


@runtime_checkable
class Saveable(Protocol):
    """A model with a ``save(path)`` method, such as a ``CalibratedModel``."""

    def save(self, path: str | Path) -> Path:
        """Save the model to a file and return its path."""


@check_argument_types
def model_card(
    card: CardSource,
    *,
    name: str | None = None,
    dataset: str | None = None,
    task: str | None = None,
    license: str | None = None,  # noqa: A002 (the Hub's name)
    tags: Sequence[str] = (),
    file: str = WEIGHTS,
    repo_id: str = "user/name",
) -> ModelCard:
    """Return a Hub model card with the results, thresholds and limits of a calibration card.

    Args:
        card: What :func:`fedlas.card` returned or ``fedlas card`` wrote: its ``.json``, or the content of that.
        name: Name of the model; None is that of the card.
        dataset: Name of the test data; None is that of the card.
        task: The Hub's name of the task, such as ``"text-classification"``; None says none.
        license: The Hub's identifier of the license; None says nothing.
        tags: Further tags.
        file: Name of the model's file, which the card mentions; :func:`push_to_hub` uploads it.
        repo_id: Where it will be, for the lines that load it.

    Raises:
        InputError: If it is no calibration card.

    Example:
        >>> import torch
        >>> import fedlas
        >>> val, test = (fedlas.Predictions(torch.eye(2).repeat(n, 1), [0, 1] * n) for n in (60, 50))
        >>> card = fedlas.card(val, test, "none", name="net", replicates=0)
        >>> page = model_card(card)
        >>> page.data.eval_results[0].metric_type, page.data.eval_results[0].metric_value
        ('accuracy', 1.0)
        >>> "| ECE % ↓ | 26.89 | 26.89 |" in page.text
        True
    """
    content = Card.of(card)
    if not isinstance(tags, list | tuple) or not all(isinstance(tag, str) for tag in tags):
        raise InputError("tags must be a list of strings", describe(tags), "Pass a list of str.")
    try:
        content = replace(
            content,
            model={**content.model, "run": content.name if name is None else name},
            data={**content.data, "name": content.data["name"] if dataset is None else dataset},
        )
        about = ModelCardData(
            model_name=_escape_markdown_cell(content.name),
            library_name=_LIBRARY,
            license=license,
            pipeline_tag=task,
            tags=["calibration", *tags],
            eval_results=list(_eval_results(content, task)),
            model_file=file,
        )
        template = Path(__file__).parent / "templates" / "model_card.md.j2"
        repository = json.dumps(repo_id) if file == WEIGHTS else ""
        return ModelCard.from_template(
            about,
            str(template),
            file_text=_escape_markdown_cell(file),
            repository=repository,
            **_template_texts(content),
        )
    except _MALFORMED_CARD as error:
        raise InputError(
            "the card must be a calibration card",
            f"{type(error).__name__}: {error}",
            "Write one with fedlas card.",
        ) from error


def save_pretrained(
    model: Saveable | str | Path, folder: str | Path, *, card: CardSource, **about: Any
) -> Path:
    """Write a folder for the Hub: the model's file, ``card.json``, and the model card ``README.md``.

    Args:
        model: A ``CalibratedModel``, saved as ``model.safetensors`` without a pickle; or a file, such as one that
            ``fedlas export`` wrote, which is copied.
        folder: New, or of an earlier call; other files in it stay.
        card: As for :func:`model_card`.
        **about: Options of :func:`model_card`: ``name``, ``dataset``, ``task``, ``license``, ``tags``, ``repo_id``. The
            task is by default that of the model's inputs, where they show it.

    Returns:
        The folder.

    Raises:
        InputError: If the model is neither, the file is missing, hidden or named as one of the other two, it is no
            calibration card, or one of the three is there and not of this function. Nothing is written then.

    Example:
        >>> import torch
        >>> import fedlas
        >>> val, test = (fedlas.Predictions(torch.eye(2).repeat(n, 1), [0, 1] * n) for n in (60, 50))
        >>> card = fedlas.card(val, test, "none", name="net", replicates=0)
        >>> with tempfile.TemporaryDirectory() as place:
        ...     exported = Path(place, "model.onnx")
        ...     _ = exported.write_bytes(b"...")
        ...     sorted(path.name for path in save_pretrained(exported, Path(place, "hub"), card=card).iterdir())
        ['README.md', 'card.json', 'model.onnx']
    """
    place = to_path(folder)
    options = inspect.signature(model_card).parameters.keys() - {"card", "file"}
    for option in about:
        check_choice("an option", option, sorted(options))
    source = Path(model) if isinstance(model, str | Path) else None
    if not (isinstance(model, Saveable) if source is None else is_file(source)):
        raise InputError(
            "the model must have save(path), or be an existing file",
            describe(model),
            "Pass a CalibratedModel, or a file that fedlas export wrote.",
        )
    content = Card.of(card)
    name = (
        WEIGHTS
        if source is None
        else check_path_component("the model's file", source.name, "Rename it.")
    )
    if name in (README, CARD):
        raise InputError(
            f"the model's file must not be named {README} or {CARD}", source, "Rename it."
        )
    readme = model_card(content, file=name, **{"task": _infer_task(model), **about})
    _require_replaceable(place, name, source)
    write_json(place / CARD, content.to_dict())
    if source is None:
        model.save(place / name)  # type: ignore[union-attr]  # checked above
    else:
        write_atomically(place / name, lambda file: file.write(source.read_bytes()))
    write_text(place / README, str(readme))
    return place


def _require_replaceable(place: Path, name: str, source: Path | None) -> None:
    """Raise InputError if the folder has a file that an earlier call did not write and this one would replace."""
    page = marked_kind("a model card of this function", _LIBRARY_LINE.encode())
    check_output_path(README, place / README, page)
    check_output_path(CARD, place / CARD, CARD_KIND)
    if source is None or not is_same_file(source, place / name):
        beside = FileKind(
            "the model of an earlier call", lambda _: is_of_kind(place / README, page)
        )
        check_output_path(name, place / name, beside)


def push_to_hub(
    model: Saveable | str | Path,
    repo_id: str,
    *,
    card: CardSource,
    private: bool | None = None,
    token: str | None = None,
    commit_message: str = "Model with its calibration card",
    api: HfApi | None = None,
    **about: Any,
) -> str:
    """Upload a model with its card to a repository of the Hub, created if it does not exist, and return its address.

    Args:
        model: As for :func:`save_pretrained`; no folder, whose other files could be private.
        repo_id: ``"user/name"``.
        card: As for :func:`model_card`.
        private: Whether a new repository is private; None is the account's default.
        token: Token of the account; None is the one that ``hf auth login`` stored.
        commit_message: Message of the upload.
        api: Does the upload; None makes one.
        **about: Options of :func:`model_card`.

    Returns:
        Address of the repository.

    Raises:
        InputError: As :func:`save_pretrained`. Nothing is uploaded then.

    Example:
        >>> from fedlas.integrations.huggingface_hub import push_to_hub
        >>> push_to_hub(calibrated, "me/my-classifier", card="card.json")  # doctest: +SKIP
    """
    hub = HfApi(token=token) if api is None else api
    with tempfile.TemporaryDirectory() as temporary:
        folder = save_pretrained(model, temporary, card=card, repo_id=repo_id, **about)
        address = hub.create_repo(repo_id, private=private, exist_ok=True)
        hub.upload_folder(repo_id=repo_id, folder_path=folder, commit_message=commit_message)
    return str(address)


def download(source: str | Path, *, revision: str | None = None, token: str | None = None) -> Path:
    """Return the local folder of a saved model; a Hub repository is downloaded to the cache.

    Args:
        source: A folder of :func:`save_pretrained`, or ``"user/name"``.
        revision: Branch, tag or commit; None is the newest.
        token: As for :func:`push_to_hub`.

    Returns:
        The folder, with ``card.json``, ``README.md`` and the model's file, for ``CalibratedModel.load``.

    Raises:
        InputError: If it holds no calibration card.

    Example:
        >>> import torch
        >>> import fedlas
        >>> val, test = (fedlas.Predictions(torch.eye(2).repeat(n, 1), [0, 1] * n) for n in (60, 50))
        >>> card = fedlas.card(val, test, "none", name="net", replicates=0)
        >>> with tempfile.TemporaryDirectory() as place:
        ...     _ = card.save(Path(place, CARD))
        ...     download(place) == Path(place)  # a name such as "user/model" is downloaded
        True
    """
    folder = to_path(source)
    if not folder.is_dir():
        folder = Path(snapshot_download(str(source), revision=revision, token=token))
    Card.of(folder / CARD)  # so that a folder of something else is neither used nor uploaded
    return folder


def from_pretrained(
    source: str | Path, model: nn.Module, *, revision: str | None = None, token: str | None = None
) -> CalibratedModel:
    """Load the ``CalibratedModel`` that :func:`save_pretrained` or :func:`push_to_hub` saved.

    Args:
        source: As for :func:`download`.
        model: Built by you, since the file holds no code; its weights are overwritten.
        revision: As for :func:`download`.
        token: As for :func:`download`.

    Raises:
        InputError: If there is no calibration card or no such file, or its weights are of another architecture.

    Example:
        >>> import torch
        >>> import fedlas
        >>> from fedlas.calibrators import TemperatureScaling
        >>> logits, target = torch.tensor([[2.0, 0.0]] * 400), torch.arange(400) % 4 // 3
        >>> val, test = fedlas.Predictions(logits, target), fedlas.Predictions(logits[:200], target[:200])
        >>> calibrated = CalibratedModel(nn.Linear(4, 2), TemperatureScaling().fit(val))
        >>> card = fedlas.card(val, test, calibrated, replicates=0)
        >>> with tempfile.TemporaryDirectory() as place:
        ...     from_pretrained(save_pretrained(calibrated, place, card=card), nn.Linear(4, 2)).calibrator
        TemperatureScaling(objective='nll', num_bins=15)  # temperature 1.82
    """
    return CalibratedModel.load(download(source, revision=revision, token=token) / WEIGHTS, model)


_TASKS = {
    "input_ids": "text-classification",
    "pixel_values": "image-classification",
    "input_values": "audio-classification",
    "input_features": "audio-classification",
}
"""The Hub's task by the name that a model of transformers has for its first input."""


def _infer_task(model: object) -> str | None:
    """Return the Hub's task name inferred from the model's inputs, or None if they do not show it."""
    network = getattr(model, "model", model)
    if not isinstance(network, nn.Module):
        return None
    task = _TASKS.get(str(getattr(network, "main_input_name", "")))
    images = any(isinstance(each, nn.Conv2d) for each in network.modules())
    return task or ("image-classification" if images else None)


def _eval_results(card: Card, task: str | None) -> Iterator[EvalResult]:
    """Yield each metric after calibration as an ``EvalResult``."""
    data = _escape_markdown_cell(card.data["name"])
    slug = re.sub(r"[^a-z0-9.-]+", "-", data.lower()).strip("-") or "data"
    for name, entry in _metrics_by_stage(card)["calibrated"].items():
        record = find_measure(name, event=card.event is not None)
        title = _escape_markdown_cell(name) if record is None else record.title
        yield EvalResult(
            task_type=task or "classification", dataset_type=slug, dataset_name=data, dataset_split="test",
            metric_type=_escape_markdown_cell(name), metric_name=title, metric_value=float(entry["value"]),
        )  # fmt: skip


def _metrics_by_stage(card: Card) -> dict[str, dict[str, Any]]:
    """Return the metrics of each stage by name; event metrics replace metrics of the same name over all classes."""
    of_event = (card.event or {}).get("measures", {})
    return {stage: {**row, **of_event.get(stage, {})} for stage, row in card.metrics.items()}


def _template_texts(card: Card) -> dict[str, Any]:
    """Return the variables of the model card template."""
    metrics = _metrics_by_stage(card)
    how = _escape_markdown_cell(str(card.calibration))
    data = _escape_markdown_cell(card.data["name"])
    rows = [row for row in card.selective["thresholds"] if row["threshold"] is not None]
    return {
        "title": _escape_markdown_cell(card.name),
        "num_classes": card.num_classes,
        "noun": "labels, of which a sample has none, one or many"
        if card.subject == "labels"
        else "classes",
        "calibration": "not calibrated"
        if how == "none"
        else f"calibrated ({how}), so that confidence is meant as a probability for inputs like those of {data}",
        "stages": list(map(_escape_markdown_cell, metrics)),
        "metrics": [
            _metric_row(
                find_measure(name, event=card.event is not None), name, list(metrics.values())
            )
            for name in list(metrics.values())[-1]
        ],
        "labels": [
            _label_row(name, entry)
            for name, entry in (card.labels or {}).get("calibrated", {}).items()
        ],
        "thresholds": [
            (
                f"{100 * row['risk']:g}",
                f"{row['threshold']:.4f}",
                f"{100 * row['test']['coverage']:.1f}",
                "" if row["test"]["risk"] is None else f"{100 * row['test']['risk']:.2f}",
                f"{100 * row['test']['upper']:.2f}",
            )
            for row in rows
        ],
        "limits": list(map(_escape_markdown_cell, card.limits)),
        "made": [_escape_markdown_cell(part) for part in _creation_lines(card)],
    }


def _creation_lines(card: Card) -> Iterator[str]:
    """Yield sentences on the card's date and version and on the period of the test samples, where known."""
    if origin := card.made:
        yield f"Measured on {origin['on']} with fedlas {origin['fedlas']}."
    if period := card.data.get("period"):
        yield f"Test samples of {period}."


def _metric_row(record: Metric | None, name: str, stages: Sequence[Mapping[str, Any]]) -> list[str]:
    title = _escape_markdown_cell(name)
    places = 4
    percent = False
    if record is not None:
        title = f"{record.title}{' %' if record.percent else ''}{_direction_arrow(record)}"
        places = record.places
        percent = record.percent

    def format_value(value: float | str | None) -> str:
        if value is None or not math.isfinite(float(value)):
            return ""
        return f"{100 * float(value):.{places - 2}f}" if percent else f"{float(value):.{places}f}"

    ends = [format_value(stages[-1][name].get(end)) for end in ("low", "high")]
    values = [format_value(stage.get(name, {}).get("value")) for stage in stages]
    return [title, *values, " to ".join(ends) if all(ends) else ""]


def _label_row(name: str, entry: Mapping[str, Any]) -> list[str]:
    """Return the table cells of one label, with empty cells for missing metrics."""

    def format_measure(measure: str, scale: float, places: int) -> str:
        value = (entry.get(measure) or {}).get("value")
        return "" if value is None else f"{scale * float(value):.{places}f}"

    p = entry.get("p")
    measures = (
        ("prevalence", 100, 2),
        ("ratio", 1, 2),
        ("slope", 1, 2),
        ("ece", 100, 2),
        ("auroc", 1, 3),
    )
    return [
        _escape_markdown_cell(name),
        *(format_measure(*each) for each in measures),
        "" if p is None else f"{float(p):.2g}",
    ]


def _direction_arrow(record: Metric) -> str:
    """Return an arrow up or down for the better direction of a metric, or an arrow to its ideal value."""
    if record.ideal is not None:
        return f" → {record.ideal:g}"
    return _ARROWS.get(record.higher_is_better, "")


def _escape_markdown_cell(text: object) -> str:
    """Return text escaped for one cell of a Markdown table."""
    return re.sub(r"([|<>`\[\]*])", r"\\\1", printable(str(text)).replace("\n", " "))
