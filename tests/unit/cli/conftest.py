"""Where only ``dev-min`` is installed, a test that stops for want of a package is skipped; all run elsewhere."""

import os
from importlib.util import find_spec

import pytest

from fedlas.errors import MissingExtraError

_NEEDS = {
    "test_bench.py": "msgspec",
    "test_compare_roles.py": "pandas",
    "test_event.py": "pandas",
    "test_init.py": "PIL",
    "test_tables.py": "pandas",
    "test_written_places.py": "pyarrow",
}
_IS_PARTIAL = find_spec("pyarrow") is None and "FEDLAS_CI" not in os.environ
collect_ignore = [
    name for name, package in _NEEDS.items() if find_spec(package) is None
] * _IS_PARTIAL
_lacking: list[str] = []


def _record(self, *args):
    ImportError.__init__(self, *args)
    _lacking.extend(map(str, args))


if _IS_PARTIAL:
    MissingExtraError.__init__ = _record


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Skip what a missing package has stopped, in a command or in a fixture."""
    if call.when == "setup":
        _lacking.clear()
    report = yield
    is_import = call.excinfo is not None and issubclass(call.excinfo.type, ImportError)
    if _IS_PARTIAL and report.failed and (_lacking or is_import):
        reason = _lacking[0] if _lacking else str(call.excinfo.value)
        report.outcome = "skipped"
        report.longrepr = (str(item.path), 0, f"Skipped: {reason}")
    return report
