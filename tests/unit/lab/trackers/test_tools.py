"""Each real tool holds a run that was stopped and resumed completely, with every epoch once."""

import json
import os
import struct
from dataclasses import replace

import pytest

from fedlas.cli.track import track
from fedlas.lab.runs.execute import execute
from fedlas.lab.runs.tracking import place_of, tracked_in

pytestmark = [
    pytest.mark.system,
    pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning"),  # MLflow's own
    pytest.mark.filterwarnings("ignore::DeprecationWarning:(mlflow|wandb|trackio|tensorboard|google|pydantic).*"),
]


def tool(name):
    if "FEDLAS_CI" in os.environ:
        return __import__(name)
    return pytest.importorskip(name)


@pytest.fixture
def stopped_and_finished(planned, stopped):
    """A run shown to one tracker, stopped after its first epoch, finished by a second start, and shown once more.

    ``between`` is called after each: what the end of the process does, where starts are processes.
    """

    def make(name, *, between=lambda: None, **options):
        run = stopped(planned({name: options}))
        between()
        metrics = execute(run)
        between()
        given = [f"{name}.{key}={value}" for key, value in options.items()]
        assert track([run.folder], to=[name], options=given) == 0
        between()
        log = [json.loads(line) for line in (run.folder / "log.jsonl").read_text().splitlines()]
        return run, metrics, [(record["epoch"], pytest.approx(record["val"]["ece"])) for record in log]

    return make


def test_tensorboard(stopped_and_finished):
    tool("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run, metrics, expected = stopped_and_finished("tensorboard", project="digits/a")
    events = EventAccumulator(str(tracked_in(run.folder.parent) / "tensorboard" / "digits-a" / run.name)).Reload()
    assert [(event.step, event.value) for event in events.Scalars("val/ece")] == expected
    assert [(e.step, e.value) for e in events.Scalars("test/nll")] == [(3, pytest.approx(metrics["test"]["nll"]))]
    assert len(events.Images("reliability")) == 1


def test_mlflow(stopped_and_finished):
    tool("mlflow")
    from mlflow import MlflowClient

    run, metrics, expected = stopped_and_finished("mlflow", project="mine")
    folder = tracked_in(run.folder.parent)
    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    (found,) = client.search_runs([client.get_experiment_by_name("mine").experiment_id])
    assert found.info.run_name == run.name
    assert found.info.status == "FINISHED"
    assert found.data.params["loss.name"] == "fedlas"
    history = client.get_metric_history(found.info.run_id, "val/ece")
    assert [(metric.step, metric.value) for metric in history] == expected
    (final,) = client.get_metric_history(found.info.run_id, "test/nll")
    assert final.value == metrics["test"]["nll"]
    assert [path.name for path in folder.glob("mlflow-artifacts/**/*.png")] == ["reliability-3.png"]


def wandb_records(content):
    """The records of an offline run: a LevelDB log of 32 KiB blocks after a header of seven bytes."""
    at, parts = 7, []
    while at + 7 <= len(content):
        if 0 < -at % 32768 < 7:  # the end of a block is too short for another header
            at += -at % 32768
            continue
        _, length, kind = struct.unpack_from("<IHB", content, at)
        parts.append(content[at + 7 : at + 7 + length])
        at += 7 + length
        if kind in (1, 4):  # a whole record, or the last part of one
            yield b"".join(parts)
            parts = []


def test_wandb_offline(stopped_and_finished):
    wandb = tool("wandb")
    from wandb.proto.wandb_internal_pb2 import Record

    run, metrics, expected = stopped_and_finished(
        "wandb", between=wandb.teardown
    )  # or its service may still be writing
    known = place_of(run).id
    (folder,) = (tracked_in(run.folder.parent) / "wandb").glob("offline-run-*")
    assert folder.name.endswith(known)
    history = []
    for data in wandb_records((folder / f"run-{known}.wandb").read_bytes()):
        record = Record.FromString(data)
        if record.WhichOneof("record_type") == "history":
            items = {item.key or "/".join(item.nested_key): item.value_json for item in record.history.item}
            history.append({key: json.loads(value) for key, value in items.items()})
    assert [(row["_step"], row["val/ece"]) for row in history if "val/ece" in row] == expected
    assert [row["test/nll"] for row in history if "test/nll" in row] == [pytest.approx(metrics["test"]["nll"])]
    assert len(list(folder.glob("files/media/images/*.png"))) == 1


def test_trackio(stopped_and_finished, tmp_path):
    tool("trackio")
    from trackio.sqlite_storage import SQLiteStorage

    run, metrics, expected = stopped_and_finished("trackio", project=tmp_path.name)
    (name,) = SQLiteStorage.get_runs(tmp_path.name)
    assert name == f"{run.name}-{place_of(run).id}"
    logs = SQLiteStorage.get_logs(tmp_path.name, name)
    assert [(entry["step"], entry["val/ece"]) for entry in logs if "val/ece" in entry] == expected
    assert [entry["test/nll"] for entry in logs if "test/nll" in entry] == [pytest.approx(metrics["test"]["nll"])]
    assert sum("reliability" in entry for entry in logs) == 1


@pytest.mark.parametrize("name", ["tensorboard", "mlflow", "wandb", "trackio"])
def test_runs_of_one_process_are_runs_of_their_own(planned, tmp_path, monkeypatch, name):
    tool(name)
    monkeypatch.delattr("matplotlib.pyplot", raising=False)  # as in a process that never drew on a screen
    run = planned({})
    execute(run)
    other = replace(run, seed=1, folder=tmp_path / "fedlas-s1")
    execute(other)
    assert track([tmp_path], to=[name], options=[f"{name}.project={tmp_path.name}"]) == 0
    assert place_of(run).id != place_of(other).id
