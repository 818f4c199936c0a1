"""Trackers are shown the whole log at every start, and a tool that fails does not end the training."""

import json
import logging
import os
import tempfile

import pytest

from fedlas.errors import InputError
from fedlas.lab.train import TRACKERS, Tracking, check_trackers

# trackio reads it once, when imported
os.environ.setdefault("TRACKIO_DIR", tempfile.mkdtemp(prefix="trackio-"))

LOG = [{"epoch": epoch, "val": {"ece": epoch / 10}, "alarms": []} for epoch in (1, 2, 3)]
METRICS = {
    "test": {"nll": 0.5},
    "test_calibrated": {},
    "temperature": 1.5,
    "best_epoch": 2,
    "epochs": 3,
}


class Notebook:
    """A tool that keeps the values, and fails at the action that ``fail`` names."""

    requires_logging_directory = False

    def __init__(self, project, *, name="", fail=""):
        self.project, self.name, self.fail, self.values = project, name, fail, []
        pages.append(self)

    def start(self):
        self._act("start")

    def store_init_configuration(self, values):
        self.config = values

    def log(self, values, step):
        self._act("log")
        self.values.append((step, values))

    def finish(self):
        self._act("finish")

    def _act(self, action):
        if action == self.fail:
            raise ConnectionError("gone")


pages = []


@pytest.fixture
def notebook(monkeypatch):
    pages.clear()
    monkeypatch.setitem(TRACKERS, "notebook", "name")
    tools = pytest.importorskip("accelerate.tracking").LOGGER_TYPE_TO_CLASS
    monkeypatch.setitem(tools, "notebook", Notebook)


def tracking(folder, trackers):
    return Tracking(
        trackers,
        folder,
        project="paper/digits",
        name="ls-s0",
        config={"loss": {"name": "ls"}, "x": [1]},
    )


def show(run, trackers, records=LOG):
    """Train: each epoch enters the log before it is shown."""
    run.mkdir(exist_ok=True)
    with tracking(run, trackers) as shown:
        for record in records:
            with (run / "log.jsonl").open("a") as file:
                file.write(json.dumps(record) + "\n")
            shown.epoch(record)
        shown.final(METRICS)


def test_every_start_shows_the_whole_log(tmp_path, notebook):
    show(tmp_path, {"notebook": {}}, LOG[:2])
    show(tmp_path, {"notebook": {"project": "mine"}}, LOG[2:])
    first, second = pages
    assert (first.project, first.name, second.project) == ("paper-digits", "ls-s0", "mine")
    assert first.config == {"loss.name": "ls", "x": "[1]"}
    assert [step for step, _ in second.values] == [1, 2, 3, 3]
    assert second.values[0][1] == {"epoch": 1, "val/ece": 0.1, "alarms": 0}
    assert second.values[-1][1]["test/nll"] == 0.5


@pytest.mark.parametrize("action", ["log", "finish"])
def test_a_failing_tool_is_dropped_with_a_warning(tmp_path, notebook, caplog, action):
    with caplog.at_level(logging.WARNING, logger="fedlas"):
        show(tmp_path, {"notebook": {"fail": action}})
    (record,) = caplog.records
    assert "tracker notebook of ls-s0" in record.getMessage()
    assert "gone" in record.getMessage()


@pytest.mark.parametrize("options", [{"fail": "start"}, {"projct": "x"}])
def test_tracker_that_fails_to_start_is_error(tmp_path, notebook, options):
    with pytest.raises(InputError, match="notebook"), tracking(tmp_path, {"notebook": options}):
        pass


def test_names_are_checked_before_training():
    with pytest.raises(InputError, match="'tensorboard'"):
        check_trackers({"tensorbord": {}})
    with pytest.raises(InputError, match="pip install"):
        check_trackers({"comet_ml": {}})


def test_files_of_a_tracker_stay_below_the_bench(tmp_path):
    pytest.importorskip("tensorboard")
    (tmp_path / "ce-s0").mkdir()
    with (
        pytest.raises(InputError, match="the path must be below"),
        tracking(tmp_path / "run", {"tensorboard": {"project": ".."}}),
    ):
        pass


def test_values_are_finite_numbers(tmp_path, notebook):
    val = {"ece": 0.5, "mce": None, "deep": {"x": float("nan")}}
    record = {
        "epoch": 1,
        "val": val,
        "alarms": ["a", "b"],
        "on": True,
        "quantiles": [1, 2],
        "name": "x",
    }
    show(tmp_path, {"notebook": {}}, [record])
    assert pages[0].values[0] == (1, {"epoch": 1, "val/ece": 0.5, "alarms": 2})


@pytest.mark.system
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning")  # MLflow's own
@pytest.mark.parametrize("name", ["tensorboard", "mlflow", "wandb", "trackio"])
def test_real_tools_take_the_log(tmp_path, monkeypatch, name):
    pytest.importorskip(name)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    monkeypatch.chdir(tmp_path)
    pytest.importorskip("accelerate").Accelerator(
        cpu=True
    )  # accelerate's trackers ask it for the process
    show(tmp_path / "run", {name: {"project": tmp_path.name}})
    if name == "tensorboard":
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        events = EventAccumulator(
            str(tmp_path / ".trackers" / "tensorboard" / tmp_path.name / "ls-s0")
        ).Reload()
        assert [event.step for event in events.Scalars("val/ece")] == [1, 2, 3]
    if name == "mlflow":
        from mlflow import MlflowClient

        client = MlflowClient()
        (run,) = client.search_runs([client.get_experiment_by_name(tmp_path.name).experiment_id])
        assert run.info.run_name == "ls-s0"
        assert run.data.metrics["val/ece"] == 0.3
