"""Recipe files: names, and contents after inheritance, published variant and overrides."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from fedlas._core.check import InputError, suggestion
from fedlas.lab.recipes import yaml_text

PUBLISHED_SUFFIX = "-published"
"""Ending of a recipe's name for its published variant: the settings and behavior of the paper's own code."""


def shipped_recipe_names() -> list[str]:
    """Return the names of the package's recipes and recipe groups, including published variants."""
    published = [
        name + PUBLISHED_SUFFIX
        for name in _shipped_files()
        if _resolve_inheritance(name)[1] is not None
    ]
    return sorted([*_shipped_files(), *published])


def is_recipe_group(content: Mapping[str, Any]) -> bool:
    """Return whether the content of a recipe file is a group, which lists other recipes."""
    return "recipes" in content


def read_recipe_file(name: str) -> tuple[str, dict[str, Any]]:
    """Return the name and the content of a recipe file, with inheritance resolved.

    Args:
        name: Name of a recipe of the package, with ``-published`` for its published variant, or path of a ``.yaml``
            file. In a file, ``extends: NAME`` names a recipe of which it changes single values, and a section
            ``published`` holds what its published variant changes.

    Returns:
        Name and content.

    Raises:
        InputError: If there is no such recipe or variant, its file cannot be read, or it extends itself.
    """
    if _is_yaml_path(name):
        return Path(name).stem, copy.deepcopy(_resolve_inheritance(name)[0])
    names = shipped_recipe_names()
    if name not in names:
        raise InputError(
            "the name must be a recipe of the package or the path of a .yaml file",
            repr(name),
            suggestion(name, names),
        )
    if name in _shipped_files():
        return name, copy.deepcopy(_resolve_inheritance(name)[0])
    content, published = _resolve_inheritance(name.removesuffix(PUBLISHED_SUFFIX))
    content = copy.deepcopy(merge_sections(content, published or {}))
    if is_recipe_group(content):
        content["recipes"] = [f"{recipe}{PUBLISHED_SUFFIX}" for recipe in content["recipes"]]
    if "title" in content:
        content["title"] = f"{content['title']}, as published"
    return name, content


def merge_sections(base: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``base`` updated with ``change``; nested sections are merged key by key."""
    result = dict(base)
    for key, value in change.items():
        old = result.get(key)
        result[key] = (
            merge_sections(old, value)
            if isinstance(old, Mapping) and isinstance(value, Mapping)
            else value
        )
    return result


def apply_override(content: dict[str, Any], override: str) -> None:
    """Set one dotted key of ``content`` from ``key=value``.

    Raises:
        InputError: If the override is not ``key=value``, or a part of the key is not a section.
    """
    key, equals, value = override.partition("=")
    if not equals or not key:
        raise InputError(
            "an override must be key=value",
            repr(override),
            "Write e.g. --set optimizer.lr=0.05 (no spaces).",
        )
    *parents, last = key.split(".")
    section = content
    for parent in parents:
        section = section.setdefault(parent, {})
        if not isinstance(section, dict):
            raise InputError(f"{parent} must be a section", repr(override), "Check the key.")
    section[last] = parse_yaml_value(value, override)


def parse_yaml_value(text: str, origin: str) -> Any:
    """Return the plain value of a YAML text.

    Raises:
        InputError: If it is not valid YAML; the message names the origin ``origin``.
    """
    try:
        return yaml_text.parse_yaml(text)
    except ValueError as error:
        raise InputError(
            "the recipe must be valid YAML", f"{origin}: {error}", "Correct it."
        ) from error


@cache
def _shipped_files() -> dict[str, Traversable]:
    """Return the recipe files of the package by recipe name."""

    def find_recipes(folder: Traversable, prefix: str) -> dict[str, Traversable]:
        """Return the recipe files below a folder by recipe name."""
        recipes: dict[str, Traversable] = {}
        for item in folder.iterdir():
            if item.is_dir():
                recipes |= find_recipes(item, f"{prefix}{item.name}/")
            elif item.name.endswith(".yaml"):
                recipes[prefix + item.name.removesuffix(".yaml")] = item
        return recipes

    return find_recipes(files("fedlas.lab.recipes") / "presets", "")


def _resolve_inheritance(
    name: str, children: tuple[str, ...] = ()
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Return a recipe's content with inheritance resolved, and the changes of its published variant or None."""
    # Circular inheritance would never end.
    if name in children:
        raise InputError(
            "a recipe must not extend itself", " -> ".join([*children, name]), "Correct extends."
        )
    content = _read_file(name)
    base = content.pop("extends", None)
    changes = content.pop("published", ...)
    published = None
    if base is not None:
        if not isinstance(base, str):
            raise InputError(
                "extends must be the name of a recipe", repr(base), "Write e.g. extends: cifar10."
            )
        # A recipe of the package must not depend on a file that only one machine has.
        if _is_yaml_path(base) and not _is_yaml_path(name):
            raise InputError("extends must name a recipe of the package", repr(base), "Correct it.")
        base_name = str(Path(name).parent / base) if _is_yaml_path(base) else base
        inherited, published = _resolve_inheritance(base_name, (*children, name))
        content = merge_sections(inherited, content)
    if changes is None:
        return content, None
    if isinstance(changes, Mapping):
        return content, merge_sections(published or {}, changes)
    if changes is not ...:
        raise InputError(
            "published must be a section", f"{changes!r} in {name}", "See the paper's recipes."
        )
    return content, published


def _is_yaml_path(name: str) -> bool:
    return name.endswith((".yaml", ".yml"))


def _read_file(name: str) -> dict[str, Any]:
    """Return the content of a recipe file, without inheritance."""
    if _is_yaml_path(name):
        if not Path(name).is_file():
            raise InputError("the recipe file must exist", name, "Check the path.")
        return _parse_file(Path(name))
    if name not in _shipped_files():
        raise InputError(
            "extends must name a recipe of the package",
            repr(name),
            suggestion(name, _shipped_files()),
        )
    return copy.deepcopy(_read_shipped(name))


@cache
def _read_shipped(name: str) -> dict[str, Any]:
    """Return the content of a recipe file of the package, read once."""
    return _parse_file(_shipped_files()[name])


def _parse_file(source: Traversable | Path) -> dict[str, Any]:
    try:
        text = source.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            "the recipe must be a readable text file",
            f"{source} ({error})",
            "Check the path and its permissions.",
        ) from error
    content = parse_yaml_value(text, str(source))
    if not isinstance(content, dict):
        raise InputError(
            "a recipe file must hold a mapping", source, "See the recipes of the package."
        )
    return content
