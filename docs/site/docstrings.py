"""A griffe extension: docstrings as mkdocstrings wants them, so that the source need not be written for it.

Cross-references such as ``:class:`~fedlas.losses.FedLAS` `` become links where the site documents the name, else plain
code. The section ``Example`` is called ``Examples``, which is how griffe knows that it holds an interpreter's session.
"""

from __future__ import annotations

import re
from typing import Any

from griffe import Alias, Class, Extension, Module, Object

_ROLE = re.compile(r":(?:class|func|meth|data|mod|attr):`(~?)([^`]+)`")
_EXAMPLE = re.compile(r"^Example:$", re.MULTILINE)


class Docstrings(Extension):
    """Rewrites every docstring of a package once it is loaded."""

    def on_package(self, *, pkg: Module, **_kwargs: Any) -> None:
        """Rewrite the package's docstrings."""
        _rewrite(pkg)


def _rewrite(item: Object) -> None:
    if item.docstring is not None:
        scope: Object = item
        text = _ROLE.sub(lambda found: _link(scope, short=bool(found[1]), name=found[2]), item.docstring.value)
        item.docstring.value = _EXAMPLE.sub("Examples:", text)
    for member in item.members.values():
        if not isinstance(member, Alias):
            _rewrite(member)


def _link(scope: Object, *, short: bool, name: str) -> str:
    shown = name.rsplit(".", 1)[-1] if short else name
    return f'<autoref identifier="{_path(scope, name)}" optional><code>{shown}</code></autoref>'


def _path(scope: Object, name: str) -> str:
    """The full path of ``name`` as seen from ``scope``: a member of it, or of what it stands in."""
    first = name.split(".")[0]
    place: Any = scope
    while place is not None and first != "fedlas":
        if isinstance(place, Class | Module) and first in place.members:
            return f"{place.path}.{name}"
        place = place.parent
    return name
