"""Data sets of tables and texts: CSV and Parquet files, encoded or tokenized texts, and Hugging Face data sets."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from fedlas._core.check import InputError, check_choice, describe, suggestion
from fedlas._core.extras import require
from fedlas._core.files import read_json, require_no_device
from fedlas._core.streams import Purpose, seeded_generator
from fedlas.lab.data.base import DATASETS, Images, Source
from fedlas.lab.data.disk import read_images, require_root, unreadable_file_error
from fedlas.lab.data.splits import hold_out
from fedlas.lab.data.tokens import token_array

Missing = Literal["refuse", "mean"]
Rows = NDArray[np.float32]
Encode = Callable[..., NDArray[Any]]
"""``encode(table, train_rows)`` returns inputs ``(N, ...)``; statistics come from the training rows only."""

_MAX_CATEGORIES = 100
TEST_FRACTION = 0.2
_TABLE = "a .csv or .parquet file"
_LABELS = "labels must be class names or whole numbers, none missing"


@DATASETS.register("table", files="a .csv or .parquet file with a column of labels")
def load_table(
    root: str | None = None,
    *,
    target: str = "label",
    features: Sequence[str] | None = None,
    test: str | None = None,
    missing: Missing = "refuse",
) -> Source:
    """Your own table: a .csv or .parquet file with a column of labels and columns of features.

    Args:
        root: Path of the file.
        target: Column of the labels.
        features: Columns of the features; null takes all others. Numbers stay, lists of numbers become several columns,
            and text becomes one column per category.
        test: File of the test part; null takes a stratified fifth of the rows, the same for every seed.
        missing: ``mean`` puts the mean of the training part in the place of a missing number; ``refuse`` raises.

    Returns:
        A source of float32 rows ``(N, D)``, each feature normalized by the training part; classes are sorted.

    Raises:
        InputError: If a file cannot be read, a column is missing or of dates, has more than 100 categories or, without
            ``missing=mean``, missing numbers; or if a label is missing.
    """
    check_choice("missing", missing, get_args(Missing))
    path = require_root(root, _TABLE)
    tables = [
        read_arrow_table(path),
        *([] if test is None else [read_arrow_table(path.parent / test)]),
    ]
    names = [name for name in tables[0].column_names if name != target]
    return _build_source(
        f"table {path}",
        tables,
        target,
        partial(_feature_matrix, names if features is None else list(features), missing),
    )


@DATASETS.register("texts", files="a .csv or .parquet file with columns of texts and labels")
def load_texts(
    root: str | None = None,
    *,
    target: str = "label",
    text: str = "text",
    encoder: str | None = None,
    tokenizer: str | None = None,
    test: str | None = None,
) -> Source:
    """Your own texts, as features of a sentence encoder or as tokens: a .csv or .parquet file with texts and labels.

    Args:
        root: Path of the file.
        target: Column of the labels.
        text: Column of the texts.
        encoder: ``module:function`` of yours, called with a list of texts; it returns features ``(N, D)``. The module
            is read from the working folder, or imported.
        tokenizer: The same in its place, for the model ``hf``: it returns what a tokenizer of transformers does,
            ``input_ids (N, L)`` and ``attention_mask``, padded to one length.
        test: As for ``table``.

    Returns:
        A source of float32 rows ``(N, D)``, each feature normalized by the training part, or of tokens ``(N, K, L)``,
        see :func:`fedlas.lab.data.tokens.token_array`; classes are sorted.

    Raises:
        InputError: As for ``table``, or if the function cannot be imported or returns something else.
    """
    path = require_root(root, _TABLE)
    tables = [
        read_arrow_table(path),
        *([] if test is None else [read_arrow_table(path.parent / test)]),
    ]
    encode = _make_text_encoder(text, encoder, tokenizer)
    return _build_source(f"texts {path}", tables, target, encode, tokens=tokenizer is not None)


@DATASETS.register("hf", files="a folder that datasets.save_to_disk wrote")
def load_hf(
    root: str | None = None,
    *,
    target: str = "label",
    train: str = "train",
    test: str | None = "test",
    inputs: str | None = None,
    encoder: str | None = None,
    tokenizer: str | None = None,
    image_size: int | None = None,
    channels: int = 3,
) -> Source:
    """A data set of Hugging Face on disk, as ``datasets.save_to_disk`` writes it: images, texts or numbers.

    Args:
        root: The folder; nothing is downloaded.
        target: Column of the labels.
        train: Split to train on.
        test: Split to test on; null takes a stratified fifth of the training part, the same for every seed.
        inputs: Column of images, texts or lists; null takes the column of images or, without one, all others.
        encoder: As for ``texts``, for a column of texts.
        tokenizer: As for ``texts``, for a column of texts.
        image_size: Images are resized to it and cropped; null: all must be square and of one size.
        channels: Channels of images, 1 or 3.

    Returns:
        A source of uint8 images, of float32 rows ``(N, D)`` or of tokens; classes in the order of the data set.

    Raises:
        InputError: If the folder or a split cannot be read, a column is missing, or as ``table`` and ``texts``.
    """
    folder = require_root(root, "a folder that datasets.save_to_disk wrote")
    splits = (
        read_json(folder / "dataset_dict.json")["splits"]
        if (folder / "dataset_dict.json").is_file()
        else [""]
    )
    split_names = [""] if splits == [""] else [train, *([] if test is None else [test])]
    if not {*split_names} <= {*splits}:
        raise InputError(
            f"the data set must have the splits {', '.join(split_names)}",
            f"{folder} with {', '.join(splits)}",
            "Set data.train and data.test; data.test=null holds out a fifth.",
        )
    tables = [_read_arrow_split(folder / split) for split in split_names]
    feature_types = _read_feature_types(folder / split_names[0])
    kinds = {
        name: each.get("_type") for name, each in feature_types.items() if isinstance(each, dict)
    }
    column = inputs or next((name for name, kind in kinds.items() if kind == "Image"), None)
    encode: Encode = partial(
        _feature_matrix, [n for n in tables[0].column_names if n != target], "refuse"
    )
    if column is not None and kinds.get(column) == "Image":
        encode = partial(_decode_image_column, column, image_size, channels)
    elif encoder is not None or tokenizer is not None:
        encode = _make_text_encoder(column or "text", encoder, tokenizer)
    elif column is not None:
        encode = partial(_feature_matrix, [column], "refuse")
    classes = feature_types.get(target, {}).get("names")
    tokens = tokenizer is not None
    return _build_source(f"hf {folder}", tables, target, encode, classes=classes, tokens=tokens)


def read_arrow_table(path: Path) -> Any:
    """Read a .csv or .parquet file into a ``pyarrow.Table``.

    Raises:
        InputError: If it cannot be read or has another suffix.
    """
    suffix = path.suffix.lower()
    if suffix not in (".csv", ".parquet"):
        raise InputError(f"the table must be {_TABLE}", path, "Convert it.")
    try:
        if suffix == ".csv":
            return require("pyarrow.csv", extra="tables").read_csv(require_no_device(path))
        return require("pyarrow.parquet", extra="tables").read_table(require_no_device(path))
    except (OSError, ValueError) as error:  # pyarrow's errors are ValueErrors
        raise unreadable_file_error(
            f"the table must be {_TABLE}", path, error, "Check the file."
        ) from error


def _read_arrow_split(folder: Path) -> Any:
    """Return the table of a split, concatenated from its Arrow files in order."""
    arrow: Any = require("pyarrow", extra="tables")
    try:
        names = [each["filename"] for each in read_json(folder / "state.json")["_data_files"]]
        tables = []
        for name in names:
            with arrow.memory_map(str(require_no_device(folder / Path(name).name))) as file:
                tables.append(arrow.ipc.open_stream(file).read_all())
        return arrow.concat_tables(tables)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            "a split must consist of the Arrow files listed in its state.json",
            f"{folder} ({error})",
            "Write it with datasets.save_to_disk.",
        ) from error


def _read_feature_types(folder: Path) -> dict[str, Any]:
    """Return the column types in ``dataset_info.json``, or ``{}`` without that file."""
    path = folder / "dataset_info.json"
    features = read_json(path).get("features") if path.is_file() else None
    return features if isinstance(features, dict) else {}


def _build_source(
    name: str,
    tables: list[Any],
    target: str,
    encode: Encode,
    *,
    classes: Sequence[str] | None = None,
    tokens: bool = False,
) -> Source:
    """Return a source from one table, which is divided, or from a training and a test table."""
    labels = [require_column(table, target, "target").to_pylist() for table in tables]
    targets, names = encode_labels(labels, target, classes)
    arrow: Any = require("pyarrow", extra="tables")
    table = arrow.concat_tables(tables, promote_options="default")
    rows = np.split(np.arange(table.num_rows), [len(targets[0])])
    if len(tables) == 1:
        size = round(TEST_FRACTION * len(targets[0]))
        rows = [*hold_out(targets[0], size, names, seeded_generator(Purpose.FIXED_TEST))]
    inputs = torch.from_numpy(encode(table, rows[0]))
    all_targets = torch.from_numpy(np.concatenate(targets))
    train, test = (Images(inputs[part], all_targets[part]) for part in rows)
    unchanged = () if tokens else None  # tokens are not normalized
    return Source(name, train, test, names, mean=unchanged, std=unchanged)


def encode_labels(
    columns: Sequence[list[Any]], column_name: str, classes: Sequence[str] | None = None
) -> tuple[list[NDArray[np.int64]], tuple[str, ...]]:
    """Return class indices for the labels of each table, and the class names.

    Args:
        columns: Labels of each table.
        column_name: Name of the column.
        classes: Names of the classes, if labels number them; None sorts the labels.

    Raises:
        InputError: If a label is missing, or neither text nor a whole number.
    """
    labels = sorted(
        {label for column in columns for label in column if label is not None}, key=_label_sort_key
    )
    if any(None in column for column in columns) or any(
        _is_invalid_label(label) for label in labels
    ):
        raise InputError(
            _LABELS,
            f"{column_name!r} with {', '.join(map(repr, labels[:5]))}",
            "Remove such rows, or choose another column of labels.",
        )
    class_indices = {label: place for place, label in enumerate(labels)}
    if classes is not None:
        class_indices = {label: int(label) for label in labels}
    targets = [
        np.array([class_indices[label] for label in column], dtype=np.int64) for column in columns
    ]
    return targets, tuple(map(str, labels if classes is None else classes))


def _label_sort_key(label: object) -> tuple[int, Any]:
    """Return a sort key that orders numbers by value, before text."""
    return (0, label) if isinstance(label, int | float) else (1, str(label))


def _is_invalid_label(label: object) -> bool:
    """Return whether a label is neither text nor a whole number."""
    whole = isinstance(label, float) and label.is_integer()
    return not (isinstance(label, str | int) or whole)


def require_column(table: Any, name: str, option: str) -> Any:
    """Return a table column as one ``pyarrow.Array``; ``option`` names the option that selected the column."""
    if name not in table.column_names:
        raise InputError(
            f"data.{option} must name a column of the table",
            repr(name),
            suggestion(name, table.column_names),
        )
    return table.column(name).combine_chunks()


def _feature_matrix(
    names: list[str], missing: str, table: object, train_rows: NDArray[np.int64]
) -> Rows:
    """Return features ``(N, D)``: numbers and lists of numbers unchanged, text one-hot encoded."""
    columns = [_column_features(table, name, missing, train_rows) for name in names]
    if not columns:
        raise InputError("the table must have at least one column of features", "none", "Add one.")
    return np.concatenate(columns, axis=1).astype(np.float32)


def _column_features(
    table: object, name: str, missing: str, train_rows: NDArray[np.int64]
) -> NDArray[Any]:
    """Return a column as numbers ``(N, k)``: text is one-hot encoded, missing numbers are imputed or refused."""
    types = require("pyarrow", extra="tables").types
    column = require_column(table, name, "features")
    kind = column.type
    if types.is_list(kind) or types.is_fixed_size_list(kind) or types.is_large_list(kind):
        lists = column.to_pylist()
        lengths = {len(each) if each is not None else 0 for each in lists}
        if len(lengths) != 1:
            raise InputError(
                f"lists in column {name!r} must have the same length",
                f"{len(lengths)} different lengths",
                "Pad or drop them.",
            )
        values = np.array(lists, dtype=np.float64)
    elif types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind):
        values = np.array(column.to_pylist(), dtype=np.float64)[:, None]  # None becomes NaN
    elif types.is_string(kind) or types.is_large_string(kind) or types.is_dictionary(kind):
        return _one_hot(column.to_pylist(), name)
    else:
        raise InputError(
            "features must be numbers, lists of numbers or text",
            f"column {name!r} of {kind}",
            "Convert it, or choose columns with data.features=[...].",
        )
    is_missing = np.isnan(values)
    if is_missing.any() and missing == "refuse":
        raise InputError(
            "every row must have all features",
            f"{is_missing.any(axis=1).sum():,} rows without a number in column {name!r}",
            "Set data.missing=mean, remove the rows, or choose columns with data.features=[...].",
        )
    present = np.ma.masked_array(values, is_missing)[
        train_rows
    ]  # means come from the training part only
    return np.where(is_missing, present.mean(axis=0).filled(0.0), values)


def _one_hot(values: list[str | None], name: str) -> NDArray[Any]:
    """Return one 0/1 column per category; missing text is a category of its own."""
    texts = [value or "" for value in values]
    categories = {text: place for place, text in enumerate(sorted(set(texts)))}
    if len(categories) > _MAX_CATEGORIES:
        raise InputError(
            f"a column of text must have at most {_MAX_CATEGORIES} categories",
            f"{len(categories):,} in {name!r}",
            "Choose columns with data.features=[...], or encode it with the data set texts.",
        )
    places = np.array([categories[text] for text in texts])
    return np.eye(len(categories))[places]


def _make_text_encoder(column: str, encoder: str | None, tokenizer: str | None) -> Encode:
    """Return the function that turns a text column into features or tokens."""
    if (encoder is None) == (tokenizer is None):
        raise InputError(
            "exactly one of data.encoder and data.tokenizer must be set for texts",
            f"encoder {encoder}, tokenizer {tokenizer}",
            "Set one of them to module:function, a function of yours.",
        )
    return partial(
        _encode_column if encoder else _tokenize_column, column, str(encoder or tokenizer)
    )


def _text_column(table: object, column: str) -> list[str]:
    """Return a column as strings; missing text is empty."""
    return [text or "" for text in require_column(table, column, "text").to_pylist()]


def _tokenize_column(column: str, tokenizer: str, table: object, _train: NDArray[np.int64]) -> Rows:
    """Return the tokens of a text column, by the user's tokenizer."""
    texts = _text_column(table, column)
    return token_array(_import_function(tokenizer, "tokenizer")(texts), len(texts))


def _encode_column(column: str, encoder: str, table: object, _train: NDArray[np.int64]) -> Rows:
    """Return the features of a text column, by the user's encoder."""
    texts = _text_column(table, column)
    features = np.asarray(_import_function(encoder, "encoder")(texts), dtype=np.float32)
    if features.ndim != 2 or len(features) != len(texts):
        raise InputError(
            f"{encoder} must return features ({len(texts)}, D)",
            describe(features),
            "Return one row per text.",
        )
    return features


def _import_function(name: str, option: str) -> Any:
    """Import ``module:function`` from a file in the working folder, or from an installed module."""
    module, _, function = name.partition(":")
    try:
        file = Path(f"{module}.py")
        spec = importlib.util.spec_from_file_location(module, file) if file.is_file() else None
        if spec is not None and spec.loader is not None:
            loaded = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(loaded)
        else:
            loaded = import_module(module)
        return getattr(loaded, function)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(
            f"data.{option} must be module:function",
            f"{name!r} ({error})",
            "Put MODULE.py into the working folder, or install it.",
        ) from error


def _decode_image_column(
    column: str, image_size: int | None, channels: int, table: object, _train: NDArray[np.int64]
) -> NDArray[np.uint8]:
    """Return the decoded images in a column of encoded bytes."""
    contents = [each["bytes"] for each in require_column(table, column, "inputs").to_pylist()]
    if None in contents:
        raise InputError(
            "images must be stored in the data set",
            f"paths in {column!r}",
            "Embed them before saving: dataset.cast_column(..., Image(decode=True)).",
        )
    return read_images(contents, image_size=image_size, channels=channels)
