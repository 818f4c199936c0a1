"""Trials in worker processes: the same study as one trial after the other."""

import functools
import multiprocessing
from dataclasses import replace
from multiprocessing import forkserver

import pytest
from rich.console import Console

from fakes_tuning import TINY, result
from fedlas._core.check import InputError
from fedlas.lab.tune import workers as room
from fedlas.lab.tune.plan import plan_tuning
from fedlas.lab.tune.record import DONE, Trial, load_trials, save_trial
from fedlas.lab.tune.report import write_numbers
from fedlas.lab.tune.sampler import draw, known_to
from fedlas.lab.tune.study import check_study, run_study
from stops import Stops

pytest.importorskip("optuna")


@pytest.fixture
def planned(tmp_path):
    def plan(folder="out", epochs=2, **options):
        settings = {"losses": ["ls", "fedlas+", "ce"], "trials": 7, **options}
        return plan_tuning("synthetic", [*TINY, f"train.epochs={epochs}"], out=tmp_path / folder, **settings)

    return plan


@pytest.fixture
def stops(tmp_path):
    with pytest.MonkeyPatch.context() as patch:
        yield Stops(tmp_path / "stops", patch)
    forkserver._forkserver._stop()


def do(tuning, workers):
    run_study(
        tuning, console=Console(quiet=True), workers=workers, after_round=functools.partial(write_numbers, tuning)
    )
    write_numbers(tuning)
    return result(tuning.folder)


def ended(tuning, method, *numbers, value=1.0):
    """Trials that ended without having been run."""
    for number in numbers:
        save_trial(tuning, method, Trial(number, {"alpha": 0.01 * (number + 1)}, DONE, value=value))


@pytest.mark.system
def test_two_workers_killed_and_stopped_come_to_what_one_does(planned, stops, tmp_path):
    (tmp_path / "stops").mkdir()
    alone, both = planned("one", epochs=4), planned("two", epochs=4)
    stops.order(both.trial_folder(both.methods[0], 1) / "s0", 1)  # killed once: it resumes
    stops.order(both.trial_folder(both.methods[1], 5) / "s0", 1, 1, 1)
    with pytest.raises(InputError, match=r"process of trial 5 of fedlas\+ must not be killed; got signal 9, 3 times"):
        do(both, 2)
    assert not [child for child in multiprocessing.active_children() if child.name.startswith("fedlas-worker")]
    assert not load_trials(both, both.methods[1])[5].ended
    assert do(both, 2) == do(alone, 1)
    weights = [sorted(p.relative_to(t.folder) for p in t.folder.rglob("*.pt")) for t in (alone, both)]
    assert weights[0] == weights[1]


@pytest.mark.system
def test_a_batch_comes_to_the_same_whatever_the_workers(planned):
    assert do(planned("one", losses=["ls"], trials=9, batch=3), 1) == do(
        planned("two", losses=["ls"], trials=9, batch=3), 3
    )


def test_what_is_given_next(planned, monkeypatch):
    """First what was begun, then the earliest round; the sixth trial waits for the first five."""
    monkeypatch.setattr(room, "begin", lambda _, method, number: number)
    tuning = planned()
    ls, fedlas, ce = tuning.methods
    assert room._next(tuning, set()) == (ls, 0)
    save_trial(tuning, ls, Trial(0, {"alpha": 0.1}))
    assert room._next(tuning, {("ls", 0)}) == (fedlas, 0)
    assert room._next(tuning, set())[1].number == 0  # its process was lost, or the study stopped
    ended(tuning, fedlas, 0)
    ended(tuning, ce, 0)
    assert room._next(tuning, {("ls", 0)}) == (ls, 1)
    assert room._rounds(tuning) == 0
    ended(tuning, ls, 0, 1, 2, 3)
    ended(tuning, fedlas, 1, 2, 3, 4, 5, 6)
    save_trial(tuning, ls, Trial(4, {"alpha": 0.1}))
    assert room._next(tuning, {("ls", 4)}) is None
    assert room._rounds(tuning) == 4
    ended(tuning, ls, 4)
    assert room._next(tuning, set()) == (ls, 5)
    ended(tuning, ls, 5, 6)
    assert room._next(tuning, set()) is None
    assert room._rounds(tuning) == 7


def test_the_first_trials_are_drawn_before_any_has_ended(planned):
    tuning = planned()
    ls = tuning.methods[0]
    drawn = []
    for number in range(5):
        drawn.append(Trial(number, draw(tuning, ls, drawn)))
    done = [replace(trial, state=DONE, value=float(trial.number)) for trial in drawn]
    for number in range(5):
        assert draw(tuning, ls, done[:number]) == drawn[number].params


def test_draws_of_a_batch_do_not_depend_on_which_ended_first(planned):
    tuning = planned(batch=3)
    ls = tuning.methods[0]
    before = [Trial(n, {"alpha": 0.01 * (n + 1)}, DONE, value=abs(n - 2.5)) for n in range(5)]
    pending = [Trial(n, {"alpha": 0.02 * n}) for n in (5, 6)]
    known = [replace(trial, state=DONE, value=-100.0) for trial in pending]
    assert known_to(tuning, 7) == 5
    found = draw(tuning, ls, [*before, *pending])
    assert draw(tuning, ls, [*before, *known]) == draw(tuning, ls, [*before, pending[0], known[1]]) == found
    assert draw(tuning, ls, [*before, *known, Trial(7, found, DONE, value=3.0)]) != found


def test_another_batch_is_another_study(planned):
    first = planned(losses=["ls"], trials=1)
    do(first, 1)
    check_study(planned(losses=["ls"], trials=1))
    with pytest.raises(InputError, match="batch: absent before, 2 now"):
        check_study(planned(losses=["ls"], trials=1, batch=2))
    with pytest.raises(InputError, match="batch must be a whole number of at least 1"):
        planned(batch=0)


def test_as_many_at_a_time_as_can_be_drawn(planned, monkeypatch):
    monkeypatch.setattr(room, "available_cores", lambda: 64)
    monkeypatch.setattr(room, "visible_gpus", list)
    tuning = planned()
    assert room.worker_count(tuning, None) == 11  # five and five of the first trials, and ce's only one
    assert room.worker_count(tuning, 2) == 2
    assert room.worker_count(planned(batch=7), None) == 15
    for method in tuning.methods[1:]:
        ended(tuning, method, *range(method.trials(7)))
    assert room.worker_count(tuning, None) == 5
    ended(tuning, tuning.methods[0], *range(7))
    assert room.worker_count(tuning, None) == 1  # a finished study starts no process
    monkeypatch.setattr(room, "threads_for", lambda _: None)
    assert room.worker_count(planned("large"), None) == 1
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert room.worker_count(planned("launched"), None) == 1
    with pytest.raises(InputError, match="must be 1 under a launcher; got 2 in each of 2 processes"):
        room.worker_count(planned("launched"), 2)
    with pytest.raises(InputError, match="workers must be a whole number"):
        room.worker_count(tuning, 0)


def test_an_error_in_a_worker_comes_back_in_words(planned, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    tuning = planned()
    job = room._Job(tuning, tuning.methods[0], Trial(3, {"alpha": 0.1}), 0, 1)

    def fails(*_, **__):
        raise RuntimeError("no luck")

    monkeypatch.setattr(room, "run_trial", fails)
    assert (
        str(room._work(job))
        == "fedlas tune: trial 3 of ls must run; got RuntimeError: no luck. Correct it, and start it again."
    )
    refused = InputError("data", "the file must exist", "none", "Check the path.")
    monkeypatch.setattr(room, "run_trial", lambda *_, **__: (_ for _ in ()).throw(refused))
    assert room._work(job) is refused
