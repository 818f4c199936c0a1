"""Optional packages: the error names the extra, and never hides a broken installation."""

import os
import sys
from types import ModuleType

import pytest

from fedlas._core.extras import TELEMETRY, install_command, require, require_all
from fedlas.errors import MissingExtraError


def test_what_is_there():
    assert require("json.decoder", extra="tables") is sys.modules["json.decoder"]


@pytest.mark.parametrize("package", ["surely_not_installed", "surely_not_installed.part"])
def test_what_is_not(package):
    with pytest.raises(MissingExtraError, match=r"pip install '\.\[tables\]'") as caught:
        require(package, extra="tables")
    assert isinstance(caught.value, ImportError)
    assert "'surely_not_installed'" in str(caught.value)


def test_all_that_is_missing_is_named_at_once():
    require_all(("json", "tables"))
    with pytest.raises(
        MissingExtraError, match=r"'none_a', 'none_b'.*pip install '\.\[tables,onnx\]'"
    ):
        require_all(("none_a", "tables"), ("json", "bench"), ("none_b", "onnx"))


def test_install_command_of_published_package_names_it(monkeypatch):
    monkeypatch.setattr("fedlas._core.extras.INSTALL_SOURCE", "fedlas")
    assert install_command("tables") == "pip install 'fedlas[tables]'"


def test_a_broken_package_is_not_a_missing_extra(tmp_path, monkeypatch):
    (tmp_path / "broken_package.py").write_text("import surely_not_installed\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="surely_not_installed") as caught:
        require("broken_package", extra="tables")
    assert not isinstance(caught.value, MissingExtraError)


@pytest.mark.parametrize("package", TELEMETRY)
def test_telemetry_is_off_unless_the_user_says_otherwise(monkeypatch, package):
    name, silent = TELEMETRY[package]
    monkeypatch.setitem(sys.modules, package, ModuleType(package))
    monkeypatch.setenv(name, "chosen")
    require(package, extra="tables")
    assert os.environ[name] == "chosen"
    monkeypatch.delenv(name)
    require(package, extra="tables")
    assert os.environ[name] == silent
