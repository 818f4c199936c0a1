"""The arena of results/arena: its splits, its training of several seeds at once, and the tables of its page."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

pytestmark = pytest.mark.system

ROOT = Path(__file__).parents[2]
NAMES = ("data", "train", "arena", "report")


@pytest.fixture(scope="module")
def modules():
    folder = str(ROOT / "benchmarks/arena")
    sys.path.insert(0, folder)
    try:
        yield [importlib.import_module(name) for name in NAMES]
    finally:
        sys.path.remove(folder)
        for name in NAMES:
            sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def split(modules):
    rng = np.random.default_rng(0)
    target = rng.integers(3, size=150)
    return modules[0].split(rng.normal(size=(150, 4)) + target[:, None], target, range(2))


def test_every_label_has_one_role_in_each_fold_and_test_labels_none(modules, split):
    data = modules[0]

    def rows(*parts):
        return sorted(map(tuple, torch.cat([part.inputs[0] for part in parts]).tolist()))

    labeled = rows(split.train, split.val)
    for other in (data.with_validation(split), data.folded(split, 1), data.folded(split, 2)):
        assert rows(other.train, other.val) == labeled
        assert other.test is split.test
    held = [split.val, data.folded(split, 1).val, data.folded(split, 2).val]
    assert rows(*held) == labeled
    assert not set(rows(split.test)) & set(labeled)


def test_no_seed_sees_another(modules, split):
    data, _, arena, _ = modules
    inputs = split.train.inputs.clone()
    inputs[1] = 0
    changed = data.Split(
        data.Part(inputs, split.train.target), split.val, split.test, split.num_classes
    )
    for name in ("ce", "fedlas", "tempered-past"):
        first, second = (arena.trainings(part)[name](epochs=2)[0].test for part in (split, changed))
        torch.testing.assert_close(first[:, 0], second[:, 0])
        assert not torch.allclose(first[:, 1], second[:, 1])


def test_a_run_has_a_row_for_each_method_and_seed(modules, split):
    rows = list(modules[2].run_set("tiny", split, range(2), epochs=1))
    methods = {row["method"] for row in rows}
    assert len(rows) == 2 * len(methods)
    assert {"ce or ls", "tuned", "cross-fitted", "fedlas+", "more labels"} <= methods
    assert all(
        np.isfinite(value) for row in rows for value in row.values() if isinstance(value, float)
    )


def test_the_page_has_the_tables_of_its_results(modules):
    page = (ROOT / "results/arena/README.md").read_text(encoding="utf-8")
    for name, text in modules[3].blocks(ROOT / "results/arena").items():
        assert f"<!-- arena: {name} -->\n\n{text}\n\n<!-- end -->" in page
