import json
import logging
import sys
from dataclasses import replace

import pytest

from fedlas._core.check import InputError
from fedlas._core.extras import MissingExtraError
from fedlas.cli.track import track
from fedlas.lab.runs.execute import execute
from fedlas.lab.runs.tracking import place_of, tracking_of
from fedlas.lab.trackers import TRACKERS, Held, Tracker
from fedlas.lab.trackers.base import flat, values_of


class Notebook(Tracker):
    """Keeps what it is shown, from one start to the next; fails where it is told to."""

    def __init__(self, *, project=None, fail=""):
        super().__init__(project=project)
        self.shown, self.pictures, self.places, self.opened, self.closed = [], [], [], 0, 0
        self.fail = fail

    def open(self, place):
        self._may_fail("open")
        self.opened += 1
        self.places.append(place)
        epochs = [epoch for epoch, values in self.shown if "epoch" in values]
        return Held(max(epochs, default=0), any("test/nll" in values for _, values in self.shown))

    def log(self, values, epoch):
        self._may_fail("log")
        self.shown.append((epoch, values))

    def picture(self, name, figure, epoch):
        self._may_fail("picture")
        assert figure.axes
        self.pictures.append((name, epoch))

    def close(self):
        self._may_fail("close")
        self.closed += 1

    def where(self, folder):
        return f"look into {folder}"

    def _may_fail(self, action):
        if self.fail == action:
            raise ConnectionError("gone")


@pytest.fixture
def shown(monkeypatch):
    """A run is shown to this notebook, whichever start of it."""
    book = Notebook()
    monkeypatch.setattr("fedlas.lab.runs.tracking.trackers_of", lambda _: {"notebook": book})
    monkeypatch.setattr("fedlas.cli.track.trackers_of", lambda _: {"notebook": book})
    return book


def test_what_draws_the_diagram_is_missed_before_training(planned, shown, monkeypatch):
    run = planned({})
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match="'matplotlib'"):
        execute(run)
    assert not (run.folder / "log.jsonl").exists()


def records(run):
    return [json.loads(line) for line in (run.folder / "log.jsonl").read_text().splitlines()]


def check_whole(book, run, metrics):
    """Every epoch of the log once, in order, then the final metrics once."""
    log = records(run)
    assert [epoch for epoch, _ in book.shown] == [*range(1, len(log) + 1), len(log)]
    for (_, values), record in zip(book.shown, log, strict=False):
        # An epoch that no checkpoint kept is trained again, with the same result in another time.
        assert {**values, "seconds": 0} == {**values_of(record), "seconds": 0}
        assert values["val/ece"] == record["val"]["ece"]
        assert values["gate/plus"] == record["gate"]["plus"]
    assert book.shown[-1][1]["test/ece"] == metrics["test"]["ece"]
    assert book.pictures == [("reliability", len(log))]


def test_a_run_is_shown_while_it_trains(planned, shown):
    run = planned({})
    metrics = execute(run)
    check_whole(shown, run, metrics)
    (place,) = shown.places
    assert (place.project, place.name, place.folder) == ("synthetic", "fedlas-s0", run.folder.parent / ".trackers")
    assert place.config["loss.name"] == "fedlas"
    assert place.config["optimizer.lr"] == run.recipe.optimizer.lr


@pytest.mark.parametrize("after_showing", [False, True])
def test_a_stopped_run_is_shown_once(planned, shown, stopped, after_showing):
    run = stopped(planned({}), shown=after_showing)
    assert len(shown.shown) == after_showing
    metrics = execute(run)
    assert shown.opened == 2
    assert shown.places[0].id == shown.places[1].id
    check_whole(shown, run, metrics)


def test_a_run_that_was_not_tracked_can_be_shown_afterwards_and_only_once(planned, shown, capsys):
    run = planned({})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fedlas.lab.runs.tracking.trackers_of", lambda _: {})
        metrics = execute(run)
    assert not (run.folder / "trackers.json").exists()
    assert track([run.folder.parent], to=["notebook"]) == 0
    check_whole(shown, run, metrics)
    out = capsys.readouterr().out
    assert "1 runs shown" in out
    assert f"notebook: look into {run.folder.parent.absolute() / '.trackers'}" in out.replace("\n", "")
    assert track([run.folder, run.folder.parent], to=["notebook"]) == 0
    check_whole(shown, run, metrics)


@pytest.mark.parametrize("action", ["log", "picture", "close"])
def test_a_failing_tracker_does_not_end_the_run(planned, shown, caplog, action):
    run, shown.fail = planned({}), action
    with caplog.at_level(logging.WARNING, logger="fedlas"):
        assert execute(run)["epochs"] == 3
    (warning,) = [record.getMessage() for record in caplog.records if "given up" in record.getMessage()]
    assert "ConnectionError: gone" in warning
    assert f"fedlas track {run.folder} --to notebook" in warning
    assert shown.closed == (action != "close")
    shown.fail = ""
    if action != "close":
        assert track([run.folder], to=["notebook"]) == 0
        check_whole(shown, run, json.loads((run.folder / "metrics.json").read_text()))


def test_a_tracker_that_fails_afterwards_is_an_error_status(planned, shown, caplog):
    run = planned({})
    execute(run)
    shown.shown.clear()
    shown.fail = "log"
    assert track([run.folder], to=["notebook"]) == 1


def test_one_that_does_not_open_stops_before_anything_is_trained(planned, shown):
    run, shown.fail = planned({}), "open"
    with pytest.raises(InputError, match="tracker notebook: it must open; got ConnectionError: gone") as caught:
        execute(run)
    assert "train without it" in str(caught.value)
    assert not (run.folder / "log.jsonl").exists()


def test_only_the_main_process_shows(planned, shown):
    class Other:
        is_main_process = False

    assert tracking_of(planned({}), Other()).trackers == {}


def test_trackers_are_no_part_of_what_a_run_is(planned):
    assert planned({}).config() == planned({"tensorboard": {}}).config()


def test_an_unreadable_id_is_named(planned):
    run = planned({})
    run.folder.mkdir()
    (run.folder / "trackers.json").write_text("{")
    with pytest.raises(InputError, match="Remove it to be tracked as a new run"):
        place_of(run)


@pytest.mark.parametrize(
    ("trackers", "message"),
    [
        ({"tensorbord": {}}, "tensorboard"),
        ({"tensorboard": {"projct": "x"}}, "project"),
        ({"wandb": {"mode": "of-line"}}, "offline"),
    ],
)
def test_wrong_names_are_refused_before_a_run_starts(planned, trackers, message):
    pytest.importorskip("tensorboard")
    pytest.importorskip("wandb")
    with pytest.raises(InputError, match=message):
        planned(trackers)


@pytest.mark.parametrize("options", [["wandb.project=x"], ["project=x"], ["tensorboard=x"]])
def test_options_of_trackers_that_are_not_asked_for(tmp_path, options):
    with pytest.raises(InputError, match=r"options must be NAME\.KEY=VALUE"):
        track([tmp_path], to=["tensorboard"], options=options)


def test_folders_without_a_run(tmp_path, shown):
    with pytest.raises(InputError, match="a folder must be a run, or hold runs that were trained"):
        track([tmp_path], to=["notebook"])


def test_a_run_that_has_not_begun(planned, shown):
    run = planned({})
    run.folder.mkdir()
    (run.folder / "config.yaml").write_text(json.dumps(run.config()))
    with pytest.raises(InputError, match="must have logged an epoch"):
        track([run.folder], to=["notebook"])


def test_values_and_configuration_are_plain():
    val = {"ece": 0.5, "mce": None, "deep": {"x": float("nan")}}
    record = {"epoch": 1, "val": val, "alarms": ["a", "b"], "on": True}
    assert values_of({**record, "quantiles": [1, 2], "name": "x"}) == {"epoch": 1, "val/ece": 0.5, "alarms": 2}
    assert flat({"a": {"b": None, "c": [1]}, "d": False}) == {"a.b": "None", "a.c": "[1]", "d": False}


def test_every_tracker_says_what_it_is():
    for entry in TRACKERS.entries():
        assert entry.summary
        assert entry.metadata["url"].startswith("https://")
        assert issubclass(entry.value, Tracker)


def test_a_recipe_keeps_its_options_when_a_tracker_is_asked_for(planned):
    recipe = replace(planned({}).recipe, trackers={"wandb": {"project": "mine"}})
    assert recipe.with_trackers(["wandb", "mlflow"]).trackers == {"mlflow": {}, "wandb": {"project": "mine"}}
