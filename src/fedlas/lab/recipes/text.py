"""Recipes as text: which there are, what their files say once inheritance, flavour and overrides are applied."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from fedlas._core.check import InputError, suggestion
from fedlas._core.extras import require

PUBLISHED = "-published"
"""Ending of a recipe's name that asks for its published flavour: settings and behaviour as in the paper's own code."""


def shipped_names() -> list[str]:
    """Names of the recipes and groups that come with the package; each with its published flavour, if it has one."""
    names = []
    for name in _shipped():
        names += [name, name + PUBLISHED] if _contents(name)[1] is not None else [name]
    return sorted(names)


def is_group(content: Mapping[str, Any]) -> bool:
    """Whether a file names other recipes instead of being one."""
    return "recipes" in content


def read_content(name: str) -> tuple[str, dict[str, Any]]:
    """What a recipe's file says.

    Args:
        name: Name of a recipe of the package, with ``-published`` for its published flavour, or path of a ``.yaml``
            file. A file may say ``extends: NAME`` to change single values of another one, and in a section
            ``published`` what its published flavour changes.

    Returns:
        Name and content.

    Raises:
        InputError: If there is no such recipe or flavour, its file cannot be read, or it extends itself.
    """
    if name.endswith((".yaml", ".yml")):
        content, published = _contents(name)
        short, flavour = Path(name).stem, False
    else:
        known = shipped_names()
        if name not in known:
            raise InputError(
                "recipe",
                "it must be a recipe of the package or the path of a .yaml file",
                repr(name),
                suggestion(name, known),
            )
        flavour = name not in _shipped()
        content, published = _contents(name.removesuffix(PUBLISHED) if flavour else name)
        short = name
    content = copy.deepcopy(content)
    if flavour:
        content = merged(content, published or {})
        if is_group(content):
            content["recipes"] = [f"{recipe}{PUBLISHED}" for recipe in content["recipes"]]
        if "title" in content:
            content["title"] = f"{content['title']}, as published"
    return short, content


def merged(base: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """``base`` with the values of ``change``; sections are merged key by key, everything else is replaced."""
    result = dict(base)
    for key, value in change.items():
        old = result.get(key)
        result[key] = merged(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return result


def apply_override(content: dict[str, Any], override: str) -> None:
    """Set the value of one dotted key.

    Raises:
        InputError: If it is not ``key=value``, or the key leads through something that is no section.
    """
    key, equals, value = override.partition("=")
    if not equals or not key:
        raise InputError(
            "--set", "an override must be key=value", repr(override), "Write e.g. --set optimizer.lr=0.05 (no spaces)."
        )
    *parents, last = key.split(".")
    place = content
    for parent in parents:
        place = place.setdefault(parent, {})
        if not isinstance(place, dict):
            raise InputError("--set", f"{parent} must be a section", repr(override), "Check the key.")
    place[last] = parse_yaml(value, override)


def parse_yaml(text: str, where: str) -> Any:
    """Plain values from YAML text.

    Raises:
        InputError: If it is no valid YAML; ``where`` says what it is from.
    """
    yaml = require("yaml", extra="bench")
    try:
        return yaml.load(text, Loader=_loader())
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise InputError("recipe", "it must be valid YAML", f"{where}: {reason}", "Correct it.") from error


@cache
def _shipped() -> dict[str, Traversable]:
    def below(folder: Traversable, prefix: str) -> dict[str, Traversable]:
        found: dict[str, Traversable] = {}
        for item in folder.iterdir():
            if item.is_dir():
                found |= below(item, f"{prefix}{item.name}/")
            elif item.name.endswith(".yaml"):
                found[prefix + item.name.removesuffix(".yaml")] = item
        return found

    return below(files("fedlas.lab.recipes") / "presets", "")


def _contents(name: str, children: tuple[str, ...] = ()) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Content with what it extends merged in, and what the published flavour changes; None if it has none."""
    if name in children:
        raise InputError("recipe", "it must not extend itself", " -> ".join([*children, name]), "Correct extends.")
    content = _read(name)
    base, changes = content.pop("extends", None), content.pop("published", ...)
    published = None
    if base is not None:
        if not isinstance(base, str):
            raise InputError("recipe", "extends must name a recipe", repr(base), "Write e.g. extends: cifar10.")
        if base.endswith((".yaml", ".yml")) and not name.endswith((".yaml", ".yml")):
            raise InputError("recipe", "extends must name a recipe of the package", repr(base), "Correct it.")
        place = str(Path(name).parent / base) if base.endswith((".yaml", ".yml")) else base
        inherited, published = _contents(place, (*children, name))
        content = merged(inherited, content)
    if changes is None:
        return content, None  # what it extends has the flavour, and it does not
    if isinstance(changes, Mapping):
        return content, merged(published or {}, changes)
    if changes is not ...:
        raise InputError("recipe", "published must be a section", f"{changes!r} in {name}", "See the paper's recipes.")
    return content, published


def _read(name: str) -> dict[str, Any]:
    source: Traversable | Path
    if name.endswith((".yaml", ".yml")):
        source = Path(name)
        if not source.is_file():
            raise InputError("recipe", "the file must exist", name, "Check the path.")
        content = _parsed(source)
    else:
        if name not in _shipped():
            raise InputError(
                "recipe", "extends must name a recipe of the package", repr(name), suggestion(name, _shipped())
            )
        content = _read_shipped(name)
    return copy.deepcopy(content)


@cache
def _read_shipped(name: str) -> dict[str, Any]:
    return _parsed(_shipped()[name])


def _parsed(source: Traversable | Path) -> dict[str, Any]:
    try:
        text = source.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            "recipe", "it must be a readable text file", f"{source} ({error})", "Check the path and its permissions."
        ) from error
    content = parse_yaml(text, str(source))
    if not isinstance(content, dict):
        raise InputError("recipe", "the file must hold a mapping", source, "See the recipes of the package.")
    return content


@cache
def _loader() -> Any:
    """YAML's safe loader, made to read ``5e-4`` as a number as everybody expects."""
    yaml = require("yaml", extra="bench")
    loader = type("Loader", (yaml.SafeLoader,), {})
    loader.add_implicit_resolver(  # type: ignore[attr-defined]  # inherited; mypy sees a plain type
        "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
    )
    return loader
