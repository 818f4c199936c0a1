"""
How sure is a language model?
=============================

A log of answers, each with the log-probabilities of its tokens. The mean probability claims far more than comes true,
and most in the long answers.
"""

import json
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import fedlas
from fedlas.plots import reliability_diagram

# %%
# Made-up answers in the format of OpenAI's API and of vLLM: right less often than they claim.

random = np.random.default_rng(0)
with Path("answers.jsonl").open("w") as file:
    for _ in range(3000):
        sure, length = random.beta(4, 1.5), int(random.integers(1, 12))
        content = [{"token": "x", "logprob": np.log(sure)} for _ in range(length)]
        right = bool(random.random() < sure ** (1 + length / 6))
        answer = {"choices": [{"logprobs": {"content": content}}], "length": "long" if length > 6 else "short"}
        file.write(json.dumps(answer | {"right": right}) + "\n")

# %%
# A dotted path leads to the log-probabilities; ``mean`` is one way to make a confidence of them.

log = fedlas.read_predictions(
    "answers.jsonl",
    confidence="choices.0.logprobs.content",
    confidence_as="mean",
    correct="right",
    groups="length",
)
print(fedlas.report(log))

# %%
# Half of the log repairs the other half.

answers = log.predictions
even = np.arange(len(answers.confidence)) % 2 == 0
val, test = answers.rows(even), answers.rows(~even)
calibrated = fedlas.calibrators.AutoCalibration().fit(val).transform(test)

_, axes = plt.subplots(1, 2, figsize=(9, 5.5), layout="constrained")
reliability_diagram(test, ax=axes[0], title="as logged")
reliability_diagram(calibrated, ax=axes[1], title="calibrated")
plt.show()
