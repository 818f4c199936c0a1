"""The event, that is the positive class of two: named by the user, else the affirmative label, else the last class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fedlas._core.check import Argument, InputError, few
from fedlas.predictions.arguments import (
    checked_classes,
    checked_event,
    names_alike,
    unknown_event,
)

_OPPOSITES = {
    "yes": ("no",), "y": ("n",), "true": ("false",), "t": ("f",), "1": ("0", "-1"), "1.0": ("0.0", "-1.0"),
    "positive": ("negative",), "pos": ("neg",), "present": ("absent",), "case": ("control",), "+": ("-",),
    "on": ("off",),
}  # fmt: skip
"""Affirmative labels, with those that say the opposite."""
_NEGATIONS = ("not ", "not_", "not-", "no ", "no_", "no-", "non ", "non_", "non-")


def event_of(classes: Sequence[str] | None) -> int:
    """Return the index of the default event of two classes: the affirmative one, else the last.

    Example:
        >>> event_of(("yes", "no")), event_of(("no", "yes")), event_of(("not ill", "ill")), event_of(("left", "stays"))
        (0, 1, 1, 1)
    """
    return int(_affirmative(classes) != 0)


def is_truth(word: str) -> bool:
    """Return whether a word is affirmative or negative, such as ``"yes"`` or ``"negative"``."""
    return bool(_opposite(word))


def classes_and_event(values: Mapping[str, Any], num_classes: int) -> dict[str, Any]:
    """Return the validated class names and event index; an event given as a word names both of two unnamed classes."""
    classes = checked_classes(values.get("classes"), num_classes)
    event = values.get("event")
    word = event.strip() if isinstance(event, str) else ""
    if classes is None and num_classes == 2 and word[:1].isalpha() and not is_truth(word):
        classes = (f"not {word}", word)
    return {"classes": classes, "event": checked_event(event, num_classes, classes)}


def event_among(classes: Sequence[str], event: str | int | None) -> str | int | None:
    """Return the event by name if a class has that name, else unchanged as an index."""
    return str(event) if str(event) in classes else event


def is_settled(classes: Sequence[str] | None) -> bool:
    """Return whether one of two class names is the opposite of the other, such as ``yes`` and ``no``."""
    return _affirmative(classes) is not None


def _affirmative(classes: Sequence[str] | None) -> int | None:
    """Return the index of the affirmative class of two, or None if neither is."""
    first, last = (name.strip().lower() for name in classes or ("0", "1"))
    for number, (name, other) in enumerate(((first, last), (last, first))):
        if other in _OPPOSITES.get(name, ()) or other in [word + name for word in _NEGATIONS]:
            return number
    return None


def event_number(predictions: Any) -> int:
    """Return the index of the event of two-class predictions."""
    return event_of(predictions.classes) if predictions.event is None else predictions.event


def event_name(predictions: object) -> str:
    """Return the name of the event in quotes, or ``class 1`` if the classes have no names."""
    return class_name(predictions, event_number(predictions))


def class_name(predictions: Any, number: int) -> str:
    """Return the name of a class in quotes, or ``class 1`` if the classes have no names."""
    return f"class {number}" if predictions.classes is None else repr(predictions.classes[number])


def event_note(predictions: Any) -> str:
    """Return a note that names the event and how it was chosen; empty if the user chose it."""
    if predictions.event is not None or predictions.classes is None:
        return ""
    rule = "the affirmative one" if is_settled(predictions.classes) else "the last"
    other = predictions.classes[1 - event_number(predictions)]
    return f"The event is {event_name(predictions)}, {rule} of two classes; set it to {other!r} if you mean that class."


def about_event(predictions: Any, event: Any, classes: Sequence[str] = ()) -> Any:
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
    return predictions._replaced(**changes) if changes else predictions


def classes_of_column(
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
    if len(several) > 2 and sum(not is_truth(label) for label in several) > 1:
        names = sorted({*labels})
        example = next((name for name in names if ends_in(column, name)), names[0])
        raise InputError(
            f"labels must be of two classes, because {column!r} is the only score column",
            few(names),
            f"Merge them into two, such as {example!r} and all others, or name one score column per class.",
        )
    pair = _pair_of(labels)
    if not pair:
        return ()
    named = [] if event is None else names_alike(event, pair)
    are_numbers = {*pair} <= _NUMBERS
    first, last = pair if event_of(pair) == 1 else pair[::-1]
    if event is not None and not named and not are_numbers:
        raise unknown_event(event, (first, last) if is_settled(pair) else sorted(pair))
    about = [word for word in pair if ends_in(column, word)]
    if len(about) != 1:
        about = named
    if len(about) == 1:
        (last,) = about
        return next(word for word in pair if word != last), last
    if are_numbers:
        return ()
    if is_settled(pair):
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


def classes_of_pair(columns: Sequence[str], labels: Sequence[str]) -> tuple[str, ...]:
    """Return the labels that two column names end in, in column order; the column names if they end in none.

    Example:
        >>> classes_of_pair(("p_no", "p_yes"), ["yes", "no"]), classes_of_pair(("a", "b"), ["0", "1"])
        (('no', 'yes'), ('a', 'b'))
    """
    pair = _pair_of(labels)
    if not pair or set(pair) & set(columns):
        return tuple(columns)
    ends = [[word for word in pair if ends_in(column, word)] for column in columns]
    is_settled_by_names = all(len(end) == 1 for end in ends) and ends[0] != ends[1]
    return tuple(end[0] for end in ends) if is_settled_by_names else tuple(columns)


def classes_of_lists(labels: Sequence[str]) -> tuple[str, ...]:
    """Return two opposite labels of two-score lists, the affirmative one last; empty for any other labels."""
    pair = _pair_of(labels)
    if not pair or {*pair} <= _NUMBERS or not is_settled(pair):
        return ()
    return tuple(pair if event_of(pair) == 1 else pair[::-1])


def _pair_of(labels: Sequence[str]) -> list[str]:
    """Return the two distinct labels; the opposite of a single truth word is added; empty for any other count."""
    pair = [*dict.fromkeys(labels)]
    alone = _opposite(pair[0]) if len(pair) == 1 else ""
    pair += [alone] if alone else []
    return pair if len(pair) == 2 else []


_NUMBERS = {"0", "1", "0.0", "1.0"}
"""Labels that name no class but by its number."""


def _opposite(word: str) -> str:
    pairs = {name: others[0] for name, others in _OPPOSITES.items()}
    pairs |= {other: name for name, others in _OPPOSITES.items() for other in others}
    return pairs.get(word.lower(), "")


def ends_in(column: str, word: str) -> bool:
    """Return whether a column name ends in a word that starts the name or follows a separator."""
    name, end = column.lower(), word.lower()
    before = name.removesuffix(end)
    return name == end or (name.endswith(end) and not before[-1:].isalnum())
