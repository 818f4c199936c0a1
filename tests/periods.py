"""Periods of a history, added by the functions that ``fedlas monitor --history`` calls, without pages or terminal."""

from dataclasses import replace

import fedlas
from fedlas.deploy.monitor.columns import category_limits, column_statistics
from fedlas.deploy.monitor.history import PeriodHistory
from fedlas.deploy.monitor.look import monitor_files


def write_card(path, val, test, columns, method="none"):
    """Write the card of two files, with what is watched of the columns of the second; return its place."""
    of_scores = replace(columns, covariates=None)
    parts = [fedlas.read_predictions(file, of_scores) for file in (val, test)]
    card = fedlas.card(*parts, method, replicates=0).card  # without the page
    sums = column_statistics([test], columns)
    return replace(card, columns=sums, limits=[*card.limits, *category_limits(sums)]).save(path)


def add_period(card, history, files, columns, *, state=None, name=""):
    """Add files to a history and a state; return the drifts as sentences, and the watches that raised an alarm."""
    periods = PeriodHistory(history, files, files, name, state)
    watcher = monitor_files(card, files, columns=replace(columns, covariates=None), state=state)
    drifts = periods.add(watcher, card, column_statistics(files, columns))
    periods.write(watcher)
    return [*map(str, drifts)], watcher.content["alarms"]
