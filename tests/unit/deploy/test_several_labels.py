"""The card of several labels a sample, and the monitor that compares live ones with it."""

import copy
import json
from dataclasses import replace

import numpy as np
import pytest
import torch

import fedlas
from fedlas import MultiLabel
from fedlas.calibrators import MultiLabelCalibration
from fedlas.deploy import Card, Monitor, fit_calibration, make_card
from fedlas.deploy.monitor import ALARM_EXIT_STATUS, monitor
from fedlas.errors import InputError
from fedlas.predictions import Columns

pytestmark = pytest.mark.filterwarnings("ignore::fedlas.errors.CalibrationWarning")
NAMES = ("edema", "mass", "nodule", "hernia")


def drawn(seed, samples=1500, *, shift=(0.0, 0.0, 0.0, 0.0), names=NAMES, unknown=0.0, moved=0.0):
    """Logits that are twice too extreme; ``shift`` moves those of the labels' truth, ``moved`` those of the first."""
    random = torch.Generator().manual_seed(seed)
    logits = torch.randn(samples, 4, generator=random, dtype=torch.float64) - 1
    target = torch.bernoulli((logits + torch.tensor(shift)).sigmoid(), generator=random).long()
    target[torch.rand(samples, 4, generator=random) < unknown] = -100
    logits[:, 0] += moved
    return MultiLabel(2 * logits, target, names=names)


def write(path, several, *, labels=True):
    columns = {
        f"p_{n}": several.tensors().probs[:, at].tolist() for at, n in enumerate(several.names)
    }
    if labels:
        cells = [
            [{1: "1", 0: "0"}.get(y, "") for y in row]
            for row in several.tensors().target.T.tolist()
        ]
        columns |= {f"y_{n}": cells[at] for at, n in enumerate(several.names)}
    rows = zip(*columns.values(), strict=True)
    path.write_text("\n".join(",".join(map(str, row)) for row in (columns, *rows)) + "\n")
    return path


@pytest.fixture(scope="module")
def card():
    val, test = drawn(0, 3000), drawn(1, 4000)
    facts = {"model": {"run": "cxr"}, "data": {"name": "drawn"}}
    return make_card(val, test, fit_calibration("auto", val), **facts)


def alarms(card, *batches, **options):
    """Watches with an alarm, and the labels that are enough for it, but for the mean of all."""
    monitor = Monitor(card, **options)
    for batch in batches:
        monitor.update(batch)
    watches = monitor.content["watches"]
    return {
        name: [
            label
            for label, each in watches[name]["labels"].items()
            if each["alarm_after"] and label != "all labels"
        ]
        for name in monitor.content["alarms"]
    }


def test_a_card_is_read_as_it_was_written(card, tmp_path):
    read = Card.read(card.save(tmp_path / "card.json"))
    assert read.to_dict() == card.to_dict()
    assert (read.subject, read.classes, read.num_samples) == ("labels", NAMES, 4000)
    raw = drawn(2, 9)
    assert torch.equal(
        read.calibration.transform(raw).tensors().logits,
        card.calibration.transform(raw).tensors().logits,
    )
    for damage in (
        lambda content: content["reference"]["labels"].pop(),
        lambda content: content["reference"]["all"].pop("calibration"),
        lambda content: content["reference"]["labels"][0]["bin_counts"].append(1),
        lambda content: content["reference"]["labels"][0]["gaps"]["count"].__setitem__(0, 5000.0),
        lambda content: content["model"].update(num_classes=3),
    ):
        content = copy.deepcopy(card.to_dict())
        damage(content)
        with pytest.raises(InputError):
            Card.from_dict(content)


def test_nothing_is_found_where_nothing_changed(card):
    assert alarms(card, *(drawn(seed, 500) for seed in range(10, 16))) == {}
    assert alarms(card, drawn(9, 3000).without_target()) == {}
    assert alarms(card, drawn(8, 3000, unknown=0.5)) == {}


def test_the_label_that_changed_is_named(card):
    live = drawn(3, 3000, shift=(0.0, 1.5, 0.0, 0.0))
    found = alarms(card, live)
    assert found["calibration"] == ["mass"]
    assert "probability" not in found
    monitor = Monitor(card)
    monitor.update(live)
    assert "calibration of mass" in monitor.verdict
    labels = monitor.content["watches"]["calibration"]["labels"]
    assert 0 < labels["mass"]["alarm_after"] < 3000
    assert labels["hernia"]["alarm_after"] is None
    # Half of the labels unknown: later, and the same label.
    assert alarms(
        card,
        replace(
            live, target=drawn(3, 3000, shift=(0.0, 1.5, 0.0, 0.0), unknown=0.5).tensors().target
        ),
    )["calibration"] == ["mass"]


def test_probabilities_are_watched_on_days_without_labels(card):
    live = drawn(4, 2000, moved=1.0).without_target()
    assert alarms(card, live) == {"probability": ["edema"]}
    content = Monitor(card)
    content.update(live)
    shown = content.content["watches"]
    assert shown["calibration"]["why"] == "no labels"
    assert shown["prevalence"]["watched"] is False


def test_alarms_are_rare_while_nothing_changes(card):
    """All labels together: at most the share that was asked for, here far below."""
    true = card.calibration.transform(drawn(1, 4000))
    random = torch.Generator().manual_seed(5)
    count = 0
    for _ in range(20):
        rows = torch.randint(4000, (400,), generator=random)
        monitor = Monitor(card, false_alarm=0.2)
        count += monitor.update(true.rows(rows), raw=False)
    assert count <= 8


def test_labels_are_found_by_name(card):
    live = drawn(3, 800)
    order = [2, 0, 3, 1]
    other = MultiLabel(
        live.tensors().logits[:, order],
        live.tensors().target[:, order],
        names=[NAMES[place] for place in order],
    )
    one, two = Monitor(card), Monitor(card)
    one.update(live)
    two.update(other)
    assert one.content == two.content
    numbered = Monitor(card)
    numbered.update(MultiLabel(live.tensors().logits, live.tensors().target))
    assert numbered.content == one.content


@pytest.mark.parametrize(
    ("live", "said"),
    [
        (
            drawn(0, 9, names=("edema", "mass", "nodule", "cyst")),
            "labels must be those of the card",
        ),
        (MultiLabel(torch.zeros(5, 3)), "labels must be those of the card"),
        (drawn(0, 9).label("mass"), "labels must be those of the card"),
        (replace(drawn(0, 9), weights=torch.ones(9)), "must have no weights"),
        (replace(drawn(0, 9), clusters=torch.zeros(9)), "must be independent"),
    ],
)
def test_other_predictions_are_refused(card, live, said):
    with pytest.raises(InputError, match=said):
        Monitor(card).update(live)


def test_a_card_of_classes_takes_no_labels():
    random = torch.Generator().manual_seed(0)
    halves = [
        fedlas.Predictions(torch.randn(60, 4, generator=random), [0, 1, 2, 3] * 15) for _ in "ab"
    ]
    card = make_card(
        *halves, fit_calibration("none", halves[0]), model={"run": "a"}, data={"name": "b"}
    )
    with pytest.raises(InputError, match="labels must be one per sample"):
        Monitor(card).update(drawn(0, 9))


def test_label_unknown_in_test_part_watches_probability():
    val, test = drawn(0), drawn(1)
    test = replace(test, target=test.tensors().target.index_fill(1, torch.tensor([3]), -100))
    card = make_card(
        val, test, fit_calibration("auto", val), model={"run": "a"}, data={"name": "b"}
    )
    monitor = Monitor(card)
    monitor.update(drawn(2))
    watches = monitor.content["watches"]
    assert "hernia" not in watches["calibration"]["labels"]
    assert "hernia" in watches["probability"]["labels"]


def test_multi_label_card_accepts_each_method_form():
    val, test = drawn(0, 400), drawn(1, 400)
    fitted = MultiLabelCalibration().fit(val)
    cards = [fedlas.card(val, test, method, replicates=0) for method in ("auto", fitted, "none")]
    assert [each.card.calibration.method for each in cards] == ["partial-pooling"] * 2 + ["none"]
    assert [each.card.live for each in cards] == ["raw", "raw", "calibrated"]
    assert cards[0].card.metrics == cards[1].card.metrics
    assert cards[2].card.metrics["as predicted"] == cards[2].card.metrics["calibrated"]
    assert "After" not in cards[2].text()
    for wrong in ({"risks": (0.3,)}, {"recall": 0.5}, {"event": "mass"}, {"top_label": True}):
        with pytest.raises(InputError, match="one label per sample"):
            fedlas.card(val, test, replicates=0, **wrong)
    for pair in (
        (val, val),
        (val, drawn(1, 400, names=tuple("abcd"))),
        (val, test.label(0)),
        (val.label(0), test),
    ):
        with pytest.raises(InputError, match=r"must (differ|hold|have|be a MultiLabel)"):
            fedlas.card(*pair, replicates=0)


def test_what_a_card_shows():
    """A page is drawn with two labels alone, since drawing is slow."""
    pair = [
        MultiLabel(each.tensors().logits[:, :2], each.tensors().target[:, :2], names=NAMES[:2])
        for each in (drawn(0), drawn(1))
    ]
    card = fedlas.card(*pair, name="cxr", replicates=99, title="X-rays")
    text = card.text()
    assert "After partial-pooling: macro ECE" in text
    assert "worst label's ECE" in text
    assert all(len(line) <= 80 for line in text.splitlines())
    assert "The test part was not used for these choices" in " ".join(
        card.text(details=True).split()
    )
    page = card.html()
    assert "<title>X-rays</title>" in page
    assert "Labels, calibrated" in page
    assert "Width of" not in page
    assert [*card.card.labels["calibrated"]["mass"]][:2] == ["num_samples", "positives"]
    assert card.card.metrics["calibrated"]["macro_ece"]["floor"] > 0
    assert card.evaluation.require("macro_ece<=0.05", "worst_label_ece<=20%").status == 0
    assert card.evaluation.require("macro_nll<=0.1").status == 3
    with pytest.raises(InputError, match="ece"):
        card.evaluation.require("ece<=0.1")
    assert set(card.to_frame()["stage"]) == {"as predicted", "calibrated"}
    assert "<table" in card._repr_html_()


def test_the_nights_of_a_state_are_one_stream(card, tmp_path):
    """The alarm stays, with its labels, and the state is as if all files had been one stream."""
    days = (
        drawn(5, 600, unknown=0.1),
        drawn(7, 300).without_target(),
        drawn(6, 900, shift=(0.0, 2.0, 0.0, 0.0)),
        drawn(8, 100),
    )
    place, state = card.save(tmp_path / "card.json"), tmp_path / "watch.json"
    looks = []
    for number, several in enumerate(days):
        labels = several.target is not None
        file = write(tmp_path / f"{number}.csv", several, labels=labels)
        columns = Columns(probs="p_*", labels="y_*" if labels else None)
        looks.append(monitor(place, [file], columns=columns, state=state))
    assert [look.status for look in looks] == [0, 0, ALARM_EXIT_STATUS, ALARM_EXIT_STATUS]
    assert "no change detected in calibration" in looks[1].verdict
    resumed = looks[2].content
    assert resumed["watches"]["calibration"]["labels"]["mass"]["alarm_after"] > 900
    assert "calibration of mass" in looks[3].verdict
    whole = Monitor(place)
    for several in days:
        whole.update(
            MultiLabel.from_probs(several.tensors().probs, several.tensors().target, names=NAMES)
        )
    content = json.loads(state.read_text())
    for name, each in whole._stream.watches.items():
        np.testing.assert_array_equal(content["watches"][name]["active"], each.test.wealth)
    assert content["labels"] == whole._stream.labels
    assert content["alarms"] == whole._stream.alarms


def test_files_of_each_kind_are_watched_alike(card, tmp_path):
    place = card.save(tmp_path / "card.json")
    live = drawn(5, 500)
    after = write(tmp_path / "after.csv", card.calibration.transform(live))
    saved = live.save(tmp_path / "live.npz")
    columns = Columns(probs="p_*", labels="y_*")
    one = monitor(place, [after], columns=columns, raw=False).content
    two = monitor(place, [saved]).content
    for name, watch in one["watches"].items():
        assert watch["evidence"] == pytest.approx(two["watches"][name]["evidence"], rel=1e-4)
    for columns, said in (
        (
            Columns(probs=tuple(f"p_{name}" for name in NAMES), target="y_mass"),
            "must be left out for a multi-label card",
        ),
        (
            Columns(probs="p_edema"),
            "each of several labels must have a score column of its own",
        ),
        (Columns(probs=("p_edema", "p_mass")), "labels must be those of the card"),
    ):
        with pytest.raises(InputError, match=said):
            monitor(place, [after], columns=columns, raw=False)
