import itertools
import json
import multiprocessing
import warnings
from dataclasses import replace

import filelock
import numpy as np
import pytest
import torch

import fedlas
from fedlas.deploy import Card, Monitor, fit_calibration, make_card, read_calibration
from fedlas.deploy.monitor import ALARM_EXIT_STATUS, monitor
from fedlas.deploy.monitor.state import FIRST_WIDTH, MAX_ROWS, StreamState
from fedlas.deploy.monitor.watches import MAX_GROUPS, WATCHES, LiveBatch, build_watches
from fedlas.errors import InputError
from fedlas.predictions import Columns, Predictions, TopLabel, open_table

COLUMNS = Columns(logits="z_*", target="y")
UNLABELLED = Columns(logits="z_*")


def live(seed, samples, *, factor=1.0, raw=1.0):
    """Logits that are ``factor`` times too large for the labels drawn from them, and then ``raw`` times larger."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(samples, 3, generator=generator)
    target = torch.multinomial((logits / factor).softmax(1), 1, generator=generator).squeeze(1)
    return Predictions(logits * raw, target)


def write(path, predictions):
    lines = ["z_0,z_1,z_2,y"] + [
        ",".join(map(repr, row)) + f",{y}"
        for row, y in zip(predictions.logits.tolist(), predictions.target.tolist(), strict=True)
    ]
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="module")
def card(tmp_path_factory):
    """A card of a calibrated model whose raw logits are twice as large."""
    calibration = read_calibration({"method": "temperature", "temperature": 2.0}, 3)
    parts = live(98, 4000, raw=2.0), live(99, 4000, raw=2.0)
    made = make_card(*parts, calibration, model={"run": "mine-s0"}, data={"name": "drawn"})
    as_exported = replace(made, live="calibrated")
    return as_exported.save(tmp_path_factory.mktemp("card") / "card.json")


def look(*args, **options):
    """Content of a look, and that its exit status agrees."""
    found = monitor(*args, **options)
    assert (
        (found.status == ALARM_EXIT_STATUS)
        is found.content["alarm"]
        is bool(found.content["alarms"])
    )
    return json.loads(json.dumps(found.content, allow_nan=False))


def test_labels_do_not_silence(card, tmp_path):
    """Inputs in the wrong range: accuracy and confidence fall together, so calibration stays as it was."""
    file = write(tmp_path / "a.csv", live(0, 1000, raw=0.02, factor=50.0))
    without, labeled = (look(card, [file], columns=columns) for columns in (UNLABELLED, COLUMNS))
    assert without["alarms"] == ["confidence"]
    assert labeled["alarms"] == ["confidence", "accuracy"]
    assert labeled["watches"]["confidence"] == without["watches"]["confidence"]
    assert abs(labeled["watches"]["calibration"]["statistics"][0]["live"]) < 0.05


@pytest.mark.parametrize("method", ["isotonic", "histogram-binning"])
def test_calibrator_steps_avoid_watched_bin_edges(tmp_path, method):
    """The card counts them in single precision, and the monitor in double or from rounded probabilities."""
    val, test = (
        Predictions(each.tensors().logits[:, :2], each.tensors().target.clamp(max=1))
        for each in (live(1, 1500), live(2, 3000))
    )
    calibration = fit_calibration(method, val)
    made = make_card(
        val, test, calibration, model={"run": "two"}, data={"name": "drawn"}, replicates=0
    )
    made.save(tmp_path / "card.json")
    watcher = Monitor(tmp_path / "card.json")
    watcher.update(test, raw=True)
    rounded = Monitor(tmp_path / "card.json")
    probs = calibration(test.tensors().logits).softmax(1).double().numpy().round(4)
    rounded.update(Predictions(np.log(probs.clip(1e-9)), test.tensors().target), raw=False)
    for each in (watcher, rounded):
        for row in each.content["watches"]["confidence"]["statistics"]:
            assert row["live"] == pytest.approx(row["card"], abs=1e-3)


def test_a_log_of_a_language_model_is_watched(card, tmp_path):
    given = live(0, 300)
    lines = [
        {
            "doc_id": number, "doc": {}, "target": str(int(target)), "arguments": {}, "resps": [],
            "filtered_resps": [[str(value), "False"] for value in row], "filter": "none",
        }
        for number, (row, target) in enumerate(zip(given.logits.tolist(), given.tensors().target, strict=True))
    ]  # fmt: skip
    file = tmp_path / "samples.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    watcher = Monitor(card)
    watcher.update(given)
    assert look(card, [file], columns=None) == watcher.content


def test_class_order_must_match_the_card(card, tmp_path):
    """By position, the accuracy of a service that swapped two columns would be a false alarm, or a false peace."""
    content = json.loads(card.read_text())
    content["model"]["classes"] = ["ape", "bee", "cow"]
    named = tmp_path / "card.json"
    named.write_text(json.dumps(content))
    text = write(tmp_path / "a.csv", live(0, 300)).read_text()
    columns = Columns(logits="z_*")
    for order in ("ape bee cow", "bee ape cow"):
        head = ",".join(f"z_{name}" for name in order.split())
        (tmp_path / "a.csv").write_text(text.replace("z_0,z_1,z_2", head))
        predictions = live(0, 300)._replace_fields(classes=tuple(order.split()))
        if order.startswith("ape"):
            look(named, [tmp_path / "a.csv"], columns=columns)
            Monitor(named).update(predictions)
            continue
        with pytest.raises(
            InputError, match=r"ape, bee, cow, in the order of the card; got bee, ape, cow in a.csv"
        ):
            look(named, [tmp_path / "a.csv"], columns=columns)
        with pytest.raises(InputError, match="ape, bee, cow, in the order of the card"):
            Monitor(named).update(predictions)
    look(card, [tmp_path / "a.csv"], columns=columns)  # a card without names


def test_weights_are_refused(card, tmp_path):
    with pytest.raises(InputError, match="no weights"):
        Monitor(card).update(replace(live(0, 50), weights=torch.ones(50)))
    with pytest.raises(InputError, match=r"weights, which .* column .y."):
        monitor(
            card,
            [write(tmp_path / "a.csv", live(0, 50))],
            columns=Columns(logits="z_*", weights="y"),
        )


def test_without_a_change_there_is_no_alarm(card, tmp_path):
    file = write(tmp_path / "a.csv", live(0, 3000))
    found = look(card, [file], columns=COLUMNS)
    assert (found["alarms"], found["samples"], found["labeled"]) == ([], 3000, 3000)
    assert set(found["watches"]) == set(WATCHES["top label"])
    for watch in found["watches"].values():
        assert watch["watched"]
        for each in watch["statistics"]:
            assert each["low"] <= each["card"] <= each["high"]
            assert each["low"] - 0.05 <= each["live"] <= each["high"] + 0.05


@pytest.mark.parametrize(
    ("change", "alarms"),
    [
        ({"factor": 3.0}, {"calibration", "accuracy"}),
        ({"raw": 0.5}, {"calibration", "confidence"}),
        ({"raw": 2.0}, {"calibration", "accuracy", "confidence"}),
    ],
)
def test_each_change_alarms_its_own_watches(card, tmp_path, change, alarms):
    file = write(tmp_path / "a.csv", live(0, 3000, **change))
    found = look(card, [file], columns=COLUMNS)
    assert set(found["alarms"]) == alarms
    assert (
        found["alarm_after"] == min(found["watches"][name]["alarm_after"] for name in alarms) < 3000
    )
    for name in alarms:
        watch = found["watches"][name]
        assert watch["evidence"] > watch["threshold"] == 8 / 0.01
    assert set(look(card, [file], columns=UNLABELLED)["alarms"]) == alarms - {
        "calibration",
        "accuracy",
    }


def test_class_shift_is_detected_without_labels(card, tmp_path):
    """The confidences stay as they are: the columns of the scores are in another order in one of four rows."""
    given = live(0, 3000)
    swapped = torch.where(
        given.tensors().predicted.unsqueeze(1) == 1,
        given.tensors().logits[:, [1, 0, 2]],
        given.tensors().logits,
    )
    found = look(card, [write(tmp_path / "a.csv", given.with_logits(swapped))], columns=UNLABELLED)
    assert found["alarms"] == ["classes"]
    assert max(found["watches"]["classes"]["statistics"], key=lambda each: each["evidence"])[
        "name"
    ] in (
        "predicted as class 0",
        "predicted as class 1",
    )


def test_risk_above_thresholds_is_watched(card):
    """Mistakes move to where the card accepts: accuracy stays, and so do the confidences."""
    known = Card.read(card)
    (cut,) = {row.threshold for row in known.thresholds if row.risk == 0.05}
    given = live(5, 6000)
    confidence, correct = given.confidence.astype(np.float64), given.correct.copy()
    safe, unsafe = np.flatnonzero(confidence >= cut), np.flatnonzero((confidence < cut) & ~correct)
    correct[safe[: len(safe) // 5]], correct[unsafe[: len(safe) // 5]] = False, True
    order = np.random.default_rng(0).permutation(6000)
    seen = StreamState.initial(build_watches(known, false_alarm=0.01))
    seen.observe(LiveBatch(confidence[order], correct[order], None))
    assert set(seen.alarms) == {"accuracy"}
    evidence = dict(
        zip(  # noqa: B905
            seen.watches["accuracy"].statistics, seen.watches["accuracy"].test.evidence_by_statistic
        )
    )
    assert max(evidence, key=evidence.get) == f"wrong at confidence {cut:.4g} or more"
    assert evidence["accuracy"] < 1


def test_many_classes_are_watched_in_groups(card):
    content = json.loads(card.read_text())
    content["model"]["num_classes"] = 1000
    content["reference"]["class_counts"] = [4] * 1000
    (card.parent / "many.json").write_text(json.dumps(content))
    watch = build_watches(Card.read(card.parent / "many.json"), false_alarm=0.01)[-1]
    assert len(watch.statistics) == MAX_GROUPS
    assert (watch.statistics[0], watch.statistics[-1]) == (
        "predicted as classes 0 to 31",
        "predicted as classes 969 to 999",
    )
    values, has = watch.values(LiveBatch(np.ones(1000), None, np.arange(1000)))
    assert has.all()
    assert (values.sum(axis=1) == 1).all()
    np.testing.assert_allclose(values.mean(axis=0), watch.card)


def test_saturated_confidences_are_not_watch_points(card):
    """A model so sure that most confidences are 1 in float32, which a service in another precision rounds otherwise."""
    parts = (live(seed, 500, raw=20.0) for seed in (1, 2))
    made = make_card(
        *parts,
        read_calibration({"method": "none"}, 3),
        model={"run": "sure"},
        data={"name": "drawn"},
    )
    names = build_watches(made, false_alarm=0.01)[2].statistics
    assert len(names) >= 2
    assert all(0.5 < float(name.split()[-1]) < 1 for name in names[1:])


@pytest.mark.system
def test_false_alarms_of_all_watches_together(card):
    """Streams as the card's test part was drawn, with a card for each; the budget is for all four."""
    rate, alarms, content = 0.3, [], json.loads(card.read_text())
    for seed in range(20):
        parts = live(1000 + seed, 200), live(2000 + seed, 200)
        made = make_card(
            *parts,
            read_calibration({"method": "none"}, 3),
            model=content["model"],
            data={"name": "drawn"},
        )
        seen = StreamState.initial(build_watches(made, false_alarm=rate))
        given = live(3000 + seed, 1500)
        seen.observe(LiveBatch(given.confidence.astype(np.float64), given.correct, given.predicted))
        alarms += [seen.alarms] if seen.alarms else []
    assert len(alarms) <= 2  # a rate of 0.3 allows 6, and the intervals leave room


def test_raw_predictions_go_through_the_cards_calibration(card, tmp_path):
    found = []
    for name, raw in (("calibrated", 1.0), ("raw", 2.0)):
        path = live(0, 500, raw=raw).save(tmp_path / f"{name}.npz")
        found.append(look(card, [path], raw=raw != 1.0)["watches"]["confidence"])
    assert found[0]["statistics"][0]["live"] == pytest.approx(
        found[1]["statistics"][0]["live"], rel=1e-6
    )
    assert found[0]["evidence"] == pytest.approx(found[1]["evidence"], rel=1e-4)


def test_live_predictions_are_taken_as_the_card_says(tmp_path):
    """A healthy month raises no alarm without any option, raw or calibrated, as the card's file was."""
    val, test = live(1, 2000, raw=3.0), live(2, 2000, raw=3.0)
    calibration = fit_calibration("temperature", val)
    made = make_card(
        val, test, calibration, model={"run": "net"}, data={"name": "drawn"}, replicates=0
    )
    made.save(tmp_path / "card.json")
    month = live(3, 1500, raw=3.0)
    watcher = Monitor(tmp_path / "card.json")
    assert not watcher.update(month)
    assert "taken as raw, so the card's calibration is applied" in watcher.summary
    calibrated = Monitor(tmp_path / "card.json")
    assert not calibrated.update(calibration.transform(month), raw=False)
    assert "taken as calibrated" in calibrated.summary
    exported = make_card(
        val,
        test,
        calibration,
        model={"run": "net"},
        data={"name": "drawn"},
        exported={"file": "m.onnx"},
    )
    assert exported.live == "calibrated"
    about = {"model": {"run": "net"}, "data": {"name": "drawn"}}
    none = make_card(val, test, read_calibration({"method": "none"}, 3), **about)
    assert none.live == "calibrated"
    (tmp_path / "card.json").write_text(json.dumps({**made.to_dict(), "live": "cooked"}))
    with pytest.raises(InputError, match="cooked"):
        Monitor(tmp_path / "card.json")


def test_with_a_state_many_calls_are_one(card, tmp_path):
    whole = live(0, 1200, factor=2.0)
    parts = [
        Predictions(*pair)
        for pair in zip(
            whole.tensors().logits.split(300), whole.tensors().target.split(300), strict=True
        )
    ]
    files = [write(tmp_path / f"{number}.csv", part) for number, part in enumerate(parts)]
    expected = look(card, files, columns=COLUMNS)
    alarms = []
    for file in files:
        found = look(card, [file], columns=COLUMNS, state=tmp_path / "state.json")
        alarms.append(found["alarm"])
    assert alarms == sorted(alarms)  # an alarm stays
    assert alarms[-1]
    assert found["looks"] == 4
    assert found | {"looks": 1} == expected
    again = [write(tmp_path / f"{seed}.csv", live(seed, 300)) for seed in range(10, 14)]
    seen = monitor(card, again, columns=COLUMNS, state=tmp_path / "state.json")._stream
    assert seen.histories["accuracy"].count[:, 0].tolist() == [50.0] * 48


def test_a_file_is_counted_once(card, tmp_path):
    """By its content, whatever its name; a second time is refused, and the state stays."""
    first = write(tmp_path / "a.csv", live(0, 300))
    state, copy = tmp_path / "state.json", tmp_path / "copy.csv"
    copy.write_bytes(first.read_bytes())
    for files in ([first], [copy], [write(tmp_path / "b.csv", live(1, 300)), copy]):
        before = state.read_bytes() if state.exists() else None
        if before is None:
            monitor(card, files, columns=COLUMNS, state=state)
            continue
        with pytest.raises(InputError, match=r"new to the state, .*; got .*copy\.csv"):
            monitor(card, files, columns=COLUMNS, state=state)
        assert state.read_bytes() == before
    content = json.loads(state.read_text())
    del content["files"]  # as a state of before
    state.write_text(json.dumps(content))
    assert monitor(card, [copy], columns=COLUMNS, state=state).content["samples"] == 600


def test_neither_state_nor_history_grows_with_the_stream(card):
    """Rows are merged, and then hold the same sums as if they had been as wide from the start."""
    given = live(0, 12_000)
    batch = LiveBatch(given.confidence.astype(np.float64), given.correct, given.predicted)
    seen = StreamState.initial(build_watches(Card.read(card), false_alarm=0.01))
    for start in range(0, 12_000, 777):
        seen.observe(batch[start : start + 777])
    assert seen.width == 4 * FIRST_WIDTH
    history = seen.histories["accuracy"]
    assert history.count.shape[0] == 60 <= MAX_ROWS
    np.testing.assert_array_equal(history.total[:, 0], batch.correct.reshape(60, 200).sum(axis=1))
    assert history.evidence[-1] == seen.watches["accuracy"].test.evidence


def test_some_files_have_labels_and_some_have_none(card, tmp_path):
    """Labels that come for a part are used for it, and those that do not come silence nothing."""
    file, other = (write(tmp_path / f"{seed}.csv", live(seed, 400)) for seed in (0, 1))
    state = tmp_path / "state.json"
    look(card, [file], columns=COLUMNS, state=state)
    found = look(card, [other], columns=UNLABELLED, state=state)
    assert (found["samples"], found["labeled"]) == (800, 400)
    assert {name: watch["samples"] for name, watch in found["watches"].items()} == {
        "calibration": 400,
        "accuracy": 400,
        "confidence": 800,
        "classes": 800,
    }
    first = look(card, [file], columns=COLUMNS)["watches"]["accuracy"]
    assert found["watches"]["accuracy"] == first


@pytest.mark.parametrize("labeled", [True, False])
@pytest.mark.parametrize("raw", [True, False])
def test_an_update_is_a_look_at_a_file(card, tmp_path, labeled, raw):
    given = live(0, 300, raw=2.0)
    watcher = Monitor(card)
    watcher.update(given if labeled else given.without_target(), raw=raw)
    columns = COLUMNS if labeled else UNLABELLED
    assert watcher.content == look(
        card, [write(tmp_path / "a.csv", given)], columns=columns, raw=raw
    )


@pytest.mark.parametrize("labeled", [True, False])
def test_confidences_without_classes_are_monitored(card, tmp_path, labeled):
    given = live(0, 3000, factor=3.0)
    rows = zip(given.confidence.tolist(), given.correct.tolist(), strict=True)
    file = tmp_path / "a.csv"
    file.write_text(
        "\n".join(["p,right", *(f"{confidence},{int(right)}" for confidence, right in rows), ""])
    )
    columns = Columns(confidence="p", correct="right" if labeled else None)
    found = look(card, [file], columns=columns)
    with pytest.raises(InputError, match=r"raw .*all classes"):
        monitor(card, [file], columns=columns, raw=True)
    whole = look(card, [given.save(tmp_path / "a.npz")])
    confidence = [each["watches"]["confidence"]["evidence"] for each in (found, whole)]
    assert confidence[0] == pytest.approx(confidence[1], rel=1e-3)
    assert found["watches"]["classes"]["why"] == "no classes"
    assert found["alarms"] == (whole["alarms"] if labeled else [])


def test_a_card_without_classes_watches_the_rest(card, tmp_path):
    content = json.loads(card.read_text())
    del content["reference"]["class_counts"]
    (tmp_path / "card.json").write_text(json.dumps(content))
    found = look(tmp_path, [write(tmp_path / "a.csv", live(0, 300))], columns=COLUMNS)
    assert found["watches"]["classes"] == {"watched": False, "why": "not on card", "alarm": False}
    assert found["watches"]["accuracy"]["watched"]


ROUNDS, WATCHERS = 4, 2


def watch(card, folder, number, together):
    """Add a batch in each round, at the same time as the others do."""
    for file in (folder / f"{number}.{turn}.csv" for turn in range(ROUNDS)):
        together.wait()
        monitor(card, [file], columns=COLUMNS, state=folder / "made" / "state.json")


@pytest.mark.system
def test_processes_that_share_a_state_lose_no_batch(card, tmp_path):
    context = multiprocessing.get_context("spawn")
    together = context.Barrier(WATCHERS)
    for number, turn in itertools.product(range(WATCHERS), range(ROUNDS)):
        seed = number * ROUNDS + turn
        write(tmp_path / f"{number}.{turn}.csv", live(seed, 50 + number))
    processes = [
        context.Process(target=watch, args=(card, tmp_path, number, together))
        for number in range(WATCHERS)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * WATCHERS
    content = json.loads((tmp_path / "made" / "state.json").read_text())
    assert content["looks"] == ROUNDS * WATCHERS
    assert content["samples"] == content["watches"]["accuracy"]["samples"] == ROUNDS * (50 + 51)


def test_state_is_locked_while_files_are_read(card, tmp_path, monkeypatch):
    """Between what was read of it and what is written nobody else writes."""
    state, tried = tmp_path / "state.json", []

    def table(*args, **options):
        with pytest.raises(filelock.Timeout):
            filelock.FileLock(tmp_path / ".state.json.lock").acquire(timeout=0)
        tried.append(args)
        return open_table(*args, **options)

    monkeypatch.setattr("fedlas.deploy.monitor.live.open_table", table)
    good = write(tmp_path / "a.csv", live(0, 50))
    monitor(card, [good], columns=COLUMNS, state=state)
    more = [write(tmp_path / "b.csv", live(1, 50)), tmp_path / "none.csv"]
    with pytest.raises(InputError, match="must exist"):
        monitor(card, more, columns=COLUMNS, state=state)
    assert len(tried) == 3
    # released, after an error too
    with filelock.FileLock(tmp_path / ".state.json.lock").acquire(timeout=0):
        pass
    assert json.loads(state.read_text())["samples"] == 50


def damaged(content, path, value):
    """A copy of JSON with another value somewhere; ``...`` removes it."""
    content = json.loads(json.dumps(content))
    *folders, last = path.split(".")
    place = content
    for name in folders:
        place = place[name]
    if value is ...:
        del place[last]
    else:
        place[last] = value(place[last]) if callable(value) else value
    return json.dumps(content)


def accepting(rows, test):
    return [row | {"threshold": 0.5, "test": test} for row in rows]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("model", ...),
        ("model.run", 3),
        ("model.num_classes", 0),
        ("model.num_classes", 3.5),
        ("model.num_classes", True),
        ("model.classes", ["a", "b"]),
        ("model.classes", "abc"),
        ("model.classes", [1, 2, 3]),
        ("calibration", []),
        ("calibration.temperature", 0),
        ("calibration.temperature", "warm"),
        ("calibration.temperature", True),
        ("calibration.temperature", float("inf")),
        ("calibration", {"method": "temperature", "temperature": 1e-320}),
        ("calibration", {"method": "vector", "weight": [1, 1, float("nan")], "bias": [0, 0, 0]}),
        ("calibration", {"method": "vector", "weight": [1, 1, 10**400], "bias": [0, 0, 0]}),
        ("reference", None),
        ("reference.gaps", ...),
        ("reference.gaps.squares", lambda v: [-n for n in v]),
        ("reference.bin_edges", lambda v: v[::-1]),
        ("reference.bin_edges", lambda v: [v[0], v[2], v[1], *v[3:]]),
        ("reference.bin_edges", lambda v: [*v[:-1], float("inf")]),
        ("reference.bin_edges", lambda v: [v]),
        ("reference.bin_edges", lambda v: [n / 2 for n in v]),
        ("reference.bin_counts", lambda v: v[:-1]),
        ("reference.bin_counts", lambda v: [float("nan"), *v[1:]]),
        ("reference.bin_counts", lambda v: [v[0] + 1000, -1000 + v[1], *v[2:]]),
        ("reference.bin_counts", lambda v: [v[0] + 0.5, v[1] - 0.5, *v[2:]]),
        ("reference.bin_counts", lambda v: [2 * n for n in v]),
        ("reference.bin_counts", lambda v: [10**400, *v[1:]]),
        ("reference.bin_counts", lambda v: [0 for _ in v]),
        ("reference.class_counts", lambda v: v[1:]),
        ("reference.class_counts", lambda v: [n + 1 for n in v]),
        ("reference.class_counts", "many"),
        ("selective", ...),
        ("selective.thresholds", lambda v: [row | {"threshold": 2.0} for row in v]),
        ("selective.thresholds", lambda v: [row | {"risk": -1} for row in v]),
        ("selective.thresholds", lambda v: accepting(v, {})),
        (
            "selective.thresholds",
            lambda v: accepting(v, {"accepted": 9, "wrong": 10}),
        ),
        (
            "selective.thresholds",
            lambda v: accepting(v, {"accepted": 9999, "wrong": 0}),
        ),
    ],
)
def test_a_damaged_card_raises_no_false_peace(card, tmp_path, path, value):
    """Without these checks most of them say that there is no alarm."""
    text = damaged(json.loads(card.read_text()), path, value)
    for bad in {text, text.replace("Infinity", "1e999")}:
        (tmp_path / "bad.json").write_text(bad)
        with pytest.raises(InputError, match=r"monitor: .*bad\.json"):
            monitor(
                tmp_path / "bad.json", [write(tmp_path / "a.csv", live(0, 50))], columns=COLUMNS
            )


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("labeled", None),
        ("labeled", "no"),
        ("labeled", 51),
        ("labeled", 49),
        ("samples", -1),
        ("samples", 50.5),
        ("samples", 49),
        ("looks", 0),
        ("looks", float("inf")),
        ("width", 0),
        ("width", 25),
        ("alarms", {"accuracy": 0}),
        ("alarms", {"accuracy": 51}),
        ("alarms", {"accuracy": "yes"}),
        ("alarms", {"weather": 3}),
        ("alarms", ...),
        ("watches.classes", ...),
        ("watches.accuracy.samples", 49),
        ("watches.accuracy.active", lambda v: (np.array(v) + float("nan")).tolist()),
        ("watches.accuracy.active", lambda v: (-np.array(v)).tolist()),
        ("watches.accuracy.active", lambda v: v[1:]),
        ("watches.accuracy.history", None),
        ("watches.accuracy.history.evidence", [900.0]),
        ("watches.accuracy.history.evidence", []),
        ("watches.accuracy.history.count", lambda v: [[n + 1 for n in v[0]]]),
        ("watches.accuracy.history.count", lambda v: [v[0][1:]]),
        ("watches.accuracy.history.total", lambda v: [[51.0, *v[0][1:]]]),
        ("watches.accuracy.history.total", lambda v: [[-1.0, *v[0][1:]]]),
        ("watches.accuracy.history.total", ...),
    ],
)
def test_a_damaged_state_is_refused_and_left_alone(card, tmp_path, path, value):
    good, state = write(tmp_path / "a.csv", live(0, 50)), tmp_path / "state.json"
    monitor(card, [good], columns=COLUMNS, state=state)
    bad = damaged(json.loads(state.read_text()), path, value)
    state.write_text(bad)
    with pytest.raises(InputError, match=r"written by fedlas monitor; got .*state\.json"):
        monitor(card, [good], columns=COLUMNS, state=state)
    assert state.read_text() == bad


def test_a_state_that_cannot_be_locked(card, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="must be writable"):
        monitor(
            card,
            [write(tmp_path / "a.csv", live(0, 50))],
            columns=COLUMNS,
            state=tmp_path / "file" / "state.json",
        )


@pytest.mark.parametrize("kind", ["link", "folder"])
def test_what_stands_in_place_of_the_lock_stays(card, tmp_path, kind):
    """The error named ``--out``, an option of another command."""
    lock, other = tmp_path / ".state.json.lock", tmp_path / "other"
    other.write_text("precious")
    if kind == "link":
        lock.symlink_to(other)
    else:
        lock.mkdir()
    message = r"lock of state\.json must be a plain file; got .*\.state\.json\.lock"
    with pytest.raises(InputError, match=message):
        monitor(card, [tmp_path / "a.csv"], columns=COLUMNS, state=tmp_path / "state.json")
    assert other.read_text() == "precious"


def test_lock_of_another_process_is_waited_for_aloud(card, tmp_path, monkeypatch):
    held = filelock.FileLock(tmp_path / ".state.json.lock").acquire(timeout=0).lock
    said = []

    def release(message, *_):
        said.append(str(message))
        held.release()

    files = [write(tmp_path / "a.csv", live(0, 50))]
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = release
        monitor(card, files, columns=COLUMNS, state=tmp_path / "state.json")
    assert "state.json is in use by another process" in said[0]


def test_a_run_folder_stands_for_its_card(card, tmp_path):
    assert monitor(card.parent, [live(0, 300).save(tmp_path / "a.npz")]).status == 0


def test_older_state_format_is_refused(card, tmp_path):
    state = tmp_path / "state.json"
    for alarm, said in (
        (None, "with format 'fedlas.monitor/1'. Pass"),
        (17, "with format 'fedlas.monitor/1' and an alarm. Pass"),
    ):
        state.write_text(
            json.dumps(
                {"format": "fedlas.monitor/1", "card": "x", "false_alarm": 0.01, "alarm": alarm}
            )
        )
        before = state.read_text()
        with pytest.raises(InputError, match=said):
            monitor(card, [write(tmp_path / "a.csv", live(0, 50))], columns=COLUMNS, state=state)
        assert state.read_text() == before


def test_invalid_monitor_inputs_raise(card, tmp_path):
    good = write(tmp_path / "a.csv", live(0, 50))
    two = tmp_path / "two.csv"
    two.write_text("z_0,z_1,y\n1,2,0\n")
    empty = tmp_path / "empty.csv"
    empty.write_text("z_0,z_1,z_2,y\n")
    for files, options, message in (
        ([two], {}, "must have 3 classes, like the card"),
        ([empty], {}, "at least one sample"),
        ([tmp_path / "none.csv"], {}, "must exist"),
        ([good], {"columns": None}, "scores and labels must be named"),
        ([good], {"false_alarm": 0.0}, "false_alarm"),
        ([good], {"false_alarm": float("nan")}, "false_alarm"),
    ):
        with pytest.raises(InputError, match=message):
            monitor(card, files, **{"columns": COLUMNS, **options})
    state = tmp_path / "state.json"
    monitor(card, [good], columns=COLUMNS, state=state)
    before = state.read_text()
    with pytest.raises(InputError, match=r"false_alarm 0\.01 instead of 0\.1"):
        monitor(card, [good], columns=COLUMNS, state=state, false_alarm=0.1)
    # the good one before it has left nothing
    other = write(tmp_path / "b.csv", live(1, 50))
    with pytest.raises(InputError, match="must have 3 classes, like the card"):
        monitor(card, [other, two], columns=COLUMNS, state=state)
    assert state.read_text() == before
    for text in ("no json", "{}", "[]"):
        state.write_text(text)
        with pytest.raises(InputError, match="a file written by fedlas monitor"):
            monitor(card, [good], columns=COLUMNS, state=state)


def rare(seed, samples, *, shift=0.0, swap=0):
    """Two classes, 5 % events; ``shift`` moves the log-odds of the model, ``swap`` events to other samples."""
    generator = torch.Generator().manual_seed(seed)
    log_odds = 1.2 * torch.randn(samples, generator=generator) - 3.5
    happened = torch.bernoulli(log_odds.sigmoid(), generator=generator).long()
    if swap:
        happened = happened.roll(swap)
    return Predictions(torch.stack([torch.zeros(samples), log_odds + shift], dim=1), happened)


@pytest.fixture(scope="module")
def event_card(tmp_path_factory):
    path = tmp_path_factory.mktemp("event") / "card.json"
    rules = {"cost_ratio": 9, "recall": 0.8}
    fedlas.card(rare(0, 6000), rare(1, 6000), "none", replicates=0, **rules).save(path)
    return path


@pytest.mark.parametrize(
    ("change", "alarms"),
    [
        ({}, set()),
        ({"shift": 0.7}, {"calibration", "probability", "actions"}),
        ({"shift": -0.7}, {"events", "probability", "actions"}),
        ({"swap": 1}, {"calibration", "events"}),
    ],
)
def test_event_card_watches_event_probability(event_card, change, alarms):
    """At 5 % nearly every prediction is 'no': its confidence and its accuracy hide what happens to the event."""
    watcher = Monitor(event_card)
    watcher.update(rare(2, 12000, **change))
    assert set(watcher.content["watches"]) == set(WATCHES["event"])
    assert set(watcher.content["alarms"]) == alarms
    names = [each["name"] for each in watcher.content["watches"]["events"]["statistics"]]
    assert names[:2] == ["event rate", "false alarms at probability 0.1 or more"]
    live = watcher.content["watches"]["events"]["statistics"][0]["live"]
    assert live == pytest.approx(float(rare(2, 12000).tensors().target.double().mean()))


def test_event_card_refuses_confidences(event_card):
    given = rare(2, 50)
    with pytest.raises(InputError, match="both classes, because the card describes an event"):
        Monitor(event_card).update(
            TopLabel(given.tensors().confidence, given.tensors().correct), raw=False
        )


def test_false_alarms_with_a_card_of_an_event(event_card):
    """Sixty streams of what the card was made of, at a rate of 0.2: twelve alarms on average at most."""
    alarms = sum(
        Monitor(event_card, false_alarm=0.2).update(rare(seed, 3000)) for seed in range(10, 70)
    )
    assert alarms <= 12


@pytest.mark.parametrize("value", [None, "stream", [0.5], torch.zeros(3, 4)], ids=repr)
def test_what_is_no_predictions_is_refused(card, value):
    with pytest.raises(InputError, match="predictions must be Predictions"):
        Monitor(card).update(value)
