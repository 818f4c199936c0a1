"""
Which digits are on the form?
=============================

A form holds three handwritten digits, so each of ten labels is there or not, and a 9 is rare. Naive Bayes takes each
pixel for evidence of its own and is far too sure of all ten. A curve a label, fitted on 600 forms, repairs most of it.
"""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.datasets import load_digits
from sklearn.multiclass import OneVsRestClassifier
from sklearn.naive_bayes import GaussianNB

import fedlas
from fedlas.plots import label_reliability_diagrams

random = np.random.default_rng(0)
images, digits = load_digits(return_X_y=True)


def forms(number, pool):
    """Return images of forms, three digits side by side, and which digits are there."""
    chance = 1 / (1 + digits[pool]) ** 1.2 / np.bincount(digits[pool])[digits[pool]]
    drawn = random.choice(pool, size=(number, 3), p=chance / chance.sum())
    there = (digits[drawn][:, :, None] == np.arange(10)).any(axis=1)
    return images[drawn].reshape(number, -1) / 16, there.astype(int)


pools = np.array_split(random.permutation(len(digits)), 3)
model = OneVsRestClassifier(GaussianNB(var_smoothing=0.01)).fit(*forms(2000, pools[0]))


def table(number, pool):
    """Return what a program would log: a column of probabilities and one of labels for each digit."""
    pixels, there = forms(number, pool)
    columns = {f"p_{digit}": p for digit, p in enumerate(model.predict_proba(pixels).T)}
    return pd.DataFrame(columns | {f"y_{digit}": y for digit, y in enumerate(there.T)})


val, test = table(600, pools[1]), table(3000, pools[2])

# %%
# A line a label, the strongest evidence first; what the second table shows is what ``fedlas.calibrate`` deploys.

columns = {"probs": "p_*", "labels": "y_*"}
evaluation = fedlas.report(test, on=val, **columns)
print(evaluation)

# %%
# Each label on a scale of its own: the three worst, before and after.

calibration = fedlas.calibrate(val, **columns)
after = calibration.apply(test)
stages = [
    fedlas.read_predictions(after, probs=prefix + "p_*", labels="y_*").predictions for prefix in ("", "calibrated_")
]
worst = list(evaluation.labels["as predicted"])[:3]
_, axes = plt.subplots(2, 3, figsize=(9.5, 8), layout="constrained")
for several, row, title in zip(stages, axes, ["before", "after"], strict=True):
    label_reliability_diagrams(several, worst, axes=row, title=title, axes_for=stages)
plt.show()
