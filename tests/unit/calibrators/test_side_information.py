"""`auto` with features: what it gains, and that weights, order, files, layers and exports agree."""

import json
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch

from fedlas import Predictions, TopLabel
from fedlas.calibrators import (
    AutoCalibration,
    CalibrationWarning,
    Calibrator,
    MultiLabelCalibration,
    TemperatureScaling,
    fit_mixture,
    mixture_features,
)
from fedlas.calibrators.fit_notes import fit_with_notes
from fedlas.calibrators.mixture_features import fit_regressions
from fedlas.calibrators.mixture_weights import Prior
from fedlas.calibrators.side_information import find_group_columns
from fedlas.calibrators.side_plan import RegressionPlan, choose_plan
from fedlas.errors import InputError
from fedlas.metrics import nll as negative_log_likelihood
from fedlas.predictions import Covariates

pytestmark = pytest.mark.filterwarnings("ignore:.*are few:fedlas.errors.CalibrationWarning")


def drawn(samples=400, classes=3, columns=6, *, seed=0, strength=0.6, weights=None):
    """Logits that ignore what the features know."""
    random = torch.Generator().manual_seed(seed)
    known = torch.randn(
        columns, classes, generator=torch.Generator().manual_seed(7), dtype=torch.float64
    )
    features = torch.randn(samples, columns, generator=random, dtype=torch.float64)
    logits = 2 * torch.randn(samples, classes, generator=random, dtype=torch.float64)
    target = torch.multinomial(
        (logits + strength * features @ known).softmax(1), 1, generator=random
    )[:, 0]
    return Predictions(2 * logits, target, features=features, weights=weights)


def nll(calibrator, test):
    return negative_log_likelihood(calibrator.transform(test))


@pytest.mark.parametrize("unit", [1e-1, 1e-3])
def test_unit_of_an_informative_column_is_irrelevant(unit):
    def parts(samples, seed):
        plain = drawn(samples, columns=1, seed=seed, strength=1.0)
        noise = torch.randn(samples, 20, generator=torch.Generator().manual_seed(seed + 10))
        features = torch.cat([plain.tensors().features, noise.double()], dim=1)
        scaled = features * torch.tensor([unit] + 20 * [1.0])
        return tuple(plain._replace_fields(features=each) for each in (features, scaled))

    (val, small), (test, of_small) = parts(500, 0), parts(2000, 1)
    without = nll(AutoCalibration(features=False).fit(val), test)
    gain = without - nll(AutoCalibration().fit(val), test)
    assert gain > 0.02
    assert without - nll(AutoCalibration().fit(small), of_small) > 0.9 * gain


@pytest.fixture(scope="module")
def fitted():
    return AutoCalibration().fit(drawn())


def test_features_lower_the_nll(fitted):
    test = drawn(2000, seed=1)
    assert nll(fitted, test) < nll(AutoCalibration(features=False).fit(drawn()), test) - 0.1
    assert fitted.num_features == 6
    assert fitted.weights["features"] > 0.3
    assert sum(fitted.weights.values()) == pytest.approx(1)
    assert "features 0." in repr(fitted)


def test_features_that_know_nothing_do_no_harm():
    val, test = (drawn(300, seed=seed, strength=0.0) for seed in (0, 1))
    calibrator = AutoCalibration().fit(val)
    assert nll(calibrator, test) < nll(AutoCalibration(features=False).fit(val), test) + 0.01


def test_without_features_it_is_auto_on_logits():
    val = drawn()
    bare = Predictions(val.tensors().logits, val.tensors().target)
    ours, theirs = AutoCalibration(features=False).fit(val), AutoCalibration().fit(bare)
    assert ours.num_features is None
    assert torch.equal(
        ours.transform(val).tensors().logits, theirs.transform(bare).tensors().logits
    )
    assert torch.equal(
        ours.transform(bare).tensors().logits, theirs.transform(bare).tensors().logits
    )


def test_far_samples_get_auto_on_logits(fitted):
    test = drawn(200, seed=1)
    far = Predictions(
        test.tensors().logits, test.tensors().target, features=test.tensors().features + 1e4
    )
    alone = AutoCalibration(features=False).fit(drawn())
    torch.testing.assert_close(
        fitted.transform(far).tensors().probs,
        alone.transform(test).tensors().probs,
        rtol=0,
        atol=1e-3,
    )


def sensors(samples, columns, *, seed, pair=False):
    """Two classes whose log-odds depend on the first column; or on the small difference of the first two."""
    random = torch.Generator().manual_seed(seed)
    features = torch.randn(samples, columns, generator=random, dtype=torch.float64)
    logits = 2 * torch.randn(samples, 2, generator=random, dtype=torch.float64)
    known = 1.5 * features[:, 1 if pair else 0]
    if pair:
        features[:, 1] = features[:, 0] + 0.3 * features[:, 1]
    right = (logits[:, 1] - logits[:, 0] + known).sigmoid()
    target = torch.bernoulli(right, generator=random).long()
    return Predictions(1.5 * logits, target, features=features)


@pytest.mark.parametrize(
    ("columns", "pair", "shift", "most"), [(100, False, 8, 0.02), (20, True, 2, 0.05)]
)
def test_drift_of_one_column_is_not_diluted(columns, pair, shift, most):
    """The squared distance over all directions let both pass: +46 and +38 % in the NLL."""
    val, test = (sensors(n, columns, seed=n, pair=pair) for n in (500, 2000))
    calibrator, alone = AutoCalibration().fit(val), AutoCalibration(features=False).fit(val)
    assert nll(calibrator, test) < 0.95 * nll(alone, test)
    moved = test.tensors().features.clone()
    moved[:, 0] += shift
    drifted = Predictions(test.tensors().logits, test.tensors().target, features=moved)
    assert nll(calibrator, drifted) < (1 + most) * nll(alone, drifted)
    side = calibrator.map.side
    assert 0.02 < side.is_out_of_range(test.tensors().features).double().mean() < 0.12
    assert side.is_out_of_range(moved).double().mean() > 0.95


def test_a_calibration_from_before_ranges_is_read(fitted):
    content = fitted.to_dict()
    numbers = content["state"]["numbers"]
    content["state"]["numbers"] = {n: v for n, v in numbers.items() if "ranges" not in n}
    assert len(content["state"]["numbers"]) == len(numbers) - 2
    assert Calibrator.from_dict(content).map.side.ranges is None


def test_weights_are_repeated_samples():
    weights = torch.arange(200) % 4
    val = drawn(200, weights=weights)
    rows = torch.arange(200).repeat_interleave(weights)
    repeated = Predictions(
        val.tensors().logits[rows],
        val.tensors().target[rows],
        features=val.tensors().features[rows],
    )
    ours, theirs = (
        AutoCalibration().fit(each).transform(val).tensors().probs for each in (val, repeated)
    )
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


def test_the_order_of_the_samples_does_not_matter(fitted):
    val = drawn()
    order = torch.randperm(400, generator=torch.Generator().manual_seed(3))
    other = AutoCalibration().fit(val.rows(order))
    torch.testing.assert_close(
        other.transform(val).tensors().probs,
        fitted.transform(val).tensors().probs,
        rtol=0,
        atol=1e-6,
    )


@pytest.mark.parametrize("change", [lambda h: 1000 * h, lambda h: h + 50, lambda h: h.float()])
def test_units_of_the_features_do_not_matter(change, fitted):
    val = drawn()
    other = Predictions(
        val.tensors().logits, val.tensors().target, features=change(val.tensors().features)
    )
    after = AutoCalibration().fit(other).transform(other).tensors().probs
    torch.testing.assert_close(after, fitted.transform(val).tensors().probs, rtol=0, atol=2e-3)


def test_large_unit_does_not_hide_other_columns():
    val, test = drawn(), drawn(2000, seed=1)
    scale = torch.tensor([1e6, 1, 1, 1, 1e-4, 1]).double()
    scaled = [
        Predictions(
            part.tensors().logits, part.tensors().target, features=part.tensors().features * scale
        )
        for part in (val, test)
    ]
    assert (
        nll(AutoCalibration().fit(scaled[0]), scaled[1])
        < nll(AutoCalibration().fit(val), test) + 0.02
    )


@pytest.mark.parametrize("keep_class", [False, True])
def test_saved_and_as_a_layer(keep_class, tmp_path):
    val = drawn(300)
    calibrator = AutoCalibration(keep_class=keep_class).fit(val)
    loaded = Calibrator.load(calibrator.save(tmp_path / "auto.json"))
    assert repr(loaded) == repr(calibrator)
    assert loaded.num_features == 6
    after = calibrator.transform(val)
    assert torch.equal(loaded.transform(val).tensors().logits, after.tensors().logits)
    layer = calibrator.module()
    torch.testing.assert_close(
        layer(val.tensors().logits, val.tensors().features).softmax(1),
        after.tensors().probs,
        rtol=0,
        atol=1e-5,
    )
    float_ = layer(val.tensors().logits.float(), val.tensors().features.float()).double().softmax(1)
    torch.testing.assert_close(float_, after.tensors().probs, rtol=0, atol=1e-5)
    assert torch.equal(after.tensors().predicted, val.tensors().predicted) is keep_class
    logits = val.tensors().logits.clone().requires_grad_()
    layer(logits, val.tensors().features).logsumexp(1).sum().backward()
    assert bool(logits.grad.isfinite().all())


def test_after_a_fit_with_features_they_are_needed(fitted):
    test = drawn(10, seed=1)
    with pytest.raises(InputError, match="hold features"):
        fitted.transform(Predictions(test.tensors().logits))
    with pytest.raises(InputError, match=r"features must have shape \(N, 6\)"):
        fitted.transform(
            Predictions(test.tensors().logits, features=test.tensors().features[:, :5])
        )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("side.linear.mean", [1.0]),
        ("side.linear.mean", None),
        ("side.gate.trust", [[1.0]]),
        ("side.linear_stack.offset", [7]),
        ("side_share.weights", [1.0]),
        ("side.other", 1.0),
        ("members.99.temperature", 1.0),
    ],
)
def test_a_file_that_does_not_fit_is_refused(name, value, fitted):
    content = fitted.to_dict()
    content["state"]["numbers"] = {**content["state"]["numbers"], name: value}
    with pytest.raises(InputError, match="state of a AutoCalibration"):
        Calibrator.from_dict(content)


@pytest.mark.parametrize(
    ("samples", "classes", "columns"), [(2, 2, 3), (5, 3, 50), (20, 2, 1), (12, 6, 4), (3, 1, 2)]
)
def test_very_few_samples(samples, classes, columns):
    val = drawn(samples, classes, columns)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CalibrationWarning)
        after = AutoCalibration().fit(val).transform(val)
    assert bool(after.tensors().logits.isfinite().all())


@pytest.mark.parametrize(
    "features", [torch.zeros(100, 3), torch.full((100, 1), 1e30), torch.eye(100)[:, :7]]
)
def test_odd_features(features):
    val = drawn(100)
    val = Predictions(val.tensors().logits, val.tensors().target, features=features)
    assert bool(AutoCalibration().fit(val).transform(val).tensors().logits.isfinite().all())


def test_features_that_hold_the_label_warn():
    val = drawn(300)
    told = torch.cat([val.tensors().features, torch.eye(3)[val.tensors().target].double()], dim=1)
    with pytest.warns(
        CalibrationWarning, match="features lower the held-out NLL .* by more than half"
    ):
        AutoCalibration().fit(
            Predictions(val.tensors().logits, val.tensors().target, features=told)
        )


def test_own_members(generated, tmp_path):
    val = generated(300)
    auto = AutoCalibration(members=["temperature", TemperatureScaling(), "beta"]).fit(val)
    assert set(auto.weights) <= {"as predicted", "temperature", "temperature 2", "beta"}
    loaded = Calibrator.load(auto.save(tmp_path / "auto.json"))
    assert torch.equal(loaded.transform(val).tensors().logits, auto.transform(val).tensors().logits)
    with pytest.raises(InputError, match="Did you mean 'temperature'"):
        AutoCalibration(members=["temprature"])
    with pytest.raises(InputError, match="members must be"):
        AutoCalibration(members=[3])


def test_what_is_affordable():
    assert choose_plan(500, 10, 64, 6) == RegressionPlan()
    large = choose_plan(50_000, 1000, 2048, 2)
    assert large.rows < 50_000
    assert large.rank < 2048


def test_many_rows_are_thinned():
    val = drawn(3000)
    plan = RegressionPlan(rows=200, kernel=False, offsets=(1,))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fedlas.calibrators.mixture_features.choose_plan", lambda *_: plan)
        few = AutoCalibration().fit(val)
    assert few.num_features == 6


def test_confidences_with_features():
    random = torch.Generator().manual_seed(0)
    features = torch.randn(600, 4, generator=random, dtype=torch.float64)
    confidence = torch.rand(600, generator=random, dtype=torch.float64)
    right = torch.rand(600, generator=random) < (confidence.logit() + 2 * features[:, 0]).sigmoid()
    val, test = (
        top_label(confidence[part], right[part], features[part])
        for part in (slice(300), slice(300, None))
    )
    calibrator = AutoCalibration().fit(val)
    assert calibrator.num_features == 4
    after = calibrator.transform(test)
    loss = [
        float(
            torch.nn.functional.binary_cross_entropy(
                each.tensors().confidence, each.tensors().correct.double()
            )
        )
        for each in (test, after)
    ]
    assert loss[1] < loss[0] - 0.1
    logits = torch.stack([1 - test.tensors().confidence, test.tensors().confidence], dim=1).log()
    layer = calibrator.module()(logits, test.tensors().features).softmax(1)[:, 1]
    torch.testing.assert_close(layer, after.tensors().confidence, rtol=0, atol=1e-5)


def top_label(confidence, correct, features):
    """A TopLabel with features, whether or not its constructor takes them."""
    top = TopLabel(confidence, correct)
    vars(top)["features"] = features
    return top


def test_several_labels_share_the_features():
    random = torch.Generator().manual_seed(0)
    features = torch.randn(500, 4, generator=random, dtype=torch.float64)
    logits = torch.randn(500, 2, generator=random, dtype=torch.float64)
    target = torch.bernoulli((logits + 2 * features[:, :2]).sigmoid(), generator=random)
    calibration = MultiLabelCalibration("auto").fit(logits[:300], target[:300], features[:300])
    assert calibration.num_features == 4
    after = calibration.transform(logits[300:], features[300:])
    loss = torch.nn.functional.binary_cross_entropy_with_logits
    assert float(loss(after, target[300:])) < float(loss(logits[300:], target[300:])) - 0.1
    with pytest.raises(InputError, match="features must have"):
        calibration.transform(logits[300:])


@pytest.mark.system
@pytest.mark.filterwarnings("ignore")
def test_the_layer_exports(fitted, tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    test = drawn(50, seed=1).tensors()
    parts = (test.logits.float(), test.features.float())
    layer, shapes = fitted.module(), tuple({0: torch.export.Dim("batch")} for _ in range(2))
    program = torch.export.export(layer, tuple(part[:7] for part in parts), dynamic_shapes=shapes)
    wanted = layer(*parts).softmax(1)
    torch.testing.assert_close(program.module()(*parts).softmax(1), wanted, rtol=0, atol=1e-5)
    traced = torch.jit.trace(layer, tuple(part[:7] for part in parts))
    torch.testing.assert_close(traced(*parts).softmax(1), wanted, rtol=0, atol=1e-5)
    path = tmp_path / "layer.onnx"
    torch.onnx.export(
        program, tuple(part[:7] for part in parts), path, dynamo=True, verbose=False, dynamic_shapes=shapes,
        input_names=["logits", "features"], output_names=["calibrated"],
    )  # fmt: skip
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"logits": parts[0].numpy(), "features": parts[1].numpy()})
    torch.testing.assert_close(torch.from_numpy(found).softmax(1), wanted, rtol=0, atol=1e-5)


def grouped(samples, *, seed, effects, group=None):
    """Logits that are too sure, and of which each group needs other offsets and another factor."""
    random = torch.Generator().manual_seed(seed)
    share = 0.7 ** torch.arange(len(effects)).double()
    groups = torch.multinomial(share, samples, replacement=True, generator=random)
    groups = groups if group is None else torch.full_like(groups, group)
    logits = 2 * torch.randn(samples, 3, generator=random, dtype=torch.float64)
    right = (logits + effects[groups]) * (1 + effects[groups, :1].abs())
    target = torch.multinomial(right.softmax(1), 1, generator=random)[:, 0]
    flags = torch.nn.functional.one_hot(groups, len(effects)).double()
    return Predictions(2 * logits, target, features=flags)


EFFECTS = torch.randn(8, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def test_new_groups_get_the_common_map():
    effects = torch.cat([EFFECTS, torch.zeros(1, 3).double()])
    val = grouped(800, seed=0, effects=EFFECTS)
    calibrator = AutoCalibration().fit(val)
    alone = AutoCalibration(features=False).fit(val)
    test = grouped(4000, seed=1, effects=EFFECTS)
    assert nll(calibrator, test) < nll(alone, test) - 0.05
    # Nothing is known of a group without a sample: within 2 % of the map without groups.
    new = grouped(4000, seed=2, effects=effects, group=8)
    new = Predictions(
        new.tensors().logits, new.tensors().target, features=torch.zeros(4000, 8).double()
    )
    assert nll(calibrator, new) < 1.02 * nll(alone, new)


def test_small_groups_are_pulled_to_the_common_map():
    """Two groups need offsets of opposite signs; one of few samples needs that of the first, and gets less of it."""
    effects = torch.tensor([[0.0, 0.0, 2.0], [0.0, 0.0, -2.0], [0.0, 0.0, 2.0]]).double()
    parts = [
        grouped(count, seed=count, effects=effects, group=group)
        for group, count in enumerate((300, 301, 8))
    ]
    names = ("logits", "target", "features")
    columns = {name: np.concat([getattr(part, name) for part in parts]) for name in names}
    calibrator = AutoCalibration().fit(Predictions(**columns))
    flags = torch.cat([torch.eye(3), torch.zeros(1, 3)]).double()
    test = Predictions(torch.zeros(4, 3).double(), features=flags)
    large, _, small, common = calibrator.transform(test).tensors().probs[:, 2].tolist()
    assert common < small < large
    assert small - common < 0.8 * (large - common)


def test_flags_that_overlap_are_no_groups():
    flags = torch.tensor([[1.0, 1.0, 0.3], [0.0, 1.0, 0.2]])
    assert not bool(find_group_columns(flags).any())
    apart = torch.tensor([[1.0, 0.0, 0.3, 1.0, 0.0], [0.0, 1.0, 0.2, 0.0, 0.0]])
    assert find_group_columns(apart).tolist() == [True, True, False, True, True]


def test_a_sample_of_the_rows_is_noted(monkeypatch, tmp_path):
    monkeypatch.setattr(fit_mixture, "_MAX_FLEXIBLE_LOGITS", 900)
    val = drawn(400)
    calibrator, notes = fit_with_notes(AutoCalibration(), val)
    assert any("on a random sample of 300 of 400 rows" in note for note in notes)
    loaded = Calibrator.load(calibrator.save(tmp_path / "a.json"))
    assert loaded.notes == calibrator.notes == notes[-1:]
    plan = RegressionPlan(rows=200)
    monkeypatch.setattr(mixture_features, "choose_plan", lambda *_: plan)
    notes = AutoCalibration().fit(val).notes
    assert notes[-1] == "features of auto: fitted on a random sample of 200 of 400 rows."


def test_category_codes_equal_one_hot_columns():
    """The fit of codes is that of one-hot columns, without the memory that these take."""
    draw = np.random.default_rng(0)
    code, score = draw.integers(0, 4, 800), draw.normal(size=800)
    number = draw.normal(size=800)
    odds = score + np.array([0.0, 2.0, -2.0, 1.0])[code] + number
    target = (draw.random(800) < 1 / (1 + np.exp(-odds))).astype(int)
    logits = np.stack([-score, score], axis=1) / 2
    flags = np.eye(4)[code]
    covariates = Covariates(("age",), {"region": tuple("abcd")})
    wide = Predictions(logits, target, features=np.column_stack([number, flags]))
    narrow = Predictions(
        logits, target, features=np.column_stack([number, code]), covariates=covariates
    )
    fits = [AutoCalibration().fit(each) for each in (wide, narrow)]
    after = [
        fit.transform(each).tensors().probs for fit, each in zip(fits, (wide, narrow), strict=True)
    ]
    assert float((after[0] - after[1]).abs().max()) < 1e-3
    assert fits[1].num_features == 2
    # A value that the fit did not see is none: the map that all share, which few values say nothing against.
    none = narrow.tensors().features.clone()
    none[:, 1] = 4
    zero = wide.tensors().features.clone()
    zero[:, 1:] = 0
    others = [
        fits[0].transform(Predictions(logits, target, features=zero)).tensors().probs,
        fits[1].transform(Predictions(logits, target, features=none)).tensors().probs,
    ]
    assert float((others[0] - others[1]).abs().max()) < 1e-3
    again = Calibrator.from_dict(json.loads(json.dumps(fits[1].to_dict())))
    assert torch.equal(again.transform(narrow).tensors().probs, after[1])
    layer = fits[1].module()
    assert float((layer(narrow.tensors().logits, none).softmax(1) - others[1]).abs().max()) < 1e-6


def test_out_of_fold_predictions_ignore_own_labels():
    """All parts started from the temperature of all samples, those that are held out included."""
    val = drawn(200, classes=2, columns=5, strength=0.2)
    split, _ = fit_mixture._make_cross_fit(val, 5)
    here = split.held_out[0]
    # Five of its forty labels are wrong: the temperature of all samples moves, that of the others does not.
    target = val.tensors().target.clone()
    target[here[:10:2]] = 1 - target[here[:10:2]]
    predicted = []
    for each in (val, val._replace_fields(target=target)):
        none = torch.zeros(0, len(split.rows), 2, dtype=torch.float64)
        regressions = fit_regressions(
            replace(split, val=each), each.tensors().features, none, Prior(())
        )
        linear = regressions.side.counts[0]  # landmarks of the kernel are chosen among all rows
        predicted.append(regressions.log_probs[:linear, : len(here)].exp())
    assert (predicted[0] - predicted[1]).abs().max() < 5e-3


def _groups(spread: float, number_counts: float) -> tuple[Predictions, Predictions]:
    """Return predictions of 40 groups to fit, and of 40 others; a number counts beside the score."""
    draw = np.random.default_rng(0)
    group, score, number = (
        draw.integers(0, 80, 3000),
        draw.normal(size=3000),
        draw.normal(size=3000),
    )
    odds = score + spread * draw.normal(size=80)[group] + number_counts * number
    target = (draw.random(3000) < 1 / (1 + np.exp(-odds))).astype(int)
    covariates = Covariates(("age",), {"site": tuple(map(str, range(40)))})
    features = np.column_stack([number, np.minimum(group, 40)])
    logits = np.stack([-score, score], axis=1) / 2
    return tuple(
        Predictions(logits[rows], target[rows], features=features[rows], covariates=covariates)
        for rows in (group < 40, group >= 40)
    )


def _nll(calibrator: Calibrator, predictions: Predictions) -> float:
    return negative_log_likelihood(calibrator.transform(predictions))


def test_new_groups_fall_back_to_logit_mixture():
    """Regressions take the slope within groups, which is too steep for a group whose offset nobody knows."""
    known, new = _groups(spread=1.5, number_counts=0.0)
    alone = AutoCalibration().fit(Predictions(known.tensors().logits, known.tensors().target))
    auto = AutoCalibration().fit(known)
    assert _nll(auto, known) < 0.9 * _nll(
        alone, Predictions(known.tensors().logits, known.tensors().target)
    )
    assert _nll(auto, new) == pytest.approx(
        _nll(alone, Predictions(new.tensors().logits, new.tensors().target)), 5e-3
    )
    # A file from before has the regressions' common map in full.
    plain = json.loads(json.dumps(auto.to_dict()))
    text = json.dumps(plain)
    assert "side.unseen.trust" in text
    older = Calibrator.from_dict(_without(plain, "side.unseen.trust"))
    assert torch.equal(
        older.transform(known).tensors().probs, auto.transform(known).tensors().probs
    )
    assert _nll(older, new) > 1.01 * _nll(auto, new)


def _without(plain: object, key: str) -> object:
    """Return plain values without a key, however deep."""
    if isinstance(plain, dict):
        return {name: _without(each, key) for name, each in plain.items() if name != key}
    return plain


def test_new_groups_keep_what_other_columns_say():
    known, new = _groups(spread=0.5, number_counts=1.5)
    alone = AutoCalibration().fit(Predictions(known.tensors().logits, known.tensors().target))
    auto = AutoCalibration().fit(known)
    assert _nll(auto, new) < 0.85 * _nll(
        alone, Predictions(new.tensors().logits, new.tensors().target)
    )


def test_folds_without_groups_change_nothing_for_known_ones(monkeypatch):
    known, new = _groups(spread=1.5, number_counts=0.0)
    auto = AutoCalibration().fit(known)
    monkeypatch.setattr(mixture_features, "_held_out_categories", lambda _: [])
    before = AutoCalibration().fit(known)
    assert torch.equal(
        auto.transform(known).tensors().logits, before.transform(known).tensors().logits
    )
    assert not torch.equal(
        auto.transform(new).tensors().logits, before.transform(new).tensors().logits
    )
