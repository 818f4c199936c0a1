"""
A risk that a doctor can act on
===============================

The model was fitted on 150 patients and is too sure of itself. After calibration, acting on its risks is worth as
much at every threshold, and more at low and high ones.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.linear_model import LogisticRegression

import fedlas
from fedlas.calibrators import AutoCalibration
from fedlas.plots import decision_curve

random = np.random.default_rng(0)
x = random.normal(size=(4000, 30))
chance = 1 / (1 + np.exp(1.1 - x[:, :4] @ [1, 0.7, 0.7, 0.4]))
disease = (random.random(4000) < chance).astype(int)
model = LogisticRegression(C=1e4, max_iter=5000).fit(x[:150], disease[:150])


def patients(rows):
    """Return the risks that the model states, with what happened."""
    return fedlas.Predictions.from_probs(model.predict_proba(x[rows]), disease[rows])


val, test = patients(slice(150, 1000)), patients(slice(1000, None))
calibrated = AutoCalibration().fit(val).transform(test)

# %%
# Net benefit (Vickers and Elkin 2006): events treated, less the price of treating others.

_, ax = plt.subplots(figsize=(8, 5), layout="constrained")
decision_curve({"as fitted": test, "calibrated": calibrated}, ax=ax)
plt.show()

# %%
# A missed disease costs four times a needless biopsy. What threshold, and what comes of it?

print(fedlas.report(test, on=val, method="auto", cost_ratio=4))
