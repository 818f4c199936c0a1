"""Groups of recipes, and what a dry run says of them."""

import json
from pathlib import Path

import pytest

from fedlas.cli import bench as room
from fedlas.cli.bench import run_bench_group
from fedlas.errors import InputError
from fedlas.lab.benches import dry_run_bench, load_recipe_group
from fedlas.lab.recipes import (
    is_recipe_group,
    load_recipe,
    plan_runs,
    read_recipe_file,
    shipped_recipe_names,
)
from fedlas.lab.runs import count_train_images, forecast_run, prepare_data

GROUPS = [name for name in shipped_recipe_names() if is_recipe_group(read_recipe_file(name)[1])]


@pytest.mark.parametrize("name", GROUPS)
def test_every_shipped_group_can_be_planned(name):
    group = load_recipe_group(name)
    planned = group.plan(seeds=[0])
    assert len(planned) == len(group.recipes) > 1
    assert all(runs for _, runs in planned)
    folders = [run.folder for _, runs in planned for run in runs]
    assert len(set(folders)) == len(folders)


def test_a_recipe_is_a_group_of_its_own():
    group = load_recipe_group("digits", ["train.epochs=3"], data="/x")
    assert [recipe.name for recipe in group.recipes] == ["digits"]
    assert group.recipes[0].train.epochs == 3
    assert group.recipes[0].data.root == "/x"
    assert group.folder(group.recipes[0], Path("out")) == Path("out")


def test_groups_share_runs_of_a_recipe_by_default():
    flips, table = load_recipe_group("paper/flips"), load_recipe_group("paper/table-1")
    assert flips.folder(flips.recipes[0], None) == table.folder(table.recipes[0], None)
    assert table.folder(table.recipes[0], Path("out")) == Path("out/cifar10-resnet50")
    assert [recipe.methods for recipe in flips.recipes] == [["fedlas", "fedlas+"]] * 2
    assert flips.then[0] == "fedlas runs diagnose runs/paper/cifar10-resnet50"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("recipes: 3\n", "recipes of a group must be a list"),
        ("recipes: []\n", "recipes of a group must be a list"),
        ("recipes: [digits]\nmethod: [ce]\n", "Did you mean 'methods'"),
        ("recipes: [digitz]\n", "Did you mean 'digits'"),
        ("recipes: [paper/ood]\n", "must be a single recipe"),
        ("recipes: [digits]\nthen: x\n", "then of a group must be a list"),
    ],
)
def test_invalid_group_file_is_refused(write, text, message):
    with pytest.raises(InputError, match=message):
        load_recipe_group(write(text))


def test_unrunnable_recipe_is_reported_and_others_run(write, tmp_path, monkeypatch, capsys):
    asked = []

    def bench(recipe, **options):
        asked.append((recipe.name, options))
        if recipe.name == "digits":
            raise InputError("there must be data", "none", "Fetch it.")
        return 0

    monkeypatch.setattr(room, "run_bench", bench)
    group = load_recipe_group(
        write("recipes: [digits, synthetic]\nmethods: [ce]\nthen: [look at it]\n")
    )
    assert run_bench_group(group, seeds=[4], out=tmp_path / "out") == 1
    given = {"losses": (), "seeds": [4]}
    assert asked == [(n, {**given, "out": tmp_path / "out" / n}) for n in ("digits", "synthetic")]
    text = capsys.readouterr().err
    assert "digits cannot be run: there must be data" in text
    assert "not complete: digits" in text
    assert "then: look at it" in text
    asked.clear()
    with pytest.raises(InputError, match="Did you mean 'fedlas'"):
        run_bench_group(group, losses=["fedlass"])
    assert not asked


@pytest.mark.parametrize(
    ("recipe", "overrides"),
    [
        ("digits", []),
        ("digits", ["data.val_size=0.25", "data.train_size=500"]),
        ("synthetic", ["data.num_train=1000", "data.val_size=300"]),
    ],
)
def test_the_estimate_is_what_the_split_gives(recipe, overrides):
    run = plan_runs(load_recipe(recipe, overrides), losses=["ce"], seeds=[0])[0]
    size = len(prepare_data(run).train)
    batch, epochs = run.recipe.train.batch_size, run.recipe.train.epochs
    assert forecast_run(run).steps == -(-size // batch) * epochs


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ([], 45_000),
        (["data.val_size=0.2"], 40_000),
        (["data.train_size=20000"], 20_000),
        (["data.hold_out_classes=[0, 1, 2, 3, 4]", "data.root=/nowhere"], None),
    ],
)
def test_the_estimate_from_the_published_size(overrides, expected):
    run = plan_runs(load_recipe("paper/cifar10-resnet50", overrides), losses=["ce"], seeds=[0])[0]
    assert count_train_images(run) == expected


def test_unknown_size():
    recipe = load_recipe("digits", ["data={name: folder, root: /nowhere}"])
    run = plan_runs(recipe, losses=["ce"], seeds=[0])[0]
    assert (forecast_run(run).steps, forecast_run(run).left) == (None, None)
    recipe = load_recipe("digits", ["data={name: folder, train_size: 60}"])
    assert count_train_images(plan_runs(recipe, losses=["ce"], seeds=[0])[0]) == 60


def test_what_has_been_done_is_seen(tmp_path):
    runs = plan_runs(
        load_recipe("digits"), losses=["ce", "ls", "mbls", "acls"], seeds=[0], out=tmp_path
    )
    for run in runs:
        run.folder.mkdir()
    (runs[0].folder / "metrics.json").write_text("{}")
    (runs[1].folder / "checkpoint.pt").touch()
    (runs[1].folder / "log.jsonl").write_text(
        "".join(json.dumps({"epoch": e}) + "\n" for e in (1, 2, 3))
    )
    (runs[2].folder / "error.txt").touch()
    found = [forecast_run(run) for run in runs]
    assert [f.state for f in found] == ["finished", "resumes after epoch 3", "failed before", "new"]
    assert [f.left for f in found] == [0, 17 * 15, 300, 300]
    assert {f.steps for f in found} == {300}


def test_drop_last_takes_whole_batches_only():
    (run,) = plan_runs(load_recipe("paper/cifar10-resnet50-published"), losses=["ce"], seeds=[0])
    assert forecast_run(run).steps == 45_000 // 128 * 350
    assert run.recipe.train.drop_last


def test_dry_run_prints_runs_and_writes_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert dry_run_bench(load_recipe_group("paper/fine-grained"), seeds=[0, 1]) == 0
    text = capsys.readouterr().out
    assert "runs/paper/cub-vit/fedlas+-s1" in text
    assert "runs/paper/aircraft-vit/ce-s0" in text
    assert "24 runs, 0 of them finished; about 1,711,200 steps" in text
    assert "missing: pre-trained weights vit_base_patch16_384.safetensors" in text
    assert not list(tmp_path.iterdir())
    assert (
        dry_run_bench(load_recipe_group("digits"), losses=["fedlas"], seeds=[0], out=Path("x")) == 0
    )
    lines = capsys.readouterr().out.splitlines()
    assert any(line.split() == ["fedlas-s0", "300", "new", "x/fedlas-s0"] for line in lines)


def test_dry_run_raises_the_errors_of_bench():
    with pytest.raises(InputError, match=r"milestones .*before the last epoch"):
        load_recipe_group("paper/table-1", ["train.epochs=100"])
    with pytest.raises(InputError, match="Did you mean 'momentum'"):
        dry_run_bench(load_recipe_group("paper/table-1", ["losses.fedlas.momentun=1"]))
    with pytest.raises(InputError, match="val_size must be above 0"):
        load_recipe_group("digits", ["data.val_size=0"])


def test_overrides_win_over_what_a_group_names():
    group = load_recipe_group("paper/flips", ["methods=[ce]", "seeds=[7]"])
    assert {(tuple(recipe.methods), tuple(recipe.seeds)) for recipe in group.recipes} == {
        (("ce",), (7,))
    }


def test_the_published_table_has_recipes_of_its_own():
    group = load_recipe_group("paper/table-1-published")
    assert all(recipe.name.endswith("-published") for recipe in group.recipes)
