"""Groups of samples, as scikit-learn calls them: patients, of whom each is on one side of every split."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import KFold

from fedlas.errors import InputError
from fedlas.integrations.sklearn import CalibratedClassifier

pytestmark = pytest.mark.filterwarnings("ignore::fedlas.errors.CalibrationWarning")


class Score(LogisticRegression):
    """Reads the first column alone."""

    def fit(self, X, y, sample_weight=None):
        return super().fit(X[:, :1], y, sample_weight)

    def decision_function(self, X):
        return super().decision_function(X[:, :1])


def patients(count, seed):
    draw = np.random.default_rng(seed)
    features = draw.normal(size=(count, 3)).repeat(25, axis=0)
    unseen = draw.normal(size=count).repeat(25)
    score = draw.normal(size=count * 25)
    y = (draw.random(count * 25) < 1 / (1 + np.exp(-score - unseen))).astype(int)
    return np.column_stack([score, features]), y, np.arange(count).repeat(25)


@pytest.mark.parametrize("cv", [None, 0.5])
def test_new_patients_are_no_worse_than_without_features(cv):
    X, y, groups = patients(40, 0)
    new, labels, _ = patients(400, 1)

    def loss(groups, features=True):
        model = CalibratedClassifier(Score(), cv=cv, features=features, random_state=0)
        return log_loss(labels, model.fit(X, y, groups=groups).predict_proba(new))

    alone = loss(groups, features=False)
    assert loss(groups) <= 1.005 * alone
    assert loss(None) > 1.01 * alone


def test_folds_of_torn_groups_are_refused():
    X, y, groups = patients(10, 0)
    with pytest.raises(InputError, match="must not split groups"):
        CalibratedClassifier(Score(), cv=list(KFold(3, shuffle=True).split(X))).fit(
            X, y, groups=groups
        )
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        CalibratedClassifier(Score()).fit(X, y, groups=groups[:-1])
