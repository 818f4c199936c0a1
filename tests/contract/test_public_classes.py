"""What every public class does with values that are none of its own."""

import importlib
import inspect

import pytest

import api
from fedlas.errors import InputError
from fedlas.losses import LOSSES


def public_classes():
    """Return each public class by its name; integrations import their libraries and have no ``from_dict``."""
    modules = [name for name in api.public_modules() if not name.startswith("fedlas.integrations.")]
    found = {}
    for place in modules:
        module = importlib.import_module(place)
        for name in getattr(module, "__all__", ()):
            value = getattr(module, name)
            if inspect.isclass(value) and value.__module__.startswith("fedlas"):
                found.setdefault(value, f"{place}.{name}")
    return {name: value for value, name in found.items()}


FROM_DICT = {name: value for name, value in public_classes().items() if hasattr(value, "from_dict")}


@pytest.mark.parametrize("name", FROM_DICT)
def test_from_dict_refuses_other_content_in_words(name):
    """Numbers, texts, lists and the dicts of others ended in errors of Python's."""
    read = FROM_DICT[name].from_dict
    for content in (
        None,
        1,
        0.5,
        True,
        "x",
        b"x",
        [],
        [1, 2],
        {},
        {"a": 1},
        {1: 2},
        object(),
        {"value": {}},
    ):
        with pytest.raises(InputError):
            read(content)


def test_classes_with_from_dict_are_found():
    assert {"Calibrator", "Covariates", "Estimate"} <= {
        kind.__name__ for kind in FROM_DICT.values()
    }


ABSTRACT = {name: value for name, value in public_classes().items() if inspect.isabstract(value)}


@pytest.mark.parametrize("name", ABSTRACT)
def test_abstract_class_names_the_methods_it_needs(name):
    """Each ended in a TypeError of Python's, which says nothing of what is ready."""
    kind = ABSTRACT[name]
    with pytest.raises(InputError, match=f"{kind.__name__} is a base class") as error:
        kind()
    assert all(method in error.value.parts[2] for method in kind.__abstractmethods__)


@pytest.mark.parametrize("name", ABSTRACT)
def test_incomplete_subclass_names_the_methods_it_needs(name):
    incomplete = type("Incomplete", (ABSTRACT[name],), {})
    with pytest.raises(InputError, match="Incomplete is a base class"):
        incomplete(1, wrong=2)


def test_abstract_classes_are_found():
    assert {"Calibrator", "Executor", "Loss", "Statistic"} <= {
        kind.__name__ for kind in ABSTRACT.values()
    }


@pytest.mark.parametrize("name", ABSTRACT)
def test_subclass_keeps_the_signature_of_its_constructor(name):
    kind = ABSTRACT[name]
    methods = {method: lambda *_: None for method in kind.__abstractmethods__}

    def create(self, *, first: int, second: float = 0.5):
        self.first = (first, second)

    ready = type("Ready", (kind,), {**methods, "__init__": create})
    assert [*inspect.signature(ready).parameters] == ["first", "second"]


def test_a_loss_has_the_options_of_its_base_class_in_its_signature():
    assert {"reduction", "weight", "ignore_index"} <= {
        *inspect.signature(LOSSES["focal"].value).parameters
    }
