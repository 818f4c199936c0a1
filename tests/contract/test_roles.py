"""What a user says of his samples is used or refused by every fit, metric and interval; nothing is dropped."""

from contextlib import suppress
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from torch import nn

import fedlas
from fedlas import Predictions, TopLabel
from fedlas.calibrators import CALIBRATORS
from fedlas.calibrators._fit.folds import make_folds
from fedlas.cli import main
from fedlas.deploy import Monitor, export, fit_calibration, make_card
from fedlas.errors import InputError
from fedlas.metrics import METRICS
from fedlas.predictions import Covariates
from fedlas.predictions.tables.roles import OF_FIT, ROLES
from fedlas.stats import reject_option

pytestmark = pytest.mark.filterwarnings("ignore::fedlas.errors.CalibrationWarning")

DRAW = np.random.default_rng(0)
SAMPLES = 600
LOGITS = 2 * DRAW.normal(size=(SAMPLES, 3))
TARGET = torch.multinomial(
    torch.tensor(LOGITS / 3 + [0.5, 0.0, -0.5]).softmax(dim=1),
    1,
    generator=torch.Generator().manual_seed(0),
)[:, 0]
FEATURES = np.column_stack(
    [TARGET.numpy() + DRAW.normal(size=SAMPLES), DRAW.integers(0, 4, SAMPLES)]
)
PLAIN = Predictions(LOGITS, TARGET, features=FEATURES)
COVARIATES = Covariates(("age",), {"region": tuple("abcd")})
LABEL_PROBS = torch.nn.functional.one_hot(TARGET, 3) * 0.7 + 0.1
SAID = {
    "weights": DRAW.integers(1, 5, SAMPLES).astype(float),
    "clusters": TARGET.numpy() * 10 + np.arange(SAMPLES) % 10,
    "label_probs": LABEL_PROBS / LABEL_PROBS.sum(dim=1, keepdim=True),
    "covariates": COVARIATES,
    "features": FEATURES + 1.0 * DRAW.normal(size=FEATURES.shape),
    "target": (TARGET + torch.arange(SAMPLES) % 2) % 3,
    "logits": LOGITS[:, ::-1].copy(),
    "classes": ("a", "b", "c"),
    "event": None,
    "time": np.arange(SAMPLES)[::-1] // 7,
}
"""Another value of each field."""


def test_every_field_has_a_line_here():
    """A new role is named above; the tests below then ask every fit, metric and interval about it."""
    assert SAID.keys() == {field.name for field in fields(Predictions)}, (
        "give SAID another value of the new field"
    )
    assert {field.name for field in fields(TopLabel)} - {"confidence", "correct"} <= SAID.keys()


def said_of(name):
    return replace(PLAIN, **{name: SAID[name]})


def fitted(name, val):
    """What a calibrator makes of the same samples after a fit; None if it refuses them."""
    calibrator = CALIBRATORS[name].value()
    try:
        after = calibrator.fit(val).transform(PLAIN if val.covariates is None else val)
    except InputError:
        return None
    return after.tensors().logits


def fitted_on_half(name, field=None):
    """The same after a fit on the first half, with another value of a field."""
    return fitted(
        name, (PLAIN if field is None else said_of(field)).rows(torch.arange(SAMPLES // 2))
    )


HOLD_OUT = {"num_folds", "num_partitions"}
"""Arguments of calibrators that hold samples out, and so use clusters; the others fit one map to all samples."""


OF_A_HEAD = {"feature-clipping"}
"""They need the classifier head, which these predictions lack."""


@pytest.mark.parametrize(
    "name", [entry.name for entry in CALIBRATORS.entries() if entry.name not in OF_A_HEAD]
)
def test_a_fit_uses_what_is_said_of_its_samples(name):
    kind = CALIBRATORS[name].value
    before = fitted_on_half(name)
    expected = {"weights", "logits", "target"}
    if (kind.needs | kind.wants) & {"features"}:
        expected.add("features")
    for field in sorted(expected):
        after = fitted_on_half(name, field)
        assert after is None or not torch.equal(after, before), f"{field} is dropped"
    if HOLD_OUT.isdisjoint(vars(kind())):
        # Where samples have weights, clusters lower them.
        assert torch.equal(fitted_on_half(name, "clusters"), before) is not kind.takes_weights
        for field in OF_FIT:
            assert torch.equal(fitted_on_half(name, field), before)


def test_auto_uses_what_its_features_hold():
    fits = [fitted("auto", val) for val in (PLAIN, said_of("covariates"))]
    assert not torch.equal(*fits)


def test_no_row_is_judged_by_a_fit_on_later_ones():
    """What auto holds out, and what the printed check measures, is later than what is fitted on; whole clusters."""
    time = torch.arange(SAMPLES) // 50
    for clusters in (None, torch.arange(SAMPLES) // 30):
        val = replace(PLAIN, time=time, clusters=clusters)
        folds = make_folds(val, 5)
        assert folds.count == 5
        for fold in range(folds.count):
            train, test = folds.train(fold), folds.test(fold)
            assert train.any()
            assert test.any()
            assert time[train].max() < time[test].min()
            if clusters is not None:
                assert not {*clusters[train].tolist()} & {*clusters[test].tolist()}
        assert not folds.held_out_mask[time == 0].any()
    assert make_folds(replace(PLAIN, time=torch.arange(SAMPLES)), 5).in_time  # no time twice
    one_each = replace(PLAIN, time=time, clusters=np.arange(SAMPLES) % 4)
    with pytest.raises(InputError, match="in order of time"):
        fedlas.calibrators.AutoCalibration().fit(one_each)


def test_an_order_in_time_changes_what_is_chosen_and_what_the_check_prints():
    """A model that was right in the first months and is no more: rows in no order look better than what comes."""
    draw = np.random.default_rng(1)
    score = draw.normal(size=1200)
    month = np.arange(1200) // 100
    chance = 1 / (1 + np.exp(-np.where(month < 6, 2.0, 0.3) * score))
    table = {"p": 1 / (1 + np.exp(-score)), "y": (draw.random(1200) < chance).astype(int)}
    table["month"] = [f"2026-{1 + number:02d}" for number in month]
    for method in ("auto", "isotonic"):
        mixed, ordered = (
            fedlas.calibrate(table, probs="p", target="y", method=method, **more).cross_fitted
            for more in ({}, {"time": "month"})
        )
        assert mixed.samples == 1200 > ordered.samples >= 600
        assert mixed.after.nll + 0.02 < ordered.after.nll
    # Of two times the later one is judged by a fit on the earlier, whose rows have no order.
    halves = table | {"month": [1] * 600 + [2] * 600}
    ordered = fedlas.calibrate(halves, probs="p", target="y", time="month").cross_fitted
    assert ordered.samples == 600
    assert ordered.after.nll > ordered.before.nll + 0.01
    one = fedlas.calibrate(table | {"month": [1] * 1200}, probs="p", target="y", time="month")
    assert one.cross_fitted == fedlas.calibrate(table, probs="p", target="y").cross_fitted
    assert "600 later rows, by fits on earlier ones:" in str(ordered)
    # However many rows have the first time, such as a date that stands for none, the later ones are left out.
    late = fedlas.calibrate(
        table | {"month": [1] * 1100 + [2] * 100}, probs="p", target="y", time="month"
    )
    assert late.cross_fitted.samples == 100
    mixed_forms = (["May"] * 1200, ["2026-01", "2026-01-05"] * 600)
    for months in (*mixed_forms, ["2026-01-05T08:00", "2026-01-05T09:00Z"] * 600):
        with pytest.raises(InputError, match="numbers or dates"):
            fedlas.calibrate(table | {"month": months}, probs="p", target="y", time="month")


@pytest.mark.parametrize("method", ["vector", "matrix", "auto", "temperature"])
def test_clusters_one_after_another_can_be_in_order_of_time(method):
    """The first fits have few clusters, of which one lasts to the first cut."""
    draw = np.random.default_rng(0)
    score = 2 * draw.normal(size=600)
    table = {"p": 1 / (1 + np.exp(-score)), "t": np.arange(600), "c": np.arange(600) // 50}
    table["y"] = (draw.random(600) < 1 / (1 + np.exp(-score / 2))).astype(int)
    fit = fedlas.calibrate(table, probs="p", target="y", time="t", clusters="c", method=method)
    assert fit.cross_fitted.samples >= 300
    assert fit.cross_fitted.after.nll < fit.cross_fitted.before.nll
    assert "clusters, by fits on earlier ones of others:" in str(fit.cross_fitted)


@pytest.mark.parametrize("role", OF_FIT)
def test_where_no_rows_are_held_out_a_role_of_fits_is_refused(role, tmp_path, capsys):
    table = {"p": [0.2, 0.8] * 20, "y": [0, 1] * 20, "said": [1, 2] * 20}
    with pytest.raises(InputError, match="requires on="):
        fedlas.report(table, probs="p", target="y", **{role: "said"})
    (tmp_path / "a.csv").write_text("p,y,said\n" + "0.2,0,1\n0.8,1,2\n" * 20)
    words = [str(tmp_path / "a.csv"), "--probs", "p", "--target", "y", f"--{role}", "said"]
    assert main(["evaluate", *words]) == 2
    assert f"--{role} requires --on" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    "name", [e.name for e in METRICS.entries() if e.name != "top5" and e.subject != "event"]
)  # 1 of three classes
def test_a_metric_and_its_interval_use_what_is_said_of_the_samples(name):
    base = replace(PLAIN, label_probs=SAID["label_probs"]) if METRICS[name].needs else PLAIN

    def measured(**changes):
        options = {"metrics": [name], "replicates": 60}
        return fedlas.estimates(replace(base, **changes), **options)[name]

    plain = measured()
    for field in ("weights", "logits", "target"):
        if field == "target" and METRICS[name].needs:
            continue  # the distribution of the labels takes their place
        try:
            after = measured(**{field: SAID[field]})
        except InputError:
            continue
        assert after.value != plain.value, f"{field} is dropped"
    for field in OF_FIT:  # of all rows, in whatever order
        assert measured(**{field: SAID[field]}) == plain
    try:
        after = measured(clusters=SAID["clusters"])
    except InputError:
        return
    assert after.value == pytest.approx(plain.value)
    assert (after.low, after.high) != (plain.low, plain.high), "clusters are dropped"


@pytest.mark.parametrize("name", ["weights", "clusters"])
def test_a_report_uses_and_a_card_uses_or_refuses_what_is_said_of(name):
    options = {"replicates": 60, "name": "a"}
    texts = [str(fedlas.report(val, **options).json()) for val in (PLAIN, said_of(name))]
    assert texts[0] != texts[1]
    with pytest.raises(InputError, match=name if name == "weights" else "independent"):
        make_card(said_of(name), PLAIN, fit_calibration("none", PLAIN), model={}, data={})
    said = said_of(name)
    if name == "weights":
        with pytest.raises(InputError, match=name):
            reject_option(said, PLAIN, risk=0.1)
    else:
        assert (
            reject_option(said, said, risk=0.6).chosen
            != reject_option(PLAIN, PLAIN, risk=0.6).chosen
        )


@pytest.mark.parametrize("field", ["weights", "clusters"])
def test_before_and_after_use_what_is_said_of(field):
    """A loader names the place in a batch; scikit-learn passes arrays."""
    values = torch.as_tensor(SAID[field])
    model = fedlas.CalibratedModel(nn.Identity(), fit_calibration("temperature", PLAIN).calibrator)
    batch = (torch.as_tensor(LOGITS), TARGET, values)
    plain, said = (model.before_after([batch], **how) for how in ({}, {field: 2}))
    assert_used(field, plain, said)
    dense = (torch.as_tensor(LOGITS).reshape(20, 5, 6, 3).movedim(3, 1), TARGET.reshape(20, 5, 6))
    dense = (*dense, values[:20])
    if field == "clusters":
        with pytest.raises(InputError, match="clusters must be left out"):
            model.before_after([dense], clusters=2)
    else:
        assert model.before_after([dense], weights=2).before != model.before_after([dense]).before

    sklearn = pytest.importorskip("sklearn.linear_model")
    integration = pytest.importorskip("fedlas.integrations.sklearn")
    inner = sklearn.LogisticRegression().fit(LOGITS[:, :1], TARGET)
    classifier = integration.CalibratedClassifier(inner, "temperature", cv="prefit")
    classifier.fit(LOGITS[:, :1], TARGET.numpy())
    name = {"weights": "sample_weight", "clusters": "groups"}[field]
    plain, said = (
        classifier.before_after(LOGITS[:, :1], TARGET.numpy(), **how)
        for how in ({}, {name: SAID[field]})
    )
    assert_used(field, plain, said)


def assert_used(field, plain, said):
    if field == "weights":
        assert plain.after.nll != said.after.nll
        assert plain.after.ece != said.after.ece
    else:
        assert plain.after.nll == pytest.approx(said.after.nll)
    assert plain.after.floor != said.after.floor, f"{field} are dropped"


@pytest.mark.parametrize("field", ["weights", "clusters"])
def test_cards_and_monitors_refuse_what_their_bounds_cannot_use(
    field, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    probs = torch.tensor(LOGITS).softmax(dim=1).numpy()
    for name, power in (("a.csv", 1.0), ("b.csv", 1.4)):
        values = np.column_stack([probs**power, TARGET, SAID[field]])
        header = "p0,p1,p2,y,said"
        np.savetxt(name, values, fmt="%.9g", delimiter=",", header=header, comments="")
    named = ("--probs", "p*", "--normalize", "--target", "y")
    role = (f"--{field}", "said")
    fast = ("--method", "temperature", "--replicates", "0")
    assert main(["card", "a.csv", "b.csv", *named, *fast, "--out", "m.json"]) == 0
    with pytest.raises(InputError, match="weights" if field == "weights" else "independent"):
        Monitor("m.json").update(said_of(field))
    for command in (["card", "a.csv", "b.csv", "--out", "n.json"], ["monitor", "m.json", "b.csv"]):
        assert main([*command, *named, *role]) == 2
        text = capsys.readouterr().err
        assert (
            "leave" in text.lower()
            or "one row per cluster" in text
            or "one row of each cluster" in text
        )
        assert "independent" in text if field == "clusters" else "weights" in text


@pytest.mark.parametrize("option", [{"label_probs": "v*"}])
def test_an_option_without_effect_on_a_calibration_is_refused(option):
    columns = {"p": [0.2, 0.7] * 40, "y": [0, 1] * 40, "v0": [0.5] * 80, "v1": [0.5] * 80}
    with pytest.raises(InputError, match="no effect"):
        fedlas.calibrate(columns, probs="p", target="y", **option)


def test_a_table_hands_on_what_its_columns_are():
    """Each role of a column reaches the predictions that fits, metrics and intervals take."""
    table = {
        "a": [0.2, 0.7, 0.4],
        "b": [0.8, 0.3, 0.6],
        "y": ["a", "b", "b"],
        "v_a": [0.5, 0.2, 0.0],
        "v_b": [0.5, 0.8, 1.0],
        "w": [1.0, 2.0, 3.0],
        "who": ["x", "x", "z"],
        "age": [20, 30, 40],
        "month": ["2026-05", "2026-11", "2026-05"],
    }
    roles = {"label_probs": "v_*", "weights": "w", "clusters": "who", "covariates": "age"}
    roles["time"] = "month"
    read = fedlas.read_predictions(table, probs="a,b", target="y", event="b", **roles).predictions
    for field in fields(Predictions):
        assert getattr(read, field.name) is not None, (
            f"{field.name} is lost: add a column of it to the table and the roles above; if it is there, look for "
            "where `ScoreTable.rows` or `predictions_of` drops it"
        )
    assert read.clusters.tolist() == [0, 0, 1]
    assert read.time.tolist() == [0, 1, 0]
    assert (read.event, read.classes) == (1, ("a", "b"))


@pytest.mark.system
@pytest.mark.parametrize("form", ["onnx", "torch-export"])
def test_a_calibration_with_categories_is_exported(form, tmp_path):
    """The export compares the file with the calibration itself, values that the fit did not see included."""
    draw = np.random.default_rng(0)
    score, age, region = draw.normal(size=800), draw.normal(size=800), draw.choice(list("abc"), 800)
    chance = 1 / (1 + np.exp(-score - age - 2 * (region == "a")))
    table = {"p": 1 / (1 + np.exp(-score)), "age": age, "region": region}
    table["y"] = (draw.random(800) < chance).astype(int)
    calibration = fedlas.calibrate(table, probs="p", target="y", covariates="age,region")
    exported = export(
        calibration, tmp_path / {"onnx": "cal.onnx", "torch-export": "cal.pt2"}[form], form=form
    )
    assert exported.inputs[1]["shape"] == ["batch", 2]
    assert calibration.covariates.inputs[1] == "region: 0 a, 1 b, 2 c, 3 none of them"


SCORES_OF_TABLE = {"logits": "z_no,z_yes", "probs": "p_no,p_yes", "confidence": "confidence"}
OPTIONS = {
    "target": "y", "classes": "no,yes", "correct": "right", "predicted": "said", "label_probs": "v_no,v_yes",
    "weights": "w", "groups": "g", "covariates": "age", "clusters": "c", "event": "yes", "normalize": True,
    "percent": True, "drop_missing": True, "separator": ",", "confidence_as": "words", "format": "table",
    "one_per_cluster": True, "time": "age", "labels": "y_no,y_yes", "words": "high=.9",
}  # fmt: skip


@pytest.mark.parametrize("kind", SCORES_OF_TABLE)
@pytest.mark.parametrize("labeled", [True, False])
def test_role_beside_other_scores_is_read_or_refused(kind, labeled, tmp_path):
    """``--confidence-as`` beside ``--probs`` was a KeyError."""
    names = [
        "p_no",
        "p_yes",
        "z_no",
        "z_yes",
        "v_no",
        "v_yes",
        "y_no",
        "y_yes",
        "w",
        "c",
        "age",
        "confidence",
        "right",
        "y",
        "said",
        "g",
    ]
    row = [0.3, 0.7, -1.0, 1.0, 0.4, 0.6, 0, 1, 1.5, 7, 40, 0.7, 1, "yes", "yes", "a"]
    other = [0.7, 0.3, 1.0, -1.0, 0.4, 0.6, 1, 0, 1.5, 8, 50, 0.7, 0, "no", "yes", "b"]
    path = tmp_path / "t.csv"
    path.write_text("".join(",".join(map(str, each)) + "\n" for each in (names, row, other)))
    assert {*OPTIONS, *SCORES_OF_TABLE} == {*ROLES}, "give OPTIONS a value of the new role"
    read = set()
    for option, value in OPTIONS.items():
        named = {kind: SCORES_OF_TABLE[kind], "target" if kind != "confidence" else "correct": None}
        if option == "words":
            named["confidence_as"] = "words"
        for more in ({}, {"target": "y"}, {"correct": "right"}):
            with suppress(InputError):
                fedlas.read_predictions(path, labeled=labeled, **named | more | {option: value})
                read.add(option)
    for option in ("confidence_as", "words"):
        assert (option in read) is (kind == "confidence"), option
