import pickle

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.datasets import make_classification
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.metrics import log_loss, roc_auc_score
from sklearn.model_selection import (
    GridSearchCV,
    KFold,
    StratifiedKFold,
    cross_val_score,
    cross_validate,
)
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, LinearSVC
from sklearn.utils.estimator_checks import parametrize_with_checks

import fedlas
from fedlas.calibrators import PlattScaling, TemperatureScaling
from fedlas.errors import CalibrationWarning, InputError
from fedlas.integrations.sklearn import (
    CalibratedClassifier,
    CalibrationScorer,
    calibration_scores,
    scorers,
)
from wants_features import NormTemperature

NAMES = np.array(["cat", "dog", "fox"])


def data(samples=300, classes=3, seed=0):
    return make_classification(
        samples, 8, n_informative=4, n_classes=classes, flip_y=0.2, random_state=seed
    )


@pytest.fixture(scope="module")
def fitted():
    X, y = data()
    return CalibratedClassifier(GaussianNB()).fit(X, NAMES[y]), X, NAMES[y]


@pytest.mark.system
# some checks fit on a handful of samples
@pytest.mark.filterwarnings("ignore::fedlas.errors.CalibrationWarning")
@pytest.mark.filterwarnings("ignore:The least populated class")
@parametrize_with_checks(
    [
        CalibratedClassifier(GaussianNB()),
        CalibratedClassifier(LogisticRegression(), "vector", cv=0.3),
        CalibratedClassifier(LinearSVC(random_state=0), cv=3),
    ],
    expected_failed_checks=lambda _: (
        {
            f"check_sample_weight_equivalence_on_{kind}_data": "repeated rows are dealt to folds as others are"
            for kind in ("dense", "sparse")
        }
        | {
            "check_classifiers_one_label_sample_weights": "naive Bayes gives NaN where a class has no weight"
        }
    ),
)
def test_scikit_learns_own_checks(estimator, check):
    check(estimator)


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("estimator", [GaussianNB(), LinearSVC(random_state=0)])
def test_temperature_is_fitted_on_out_of_fold_scores(estimator, classes):
    X, y = data(classes=classes)
    model = CalibratedClassifier(estimator, "temperature", cv=StratifiedKFold(4)).fit(X, y)
    logits = np.empty((len(y), classes))
    for seen, held in StratifiedKFold(4).split(X, y):
        part = type(estimator)(**estimator.get_params()).fit(X[seen], y[seen])
        logits[held] = scores_of(part, X[held])
    expected = TemperatureScaling().fit(fedlas.Predictions(logits, y))
    assert model.calibrator_.temperature == pytest.approx(expected.temperature, rel=1e-9)
    whole = type(estimator)(**estimator.get_params()).fit(X, y)
    expected = torch.from_numpy(scores_of(whole, X) / expected.temperature).softmax(1).numpy()
    np.testing.assert_allclose(model.predict_proba(X), expected, rtol=1e-9)


def scores_of(estimator, X):
    """Logits of a classifier, written down a second time."""
    if hasattr(estimator, "predict_proba"):
        return np.log(np.maximum(estimator.predict_proba(X), 1.2e-38))
    found = estimator.decision_function(X)
    return found if found.ndim == 2 else np.stack([0 * found, found], axis=1)


def test_float_cv_holds_out_a_stratified_share():
    X, y = data()
    model = CalibratedClassifier(LogisticRegression(), cv=0.2, random_state=7).fit(X, y)
    again = CalibratedClassifier(LogisticRegression(), cv=0.2, random_state=7).fit(X, y)
    assert np.array_equal(model.predict_proba(X), again.predict_proba(X))
    assert not np.allclose(model.estimator_.coef_, LogisticRegression().fit(X, y).coef_)


def test_a_frozen_estimator_is_not_trained_again():
    X, y = data()
    trained = GaussianNB().fit(X[:100], y[:100])
    before = pickle.dumps(trained)
    model = CalibratedClassifier(FrozenEstimator(trained), "temperature").fit(X[100:], y[100:])
    prefit = CalibratedClassifier(trained, "temperature", cv="prefit").fit(X[100:], y[100:])
    assert np.array_equal(prefit.predict_proba(X), model.predict_proba(X))
    assert pickle.dumps(trained) == before
    expected = TemperatureScaling().fit(fedlas.Predictions(scores_of(trained, X[100:]), y[100:]))
    assert model.calibrator_.temperature == expected.temperature


class Noted(TemperatureScaling):
    notes = ("A note of the fit.",)


def test_the_notes_of_a_fit_are_its_warnings_and_those_of_the_calibrator():
    X, y = data()
    trained = FrozenEstimator(GaussianNB().fit(X, y))
    assert CalibratedClassifier(trained, Noted()).fit(X, y).fitted_.notes == Noted.notes
    with pytest.warns(CalibrationWarning) as caught:
        few = CalibratedClassifier(trained, Noted()).fit(X[:10], y[:10])
    assert [*few.fitted_.notes] == [*(str(each.message) for each in caught), *Noted.notes]


def test_text_labels_a_pipeline_and_sparse_rows():
    words = {"cat": "purr meow whiskers", "dog": "bark fetch tail", "fox": "red forest tail"}
    generator = np.random.default_rng(0)
    y = generator.choice(NAMES, 90)
    texts = [" ".join(generator.choice((words[name] + " the a of").split(), 4)) for name in y]
    model = make_pipeline(TfidfVectorizer(), CalibratedClassifier(LinearSVC(random_state=0))).fit(
        texts, y
    )
    assert set(model.predict(texts)) <= set(NAMES)
    assert model.score(texts, y) > 0.6
    outside = CalibratedClassifier(make_pipeline(TfidfVectorizer(), LinearSVC(random_state=0))).fit(
        texts, y
    )
    assert outside.predict_proba(texts).sum(1) == pytest.approx(1)
    sparse = csr_matrix(data()[0])
    assert CalibratedClassifier(LogisticRegression()).fit(sparse, data()[1]).predict(
        sparse
    ).shape == (300,)


def test_data_frames_keep_their_names():
    pandas = pytest.importorskip("pandas")
    X, y = data(classes=2)
    frame = pandas.DataFrame(X, columns=[f"x{i}" for i in range(8)])
    model = CalibratedClassifier(make_pipeline(StandardScaler(), LogisticRegression())).fit(
        frame, pandas.Series(NAMES[y], index=frame.index[::-1])
    )
    assert list(model.feature_names_in_) == list(frame.columns)
    assert model.decision_function(frame).shape == (300,)
    assert np.array_equal(
        model.predict(frame), model.classes_[(model.decision_function(frame) > 0).astype(int)]
    )


# some folds have few samples
@pytest.mark.filterwarnings("ignore::fedlas.errors.CalibrationWarning")
def test_grid_search_tunes_calibrator_and_estimator():
    X, y = data()
    grid = {"method": ["temperature", PlattScaling()], "estimator__var_smoothing": [1e-9, 1.0]}
    search = GridSearchCV(
        CalibratedClassifier(GaussianNB(), cv=3), grid, scoring=scorers["neg_nll"], cv=3
    )
    results = search.fit(X, y).cv_results_
    assert search.best_score_ == max(results["mean_test_score"]) < 0
    assert len(set(results["mean_test_score"])) == 4
    sigmoid = cross_val_score(
        CalibratedClassifier(GaussianNB()), X, y, scoring="neg_log_loss", cv=3
    )
    ours = cross_val_score(
        CalibratedClassifier(GaussianNB()), X, y, scoring=scorers["neg_nll"], cv=3
    )
    np.testing.assert_allclose(ours, sigmoid, rtol=1e-9)


def test_predictions_go_to_the_metrics(fitted):
    model, X, y = fitted
    predictions = model.predictions(X, y)
    np.testing.assert_allclose(predictions.probs, model.predict_proba(X), rtol=1e-12)
    assert fedlas.evaluate(predictions)["accuracy"] == pytest.approx(model.score(X, y))
    assert fedlas.evaluate(predictions)["ece"] == pytest.approx(-scorers["neg_ece"](model, X, y))


def test_calibration_improves_a_naive_model():
    X, y = data(samples=2000)
    naive = GaussianNB().fit(X[:1000], y[:1000])
    model = CalibratedClassifier(GaussianNB()).fit(X[:1000], y[:1000])
    assert scorers["neg_nll"](model, X[1000:], y[1000:]) > scorers["neg_nll"](
        naive, X[1000:], y[1000:]
    )


def test_scores_equal_scikit_learns(fitted):
    model, X, y = fitted
    found = calibration_scores(model, X, y)
    assert found["neg_nll"] == pytest.approx(-log_loss(y, model.predict_proba(X)))
    squares = (model.predict_proba(X) - (y[:, None] == model.classes_)) ** 2
    assert found["neg_brier"] == pytest.approx(-squares.sum(1).mean())
    assert found["accuracy"] == pytest.approx(model.score(X, y))
    assert found == {name: scorer(model, X, y) for name, scorer in scorers.items()}
    assert {"neg_ece", "neg_classwise_ece", "top5", "neg_aurc"} <= found.keys()
    assert "neg_confidence_gap" not in found  # it has a sign, so nothing is better about more of it
    many = cross_validate(GaussianNB(), X, y, scoring=calibration_scores, cv=2)
    assert f"test_{next(iter(found))}" in many


def test_scorer_handles_missing_class_and_num_bins(fitted):
    model, X, y = fitted
    some = y != "dog"
    logits = torch.from_numpy(np.log(model.predict_proba(X[some])))
    expected = fedlas.evaluate(
        fedlas.Predictions(logits, np.where(y[some] == "cat", 0, 2)), num_bins=4
    )["mce"]
    scorer = pickle.loads(pickle.dumps(CalibrationScorer("mce", num_bins=4)))
    assert scorer(model, X[some], y[some]) == pytest.approx(-expected)
    assert scorers["neg_mce"](model, X[some], y[some]) != pytest.approx(-expected)


class NoScores(ClassifierMixin, BaseEstimator):
    def fit(self, X, y):
        return self


@pytest.mark.parametrize(
    ("estimator", "calibrator", "cv", "message"),
    [
        (GaussianNB(), "temprature", None, "Did you mean 'temperature'"),
        (GaussianNB(), 3, None, "must be a name or a calibrator; got int 3"),
        (GaussianNB(), "feature-clipping", None, "one that needs features"),
        (NoScores(), "temperature", None, "must have decision_function or predict_proba"),
        (GaussianNB(), "temperature", KFold(3), "fold 0 without 0"),
        (
            SVC(decision_function_shape="ovo"),
            "temperature",
            3,
            r"must return one column per class.* \(300, 6\) for 4 classes",
        ),
    ],
)
def test_what_cannot_be_meant_is_said(estimator, calibrator, cv, message):
    X, y = data(classes=4)
    order = np.argsort(y, kind="stable")
    with pytest.raises(InputError, match=message):
        CalibratedClassifier(estimator, calibrator, cv=cv).fit(X[order], y[order])


def test_unknown_labels_and_missing_scores_raise(fitted):
    model, X, y = fitted
    with pytest.raises(InputError, match="classes of the estimator; got eel"):
        model.predictions(X, np.where(y == "cat", "eel", y))
    with pytest.raises(InputError, match=r"predict_proba; got RidgeClassifier"):
        scorers["neg_ece"](RidgeClassifier().fit(X, y), X, y)
    with pytest.raises(InputError, match="higher or lower is better; got confidence_gap"):
        CalibrationScorer("confidence_gap")


def test_a_doubtful_fit_warns():
    X, y = data(samples=60, classes=2)
    with pytest.warns(CalibrationWarning, match="TemperatureScaling: "):
        CalibratedClassifier(FrozenEstimator(SVC(C=1e6, gamma=10).fit(X, y)), "temperature").fit(
            X, y
        )


def test_sample_weights_reach_the_calibrator():
    X, y = data()
    trained = FrozenEstimator(GaussianNB().fit(X[:100], y[:100]))
    weight = np.arange(200) % 3 + 1
    rows = np.repeat(np.arange(100, 300), weight)
    ours = CalibratedClassifier(trained).fit(X[100:], y[100:], sample_weight=weight)
    theirs = CalibratedClassifier(trained).fit(X[rows], y[rows])
    np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), atol=1e-5)


def test_before_and_after():
    X, y = data(2000)
    model = CalibratedClassifier(GaussianNB()).fit(X[:1000], y[:1000])
    found = model.before_after(X[1000:], y[1000:])
    assert found.after.nll < found.before.nll
    assert str(found).count("\n") == 3


@pytest.mark.parametrize("classes", [2, 3])
def test_an_interval_holds_what_venn_abers_says(classes):
    X, y = make_classification(600, n_classes=classes, n_informative=4, random_state=0)
    model = CalibratedClassifier(GaussianNB(), "venn-abers").fit(X[:400], y[:400])
    probs, interval = model.predict_proba(X[400:], interval=True)
    assert interval.shape == (200, 2)
    assert (interval[:, 0] <= interval[:, 1]).all()
    np.testing.assert_allclose(probs.sum(1), 1)
    low, high = interval.T
    if classes == 2:
        np.testing.assert_allclose(probs, model.predict_proba(X[400:]), atol=1e-12)
    top = (
        probs[:, 1]
        if classes == 2
        else probs[range(200), model._estimator_logits(X[400:]).argmax(1)]
    )
    np.testing.assert_allclose(top, high / (1 - low + high))
    few = CalibratedClassifier(GaussianNB(), "temperature").fit(X[:40], y[:40])
    assert (
        np.ptp(few.predict_proba(X[400:], interval=True)[1], axis=1).mean()
        > 2 * np.ptp(interval, axis=1).mean()
    )


class TestSideInformation:
    """X as features of a calibrator that uses them."""

    @pytest.fixture
    def table(self):
        pandas = pytest.importorskip("pandas")
        X, y = data(400)
        frame = pandas.DataFrame(X[:, :3], columns=["a", "b", "c"])
        frame["kind"] = np.where(X[:, 4] > 0, "up", "down")
        frame["name"] = [f"row {number}" for number in range(len(y))]
        frame["flag"] = X[:, 5] > 0
        frame["some"] = np.where(X[:, 6] > 1, np.nan, X[:, 6])
        return frame, NAMES[y]

    @pytest.mark.filterwarnings("ignore:.*changes no validation probability")
    def test_columns_are_encoded_like_table_covariates(self, table):
        frame, y = table
        model = CalibratedClassifier(
            self.numbers_alone(), NormTemperature(), features=True, cv="prefit"
        )
        model.fit(frame, y)
        made = model.side_columns_(frame).numpy()
        np.testing.assert_array_equal(made[:, :3], frame[["a", "b", "c"]])
        np.testing.assert_allclose(made[:, 3], frame.some.fillna(frame.some.mean()))
        np.testing.assert_array_equal(made[:, 4], frame.some.isna())
        np.testing.assert_array_equal(made[:, 5], frame.kind == "up")
        np.testing.assert_array_equal(made[:, 6], frame.flag)
        assert model.calibrator_.num_features == made.shape[1] == 7
        covariates = ["a", "b", "c", "kind", "flag", "some"]
        scores = {"p": np.linspace(0.1, 0.9, len(y)), "y": np.arange(len(y)) % 2}
        of_table = fedlas.read_predictions(
            dict(frame.items()) | scores, probs="p", target="y", covariates=covariates
        )
        assert of_table.covariates == model.side_columns_.covariates
        np.testing.assert_array_equal(of_table.predictions.features, made)
        other = frame.head(2).assign(kind=["sideways", None], a=[np.nan, 0.0])
        row = model.side_columns_(other).numpy()
        assert row[:, 5].tolist() == [2, 2]
        assert row[0, 0] == pytest.approx(frame.a.mean())
        assert model.predict_proba(other).shape == (2, 3)
        with pytest.raises(InputError, match="X must have 7 columns, as in the fit; got 6 columns"):
            model.side_columns_(frame.drop(columns="a"))

    def numbers_alone(self):
        class OnNumbers(LogisticRegression):
            def decision_function(self, X):
                return super().decision_function(X[["a", "b", "c"]].fillna(0).to_numpy())

        X, y = data(400)
        return OnNumbers().fit(X[:, :3], NAMES[y])

    @pytest.mark.parametrize("frame", ["array", "polars", "objects"])
    def test_tables_of_other_kinds(self, frame):
        X, y = data()
        table = X[:, :2]
        if frame == "objects":
            table = table.astype(object)
        elif frame == "polars":
            table = pytest.importorskip("polars").DataFrame({"a": X[:, 0], "b": X[:, 1]})
        model = CalibratedClassifier(GaussianNB(), NormTemperature(), features=True).fit(table, y)
        np.testing.assert_array_equal(model.side_columns_(table).numpy(), X[:, :2])

    def test_a_pipeline_gives_what_its_last_step_takes(self):
        X, y = data()
        model = CalibratedClassifier(
            make_pipeline(StandardScaler(), GaussianNB()), NormTemperature(), features=True
        ).fit(X, y)
        np.testing.assert_allclose(
            model.side_columns_(X).numpy(), StandardScaler().fit_transform(X)
        )
        again = pickle.loads(pickle.dumps(model))
        np.testing.assert_array_equal(again.predict_proba(X), model.predict_proba(X))
        p = fedlas.Predictions(model._estimator_logits(X), features=model.side_columns_(X))
        expected = model.calibrator_.transform(p)
        np.testing.assert_allclose(model.predict_proba(X), expected.probs)

    def test_functions_none_and_what_has_no_columns(self):
        X, y = data()
        chosen = CalibratedClassifier(
            GaussianNB(), NormTemperature(), features=lambda X: X[:, :1], cv=0.4
        ).fit(X, y)
        assert chosen.calibrator_.num_features == 1
        alone = CalibratedClassifier(GaussianNB(), NormTemperature()).fit(X, y)
        assert alone.calibrator_.num_features is None
        texts = ["one two", "two three", "three four"] * 30
        steps = make_pipeline(TfidfVectorizer(), LogisticRegression())
        words = CalibratedClassifier(steps, NormTemperature(), features=True).fit(
            texts, [0, 1, 1] * 30
        )
        assert words.calibrator_.num_features == 4

        class Lengths(LogisticRegression):
            def fit(self, X, y):
                return super().fit(np.array([[len(text)] for text in X]), y)

            def decision_function(self, X):
                return super().decision_function(np.array([[len(text)] for text in X]))

        bare = CalibratedClassifier(Lengths(), NormTemperature(), features=True)
        bare.fit(texts, [0, 1, 1] * 30)
        assert bare.calibrator_.num_features is None
        assert "X has no columns" in bare.side_columns_.note

    @pytest.mark.parametrize(
        ("calibrator", "features", "got"),
        [
            ("temperature", len, "a function for TemperatureScaling"),
            (NormTemperature(), 3, "int 3"),
        ],
    )
    def test_refused_before_anything_is_fitted(self, calibrator, features, got):
        with pytest.raises(
            InputError, match=f"features must be False, True or a function.*got {got}"
        ):
            CalibratedClassifier(GaussianNB(), calibrator, features=features).fit(*data())


def informative(samples=2000, classes=2):
    """X holds much that the estimator, which sees the first column alone, leaves unused."""
    random = np.random.default_rng(0)
    X = random.normal(size=(samples, 4))
    log_odds = X[:, 0] + 3 * X[:, 1] + 3 * X[:, 2]
    return X, (random.random(samples) < 1 / (1 + np.exp(-log_odds))).astype(int)


class FirstColumn(LogisticRegression):
    def fit(self, X, y, sample_weight=None):
        return super().fit(X[:, :1], y, sample_weight)

    def decision_function(self, X):
        return super().decision_function(X[:, :1])


@pytest.mark.parametrize("features", [False, True])
@pytest.mark.filterwarnings("ignore:.*leaves much of X unused")
def test_a_probability_lies_in_its_interval(features):
    """67 to 88 % lay outside, since the interval was of another model than the probability."""
    X, y = informative()
    model = CalibratedClassifier(FirstColumn(), features=features, cv=3).fit(X[:1000], y[:1000])
    probs, interval = model.predict_proba(X[1000:], interval=True)
    low, high = interval.T
    assert ((low <= probs[:, 1]) & (probs[:, 1] <= high)).all()
    other = CalibratedClassifier(FirstColumn(), event=0, cv=3).fit(X[:1000], y[:1000])
    probs, interval = other.predict_proba(X[1000:], interval=True)
    np.testing.assert_allclose(interval, 1 - np.stack([high, low], axis=1))
    assert (interval[:, 0] <= probs[:, 0]).all()


def test_the_default_rescales_and_features_learn_from_x():
    X, y = informative()
    area = {}
    for name, options in {"raw": None, "default": {}, "features": {"features": True}}.items():
        model = FirstColumn() if options is None else CalibratedClassifier(FirstColumn(), **options)
        if name == "features":
            with pytest.warns(CalibrationWarning, match="leaves much of X unused") as records:
                model.fit(X[:1000], y[:1000])
            assert not any("contain neither the label" in str(each.message) for each in records)
        else:
            model.fit(X[:1000], y[:1000])
        area[name] = roc_auc_score(y[1000:], model.decision_function(X[1000:]))
    assert area["default"] == pytest.approx(area["raw"], abs=0.002)
    assert area["features"] > area["raw"] + 0.2
    assert "rescales the scores" in repr(CalibratedClassifier(FirstColumn()))
    assert "changes the ranking" in repr(CalibratedClassifier(FirstColumn(), features=True))
    assert "changes the ranking" in CalibratedClassifier.__doc__.split("\n")[0]
    assert fedlas.CalibratedClassifier is CalibratedClassifier


@pytest.mark.parametrize("cv", [None, 0.25])
def test_no_cluster_is_split_between_folds(cv):
    seen = []

    class Noting(GaussianNB):
        def fit(self, X, y, sample_weight=None):
            seen.append(set(X[:, -1].tolist()))
            return super().fit(X, y, sample_weight)

    X, y = data(400, 2)
    patient = np.arange(400) // 8
    rows = np.column_stack([X, patient])
    model = CalibratedClassifier(Noting(), "temperature", cv=cv, random_state=0)
    model.fit(rows, y, groups=patient)
    folds = seen if cv else seen[:-1]
    assert len(folds) == (1 if cv else 5)
    assert all(len(fold) < 50 for fold in folds)
    if cv is None:
        assert sum(50 - len(fold) for fold in folds) == 50
    with pytest.raises(InputError, match="cv must not split groups"):
        CalibratedClassifier(
            GaussianNB(), cv=list(KFold(3, shuffle=True, random_state=0).split(X))
        ).fit(X, y, groups=patient)


def test_event_is_the_named_class():
    X, y = data(classes=2)
    for labels, event, number in (
        (["yes", "no"], None, 1),
        (["left", "stays"], "left", 0),
        (["left", "stays"], None, 1),
    ):
        model = CalibratedClassifier(GaussianNB(), "temperature", event=event)
        names = np.array(labels)[y]
        assert model.fit(X, names).predictions(X, names).event == number
    with pytest.raises(InputError, match="event"):
        CalibratedClassifier(GaussianNB(), event="gone").fit(X, names).predictions(X, names)
