"""The parameters of the next trial, drawn with optuna as a function of the trials before it.

Each draw makes the study anew from the trials on disk, with a sampler seeded by study, method and number. So a study
that was stopped draws the same parameters as one that was not, and no database has to survive a kill. ``optuna.log`` is
written from the same trials, for optuna's own tools.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from fedlas._core.check import InputError
from fedlas._core.extras import require
from fedlas._core.files import not_writable, remove
from fedlas._core.streams import derive
from fedlas.lab.tune.domain import Domain, Range
from fedlas.lab.tune.plan import Tuning
from fedlas.lab.tune.record import Trial
from fedlas.lab.tune.space import Method

__all__ = ["STARTUP", "draw", "known_to", "write_storage"]

STARTUP = 5
"""Trials, including the preset's, that are drawn uniformly before the sampler learns from the earlier ones."""
_ATTEMPTS = 20
"""Draws from a finite space before the first untried setting is taken."""


def known_to(tuning: Tuning, number: int) -> int:
    """How many of a method's first trials must have ended before the trial of this number can be drawn.

    The first ones are drawn uniformly, whatever came of those before them. Later ones learn from the batches before
    their own; of the other trials in its batch, a draw knows the parameters only.

    Example:
        >>> from types import SimpleNamespace
        >>> [known_to(SimpleNamespace(batch=1), number) for number in (0, 4, 5, 6, 7)]
        [0, 0, 5, 6, 7]
        >>> [known_to(SimpleNamespace(batch=2), number) for number in (0, 4, 5, 6, 7)]
        [0, 0, 5, 5, 7]
    """
    return 0 if number < STARTUP else number - (number - STARTUP) % tuning.batch


def draw(tuning: Tuning, method: Method, before: Sequence[Trial]) -> dict[str, Any]:
    """Parameters of the trial after those ``before``: first the preset, then settings that were not tried.

    Args:
        tuning: The study.
        method: The method; its space must hold an untried setting.
        before: All its trials so far, in order; the first :func:`known_to` of them have ended.
    """
    number = len(before)
    if number == 0:
        return dict(method.preset)
    tried = {_key(trial.params) for trial in before}
    for attempt in range(_ATTEMPTS):
        params = _suggest(tuning, method, before, derive(tuning.draws, f"tune/{method.name}/{number}/{attempt}"))
        if _key(params) not in tried:
            return params
    return next(params for params in _all(method) if _key(params) not in tried)


def write_storage(tuning: Tuning, trials: Mapping[str, Sequence[Trial]]) -> Path:
    """Write ``optuna.log``: a journal file with a study for each method, for optuna's tools such as its dashboard."""
    path = tuning.folder / "optuna.log"
    new = path.with_name(".optuna.log.part")
    with _quiet() as optuna:
        try:
            remove(new, inside=tuning.folder)
            backend = optuna.storages.journal.JournalFileBackend(str(new))
            storage = optuna.storages.JournalStorage(backend)
            for method in tuning.methods:
                study = _study(tuning, method, trials[method.name], storage=storage, study_name=method.name)
                study.set_user_attr("recipe", tuning.recipe.name)
                study.set_user_attr("objective", tuning.goal.metric)
            new.replace(path)
        except OSError as error:
            with suppress(InputError):
                remove(new, inside=tuning.folder)
            raise not_writable(path, error) from error
    return path


def _suggest(tuning: Tuning, method: Method, before: Sequence[Trial], seed: int) -> dict[str, Any]:
    with _quiet() as optuna:
        # The liar takes trials without a result for bad ones, so that those of a batch differ.
        liar = {"constant_liar": True} if tuning.batch > 1 else {}
        sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=STARTUP, **liar)
        study = _study(tuning, method, before, known=known_to(tuning, len(before)), sampler=sampler)
        drawn = study.ask({key: _distribution(domain) for key, domain in method.space.items()}).params
    return {key: domain.tidy(drawn[key]) for key, domain in method.space.items()}


def _study(tuning: Tuning, method: Method, trials: Sequence[Trial], *, known: int | None = None, **options: Any) -> Any:
    """An optuna study of these trials. A failed trial counts as worse than any other.

    Of all but the first ``known`` trials no result is used, not even one that is there: what is drawn must not depend
    on which of the trials of a batch ended first. Without ``known`` those that have not ended are left out.
    """
    optuna = require("optuna", extra="tune")
    study = optuna.create_study(direction="maximize" if tuning.goal.maximize else "minimize", **options)
    states = optuna.trial.TrialState
    for trial in trials:
        pending = known is not None and trial.number >= known
        if (pending and tuning.batch == 1) or (known is None and not trial.ended):
            continue
        inside = {key: domain for key, domain in method.space.items() if domain.contains(trial.params[key])}
        study.add_trial(
            optuna.trial.create_trial(
                state=states.RUNNING if pending else states.PRUNED if trial.value is None else states.COMPLETE,
                value=None if pending else trial.value,
                params={key: trial.params[key] for key in inside},
                distributions={key: _distribution(domain) for key, domain in inside.items()},
                user_attrs={"preset": trial.is_preset, "reason": trial.reason, "seeds": dict(trial.seeds)},
            )
        )
    return study


def _distribution(domain: Domain) -> Any:
    distributions = require("optuna.distributions", extra="tune")
    if not isinstance(domain, Range):
        return distributions.CategoricalDistribution(list(domain.values))
    if domain.whole:
        return distributions.IntDistribution(int(domain.low), int(domain.high), log=domain.log)
    return distributions.FloatDistribution(domain.low, domain.high, log=domain.log)


def _all(method: Method) -> Iterator[dict[str, Any]]:
    """Every setting of a finite space, in a fixed order."""
    values = [
        range(int(domain.low), int(domain.high) + 1) if isinstance(domain, Range) else domain.values
        for domain in method.space.values()
    ]
    for setting in itertools.product(*values):
        yield dict(zip(method.space, setting, strict=True))


def _key(params: Any) -> tuple[Any, ...]:
    return tuple((key, str(value) if isinstance(value, bool) else value) for key, value in params.items())


@contextmanager
def _quiet() -> Iterator[Any]:
    """Silences optuna's line for each study and trial, and restores its verbosity at the end."""
    optuna = require("optuna", extra="tune")
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield optuna
    finally:
        optuna.logging.set_verbosity(before)
