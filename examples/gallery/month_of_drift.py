"""
A month in service
==================

On the 15th day a sensor begins to fail, a little more each day. The monitor sees it a week later. While nothing
changes it gives a false alarm in one stream of a hundred at most, however often one looks.
"""

import matplotlib.pyplot as plt
import torch

import fedlas

torch.manual_seed(0)


def day(count, broken=0.0):
    """Return the predictions of a day, with the labels that came in later."""
    logits = 3 * torch.randn(count, 4)
    target = torch.multinomial((logits / 1.5).softmax(1), 1)[:, 0]
    lost = torch.rand(count) < broken
    return fedlas.Predictions(logits, torch.where(lost, torch.randint(4, (count,)), target))


# %%
# The card holds the calibration and what a healthy model looks like.

card = fedlas.card(day(2000), day(5000), name="sensor", replicates=0)
card.save("sensor.json")
monitor = fedlas.deploy.Monitor("sensor.json")

# %%
# Each evening the day's predictions go in.

evidence = {"accuracy": [], "calibration": []}
for date in range(1, 31):
    alarm = monitor.update(day(200, broken=0.05 * max(date - 14, 0)))
    for name, values in evidence.items():
        values.append(monitor.content["watches"][name]["evidence"])
    if alarm:
        print(f"day {date}: {monitor.verdict}")
        break

# %%
# An alarm is raised where the evidence of a watch reaches the line.

_, ax = plt.subplots(figsize=(7, 3.5), layout="constrained")
for name, values in evidence.items():
    ax.semilogy(range(1, date + 1), values, "o-", label=name)
ax.axhline(monitor.content["watches"]["accuracy"]["threshold"], color="gray", linestyle="--", label="alarm")
ax.axvline(15, color="gray", linewidth=1)
ax.set(xlabel="day", ylabel="evidence of a change", xlim=(0, 31))
ax.legend()
plt.show()
