"""Draws the README's figure: ``python docs/front.py PREDICTIONS.npz`` writes ``docs/front.svg``; they hold features.

The first half of the predictions fits the calibrator, the second half is drawn before and after it.
"""

import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from fedlas import Predictions
from fedlas.calibrators import AutoCalibration
from fedlas.plots import LIGHT, reliability_diagram
from fedlas.plots.theme import style_axes
from fedlas.present.page import to_themed_svg

ALT = "Two reliability diagrams of a ResNet-20 on CIFAR-10: before calibration with large gaps, after it without"


def draw(file: Path) -> str:
    """The figure as an SVG that follows the reader's theme."""
    arrays = np.load(file)
    half = len(arrays["target"]) // 2
    val, test = (
        Predictions(
            *(arrays[name][rows] for name in ("logits", "target")),
            features=arrays["features"][rows],
        )
        for rows in (slice(half), slice(half, None))
    )
    stages = {"as published": test, "after auto": AutoCalibration().fit(val).transform(test)}
    figure = Figure(figsize=(7.4, 3.7), layout="constrained")
    for number, (title, predictions) in enumerate(stages.items(), start=1):
        axes = figure.add_subplot(1, 2, number)
        style_axes(axes, LIGHT)
        reliability_diagram(predictions, ax=axes, title=title, legend=False, shares=False)
    return to_themed_svg(axes, ALT)


if __name__ == "__main__":
    Path(__file__).with_name("front.svg").write_text(
        draw(Path(sys.argv[1])) + "\n", encoding="utf-8"
    )
