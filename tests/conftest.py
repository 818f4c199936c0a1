"""Shared by every test: one thread, so that runs side by side do not slow each other and sums keep their order."""

from contextlib import contextmanager

import pytest
import torch


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
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


def pytest_collection_modifyitems(config, items):
    """Tests marked ``long`` run only when asked for: ``pytest -m long``."""
    if "long" not in config.getoption("markexpr"):
        long = [item for item in items if item.get_closest_marker("long")]
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if item not in long]
