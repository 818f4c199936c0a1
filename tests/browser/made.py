"""Every page that the library writes, made by its own commands from runs of a second each."""

import os
import shutil
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import jinja2
import numpy as np
import torch
from PIL import Image

from fedlas import Predictions
from fedlas.cli import main
from fedlas.lab.report import read_bench_result

PLAIN, GATED = "cross-entropy-without-label-smoothing", "fedlas"
RECIPE = f"""
extends: digits
data: {{train_size: 200, val_size: 150, test_size: 150}}
model: {{width: 4}}
train: {{epochs: 2}}
losses:
  {PLAIN}: {{loss: ce}}
  diverging: {{loss: mbls, alpha: 1.0e+38, margin: 0}}
"""
PAGES = (
    "digits/report.html",
    "digits/diagnose.html",
    "digits/fedlas-s0/diagnose.html",
    "digits/fedlas-s0/card.html",
    "digits/fedlas-s0/export/model.pt2.card.html",
    "clothes/mbls-s3/report.html",
    "without-data/mbls-s3/report.html",
    "evaluated/temperature.html",
    "evaluated/all.html",
    "evaluated/table.html",
    "monitor/quiet.html",
    "monitor/alarm.html",
    "monitor/history.html",
    "ood/losses/ood.html",
    "ood/scores/ood.html",
    "compared/comparison.html",
)
"""All of them; a test compares this list with what lies in the folder."""
TEMPLATES = "templates.txt"
"""Lists the templates that jinja2 was asked for while the pages were made."""
CLASSES = ("Ankle boot, laced", "T-shirt & <top>", "Übergangsjacke mit abnehmbarer Kapuze")


def make_pages(folder):
    """Make all pages in ``folder``."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        asked = _make_all()
    finally:
        os.chdir(before)
    (folder / TEMPLATES).write_text("\n".join(sorted(asked)), encoding="utf-8")


def _make_all():
    asked = set()
    get_template = jinja2.Environment.get_template

    def recorded(self, name, *args, **kwargs):
        asked.add(name)
        return get_template(self, name, *args, **kwargs)

    with patch.object(jinja2.Environment, "get_template", recorded):
        _bench()
        read_bench_result({"digits": Path("digits")}, ["raw", "temperature"]).write(
            Path("compared")
        )
        _single_run()
        _evaluations()
        few = ("--replicates", "39")
        _fedlas("runs", "diagnose", "digits")
        _fedlas("runs", "diagnose", "digits/fedlas-s0")
        _fedlas(
            "runs",
            "ood",
            f"digits/{PLAIN}-s0",
            "digits/fedlas-s0",
            "--data",
            "synthetic",
            "--out",
            "ood/losses",
            *few,
        )
        _fedlas(
            "runs", "ood", "digits/fedlas-s0", "--data", "synthetic", "--out", "ood/scores", *few
        )
        _fedlas("card", "digits/fedlas-s0", *few)
        _fedlas(
            "export", "digits/fedlas-s0", "--format", "torch-export", "--method", "vector", *few
        )
        _monitor()
    return asked


def _bench():
    """Four runs that finish, one that fails, one that stops and one that nobody can read, and the report on them."""
    Path("digits.yaml").write_text(RECIPE, encoding="utf-8")
    for loss in (PLAIN, GATED):
        for seed in ("0", "1"):
            _fedlas(
                "runs",
                "train",
                "digits.yaml",
                "--loss",
                loss,
                "--seed",
                seed,
                "--out",
                f"digits/{loss}-s{seed}",
            )
    # The only run of a bench fails, so it writes no report: that would come with a thousand replicates.
    _fedlas(
        "bench", "digits.yaml", "--losses", "diverging", "--seeds", "0", "--out", "digits", status=2
    )
    _fedlas(
        "runs",
        "train",
        "digits.yaml",
        "--loss",
        "diverging",
        "--seed",
        "1",
        "--out",
        "digits/diverging-s1",
        status=2,
    )
    Path("digits/unreadable-s0").mkdir()
    Path("digits/unreadable-s0/metrics.json").write_text('{"format": 1', encoding="utf-8")
    _fedlas("runs", "report", "digits", "--replicates", "39")


def _single_run():
    """A run by itself, on color images of classes with awkward names; once more where the images are gone."""
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3, 40, 16, 16, 3), dtype=np.uint8)
    for part, images in zip(("train", "test"), pixels, strict=True):
        for name, members in zip(CLASSES, images, strict=True):
            place = Path("images") / part / name
            place.mkdir(parents=True)
            for i, image in enumerate(members):
                Image.fromarray(image).save(place / f"{i}.png")
    settings = ("data.name=folder", "data.val_size=30", "train.epochs=1", "model.width=4")
    overrides = [word for setting in settings for word in ("--set", setting)]
    where = ("--data", "images", "--out", "clothes/mbls-s3")
    _fedlas("runs", "train", "digits", "--loss", "mbls", "--seed", "3", *overrides, *where)
    _fedlas("runs", "report", "clothes/mbls-s3", "--replicates", "39")
    shutil.rmtree("images")
    shutil.copytree("clothes", "without-data", ignore=shutil.ignore_patterns("report.html"))
    _fedlas("runs", "report", "without-data/mbls-s3", "--replicates", "39")


def _evaluations():
    """One run with one calibrator and with all, and somebody else's table with a long name."""
    few = ("--replicates", "39", "--report")
    _fedlas(
        "evaluate",
        f"digits/{PLAIN}-s0",
        "--method",
        "temperature",
        *few,
        "evaluated/temperature.html",
    )
    _fedlas("evaluate", f"digits/{PLAIN}-s0", "--method", "all", *few, "evaluated/all.html")
    score = np.random.default_rng(0).uniform(size=200)
    table = Path("predictions_of_the_second_hospital_in_the_external_validation_cohort.csv")
    rows = [f"{1 - p:.4f},{p:.4f},{int(u < p)}" for p, u in zip(score, score[::-1], strict=True)]
    table.write_text("\n".join(["p_healthy,p_ill,label", *rows]), encoding="utf-8")
    _fedlas(
        "evaluate", str(table), "--probs", "p_*", "--target", "label", *few, "evaluated/table.html"
    )


def _monitor():
    """A stream without labels in which nothing happens, and one with labels whose scores go to wrong columns."""
    run = Path("digits/fedlas-s0")
    test = Predictions.load(run / "predictions/test.npz")
    wrong = test.with_logits(test.tensors().logits.roll(1, dims=1))
    replace(wrong, features=torch.zeros_like(test.tensors().features)).save("wrong.npz")
    np.savez("unlabeled.npz", logits=test.logits, features=test.features)
    good = [str(run / "predictions/test.npz")] * 3
    _fedlas("monitor", str(run), *["unlabeled.npz"] * 3, "--raw", "--page", "monitor/quiet.html")
    _fedlas(
        "monitor", str(run), *good, "wrong.npz", "--raw", "--page", "monitor/alarm.html", status=3
    )
    for name, rows in (("september", slice(0, None, 2)), ("october", slice(1, None, 2))):
        np.savez(
            f"{name}.npz",
            logits=test.tensors().logits[rows].numpy(),
            features=test.tensors().features[rows].numpy(),
            target=test.tensors().target[rows].numpy(),
        )
    for period, file, status in (
        ("2026-09", "september.npz", 0),
        ("2026-10", "october.npz", 0),
        ("2026-11", "wrong.npz", 3),
    ):
        history = ("--history", "monitor/history.json", "--period", period)
        _fedlas("monitor", str(run), file, "--raw", *history, status=status)


def _fedlas(*arguments, status=0):
    with patch("sys.argv", ["fedlas", *arguments]):  # pages show the command that made them
        assert main(list(arguments)) == status, arguments
