"""Small files of each kind that users have on disk, written once by one commit, and what every later commit reads.

``python tests/frozen/frozen_files.py COPY`` (with ``PYTHONPATH=src``; COPY is a folder to read in) wrote ``files/`` and
``expected.json`` at 177f99ce, and is kept to show how. It is not run again: files of today say nothing about those that
users have.
"""

import contextlib
import csv
import io
import json
import shutil
import sqlite3
import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import fedlas
from fedlas.calibrators import Calibrator, MultiLabelCalibration, TemperatureScaling
from fedlas.cli import main
from fedlas.lab.runs import RunFolder, collect_runs, load_trained_run

FILES = Path(__file__).parent / "files"
CLASSES = ("ape", "bee", "cat")
RISK = "--probs risk --target died --event yes"
COLUMNS = "--covariates age,ward"
SMALL = [
    "train.epochs=1", "train.batch_size=25", "data.train_size=50", "data.val_size=50", "data.num_test=50",
    "data.num_train=200", "data.split_seed=0", "model.hidden=[4]", "train.precision=fp32",
]  # fmt: skip


def build():
    """Return the architecture of the saved model."""
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))


def inputs():
    """Return inputs ``(40, 4)`` of the saved model."""
    return torch.linspace(-2, 2, 160).reshape(40, 4).sin()


def called(command):
    """Return what a command prints."""
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown):
        assert main(command.split()) in (0, 3)
    return shown.getvalue()


def applied(calibration, table):
    """Return the added columns of the first rows, by ``fedlas apply`` on a file."""
    called(f"apply {calibration} {table} --out applied.jsonl --missing empty")
    lines = Path("applied.jsonl").read_text(encoding="utf-8").splitlines()[:6]
    return [
        [value for name, value in json.loads(line).items() if name.startswith("calibrated_")]
        for line in lines
    ]


def before_and_after(folder):
    """Return accuracy and NLL of later rows without and with a calibration, and those of its own cross-fit."""
    calibration = fedlas.TableCalibration.load(folder / "risk.json")
    return [
        [stage[name] for stage in (each["before"], each["after"]) for name in ("accuracy", "nll")]
        for each in (
            calibration.before_after(folder / "later.csv").to_dict(),
            calibration.cross_fitted.to_dict(),
        )
    ]


def through_sql(folder):
    """Return the scores of the calibration in SQL, as SQLite computes them with the line of the file's comment."""
    query = (
        (folder / "probs.sql")
        .read_text(encoding="utf-8")
        .replace(" AS (SELECT", " AS MATERIALIZED (SELECT")
    )
    with contextlib.closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("CREATE TABLE predictions (p_ape REAL, p_bee REAL, p_cat REAL)")
        with (folder / "probs.csv").open(encoding="utf-8") as lines:
            rows = [[float(row[f"p_{c}"]) for c in CLASSES] for row in csv.DictReader(lines)][:6]
        connection.executemany("INSERT INTO predictions VALUES (?, ?, ?)", rows)
        answer = connection.execute(query)
        places = [
            i for i, column in enumerate(answer.description) if column[0].startswith("calibrated_")
        ]
        return [[row[i] for i in places] for row in answer]


def through_onnx(folder):
    """Return the probabilities of the exported run."""
    import onnxruntime

    session = onnxruntime.InferenceSession(folder / "run.onnx")
    images = np.arange(3 * 64, dtype=np.uint8).reshape(3, 1, 8, 8)
    return session.run(None, {"images": images})[1].tolist()


def watched(words):
    """Return numbers of ``fedlas monitor``: samples, and of each watch its evidence and its first mean."""
    content = json.loads(called(f"monitor {words} --json"))
    means = {
        name: [watch["evidence"], watch["statistics"][0]["live"]]
        for name, watch in content["watches"].items()
        if watch["watched"]
    }
    return {"samples": content["samples"], **means}


def run_numbers(summary):
    """Return what the finished runs of a bench measured."""
    return {
        f"{run.loss}-{run.seed}": [run.measured["test"]["nll"], run.measured["test"]["accuracy"]]
        for run in summary.runs
    }


def outputs_of_run(folder):
    """Return logits of the model of a run folder, with the weights of its checkpoint."""
    trained = load_trained_run(folder / "bench" / "ce-s0")
    with torch.no_grad():
        return trained.objective.model(torch.linspace(-1, 1, 128).reshape(2, 1, 8, 8)).tolist()


def of_model(name, folder):
    """Return calibrated logits of a saved model."""
    with torch.no_grad():
        return fedlas.CalibratedModel.load(folder / name, build())(inputs()[:4]).tolist()


def of_predictions(folder):
    """Return sums of saved predictions, of each kind."""
    several = fedlas.MultiLabel.load(folder / "several.npz")
    top = fedlas.TopLabel.load(folder / "top.npz")
    return {
        "predictions": fedlas.evaluate(fedlas.Predictions.load(folder / "live.npz"))["nll"],
        "top label": [float(top.tensors().confidence.sum()), float(top.tensors().correct.sum())],
        "several": [float(several.tensors().logits.sum()), float(several.tensors().target.sum())],
    }


def of_calibrators(folder):
    """Return maps of calibrators saved by themselves."""
    logits = torch.tensor([[2.0, -1.0, 0.0], [0.5, 0.5, 3.0]], dtype=torch.float64)
    val = fedlas.Predictions(logits, torch.tensor([0, 2]))
    return {
        "one": Calibrator.load(folder / "temperature.json").transform(val).logits.tolist(),
        "several": MultiLabelCalibration.load(folder / "several.json").transform(logits).tolist(),
    }


READINGS = {
    "table": lambda _: applied("probs.json", "probs.csv"),
    "table of lists": lambda _: applied("lists.json", "lists.jsonl"),
    "table with covariates": lambda _: applied("risk.json", "risk.csv"),
    "table of confidences": lambda _: applied("confidence.json", "answers.csv"),
    "table before and after": before_and_after,
    "model": lambda folder: of_model("model.safetensors", folder),
    "model with features": lambda folder: of_model("features.safetensors", folder),
    "calibrators": of_calibrators,
    "predictions": of_predictions,
    "card": lambda _: watched("card.json live.npz"),
    "state": lambda _: watched("card.json val.npz --state state.json"),
    "card of an event": lambda _: watched(f"event.json later.csv {RISK}"),
    "history": lambda _: [
        watched(f"event.json risk.csv {RISK} {COLUMNS} --history history.json --period May"),
        json.loads(Path("history.json").read_text(encoding="utf-8"))["periods"][0]["columns"],
    ],
    "run folder": lambda folder: [
        run_numbers(collect_runs(folder / "bench")),
        fedlas.evaluate(RunFolder(folder / "bench" / "ce-s0").predictions("test"))["nll"],
    ],
    "checkpoint": outputs_of_run,
    "pack": lambda folder: run_numbers(collect_runs(folder / "packed")),
    "ONNX": through_onnx,
    "SQL": through_sql,
}
"""What is read of a copy of the files, which is the working directory: numbers in lists and objects."""


def write_tables(folder):
    """Write the tables, from which the calibrations below are fitted."""
    random = np.random.default_rng(0)
    logits = 3 * random.normal(size=(120, 3))
    probs = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    target = [int(np.argmax(row / 2 + random.gumbel(size=3))) for row in logits]
    head = ",".join(f"p_{name}" for name in CLASSES)
    lines = [
        f"{','.join(map(repr, map(float, row)))},{CLASSES[label]}"
        for row, label in zip(probs, target, strict=True)
    ]
    (folder / "probs.csv").write_text("\n".join([f"{head},y", *lines]) + "\n")
    lines = [
        json.dumps({"scores": list(map(float, row)), "y": label})
        for row, label in zip(logits, target, strict=True)
    ]
    (folder / "lists.jsonl").write_text("\n".join(lines) + "\n")
    score, age = random.normal(size=300), random.normal(60, 12, size=300).round()
    ward = random.choice(["a", "b", "c"], size=300)
    died = random.random(300) < 1 / (1 + np.exp(-0.6 * score - (age - 60) / 10 - (ward == "b")))
    risk = 1 / (1 + np.exp(-2 * score))
    lines = [
        f"{float(risk[i])!r},{'' if i % 40 == 7 else int(age[i])},{ward[i]},{i % 50},{'yes' if died[i] else 'no'}"
        for i in range(300)
    ]
    for name, rows in (("risk", lines[:150]), ("later", lines[150:])):
        (folder / f"{name}.csv").write_text("\n".join(["risk,age,ward,patient,died", *rows]) + "\n")
    said = random.choice([55, 70, 80, 90, 99], size=100)
    lines = [
        f"{'' if i == 3 else f'{said[i]}%'},{int(random.random() < said[i] / 130)}"
        for i in range(100)
    ]
    (folder / "answers.csv").write_text("\n".join(["sure,ok", *lines]) + "\n")


def write_calibrations(folder):
    """Write calibrations of tables, and one as SQL."""
    called("calibrate probs.csv --probs p_* --target y --out probs.json")
    called("export probs.json --format sql --out probs.sql")
    called("calibrate lists.jsonl --logits scores --target y --method vector --out lists.json")
    called(f"calibrate risk.csv {RISK} {COLUMNS} --clusters patient --out risk.json")
    called(
        "calibrate answers.csv --confidence sure --correct ok --drop-missing --percent --out confidence.json"
    )


def write_models(folder):
    """Write calibrated models, calibrators and predictions."""
    torch.manual_seed(0)
    data = torch.randn(200, 4)
    model = build()
    with torch.no_grad():
        model[2].weight *= 8
    target = torch.multinomial((model(data) / 2).softmax(1), 1)[:, 0]
    loader = DataLoader(TensorDataset(data, target), batch_size=50)
    fedlas.calibrate(model, loader, "temperature").save(folder / "model.safetensors")
    fedlas.calibrate(model, loader).save(folder / "features.safetensors")
    drawn = torch.Generator().manual_seed(1)
    logits = 2 * torch.randn(2, 250, 3, generator=drawn, dtype=torch.float64)
    target = torch.stack(
        [torch.multinomial((each / 2).softmax(1), 1, generator=drawn)[:, 0] for each in logits]
    )
    val, live = (
        fedlas.Predictions(*pair, classes=CLASSES) for pair in zip(logits, target, strict=True)
    )
    val.save(folder / "val.npz")
    live.save(folder / "live.npz")
    fedlas.TopLabel(live.confidence, live.correct).save(folder / "top.npz")
    several = fedlas.MultiLabel(
        logits[0, :80], torch.bernoulli((logits[0, :80] / 2).sigmoid(), generator=drawn).long()
    )
    several.save(folder / "several.npz")
    MultiLabelCalibration("temperature").fit(several.logits, several.target).save(
        folder / "several.json"
    )
    TemperatureScaling().fit(val).save(folder / "temperature.json")


def write_watch(folder):
    """Write a card, and the state and the history of a monitor."""
    plain = "--method temperature --replicates 0"
    called(f"card val.npz live.npz {plain} --out card.json")
    called("monitor card.json live.npz --state state.json")
    (folder / ".state.json.lock").unlink()
    called(f"card risk.csv later.csv {RISK} {plain} --out event.json")
    called(f"monitor event.json later.csv {RISK} {COLUMNS} --history history.json --period April")
    for name in ("card", "event", "history"):
        (folder / f"{name}.html").unlink()


def write_runs(folder):
    """Write the folder of a bench with one loss, its pack, and a model of it as ONNX."""
    import onnx

    from fedlas.lab.recipes import load_recipe, plan_runs
    from fedlas.lab.runs import execute

    for run in plan_runs(
        load_recipe("synthetic", SMALL), losses=["ce"], seeds=[0], out=folder / "bench"
    ):
        execute(run)
    called("pack bench")
    (folder / "packed").mkdir()
    (folder / "bench" / "runs.zip").rename(folder / "packed" / "runs.zip")
    called("export bench/ce-s0 --format onnx --method temperature --replicates 0 --out run.onnx")
    for name in ("run.onnx.card.html", "run.onnx.card.json", "bench/ce-s0/.lock"):
        (folder / name).unlink()
    network = onnx.load(folder / "run.onnx")
    for part in (network, network.graph, *network.graph.node, *network.graph.value_info):
        part.ClearField("metadata_props")  # places of the code that exported it
    onnx.save(network, folder / "run.onnx")


if __name__ == "__main__":
    copy = Path(sys.argv[1]).absolute()
    shutil.rmtree(FILES, ignore_errors=True)
    FILES.mkdir()
    with contextlib.chdir(FILES):  # so that no file names where it was written
        for write in (write_tables, write_calibrations, write_models, write_watch, write_runs):
            write(Path())
    expected = {}
    for name, read in READINGS.items():
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(FILES, copy)
        with contextlib.chdir(copy):
            expected[name] = read(copy)
    text = json.dumps(expected, indent=1)
    (FILES.parent / "expected.json").write_text(f"{text}\n", encoding="utf-8")
