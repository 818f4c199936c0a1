"""Registry of classes or functions by name, with metadata."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from threading import Lock, RLock
from typing import Any, Generic, TypeVar

from fedlas._core.check import InputError, describe, suggestion

T = TypeVar("T")
Decorated = TypeVar("Decorated")


@dataclass(frozen=True)
class Entry(Generic[T]):
    """A registered class or function with its name, summary and metadata.

    Attributes:
        name: Registry name, lower-case.
        value: The class or function.
        summary: First line of its docstring.
        metadata: Other keywords of the registration (``paper=``, ``year=``, ``url=``, ``defaults=`` ...).
    """

    name: str
    value: T
    summary: str = ""
    metadata: dict[str, Any] = field(default_factory=dict)


class Registry(Generic[T]):
    """Classes or functions of one kind by name, in the order of registration.

    Args:
        kind: Kind of the entries, in the singular, for errors: ``"loss"``.
        ignores_case: Whether ``registry["ECE"]`` is ``registry["ece"]``.
        lazy_modules: Modules whose import registers more entries. All are imported when all names are asked for. For
            one name the module that is called like it or stands in ``homes`` is imported, then one after the other.
        homes: The lazy module of a name, where it is known.
        **defaults: Metadata of every entry whose registration does not give it.

    Example:
        >>> losses = Registry("loss")
        >>> @losses.register("ce", paper="folklore")
        ... def cross_entropy():
        ...     "Plain cross-entropy."
        >>> losses["ce"].summary, list(losses)
        ('Plain cross-entropy.', ['ce'])
        >>> losses["cee"]
        Traceback (most recent call last):
        fedlas._core.errors.InputError: the name must be a registered loss; got 'cee'. Did you mean 'ce'?
    """

    def __init__(
        self,
        kind: str,
        *,
        ignores_case: bool = False,
        lazy_modules: Iterable[str] = (),
        homes: Mapping[str, str] | None = None,
        **defaults: Any,
    ) -> None:
        self.kind = kind
        self._ignores_case = ignores_case
        self._lazy_modules = list(lazy_modules)
        self._homes = dict(homes or {})
        self._import_positions = {module: place for place, module in enumerate(self._lazy_modules)}
        self._importing = RLock()
        self._adding = Lock()
        self._defaults = defaults
        self._entries: dict[str, Entry[T]] = {}

    def register(self, name: str, **metadata: Any) -> Callable[[Decorated], Decorated]:
        """Register the decorated class or function under ``name``; it keeps its own type.

        Raises:
            ValueError: If the name is taken or not lower-case.
        """

        def decorate(value: Decorated) -> Decorated:
            registered: Any = value
            self.add(name, registered, **metadata)
            return value

        return decorate

    def add(self, name: str, value: T, **metadata: Any) -> None:
        """Register ``value`` under ``name``, without a decorator; see :meth:`register`."""
        package = __name__.partition(".")[0]
        if getattr(value, "__module__", package).partition(".")[0] != package:
            self._import_all()  # before a user's entry can take the name of one of the package
        if name in self._entries or name != name.lower():
            raise ValueError(
                f"{self.kind}: a name must be lower-case and not yet registered; got {name!r}. Rename it."
            )
        # The summary comes from the docstring, so that listings cannot differ from it.
        doc = (getattr(value, "__doc__", None) or "").strip()
        entry = self._make_entry(name, value, doc.split("\n")[0], metadata)
        with self._adding:  # two threads may import modules of the annex
            # Sorting is stable: entries of one place keep the order of their registration.
            entries = sorted([*self._entries.values(), entry], key=self._import_order)
            self._entries = {each.name: each for each in entries}

    def _make_entry(self, name: str, value: T, summary: str, metadata: dict[str, Any]) -> Entry[T]:
        return Entry(name, value, summary, {**self._defaults, **metadata})

    def _import_order(self, entry: Entry[T]) -> float:
        """Return the position of an entry's module in the list of lazy modules, infinity if the module is not in it."""
        return self._import_positions.get(getattr(entry.value, "__module__", ""), math.inf)

    def build(self, name: str, options: Mapping[str, Any] | None = None, /, **offered: Any) -> Any:
        """Call the class or function registered under ``name`` and return the result.

        Args:
            name: Registry name.
            options: The user's choices; each must be one of its keywords.
            **offered: Arguments that the caller can provide, such as ``num_classes``; passed only if it is a parameter.

        Raises:
            InputError: For an unknown name or option; the message names the nearest one.
        """
        return self.builder(name, options, **offered)()

    def builder(
        self, name: str, options: Mapping[str, Any] | None = None, /, **offered: Any
    ) -> Callable[[], Any]:
        """Return a callable without arguments that builds the entry ``name``; arguments as for :meth:`build`."""
        value: Any = self[name].value
        self.resolve_options(name, options, offered)
        parameters = inspect.signature(value).parameters
        passed = {key: offer for key, offer in offered.items() if key in parameters}
        return partial(value, **passed, **(options or {}))

    def resolve_options(
        self, name: str, options: Mapping[str, Any] | None = None, /, offered: Container[str] = ()
    ) -> dict[str, Any]:
        """Return the options of the class or function ``name``: its defaults updated with the user's choices.

        Args:
            name: Registry name.
            options: The user's choices.
            offered: Parameters that are no options, since the caller provides them.

        Raises:
            InputError: For an unknown name or option; the message names the nearest one.
        """
        entry: Any = self[name].value
        chosen: Any = {} if options is None else options
        if not isinstance(chosen, Mapping):
            raise InputError(
                f"options of the {self.kind} {name} must be a mapping",
                describe(chosen),
                "Pass them by name, such as {'alpha': 0.1}.",
            )
        parameters = inspect.signature(entry).parameters.items()
        defaults = {key: parameter.default for key, parameter in parameters if key not in offered}
        for key in chosen:
            if key not in defaults:
                raise InputError(
                    f"options must be parameters of the {self.kind} {name}",
                    repr(key),
                    suggestion(str(key), defaults) if defaults else "Leave it out.",
                )
        return {**defaults, **chosen}

    def get(self, name: object) -> Entry[T] | None:
        """Return the entry registered under a name, or None if there is none."""
        if not isinstance(name, str):
            return None
        key = name.lower() if self._ignores_case else name
        while key not in self._entries and self._import_next(key):
            pass
        return self._entries.get(key)

    def __getitem__(self, name: str) -> Entry[T]:
        entry = self._entries.get(name) if isinstance(name, str) else None
        entry = entry or self.get(name)
        if entry is None:
            raise InputError(
                f"the name must be a registered {self.kind}",
                repr(name),
                suggestion(str(name), self._import_all()),
            )
        return entry

    def __iter__(self) -> Iterator[str]:
        return iter(self._import_all())

    def __contains__(self, name: object) -> bool:
        return self.get(name) is not None

    def __len__(self) -> int:
        return len(self._import_all())

    def entries(self) -> list[Entry[T]]:
        """Return all entries, in the order of registration."""
        return list(self._import_all().values())

    def _import_all(self) -> dict[str, Entry[T]]:
        """Import all lazy modules and return all entries by name."""
        while self._import_next():
            pass
        return self._entries

    def _import_next(self, name: str = "") -> bool:
        """Import the next lazy module, the likely one of ``name`` first; return False if none is left."""
        # Another thread waits for what is being imported; the module itself may look something up meanwhile.
        with self._importing:
            if not self._lazy_modules:
                return False
            place = next(
                (i for i, each in enumerate(self._lazy_modules) if self._is_likely(each, name)), 0
            )
            module = self._lazy_modules.pop(place)
            try:
                import_module(module)
            except BaseException:  # such as Ctrl-C: the next lookup tries again
                self._lazy_modules.insert(place, module)
                raise
        return True

    def _is_likely(self, module: str, name: str) -> bool:
        """Return whether a lazy module is called like the entry ``name``, or is known to be its home."""
        return module == self._homes.get(name) or module.rpartition(".")[2] == name.replace(
            "-", "_"
        )
