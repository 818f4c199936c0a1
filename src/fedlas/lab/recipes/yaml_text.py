"""YAML 1.2 from untrusted text: plain values only, with limits on size and nesting."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

from fedlas._core.extras import require

_MAX_CHARACTERS = 200_000
_MAX_LEVELS = 50
_MAX_DIGITS = 100
"""Characters of a number. Python takes quadratic time for long ones, and prints none of more than 4,300 digits."""
_TAG_PREFIX = "tag:yaml.org,2002:"
_ALLOWED_TAGS = frozenset(
    _TAG_PREFIX + kind for kind in ("null", "bool", "int", "float", "str", "seq", "map")
)
_CORE_SCHEMA = {
    "bool": (r"true|True|TRUE|false|False|FALSE", "tTfF"),
    "null": (r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    "int": (r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    "float": (
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+.0123456789",
    ),
}
"""Patterns of unquoted scalars in YAML 1.2, with their first characters. In YAML 1.1, which PyYAML reads, ``010`` is 8,
``1:30:00`` is 5400 and ``no`` is false."""


def dump_yaml(value: object, **options: Any) -> str:
    """Return ``value`` as YAML text that YAML 1.1 and :func:`parse_yaml` read alike.

    Args:
        value: Plain values.
        **options: Options of ``yaml.dump``, such as ``sort_keys``.

    Raises:
        MissingExtraError: Without PyYAML.
    """
    return require("yaml", extra="bench").dump(value, Dumper=_safe_dumper(), **options)


def parse_yaml(text: str) -> Any:
    """Return plain values (None, booleans, numbers, text, lists, mappings) from YAML 1.2 text.

    Raises:
        ValueError: If it is not valid YAML; gives a key twice; has an alias, or values of other kinds, such as Python
            objects; or has more than 200,000 characters, 50 levels, or 100 characters in a number.
        MissingExtraError: Without PyYAML.
    """
    yaml = require("yaml", extra="bench")
    if len(text) > _MAX_CHARACTERS:
        raise ValueError(f"the text has more than {_MAX_CHARACTERS:,} characters")
    try:
        return yaml.load(text, Loader=_safe_loader())
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error
    except (
        KeyError,
        AttributeError,
        TypeError,
    ) as error:  # a tag that its text does not match, such as !!bool x
        raise ValueError(
            f"a value does not fit its tag ({type(error).__name__}: {error})"
        ) from error


@cache
def _safe_loader() -> Any:
    """Return PyYAML's safe loader with YAML 1.2 numbers, and without aliases, which could expand to billions."""
    yaml = require("yaml", extra="bench")

    class Loader(yaml.SafeLoader):  # type: ignore[name-defined]  # it is imported here only
        levels = 0

        def compose_node(self, parent: object, index: object) -> Any:
            """Refuse aliases, deep nesting, values that are not plain, and long numbers."""
            mark = self.peek_event().start_mark
            if self.levels == _MAX_LEVELS or self.check_event(yaml.AliasEvent):
                raise yaml.composer.ComposerError(
                    None,
                    None,
                    (
                        f"more than {_MAX_LEVELS} levels"
                        if self.levels == _MAX_LEVELS
                        else "an alias: write it out"
                    ),
                    mark,
                )
            self.levels += 1
            node = super().compose_node(parent, index)
            self.levels -= 1
            if node.tag not in _ALLOWED_TAGS:
                kind = node.tag.removeprefix(_TAG_PREFIX)
                raise yaml.composer.ComposerError(
                    None, None, f"a value of kind {kind!r}: text needs quotes", mark
                )
            if node.tag.endswith((":int", ":float")) and len(node.value) > _MAX_DIGITS:
                raise yaml.composer.ComposerError(
                    None, None, f"a number of {len(node.value):,} characters", mark
                )
            return node

        def compose_mapping_node(self, anchor: object) -> Any:
            """Refuse a mapping in which a key occurs twice."""
            node = super().compose_mapping_node(anchor)
            first: dict[tuple[str, str], int] = {}
            for key, _ in node.value:
                mark = key.start_mark
                name = (key.tag, str(key.value))
                if name in first:
                    lines = f"lines {first[name] + 1} and {mark.line + 1}"
                    raise yaml.composer.ComposerError(
                        None, None, f"{key.value!r:.60} twice, in {lines}", mark
                    )
                first[name] = mark.line
            return node

    Loader.yaml_implicit_resolvers = {}
    _add_core_schema(Loader)
    Loader.add_constructor(
        f"{_TAG_PREFIX}int", lambda loader, node: _parse_int(loader.construct_scalar(node))
    )
    Loader.add_constructor(
        f"{_TAG_PREFIX}float", lambda loader, node: _parse_float(loader.construct_scalar(node))
    )
    return Loader


@cache
def _safe_dumper() -> Any:
    """Return PyYAML's safe dumper without aliases; it quotes text that YAML 1.2 reads as a number, such as 1e5."""

    class Dumper(require("yaml", extra="bench").SafeDumper):  # type: ignore[misc]  # it is imported here only
        def ignore_aliases(self, _: object) -> bool:
            return True

    _add_core_schema(Dumper)
    return Dumper


def _add_core_schema(kind: Any) -> None:
    """Make a loader or dumper recognize unquoted values as YAML 1.2 does."""
    for name, (pattern, first) in _CORE_SCHEMA.items():
        kind.add_implicit_resolver(_TAG_PREFIX + name, re.compile(rf"(?:{pattern})\Z"), list(first))


def _parse_int(text: str) -> int:
    return int(text, 0 if text[:2] in ("0o", "0x") else 10)


def _parse_float(text: str) -> float:
    return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
