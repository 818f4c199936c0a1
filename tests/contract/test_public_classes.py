"""What every public class does with values that are none of its own."""

import importlib
import inspect

import pytest

import api
from fedlas.errors import InputError


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
    options = {"source": "a.json"} if "source" in inspect.signature(read).parameters else {}
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
            read(content, **options)


def test_classes_with_from_dict_are_found():
    assert {"Calibrator", "Covariates", "Estimate"} <= {
        kind.__name__ for kind in FROM_DICT.values()
    }
