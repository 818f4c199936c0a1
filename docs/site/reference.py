"""What the reference adds to docstrings: a table of each package, examples of results, links to the source."""

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
        text = page.read_text(encoding="utf-8")
        directive = r"automodule:: (\S+)(?:\n +:exclude-members: (.*))?"
        for package, elsewhere in re.findall(directive, text):
            module = importlib.import_module(package)
            for name in sorted(set(module.__all__) - set(elsewhere.split(", "))):
                value = getattr(module, name)
                if inspect.isclass(value) or inspect.isroutine(value):
                    objects[f"{package}.{name}"] = value
    return objects


def overview(package: str) -> str:
    """Return a Markdown table of what a package exports: names that lead further down the page, and first lines."""
    rows = [
        f"| {{py:obj}}`~{name}` | {plain((value.__doc__ or '').split(chr(10), 1)[0])} |"
        for name, value in documented().items()
        if name.rpartition(".")[0] == package
    ]
    return "\n".join(["| name | what it is |", "|---|---|", *rows, ""]) if len(rows) > 3 else ""


def plain(line: str) -> str:
    """Return the first line of a docstring as Markdown."""
    line = re.sub(r":[a-z:]+:`~?(?:[\w.]*\.)?(\w+)`", r"`\1`", line).replace("``", "`")
    return line.replace("|", r"\|")


def readable(
    _app: Any,
    _what: str,
    _name: str,
    _value: Any,
    _options: Any,
    signature: str | None,
    returns: str | None,
) -> tuple[str | None, str | None]:
    """Write nameless defaults as dots: next to ``<factory>`` Sphinx could not take the types apart."""
    return (signature and re.sub(r"<[^<>]*>", "...", signature)), returns


def source_of(info: dict[str, str], repository: str) -> str | None:
    """Return where the source of a documented object is in the repository; None if it has no lines of its own."""
    value = importlib.import_module(info["module"])
    try:
        for name in info["fullname"].split("."):
            value = inspect.unwrap(getattr(value, name))
        lines, first = inspect.getsourcelines(value)
        path = Path(inspect.getfile(value)).relative_to(PAGES.parents[1])
    except (AttributeError, TypeError, OSError, ValueError):
        return None  # a field, or of another library
    return f"{repository}/blob/main/{path.as_posix()}#L{first}-L{first + len(lines) - 1}"


def shown_by(result: Any) -> Iterator[str]:
    """Yield the names of functions and methods that return a class, or of its subclasses, whose example shows it."""
    returned = re.compile(rf"\b{getattr(result, '__name__', result)}\b")
    for name, value in documented().items():
        is_class = inspect.isclass(value)
        methods = inspect.getmembers(value, inspect.isroutine) if is_class else []
        if is_class and inspect.isabstract(result) and result in value.__bases__:
            yield from [name] * (">>>" in str(value.__doc__))
        if value is result:
            continue
        for path, function in [(name, value), *((f"{name}.{key}", each) for key, each in methods)]:
            annotations = getattr(function, "__annotations__", {})
            if returned.search(str(annotations.get("return", ""))):
                yield from [path] * (">>>" in f"{function.__doc__}{value.__doc__}")


def name_examples(
    _app: Any, _what: str, _name: str, value: Any, _options: Any, lines: list[str]
) -> None:
    """Append to the docstring of a class without an example a line that leads to those that show it."""
    if inspect.isclass(value) and not any(">>>" in line for line in lines):
        links = ", ".join(f":py:obj:`~{name}`" for name in list(shown_by(value))[:4])
        lines += [f"For an example see {links}.", ""] if links else []
