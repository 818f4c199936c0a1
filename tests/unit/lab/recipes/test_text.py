"""Recipes as text: inheritance, published variants, overrides, and errors for files that make no sense."""

import pytest

from fedlas.errors import InputError
from fedlas.lab.recipes import (
    is_recipe_group,
    load_recipe,
    read_recipe_file,
    recipe_names,
    shipped_recipe_names,
)


@pytest.fixture
def write(tmp_path):
    def write(name, text):
        (tmp_path / name).write_text(text)
        return str(tmp_path / name)

    return write


BASE = "title: base\ndata: {name: digits, val_size: 100}\nmodel: {name: resnet8, width: 4}\nmethods: [ce, ls]\n"


def test_sections_are_merged_and_all_else_is_replaced(write):
    base = write("base.yaml", "a: {b: 1, c: [1, 2]}\nd: 3\n")
    more = write("more.yaml", "extends: base.yaml\na: {c: [9]}\ne: 4\n")
    less = write("less.yaml", "extends: base.yaml\na: null\n")
    assert read_recipe_file(more)[1] == {"a": {"b": 1, "c": [9]}, "d": 3, "e": 4}
    assert read_recipe_file(less)[1] == {"a": None, "d": 3}
    assert read_recipe_file(base)[1] == {"a": {"b": 1, "c": [1, 2]}, "d": 3}


def test_a_file_extends_one_beside_it(write):
    write("base.yaml", BASE)
    write("middle.yaml", "extends: base.yaml\nmodel: {width: 8}\n")
    recipe = load_recipe(write("top.yaml", "extends: middle.yaml\ntitle: top\nmethods: [fedlas]\n"))
    assert (recipe.name, recipe.title, recipe.methods) == ("top", "top", ["fedlas"])
    assert (recipe.model.options, recipe.data.val_size) == ({"width": 8}, 100)


def test_a_file_extends_a_recipe_of_the_package(write):
    recipe = load_recipe(write("mine.yaml", "extends: digits\ntrain: {epochs: 3}\n"))
    assert recipe.train.epochs == 3
    assert recipe.train.batch_size == load_recipe("digits").train.batch_size


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("extends: digitz\n", "Did you mean 'digits'"),
        ("extends: nowhere.yaml\n", "the recipe file must exist"),
        ("extends: [digits]\n", "extends must be the name of a recipe"),
        ("extends: mine.yaml\n", "must not extend itself"),
        ("extends: digits\npublished: 3\n", "published must be a section"),
        ("[1, 2]", "must hold a mapping"),
        ("a: b: c", "valid YAML"),
    ],
)
def test_nonsense_is_named(write, text, message):
    with pytest.raises(InputError, match=message):
        load_recipe(write("mine.yaml", text))


def test_the_published_variant_changes_the_content():
    name = "paper/cifar100-resnet50"
    plain, published = load_recipe(name), load_recipe(f"{name}-published")
    assert published.title == f"{plain.title}, as published"
    assert (plain.data.test_mean, published.data.test_mean) == (None, [0.485, 0.456, 0.406])
    # of the recipe that it extends
    assert published.data.options["mean"] == [0.4914, 0.4822, 0.4465]
    assert published.losses["fedlas"] == {**plain.losses["fedlas"], "variant": "reference"}
    assert (plain.optimizer.decay_criterion, published.optimizer.decay_criterion) == (False, True)
    assert plain.train.epochs == published.train.epochs == 350


def test_no_published_variant_where_there_is_none():
    for name in ("digits", "paper/sensitivity-cifar10"):
        with pytest.raises(InputError, match="a recipe of the package"):
            read_recipe_file(f"{name}-published")


def test_reading_twice_gives_two_contents():
    _, first = read_recipe_file("digits")
    first["losses"]["ls"]["alpha"] = 0.4
    assert read_recipe_file("digits")[1]["losses"]["ls"]["alpha"] == 0.05


def test_groups_are_no_recipes():
    groups = [name for name in shipped_recipe_names() if is_recipe_group(read_recipe_file(name)[1])]
    assert {
        "paper/table-1",
        "paper/table-1-published",
        "paper/ood",
        "paper/flips",
        "paper/sensitivity",
    } <= {*groups}
    assert sorted([*groups, *recipe_names()]) == shipped_recipe_names()
    with pytest.raises(InputError, match="single recipe; got the group 'paper/table-1'"):
        load_recipe("paper/table-1")
    with pytest.raises(InputError, match=r"key .*known option; got 'recipes'"):
        load_recipe("digits", ["recipes=3"])
