"""The event, that is the positive class of two: named by the user, else the affirmative label, else the last class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fedlas._core.check import Argument, InputError, truncated_list
from fedlas.predictions.arguments import (
    check_class_names,
    check_event,
    matching_class_names,
    unknown_event_error,
)

_OPPOSITES = {
    "yes": ("no",), "y": ("n",), "true": ("false",), "t": ("f",), "1": ("0", "-1"), "1.0": ("0.0", "-1.0"),
    "positive": ("negative",), "pos": ("neg",), "present": ("absent",), "case": ("control",), "+": ("-",),
    "on": ("off",),
}  # fmt: skip
"""Affirmative labels, with those that say the opposite."""
_NEGATIONS = ("not ", "not_", "not-", "no ", "no_", "no-", "non ", "non_", "non-")


def default_event_index(classes: Sequence[str] | None) -> int:
    """Return the index of the default event of two classes: the affirmative one, else the last.

    Example:
        >>> pairs = ("yes", "no"), ("no", "yes"), ("not ill", "ill"), ("left", "stays")
        >>> tuple(default_event_index(pair) for pair in pairs)
        (0, 1, 1, 1)
    """
    return int(_affirmative_index(classes) != 0)


def is_truth_word(word: str) -> bool:
    """Return whether a word is affirmative or negative, such as ``"yes"`` or ``"negative"``."""
    return bool(_opposite_word(word))


def check_classes_and_event(values: Mapping[str, Any], num_classes: int) -> dict[str, Any]:
    """Return the validated class names and event index; an event given as a word names both of two unnamed classes."""
    classes = check_class_names(values.get("classes"), num_classes)
    event = values.get("event")
    word = event.strip() if isinstance(event, str) else ""
    if classes is None and num_classes == 2 and word[:1].isalpha() and not is_truth_word(word):
        classes = (f"not {word}", word)
    return {"classes": classes, "event": check_event(event, num_classes, classes)}


def resolve_event(classes: Sequence[str], event: str | int | None) -> str | int | None:
    """Return the event by name if a class has that name, else unchanged as an index."""
    return str(event) if str(event) in classes else event


def is_affirmative_pair(classes: Sequence[str] | None) -> bool:
    """Return whether one of two class names is the opposite of the other, such as ``yes`` and ``no``."""
    return _affirmative_index(classes) is not None


def _affirmative_index(classes: Sequence[str] | None) -> int | None:
    """Return the index of the affirmative class of two, or None if neither is."""
    first, last = (name.strip().lower() for name in classes or ("0", "1"))
    for number, (name, other) in enumerate(((first, last), (last, first))):
        if other in _OPPOSITES.get(name, ()) or other in [word + name for word in _NEGATIONS]:
            return number
    return None


def event_index(predictions: Any) -> int:
    """Return the index of the event of two-class predictions."""
    return (
        default_event_index(predictions.classes) if predictions.event is None else predictions.event
    )


def quoted_event(predictions: object) -> str:
    """Return the name of the event in quotes, or ``class 1`` if the classes have no names."""
    return quoted_class(predictions, event_index(predictions))


def quoted_class(predictions: Any, index: int) -> str:
    """Return the name of a class in quotes, or ``class 1`` if the classes have no names."""
    return f"class {index}" if predictions.classes is None else repr(predictions.classes[index])


def event_note(predictions: Any) -> str:
    """Return a note that names the event and how it was chosen; empty if the user chose it."""
    if predictions.event is not None or predictions.classes is None:
        return ""
    rule = "the affirmative one" if is_affirmative_pair(predictions.classes) else "the last"
    other = predictions.classes[1 - event_index(predictions)]
    event = quoted_event(predictions)
    return (
        f"The event is {event}, {rule} of two classes; set it to {other!r} if you mean that class."
    )


def with_event(predictions: Any, event: Any, classes: Sequence[str] = ()) -> Any:
    """Return predictions with the given event, and with class names if they have none.

    Args:
        predictions: Any predictions; those of other than two classes get names alone.
        event: Name or number of the class; None: as they say.
        classes: Names of the classes.

    Raises:
        InputError: If there are not two classes, or the event is neither of them.
    """
    changes: dict[str, Any] = {}
    if getattr(predictions, "num_classes", 0) == len(classes) > 1 and predictions.classes is None:
        changes["classes"] = tuple(classes)
    if event is not None:
        if not hasattr(predictions, "logits"):
            raise InputError(
                "requires predictions of two classes",
                "confidences of the predicted class",
                "Leave it out.",
                argument="event",
            )
        changes["event"] = event
    return predictions._replace_fields(**changes) if changes else predictions


def classes_from_column(
    column: str, labels: Sequence[str], event: str | int | None
) -> tuple[str, ...]:
    """Return the two class names of a single score column; the class whose score it holds comes last.

    Args:
        column: Its name. One that ends in the name of a class, as ``p_no``, is about that class.
        labels: The different labels of the first rows.
        event: The class that the user named: a column whose name does not say its class is about it. Where labels are
            words it is one of them; 0 and 1 it may give a name.

    Returns:
        Names of the classes; empty for 0 and 1, which are their numbers.

    Raises:
        InputError: For labels of more than two classes, an event that is none of the labels, or for labels of which
            neither affirms what the other denies, where neither name nor event decides.
    """
    several = {label.casefold() for label in labels}
    # A single stranger among two is an error of its row.
    if len(several) > 2 and sum(not is_truth_word(label) for label in several) > 1:
        names = sorted({*labels})
        example = next((name for name in names if ends_in_word(column, name)), names[0])
        raise InputError(
            f"labels must be of two classes, because {column!r} is the only score column",
            truncated_list(names),
            f"Merge them into two, such as {example!r} and all others, or name one score column per class.",
        )
    pair = _label_pair(labels)
    if not pair:
        return ()
    named = [] if event is None else matching_class_names(event, pair)
    are_numbers = {*pair} <= _NUMBERS
    first, last = pair if default_event_index(pair) == 1 else pair[::-1]
    if event is not None and not named and not are_numbers:
        raise unknown_event_error(
            event, (first, last) if is_affirmative_pair(pair) else sorted(pair)
        )
    about = [word for word in pair if ends_in_word(column, word)]
    if len(about) != 1:
        about = named
    if len(about) == 1:
        (last,) = about
        return next(word for word in pair if word != last), last
    if are_numbers:
        return ()
    if is_affirmative_pair(pair):
        return first, last
    choices = [Argument("classes", f"{a},{b}") for a, b in ((last, first), (first, last))]
    raise InputError(
        f"it must be known which class a single score column is for, {first!r} or {last!r}",
        f"column {column!r}",
        (
            "Write ",
            choices[0],
            " or ",
            choices[1],
            ": the column holds the scores of the last class.",
        ),
    )


def classes_from_column_pair(columns: Sequence[str], labels: Sequence[str]) -> tuple[str, ...]:
    """Return the labels that two column names end in, in column order; the column names if they end in none.

    Example:
        >>> classes_from_column_pair(("p_no", "p_yes"), ["yes", "no"]), classes_from_column_pair(("a", "b"), ["0", "1"])
        (('no', 'yes'), ('a', 'b'))
    """
    pair = _label_pair(labels)
    if not pair or set(pair) & set(columns):
        return tuple(columns)
    ends = [[word for word in pair if ends_in_word(column, word)] for column in columns]
    is_settled_by_names = all(len(end) == 1 for end in ends) and ends[0] != ends[1]
    return tuple(end[0] for end in ends) if is_settled_by_names else tuple(columns)


def classes_from_labels(labels: Sequence[str]) -> tuple[str, ...]:
    """Return two opposite labels of two-score lists, the affirmative one last; empty for any other labels."""
    pair = _label_pair(labels)
    if not pair or {*pair} <= _NUMBERS or not is_affirmative_pair(pair):
        return ()
    return tuple(pair if default_event_index(pair) == 1 else pair[::-1])


def _label_pair(labels: Sequence[str]) -> list[str]:
    """Return the two distinct labels; the opposite of a single truth word is added; empty for any other count."""
    pair = [*dict.fromkeys(labels)]
    alone = _opposite_word(pair[0]) if len(pair) == 1 else ""
    pair += [alone] if alone else []
    return pair if len(pair) == 2 else []


_NUMBERS = {"0", "1", "0.0", "1.0"}
"""Labels that name no class but by its number."""


def _opposite_word(word: str) -> str:
    pairs = {name: others[0] for name, others in _OPPOSITES.items()}
    pairs |= {other: name for name, others in _OPPOSITES.items() for other in others}
    return pairs.get(word.lower(), "")


def ends_in_word(column: str, word: str) -> bool:
    """Return whether a column name ends in a word that starts the name or follows a separator."""
    name, end = column.lower(), word.lower()
    before = name.removesuffix(end)
    return name == end or (name.endswith(end) and not before[-1:].isalnum())
