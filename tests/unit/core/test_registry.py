"""The registry: order, metadata, what it passes on, and what it says to a misspelled name."""

import sys
from types import ModuleType

import pytest

from fedlas._core.check import check_count
from fedlas._core.registry import Registry
from fedlas.errors import InputError


@pytest.fixture
def registry():
    registry = Registry("loss")

    @registry.register("ls", paper="P", year=2019)
    def smoothing(num_classes, *, alpha=0.1, reduction="mean"):
        """Label smoothing.

        More.
        """
        return ("ls", num_classes, alpha, reduction)

    @registry.register("ce")
    def plain():
        return "ce"

    return registry


def test_entries(registry):
    assert list(registry) == ["ls", "ce"]
    assert len(registry) == 2
    entry = registry["ls"]
    assert (entry.name, entry.summary, entry.metadata) == (
        "ls",
        "Label smoothing.",
        {"paper": "P", "year": 2019},
    )
    assert registry["ce"].summary == ""
    assert [e.name for e in registry.entries()] == ["ls", "ce"]
    assert "ls" in registry
    assert "LS" not in registry


def test_decoration_returns_the_thing(registry):
    @registry.register("new")
    class New:
        """A class."""

    assert registry["new"].value is New


def test_defaults_of_the_metadata():
    registry = Registry("loss", paper="", year=0)
    registry.add("ls", object(), year=2019)
    assert registry["ls"].metadata == {"paper": "", "year": 2019}


def test_taken_and_upper_case_names(registry):
    for name in ("ls", "LS2"):
        with pytest.raises(ValueError, match=f"lower-case and not yet registered; got '{name}'"):
            registry.add(name, object())
    assert len(registry) == 2


@pytest.mark.parametrize("name", [None, 3, ["ls"], {"ls"}, ("ls",), b"ls", 1.5, "", "lss", "LS"])
def test_unknown_names(registry, name):
    assert name not in registry
    for lookup in (registry.__getitem__, registry.build):
        with pytest.raises(InputError, match="registered") as caught:
            lookup(name)
        assert caught.value.parts[2].startswith(("Did you mean", "Choose one of: ls, ce."))


def test_an_empty_registry():
    with pytest.raises(InputError, match=r"Choose one of: \(none\)"):
        Registry("metric")["ece"]


def test_names_of_metrics_ignore_case():
    import torch

    from fedlas import Predictions, estimates
    from fedlas.metrics import METRICS, StreamingMetrics
    from fedlas.stats import bootstrap_interval

    assert METRICS["ECE"].name == "ece"
    assert "Brier" in METRICS
    predictions = Predictions(torch.eye(3).repeat(20, 1), torch.arange(60) % 3)
    assert list(estimates(predictions, ["ECE"], replicates=39)) == ["ece"]
    assert bootstrap_interval(predictions, metric="Accuracy", replicates=39) is not None
    StreamingMetrics(3, metrics=["NLL"])


def test_build_passes_on_what_fits(registry):
    assert registry.build("ls", {"alpha": 0.3}, num_classes=4, num_samples=9) == (
        "ls",
        4,
        0.3,
        "mean",
    )
    assert registry.build("ls", None, num_classes=4) == ("ls", 4, 0.1, "mean")
    assert registry.build("ce", {}, num_classes=4) == "ce"


def test_unknown_options(registry):
    with pytest.raises(InputError, match=r"'aplha'.*'alpha'"):
        registry.build("ls", {"aplha": 1}, num_classes=4)
    with pytest.raises(InputError, match=r"'alpha'\. Leave"):
        registry.build("ce", {"alpha": 1}, num_classes=4)
    # the data set says that, not the user
    with pytest.raises(InputError, match="got 'num_classes'"):
        registry.build("ls", {"num_classes": 3}, num_classes=4)
    with pytest.raises(InputError, match="got 3"):
        registry.build("ls", {3: 1}, num_classes=4)


@pytest.fixture
def annexed(tmp_path, monkeypatch):
    """A registry with two modules of entries, the second of which cannot be imported the first time."""
    monkeypatch.syspath_prepend(tmp_path)
    shelf = ModuleType("shelf_of_losses")
    shelf.LOSSES = Registry("loss", lazy_modules=["losses_one", "losses_two"])
    shelf.tries = 0
    monkeypatch.setitem(sys.modules, "shelf_of_losses", shelf)
    own = "def {0}(): 'A loss.'\n{0}.__module__ = 'fedlas.losses'\nshelf.LOSSES.add('{0}', {0})\n"
    fails_once = "shelf.tries += 1\nif shelf.tries == 1: raise KeyboardInterrupt\n"
    for name, before in {"one": "", "two": fails_once}.items():
        text = "import shelf_of_losses as shelf\n" + before + own.format(name)
        (tmp_path / f"losses_{name}.py").write_text(text)
    yield shelf.LOSSES
    for name in ("losses_one", "losses_two"):
        sys.modules.pop(name, None)


def test_lookup_imports_only_modules_it_needs(annexed):
    assert annexed["one"].summary == "A loss."
    assert "losses_one" in sys.modules
    assert "losses_two" not in sys.modules


def test_interrupted_lazy_import_is_retried(annexed):
    with pytest.raises(KeyboardInterrupt):
        list(annexed)
    assert list(annexed) == ["one", "two"]


def test_entry_order_is_independent_of_import_order():
    registry = Registry("function", lazy_modules=["fedlas._core.check", "fedlas._core.registry"])
    registry.add("later", Registry)
    registry.add("earlier", check_count)
    registry.add("own", lambda: None)
    assert list(registry) == ["earlier", "later", "own"]


def test_user_entry_cannot_take_a_lazy_name(annexed):
    with pytest.raises(KeyboardInterrupt):
        list(annexed)
    with pytest.raises(ValueError, match="not yet registered"):
        annexed.add("two", lambda: None)
    assert list(annexed) == ["one", "two"]
