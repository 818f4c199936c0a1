"""Base class of the classes that others subclass: called itself, it says which methods are missing."""

from __future__ import annotations

import inspect
from abc import ABCMeta
from typing import TYPE_CHECKING, Any

from fedlas._core.errors import InputError


class _AbstractMeta(ABCMeta):
    """An ``ABCMeta`` whose abstract classes name the missing methods in an error when they are called."""

    # Type checkers know abstract classes, and take parameters from __init__: a __call__ would hide them.
    if not TYPE_CHECKING:

        def __call__(cls, *args: Any, **kwargs: Any) -> Any:
            if missing := sorted(cls.__abstractmethods__):
                methods = " and ".join(missing)
                raise InputError(
                    f"{cls.__name__} is a base class: what is called must be a subclass that has {methods}",
                    f"{cls.__name__} without {methods}",
                    f"Write a subclass with {methods}, or take one that is ready; see help({cls.__name__}).",
                )
            return super().__call__(*args, **kwargs)

        @property
        def __signature__(cls) -> inspect.Signature:
            """Return the parameters of ``__init__``, which ``inspect`` would take from ``__call__`` above."""
            if cls.__init__ is object.__init__:
                return inspect.Signature()
            constructor = inspect.signature(cls.__init__)
            return constructor.replace(parameters=[*constructor.parameters.values()][1:])


class Abstract(metaclass=_AbstractMeta):
    """Base class as :class:`abc.ABC` is: a subclass with abstract methods cannot be instantiated.

    Example:
        >>> from abc import abstractmethod
        >>> class Shape(Abstract):
        ...     @abstractmethod
        ...     def area(self): ...
        >>> Shape()
        Traceback (most recent call last):
        fedlas._core.errors.InputError: Shape is a base class: what is called must be a subclass that has area; got \
Shape without area. Write a subclass with area, or take one that is ready; see help(Shape).
    """

    __slots__ = ()
