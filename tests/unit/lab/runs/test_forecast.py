"""What is said of a run before it is done: its steps, and from where it resumes."""

import json

import numpy as np
import pytest
from PIL import Image

from fedlas.lab.benches import RecipeGroup, dry_run_bench
from fedlas.lab.recipes import load_recipe, plan_runs
from fedlas.lab.runs import RunFolder, count_train_images, forecast_run


def own_images(form, folder):
    """Thirty training images of three classes, two in a folder below a class folder, and six for testing."""
    if form == "npz":
        arrays = {
            f"{p}_images": np.zeros((n, 8, 8), np.uint8) for p, n in (("train", 30), ("test", 6))
        }
        labels = {f"{p}_target": np.arange(n) % 3 for p, n in (("train", 30), ("test", 6))}
        np.savez(folder / "own.npz", **arrays, **labels)
        return folder / "own.npz"
    for part, each in (("train", 10), ("test", 2)):
        for number in range(3):
            place = folder / part / f"class{number}"
            place.mkdir(parents=True)
            for image in range(each):
                Image.new("L", (8, 8)).save(place / f"{image}.png")
    if form == "image-folder":
        (folder / "train" / "class0" / "deep").mkdir()
        (folder / "train" / "class0" / "0.png").rename(
            folder / "train" / "class0" / "deep" / "0.png"
        )
    return folder


def recipe(form, root, *overrides):
    small = {
        "image-folder": ["data.resize=8", "data.crop=8"],
        "folder": ["data.channels=1"],
        "npz": [],
    }[form]
    settings = [
        f"data.name={form}",
        "data.val_size=6",
        "train.batch_size=10",
        "train.epochs=4",
        *small,
    ]
    return load_recipe("synthetic", [*settings, *overrides]).with_data_root(
        None if root is None else str(root)
    )


@pytest.mark.parametrize("form", ["folder", "image-folder", "npz"])
def test_images_are_counted_where_they_are(form, tmp_path):
    root = own_images(form, tmp_path)

    def run(root, *overrides):
        return plan_runs(
            recipe(form, root, *overrides), losses=["ce"], seeds=[0], out=tmp_path / "runs"
        )[0]

    assert count_train_images(run(root)) == 24
    assert count_train_images(run(root, "data.train_size=20")) == 20
    assert forecast_run(run(root)).steps == 4 * 3
    assert count_train_images(run(tmp_path / "elsewhere")) is None
    assert count_train_images(run(None, "data.train_size=20")) == 20


def test_dry_run_counts_steps_or_gives_reason(tmp_path, capsys):
    """It said "about 0 steps, 0 of them left" of data that it did not count."""
    root = own_images("folder", tmp_path / "data")
    there, not_there = recipe("folder", root), recipe("folder", tmp_path / "elsewhere")
    dry_run_bench(RecipeGroup("g", "", (there,)), losses=["ce"], seeds=[0, 1], out=tmp_path / "out")
    text = capsys.readouterr().out
    assert "on about 24 images" in text
    assert "2 runs, 0 of them finished; about 24 steps, 24 of them left" in text
    dry_run_bench(
        RecipeGroup("g", "", (not_there,)), losses=["ce"], seeds=[0, 1], out=tmp_path / "out"
    )
    (last,) = capsys.readouterr().out.splitlines()[-1:]
    assert (
        last
        == "2 runs, 0 of them finished; steps of 2 runs unknown, since their data was not found"
    )


@pytest.mark.parametrize(("every", "logged", "done"), [(1, 3, 3), (3, 5, 3), (3, 2, 0), (5, 7, 5)])
def test_forecast_counts_checkpoint_epochs_not_log_records(every, logged, done, tmp_path):
    small = load_recipe("synthetic", [f"train.checkpoint_every={every}", "train.epochs=8"])
    run = plan_runs(small, losses=["ce"], seeds=[0], out=tmp_path)[0]
    folder = RunFolder(run.folder)
    folder.checkpoint_path.parent.mkdir(parents=True)
    folder.log_path.write_text(
        "".join(json.dumps({"epoch": epoch + 1}) + "\n" for epoch in range(logged))
    )
    folder.checkpoint_path.write_bytes(b"")
    found = forecast_run(run)
    assert found.state == (f"resumes after epoch {done}" if done else "new")
    assert found.left == found.steps * (8 - done) // 8
