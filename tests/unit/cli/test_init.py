"""From a folder of images to a trained run, without a word about sizes, colors or places."""

import shutil
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from fedlas.cli import main
from fedlas.cli.init import init_images
from fedlas.errors import InputError
from fedlas.lab.data import survey_images
from fedlas.lab.data.survey import Survey
from fedlas.lab.recipes import (
    choose_starter_settings,
    load_recipe,
    plan_runs,
    render_starter_recipe,
)
from fedlas.lab.runs import load_trained_run, prepare_data


def fill(root, *, classes=("day", "night"), images=12, size=(10, 14)):
    """One class is bright and the other dark."""
    random = np.random.default_rng(0)
    for label, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for row in range(images):
            pixels = random.integers(0, 100, (*size, 3)) + 150 * (label == 0)
            Image.fromarray(pixels.astype(np.uint8)).save(root / name / f"{row}.png")
    return root


@pytest.fixture
def photos(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return fill(tmp_path / "my photos: #1 é")


def test_init_then_train_needs_no_data_option(photos, capsys):
    assert main(["init", str(photos)]) == 0
    out = capsys.readouterr().out
    assert "24 images in 2 classes (12 each)" in out
    assert "fedlas runs train 'my photos: #1 é.yaml'" in out
    assert (
        main(["runs", "train", f"{photos.name}.yaml", "--set", "train.epochs=1", "--out", "run"])
        == 0
    )
    trained = load_trained_run(photos.parent / "run")
    assert (trained.splits.image_size, trained.splits.in_channels) == (10, 3)
    assert trained.splits.classes == ("day", "night")


def test_printed_command_works_with_leading_dash(photos, capsys):
    photos.rename(photos.parent / "-x")
    assert main(["init", "./-x"]) == 0
    assert "fedlas runs train ./-x.yaml" in capsys.readouterr().out


def test_the_preset_needs_only_the_place(photos):
    settings = ["--set", "train.epochs=1", "--set", "model.width=4"]
    assert main(["runs", "train", "folder", "--data", str(photos), "--out", "run", *settings]) == 0
    assert load_trained_run(photos.parent / "run").splits.image_size == 32


def test_preset_without_folder_explains_data_option(photos, capsys):
    assert main(["runs", "train", "folder", "--out", "run"]) == 2
    assert "--data PATH" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("make", "numbers"),
    [
        # Images in each part, sizes, color; what is chosen: train, val, test, size, width, batch.
        (({"": 30}, (28, 28), 30), (18, 6, 6, 28, 32, 32)),
        (({"": 3000}, (8, 9), 0), (2160, 240, 600, 8, 32, 64)),
        (({"train": 2500, "test": 1000}, (32, 32), 0), (2250, 250, 1000, 32, 32, 64)),
        (
            ({"train": 20_000, "val": 2000, "test": 1000}, (300, 200), 0),
            (19_800, 2200, 1000, 64, 16, 128),
        ),
    ],
)
def test_what_is_chosen(make, numbers, tmp_path):

    counts, size, gray = make
    by_part = {part: {"a": count // 2, "b": count - count // 2} for part, count in counts.items()}
    found = Survey(
        tmp_path, by_part, Counter({size: sum(counts.values())}), gray, False, Counter(), ()
    )
    chosen = choose_starter_settings(found)
    assert (
        chosen.train,
        chosen.val,
        chosen.test,
        chosen.size,
        chosen.width,
        chosen.batch,
    ) == numbers
    assert 10 <= chosen.epochs <= 60
    (tmp_path / "made.yaml").write_text(render_starter_recipe(found, chosen))
    recipe = load_recipe(str(tmp_path / "made.yaml"))
    assert (recipe.data.root, recipe.data.val_size) == (str(tmp_path), chosen.val)
    assert recipe.data.options["channels"] == (1 if gray else 3)


@pytest.mark.parametrize("below", [False, True])
def test_the_numbers_are_those_that_training_finds(tmp_path, below):
    fill(tmp_path / "x", images=20)
    if below:  # which only images that are read when needed may be
        shutil.move(tmp_path / "x" / "day", tmp_path / "day")
        shutil.move(tmp_path / "day", tmp_path / "x" / "day" / "2024")
    chosen = choose_starter_settings(survey_images(tmp_path / "x"))
    init_images(tmp_path / "x", out=tmp_path / "x.yaml")
    (run,) = plan_runs(
        load_recipe(str(tmp_path / "x.yaml")), losses=["ce"], seeds=[0], out=tmp_path
    )
    splits = prepare_data(run)
    assert (len(splits.train), len(splits.val), len(splits.test)) == (
        chosen.train,
        chosen.val,
        chosen.test,
    )
    assert run.recipe.data.name == ("image-folder" if below else "folder")


def test_what_a_person_should_know_is_said(tmp_path, capsys):
    fill(tmp_path / "x", classes=("a",), images=30)
    fill(tmp_path / "y", classes=("b",), images=4)
    shutil.move(tmp_path / "y" / "b", tmp_path / "x" / "b")
    shutil.copy(tmp_path / "x/a/0.png", tmp_path / "x/b/9.png")
    (tmp_path / "x" / "notes.txt").write_text("x")
    init_images(tmp_path / "x", out=tmp_path / "x.yaml")
    out = " ".join(capsys.readouterr().out.split())
    for words in (
        "1 file without an image suffix skipped (.txt)",
        "5 images in two classes, so that one label is wrong, such as a/0.png and b/",
        "b has 5 images and a 30",
        "validation images are too few to choose an epoch and a temperature",
    ):
        assert words in out


def test_init_overwrites_nothing_and_cleans_up(photos, tmp_path):
    refused = {
        "x.json": r"must end in \.yaml",
        ".yaml": r"must end in \.yaml",
        "a\\b.yaml": "plain name",
    }
    for out, words in refused.items():
        with pytest.raises(InputError, match=words):
            init_images(photos, out=tmp_path / out)
    (tmp_path / "there.yaml").write_text("mine")
    with pytest.raises(InputError, match="must be a new file"):
        init_images(photos, out=tmp_path / "there.yaml")
    assert (tmp_path / "there.yaml").read_text() == "mine"
    (photos / "day" / "bad.png").write_bytes(b"bad")
    with pytest.raises(InputError, match=r"1 of 25 .*bad\.png"):
        init_images(photos)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([photos.name, "there.yaml"])
