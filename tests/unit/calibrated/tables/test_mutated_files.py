"""A file of a calibration that was changed anywhere is read or refused in words: no other error, in load or apply."""

import copy
import json
import random
import warnings

import numpy as np
import pytest

import fedlas
from fedlas.errors import InputError

VALUES = [None, True, -1, 0, 2, 1e400, 10**30, -5.5, "", "x", "p", [], {}, [[1]], {"a": 1}]


def paths(value, path=()):
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in items:
        yield (*path, key)
        if isinstance(inner, dict | list):
            yield from paths(inner, (*path, key))


def mutated(document, draw):
    changed = copy.deepcopy(document)
    *parents, last = draw.choice(list(paths(document)))
    holder = changed
    for key in parents:
        holder = holder[key]
    if draw.random() < 0.25:
        del holder[last]
    else:
        holder[last] = draw.choice(VALUES)
    text = json.dumps(changed)
    if draw.random() < 0.25:
        place = draw.randrange(len(text))
        text = text[:place] + draw.choice('0[]{}",:x9-') + text[place + 1 :]
    return text


@pytest.mark.parametrize("method", ["auto", "isotonic", "beta", "temperature"])
def test_a_mutated_calibration_is_applied_or_refused(tmp_path, method):
    random_numbers = np.random.default_rng(0)
    p = random_numbers.uniform(0.05, 0.95, 60)
    y = (random_numbers.random(60) < p).astype(int)
    table = {"p": p, "y": y, "age": random_numbers.normal(50, 9, 60), "site": ["a", "b", "c"] * 20}
    more = {"covariates": ["age", "site"]} if method == "auto" else {}
    fedlas.calibrate(table, probs="p", target="y", method=method, **more).save(tmp_path / "c.json")
    document = json.loads((tmp_path / "c.json").read_text())
    live = {name: values[:5] for name, values in table.items() if name != "y"}
    draw, answers = random.Random(method), set()
    for _ in range(250):
        (tmp_path / "m.json").write_text(mutated(document, draw))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                fedlas.TableCalibration.load(tmp_path / "m.json").apply(live)
            answers.add("applied")
        except InputError:
            answers.add("refused")
    assert answers == {"applied", "refused"}


def test_column_without_numbers_in_fit_has_no_range():
    """Its values in other rows were a KeyError."""
    draw = np.random.default_rng(0)
    p, dose = draw.uniform(0.1, 0.9, 400), draw.normal(size=400)
    y = draw.random(400) < 1 / (1 + np.exp(-np.log(p / (1 - p)) - 2 * dose))
    table = {"p": p, "y": y.astype(int), "age": np.full(400, np.nan), "dose": dose}
    fit = fedlas.calibrate(table, probs="p", target="y", covariates="age,dose")
    assert fit.covariates.numbers == ("age", "dose")
    live = {"p": [0.4, 0.5], "age": [50.0, 60.0], "dose": [0.0, 1.0]}
    assert len(fit.apply(live)["calibrated_p"]) == 2
