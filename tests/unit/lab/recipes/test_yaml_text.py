"""YAML from strangers is counted before it is built."""

import math

import pytest
import yaml

from fedlas.errors import InputError
from fedlas.lab.recipes import dump_yaml, parse_yaml, read_recipe_file
from fedlas.lab.runs import RunFolder, UnreadableError

HOSTILE = {
    "an alias": ("a: &a [1]\nb: *a", "an alias: write it out"),
    "an alias of itself": ("a: &a [*a]", "an alias: write it out"),
    "open brackets": ("a: " + "[" * 100_000, "more than 50 levels"),
    "brackets": ("a: " + "[" * 60 + "]" * 60, "more than 50 levels"),
    "indents": ("\n".join(" " * n + "a:" for n in range(60)), "more than 50 levels"),
    "much text": ("a: " + "x" * 300_000, "more than 200,000 characters"),
    "5,000 digits": ("seed: " + "9" * 5000, "a number of 5,000 characters"),
    "5,000 digits in base 16": ("seed: 0x" + "9" * 5000, "a number of 5,002 characters"),
    "a tag": ("a: !!timestamp 2001-99-99", "kind 'timestamp': text needs quotes"),
    "a key twice": ("seed: 1\nlr: 2\nseed: 3", "'seed' twice, in lines 1 and 3"),
    "a section twice": ("train:\n  lr: 1\ntrain: {lr: 2}", "'train' twice, in lines 1 and 3"),
    "a key of a section twice": ("train:\n  lr: 1\n\n  'lr': 2", "'lr' twice, in lines 2 and 4"),
    "bytes": ("a: !!binary aGk=", "kind 'binary'"),
    "a set": ("a: !!set {b, c}", "kind 'set'"),
    "code": ("a: !!python/object/apply:os.system [true]", "kind 'python/object/apply:os.system'"),
    "no truth": ("a: !!bool maybe", "does not fit its tag"),
    "no number": ("a: !!int many", "invalid literal"),
    "a list as a key": ("? [a]\n: 1", "unhashable"),
    "a control character": ("a: \0", "unacceptable character"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_it_is_refused_wherever_it_is_read(tmp_path, kind):
    text, message = HOSTILE[kind]
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(ValueError, match=message):
        parse_yaml(text)
    with pytest.raises(UnreadableError, match=rf"readable YAML.*{message}"):
        _ = RunFolder(tmp_path).config
    with pytest.raises(InputError, match=rf"^the recipe must be valid YAML.*{message}"):
        read_recipe_file(str(tmp_path / "config.yaml"))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("010", 10), ("0o10", 8), ("0x10", 16), ("-7", -7), ("1:30:00", "1:30:00"), ("1_000", "1_000"), ("5e-4", 5e-4),
        (".5", 0.5), ("1.", 1.0), ("-.inf", -math.inf), ("yes", "yes"), ("no", "no"), ("True", True), ("~", None),
        ("2001-01-01", "2001-01-01"), ("=", "="), ("'010'", "010"), ("", None),
    ],
)  # fmt: skip
def test_values_are_those_of_yaml_1_2(text, value):
    found = parse_yaml(f"a: {text}")["a"]
    assert (found, type(found)) == (value, type(value))


def test_plain_values_are_built():
    text = "a: {x: 1, y: 5e-4}\nb: [-1.5E+3]"
    assert parse_yaml(text) == {"a": {"x": 1, "y": 5e-4}, "b": [-1500.0]}
    assert parse_yaml("") is None


def test_what_we_write_is_read():
    shared = {"alpha": 1e-05, "name": "2001-01-01"}  # no alias is written for it
    config = {
        "a": shared,
        "b": [shared] * 3,
        "seeds": list(range(1000)),
        "wide": "x" * 10_000,
        "none": None,
    }
    config["texts"] = ["1e5", "0o17", "010", "yes", "1:30", ".5", "", "~"]
    assert parse_yaml(dump_yaml(config)) == yaml.safe_load(dump_yaml(config)) == config
