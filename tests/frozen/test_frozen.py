"""Files that users have: code may move and get other names, what it reads of them stays (see frozen_files.py)."""

import json
import math
import shutil
from pathlib import Path

import pytest

from frozen.frozen_files import FILES, READINGS

EXPECTED = json.loads((Path(__file__).parent / "expected.json").read_text(encoding="utf-8"))


def numbers(value, place=""):
    """Yield ``(place, number)`` of all numbers in lists and objects."""
    if isinstance(value, dict | list):
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        for key, each in pairs:
            yield from numbers(each, f"{place}/{key}")
    elif value is None or isinstance(value, int | float):
        yield place, math.nan if value is None else value


def test_every_reading_has_expected_numbers():
    assert EXPECTED.keys() == READINGS.keys()
    assert all(dict(numbers(each)) for each in EXPECTED.values())


@pytest.mark.parametrize("name", READINGS)
def test_frozen_file_gives_same_numbers(name, tmp_path, monkeypatch):
    folder = shutil.copytree(FILES, tmp_path / "files")
    monkeypatch.chdir(folder)
    found = dict(numbers(READINGS[name](folder)))
    expected = dict(numbers(EXPECTED[name]))
    assert found.keys() >= expected.keys()
    assert {place: found[place] for place in expected} == pytest.approx(
        expected, rel=1e-5, abs=1e-6, nan_ok=True
    )
