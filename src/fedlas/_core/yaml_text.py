"""YAML from strangers: plain values, and no more of them than a person writes."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

from fedlas._core.extras import require

__all__ = ["parse_yaml", "read_yaml"]

_MOST_CHARACTERS = 200_000
_MOST_VALUES = 20_000
"""Counted where aliases stand, too: ten of them, each of a list of ten others, become ten thousand million values."""
_MOST_LEVELS = 50
_MOST_DIGITS = 100
"""Characters of a number. Python takes quadratic time for long ones, and prints none of more than 4,300 digits."""
_PLAIN = frozenset(f"tag:yaml.org,2002:{kind}" for kind in ("null", "bool", "int", "float", "str", "seq", "map"))


def read_yaml(path: Path) -> Any:
    """The content of a YAML file, UTF-8.

    Raises:
        OSError: If the file cannot be read.
        ValueError: As :func:`parse_yaml`.
        MissingExtraError: Without PyYAML.
    """
    with path.open(encoding="utf-8") as file:
        return parse_yaml(file.read(_MOST_CHARACTERS + 1))


def parse_yaml(text: str) -> Any:
    """Plain values (None, booleans, numbers, text, lists, mappings) from YAML text. ``5e-4`` is a number.

    Raises:
        ValueError: If it is not valid YAML; holds other kinds of values, such as dates or Python objects; or has more
            than 200,000 characters, 20,000 values (aliases written out), 50 levels, or 100 characters in a number.
        MissingExtraError: Without PyYAML.
    """
    yaml = require("yaml", extra="bench")
    if len(text) > _MOST_CHARACTERS:
        raise ValueError(f"it has more than {_MOST_CHARACTERS:,} characters")
    try:
        return yaml.load(text, Loader=_loader())
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error
    except (KeyError, AttributeError, TypeError) as error:  # tags whose text is no such value, such as !!bool x
        raise ValueError(f"a value does not fit its tag ({type(error).__name__}: {error})") from error


@cache
def _loader() -> Any:
    """YAML's safe loader, which counts before it builds. YAML 1.1 asks for a dot in ``5e-4``; this one does not."""
    yaml = require("yaml", extra="bench")

    class Loader(yaml.SafeLoader):  # type: ignore[name-defined]  # it is imported here only
        values = levels = 0

        def __init__(self, stream: Any) -> None:
            super().__init__(stream)
            self.sizes: dict[int, int] = {}

        def compose_node(self, parent: Any, index: Any) -> Any:
            mark, before = self.peek_event().start_mark, self.values
            alias = self.check_event(yaml.AliasEvent)
            self.levels += 1
            if self.levels > _MOST_LEVELS:
                raise yaml.composer.ComposerError(None, None, f"more than {_MOST_LEVELS} levels", mark)
            node = super().compose_node(parent, index)
            self.levels -= 1
            if alias and id(node) not in self.sizes:
                raise yaml.composer.ComposerError(None, None, "an alias inside of what it stands for", mark)
            # An alias counts as all that it stands for, or a few nested ones would unfold into billions of values.
            self.values += self.sizes[id(node)] if alias else 1
            self.sizes.setdefault(id(node), self.values - before)
            if self.values > _MOST_VALUES:
                raise yaml.composer.ComposerError(None, None, f"more than {_MOST_VALUES:,} values", mark)
            if node.tag not in _PLAIN and not (node.tag == "tag:yaml.org,2002:merge" and parent is not None):
                kind = node.tag.removeprefix("tag:yaml.org,2002:")
                raise yaml.composer.ComposerError(None, None, f"a value of kind {kind!r}: text needs quotes", mark)
            if node.tag.endswith((":int", ":float")) and len(node.value) > _MOST_DIGITS:
                raise yaml.composer.ComposerError(None, None, f"a number of {len(node.value):,} characters", mark)
            return node

    Loader.add_implicit_resolver(
        "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
    )
    return Loader
