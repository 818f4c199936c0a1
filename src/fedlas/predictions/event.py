"""Which of two classes is the event: the one that a user named, the affirmative label, or the last."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

_OPPOSITES = {
    "yes": ("no",), "y": ("n",), "true": ("false",), "t": ("f",), "1": ("0", "-1"), "1.0": ("0.0", "-1.0"),
    "positive": ("negative",), "pos": ("neg",), "present": ("absent",), "case": ("control",), "+": ("-",),
    "on": ("off",),
}  # fmt: skip
"""Affirmative labels, with those that say the opposite."""
_NEGATIONS = ("not ", "not_", "not-", "no ", "no_", "no-", "non ", "non_", "non-")


def event_of(classes: Sequence[str] | None) -> int:
    """Return the number of the class that is the event where nobody named it: the affirmative one, else the last.

    Example:
        >>> event_of(("yes", "no")), event_of(("no", "yes")), event_of(("not ill", "ill")), event_of(("left", "stays"))
        (0, 1, 1, 1)
    """
    return int(_affirmative(classes) != 0)


def is_settled(classes: Sequence[str] | None) -> bool:
    """Return whether one of the two names affirms what the other denies."""
    return _affirmative(classes) is not None


def _affirmative(classes: Sequence[str] | None) -> int | None:
    first, last = (name.strip().lower() for name in classes or ("0", "1"))
    for number, (name, other) in enumerate(((first, last), (last, first))):
        if other in _OPPOSITES.get(name, ()) or other in [word + name for word in _NEGATIONS]:
            return number
    return None


def event_number(predictions: Any) -> int:
    """Return the number of the event of two-class predictions."""
    return event_of(predictions.classes) if predictions.event is None else predictions.event


def event_name(predictions: Any) -> str:
    """Return the label of the event in quotes; ``"class 1"`` where the classes have no names."""
    number = event_number(predictions)
    return f"class {number}" if predictions.classes is None else repr(predictions.classes[number])


def event_note(predictions: Any) -> str:
    """Return a sentence that names the event and the rule that chose it; nothing where the user chose it."""
    if predictions.event is not None or predictions.classes is None:
        return ""
    name = event_name(predictions)
    other = predictions.classes[1 - event_number(predictions)]
    rule = "the affirmative" if is_settled(predictions.classes) else "the last"
    return f"The event is {name}, {rule} of the two classes; event={other!r} chooses the other."


def with_event_last(predictions: Any) -> Any:
    """Return two-class predictions with the event as class 1; others unchanged.

    Measures of the event then need not know its number.
    """
    if predictions.num_classes != 2:
        return predictions
    return predictions if event_number(predictions) == 1 else with_classes_swapped(predictions)


def with_classes_swapped(predictions: Any) -> Any:
    """Return two-class predictions with the other class last.

    Example:
        >>> from fedlas import Predictions
        >>> swapped = with_classes_swapped(Predictions([[2.0, 0.0]], [0], classes=["yes", "no"], event="yes"))
        >>> swapped.logits.tolist(), swapped.target.tolist(), swapped.classes, swapped.event
        ([[0.0, 2.0]], [1], ('no', 'yes'), 1)
    """
    swapped: dict[str, Any] = {
        "probs" if predictions.are_probs else "logits": predictions.scores.flip(1)
    }
    if predictions.has_target:
        swapped["target"] = 1 - predictions.target
    if predictions.label_probs is not None:
        swapped["label_probs"] = predictions.label_probs.flip(1)
    if predictions.classes is not None:
        swapped["classes"] = predictions.classes[::-1]
    if predictions.event is not None:
        swapped["event"] = 1 - predictions.event
    return predictions._replaced(**swapped)
