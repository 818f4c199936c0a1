"""Shared by every test: one thread, few examples, and what is made once for all test processes."""

import gc
import importlib.util
import logging
import os
import random
import re
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import hypothesis
import numpy as np
import pytest
import torch
from filelock import FileLock

# Nothing depends on how fast the machine is. The default is the same few examples each time; ``make test-long`` draws
# many, and others each time.
untimed = {"deadline": None, "suppress_health_check": [hypothesis.HealthCheck.too_slow]}
hypothesis.settings.register_profile("quick", max_examples=10, derandomize=True, **untimed)
hypothesis.settings.register_profile("thorough", max_examples=500, **untimed)
hypothesis.settings.load_profile("quick")

# pytest adds its handler to every logger that does not propagate, six times a test; torch has forty of them.
for _name, _logger in logging.root.manager.loggerDict.items():
    if _name.startswith("torch") and isinstance(_logger, logging.Logger):
        _logger.propagate = True


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    """Runs side by side do not slow each other, sums keep their order, and a bench starts no workers unasked."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOKY_MAX_CPU_COUNT", "1")
        yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def full_disk():
    """A context in which no file of this process can grow beyond a number of bytes, as on a disk that is full."""
    resource = pytest.importorskip("resource")

    @contextmanager
    def limited(size):
        before, most = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, most))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (before, most))

    return limited


@pytest.fixture(autouse=True)
def _same_draws():
    """What a test draws without a seed of its own does not depend on the tests before it."""
    random.seed(0)
    np.random.seed(0)
    # torch.manual_seed keeps a stack trace for each kind of device: a third of the time of an empty test
    torch.default_generator.manual_seed(0)


@pytest.fixture(autouse=True)
def _no_open_figures():
    """Close what a test drew on figures of pyplot, which warns of more than twenty."""
    yield
    if pyplot := sys.modules.get("matplotlib.pyplot"):
        pyplot.close("all")


@pytest.fixture
def changeable(monkeypatch):
    """``changeable(REGISTRY)``: the registry, whose entries the test may add to and take from."""

    def change(registry):
        # all of them, those of modules that are imported for it too
        entries = {entry.name: entry for entry in registry.entries()}
        monkeypatch.setattr(registry, "_entries", entries)
        return registry

    return change


@pytest.fixture(scope="session")
def once(tmp_path_factory):
    """``once(name, make)``: a folder that ``make(folder)`` fills once for all test processes side by side.

    It is for reading. A test that changes something copies the folder; one that changed it fails the session.
    """
    base, used = tmp_path_factory.getbasetemp(), {}
    shared = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "once"

    def get(name, make):
        folder, done = shared / name, shared / f"{name}.done"
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(shared / f"{name}.lock"):
            if not done.exists():
                # what another process began and could not end
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                make(folder)
                done.write_text(contents(folder))
        used[folder] = done.read_text()
        return folder

    yield get
    changed = [str(folder) for folder, before in used.items() if contents(folder) != before]
    assert not changed, f"a test changed what others read: {changed}"


@pytest.fixture(scope="session")
def runs(once):
    """``runs(name)``: the folder of finished runs that ``RUNS`` describes."""
    from runs import RUNS, train

    return lambda name: once(f"runs/{name}", lambda folder: train(folder, *RUNS[name]))


@pytest.fixture(scope="session")
def docs_site(once):
    """The documentation site, built as ``make docs`` builds it: a warning is an error."""
    for module in ("sphinx", "myst_parser", "pydata_sphinx_theme", "sphinx_gallery"):
        if importlib.util.find_spec(module) is None and "FEDLAS_CI" not in os.environ:
            pytest.skip(f"there is no {module}: pip install 'fedlas[docs]'")

    def build(folder):
        command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-c", "docs"]
        # one notebook is run; that scripts run is tested by test_gallery
        command += [
            "-D",
            "notebooks=month*",
            "-d",
            str(folder.parent / "doctrees"),
            ".",
            str(folder),
        ]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            command,
            cwd=Path(__file__).parents[1],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert not re.search("WARNING|ERROR", done.stdout + done.stderr), done.stderr

    return once("site", build)


def contents(folder):
    """Names, sizes and times of a folder's files; locks come and go."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return "\n".join(
        f"{path.relative_to(folder)} {path.stat().st_size} {path.stat().st_mtime_ns}"
        for path in files
    )


@pytest.hookimpl(wrapper=True)
def pytest_collection():
    """What is imported to collect tests stays: the garbage collector need not visit it during each of them."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.freeze()


def pytest_ignore_collect(collection_path, config):
    """Leave out files that hold ``system`` tests alone where none are wanted: their imports take seconds."""
    if config.getoption("markexpr") == "not system" and collection_path.suffix == ".py":
        text = collection_path.read_text(encoding="utf-8")
        if re.search(r"^pytestmark = (\[\s*)?pytest\.mark\.system", text, re.MULTILINE):
            return True
    return None


def pytest_collection_modifyitems(config, items):
    """Keep ``long`` tests for ``-m long``."""
    if "long" not in config.getoption("markexpr"):
        long = [item for item in items if item.get_closest_marker("long")]
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if item not in long]
