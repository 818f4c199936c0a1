"""A griffe extension: docstrings as mkdocstrings wants them, so that the source need not be written for it.

Cross-references such as ``:class:`~fedlas.losses.FedLAS` `` become links where the site documents the name, else plain
code. The section ``Example`` is called ``Examples``, which is how griffe knows that it holds an interpreter's session.
Options of ``**options: Unpack[Options]`` that a docstring documents are parameters.
Of a function and the module that it stands in (``fedlas.metrics.evaluate``) a package exports the function.
"""

from __future__ import annotations

import re
from typing import Any

from griffe import Alias, Class, Extension, Function, Module, Object, Parameter, ParameterKind

_ROLE = re.compile(r":(?:class|func|meth|data|mod|attr):`(~?)([^`]+)`")
_EXAMPLE = re.compile(r"^Example:$", re.MULTILINE)


class Docstrings(Extension):
    """Rewrites every docstring of a package once it is loaded."""

    def on_package(self, *, pkg: Module, **_kwargs: Any) -> None:
        """Rewrite the package's docstrings, and let functions take the place of modules of the same name."""
        _rewrite(pkg)
        _unpack(
            pkg, {item.name: item for module in _modules(pkg) for item in module.classes.values()}
        )
        shadowing = [
            module
            for module in _modules(pkg)
            if module.name in module.members and _exported(module)
        ]
        for package in [pkg, *_modules(pkg)]:
            for name, member in package.members.items():
                path = str(member.target_path) if isinstance(member, Alias) else ""
                found = next(
                    (module for module in shadowing if f"{path}.".startswith(f"{module.path}.")),
                    None,
                )
                if found is not None:
                    target = found.members[
                        path.removeprefix(found.path).removeprefix(".") or found.name
                    ]
                    package.members[name] = Alias(name, target, parent=package)
        for module in shadowing:
            home: Any = module.parent
            home.members[module.name] = Alias(module.name, module.members[module.name], parent=home)


def _modules(package: Module) -> list[Module]:
    """Every module below ``package``."""
    inner = [member for member in package.members.values() if isinstance(member, Module)]
    return [*inner, *(deeper for module in inner for deeper in _modules(module))]


def _exported(module: Module) -> bool:
    """Whether the package around ``module`` exports something by its name."""
    home: Any = module.parent
    return module.name in map(str, home.exports or ())


def _rewrite(item: Object) -> None:
    if item.docstring is not None:
        scope: Object = item
        text = _ROLE.sub(
            lambda found: _link(scope, short=bool(found[1]), name=found[2]), item.docstring.value
        )
        item.docstring.value = _EXAMPLE.sub("Examples:", text)
    for member in item.members.values():
        if not isinstance(member, Alias):
            _rewrite(member)


def _unpack(item: Object, classes: dict[str, Class]) -> None:
    """Add the documented members of a ``TypedDict`` to the parameters of what takes it as keyword arguments."""
    for member in item.members.values():
        if isinstance(member, Function):
            owner = item if member.name == "__init__" else member
            told = owner.docstring.value if owner.docstring else ""
            for parameter in list(member.parameters):
                found = re.match(r"Unpack\[(\w+)\]", str(parameter.annotation))
                if found and parameter.kind is ParameterKind.var_keyword:
                    for name, annotation in _options(classes[found[1]], classes):
                        if name not in member.parameters and re.search(
                            rf"^ +{name}: ", told, re.MULTILINE
                        ):
                            kind = ParameterKind.keyword_only
                            member.parameters.add(
                                Parameter(name, annotation=annotation, kind=kind, default="...")
                            )
        elif not isinstance(member, Alias):
            _unpack(member, classes)


def _options(group: Class, classes: dict[str, Class]) -> list[tuple[str, Any]]:
    """Names and annotations of a ``TypedDict``, those of its bases first."""
    bases = [classes[str(base)] for base in group.bases if str(base) in classes]
    above = [pair for base in bases for pair in _options(base, classes)]
    return above + [(name, each.annotation) for name, each in group.attributes.items()]


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
