"""Results in the reference name the functions that return them, whose examples show the result in use."""

import importlib
import inspect
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

PAGES = Path(__file__).parents[1] / "reference"


@cache
def documented() -> dict[str, Any]:
    """Return the public classes and functions of the reference by the names under which it shows them."""
    objects: dict[str, Any] = {}
    for page in sorted(PAGES.glob("*.md")):
        for package in re.findall(r"automodule:: (\S+)", page.read_text(encoding="utf-8")):
            module = importlib.import_module(package)
            for name in module.__all__:
                value = getattr(module, name)
                if (
                    inspect.isclass(value) or inspect.isroutine(value)
                ) and value not in objects.values():
                    objects[f"{package}.{name}"] = value
    return objects


def makers(result: Any) -> Iterator[str]:
    """Yield the names of functions and methods that return a class ``result`` and show it in an example."""
    if not inspect.isclass(result):
        return
    returned = re.compile(rf"\b{result.__name__}\b")
    for name, value in documented().items():
        methods = inspect.getmembers(value, inspect.isroutine) if inspect.isclass(value) else []
        for path, function in [
            (name, value),
            *((f"{name}.{method}", each) for method, each in methods),
        ]:
            annotations = getattr(function, "__annotations__", {})
            shown = ">>>" in f"{function.__doc__}{value.__doc__}"
            if (
                shown
                and value is not result
                and returned.search(str(annotations.get("return", "")))
            ):
                yield path


def name_makers(
    _app: Any, _what: str, _name: str, value: Any, _options: Any, lines: list[str]
) -> None:
    """Append to the docstring of a result without an example a line that leads to its functions."""
    if not any(">>>" in line for line in lines):
        names = list(makers(value))
        if names:
            links = ", ".join(f":py:obj:`~{name}`" for name in names)
            lines += [f"Returned by {links}, with an example there.", ""]
