import pytest

from fedlas.errors import InputError
from fedlas.lab.recipes import load_recipe, plan_runs, recipe_names
from fedlas.losses import LOSSES

MINIMAL = "title: mine\ndata: {name: digits}\nmodel: {name: mlp, hidden: [8]}\n"


@pytest.mark.parametrize("name", recipe_names())
def test_shipped_recipes_load_and_name_known_losses(name):
    recipe = load_recipe(name)
    assert recipe.name == name
    assert {*recipe.methods, *recipe.losses} <= {
        *LOSSES,
        *(n for n, o in recipe.losses.items() if "loss" in o),
    }
    assert plan_runs(recipe, losses=list(recipe.losses))  # builds every loss with its preset


def test_file_of_ones_own(write):
    recipe = load_recipe(write(MINIMAL))
    assert (recipe.name, recipe.title, recipe.model.options) == ("mine", "mine", {"hidden": [8]})
    assert recipe.train.epochs == 30
    assert recipe.with_data_root("/x").data.root == "/x"
    assert recipe.with_data_root(None) is recipe


def test_overrides_are_typed():
    recipe = load_recipe(
        "digits",
        [
            "optimizer.weight_decay=5e-4",
            "optimizer.lr=1",
            "optimizer.clip_norm=2",
            "train.compile=true",
            "schedule.milestones=[3, 0.9]",
            "losses.fedlas.beta=2",
            "model.width=4",
            "data.crop_padding=1",
            "data.val_size=0.25",
            "seeds=[7]",
            "methods=[ce]",
        ],
    )
    assert recipe.optimizer.weight_decay == 5e-4
    assert recipe.optimizer.lr == 1.0
    assert recipe.train.compile is True
    assert recipe.schedule.milestones == [3, 0.9]
    assert recipe.losses["fedlas"] == {"alpha": 0.05, "beta": 2}
    assert recipe.model.options == {"width": 4}
    assert recipe.data.options == {"crop_padding": 1}
    assert recipe.data.val_size == 0.25
    assert (recipe.seeds, recipe.methods) == ([7], ["ce"])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("trian.epochs=3", "Did you mean 'train'"),
        ("train.epoch=3", "Did you mean 'train.epochs'"),
        ("optimizer.learning_rate=3", "optimizer.learning_rate"),
        ("train.epochs=abc", "train.epochs"),
        ("train.epochs=2.5", "train.epochs"),
        ("train.epochs=0", "at least 1"),
        ("train.compile=maybe", "train.compile"),
        ("train.epochs", "key=value"),
        ("=3", "key=value"),
        ("train.epochs.x=1", "epochs must be a section"),
        ("train=3", "train must be a section"),
        ("train..epochs=3", "train."),
        ("data=digits", "section with the key name"),
        ("data.name=null", "data"),
        ("train.epochs=[1", "valid YAML"),
        ("losses=ce", "map names to options"),
        ("losses.ls=0.1", "map names to options"),
        ("methods=ce", "list that is not empty"),
        ("seeds=[]", "list that is not empty"),
        ("seeds=[-1]", "at least 0"),
        ("seeds=[a]", "seeds"),
        ("schedule.milestones=[40]", "before the last epoch"),
        ("schedule.milestones=0.5", "schedule"),
        ("schedule.name=cosin", "Did you mean 'cosine'"),
        ("train.precision=fp16", "Did you mean 'bf16'"),
        ("optimizer.lr=.nan", "lr must be a finite number"),
    ],
)
def test_overrides_that_cannot_be_used(override, message):
    with pytest.raises(InputError, match=r"; got ") as caught:
        load_recipe("digits", [override])
    assert message in str(caught.value)


@pytest.mark.parametrize("value", ["[.nan]", "[0.5, -.inf]", "[]"])
@pytest.mark.parametrize("part", ["", "test_"])
@pytest.mark.parametrize("name", ["mean", "std"])
def test_statistics_that_are_no_numbers(part, name, value):
    given = {f"{part}mean": "[0.5]", f"{part}std": "[0.5]", f"{part}{name}": value}
    with pytest.raises(InputError, match=rf"^data\.{part}{name} .*(finite number|list of numbers)"):
        load_recipe("digits", [f"data.{key}={text}" for key, text in given.items()])


@pytest.mark.parametrize("part", ["", "test_"])
@pytest.mark.parametrize("value", ["[0]", "[0.5, -0.1]"])
def test_a_deviation_that_is_not_above_0(part, value):
    with pytest.raises(InputError, match=rf"^data\.{part}std .*\(0, inf\)"):
        load_recipe("digits", [f"data.{part}mean=[0.5]", f"data.{part}std={value}"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "mapping"),
        ("- 1\n", "mapping"),
        ("title: [", "valid YAML"),
        ("title: x\nmodel: {name: mlp}\n", "section 'data'"),
        ("title: x\ndata: {name: digits}\nmodel: mlp\n", "section with the key name"),
        (MINIMAL + "optimiser: {lr: 1}\n", "Did you mean 'optimizer'"),
        (MINIMAL + "train: 3\n", "train must be a section"),
        (MINIMAL + "x: !!python/object/apply:os.getcwd []\n", "valid YAML"),
    ],
)
def test_files_that_cannot_be_used(write, text, message):
    with pytest.raises(InputError) as caught:
        load_recipe(write(text))
    assert message in str(caught.value)


def test_unknown_recipe_and_missing_or_unreadable_file(tmp_path):
    with pytest.raises(InputError, match="Did you mean 'digits'"):
        load_recipe("digit")
    with pytest.raises(InputError, match="must exist"):
        load_recipe(str(tmp_path / "none.yaml"))
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError):
        load_recipe(str(binary))
