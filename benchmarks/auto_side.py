"""What each part of side information in ``auto`` earns: regressions, their inputs, offsets, gate and groups.

    python benchmarks/auto_side.py features --packages FOLDER --cache FOLDER [--draws 1 2]
    python benchmarks/auto_side.py groups --packages FOLDER --cache FOLDER [--draws 1 2]

Protocol and options as those of ``auto_ablation.py``. ``features``: regressions are fitted once, with all folds, and
each variant weighs a part of them again; sizes of bases are fitted anew. Each case is tested on rows like those of the
fit, and once more fitted to rows below the 70 % quantile of their first principal direction and tested above it.
``groups``: tables of ``groups.py``, a quarter of whose groups the fit has not seen; scores are of known and new ones.
"""

from __future__ import annotations

import argparse
import copy
import logging
import signal
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import auto_stacks as stacks
import groups as grouped
import numpy as np
import torch
from auto_ablation import Log, late
from numpy.typing import NDArray
from torch import Tensor, nn

import fedlas.calibrators.fit_mixture as fm
import fedlas.calibrators.mixture_features as mf
import fedlas.calibrators.side_information as side_fit
import fedlas.calibrators.side_plan as side_plan
from fedlas import Predictions
from fedlas.calibrators import AutoCalibration
from fedlas.calibrators._fit.buffers import zeros
from fedlas.calibrators._fit.custom_calibrators import fit_checked_map
from fedlas.calibrators._fit.rowwise import floor_log_probs, prepare_samples
from fedlas.calibrators._fit.side_maps import SideInformation
from fedlas.calibrators.mixture_weights import Prior, fit_logit_share

Array = NDArray[Any]
MODELS = ("forest", "network")
KNOWN = ("minority", "chemistry", "contraception", "exams", "language", "attainment")


@dataclass(frozen=True, eq=False)
class Fit:
    """Members and regressions of one case, and what they say of the test rows.

    Attributes:
        kinds: Basis, ridge and offset of each regression.
        members: Log-probabilities of test rows by the members ``(m, K, C)``.
    """

    split: Any
    log_probs: Tensor
    share: Any
    regressions: mf.FeatureRegressions
    kinds: tuple[tuple[str, float, int], ...]
    members: Tensor
    rows: Tensor
    features: Tensor


def fit(case: stacks.Case) -> Fit:
    """Fit members and regressions of ``auto``."""
    val, least, _ = prepare_samples(case.val(features=True), repeat_rows=False, raise_zeros=True)
    split, val = fm._make_cross_fit(val, 5)
    members, _ = fm._default_members(val)
    maps: dict[str, nn.Module] = {fm.RAW: nn.Identity()}
    fitted: dict[str, Any] = {fm.RAW: None}
    for name, (_, member) in members.items():
        maps[name] = fit_checked_map(
            member, split.member_samples(name in fm._EXPENSIVE), member.fit_map
        )
        fitted[name] = member
    log_probs = split.log_probs(fitted, maps, fm._EXPENSIVE)
    prior = fm._member_prior(val, fitted)
    regressions = mf.fit_regressions(split, val.tensors().features, log_probs, prior)
    if regressions is None:
        raise ValueError("no feature varies")
    rows = (
        floor_log_probs(Predictions(torch.from_numpy(case.test).double()), least).tensors().logits
    )
    with torch.no_grad():
        said = torch.stack([maps[name](rows).log_softmax(1) for name in fitted], dim=1)
    share = fit_logit_share(log_probs, prior, split)
    plan = mf.regression_plan(split, val.tensors().features)
    kinds = _kinds(plan, regressions.side)
    features = torch.from_numpy(case.test_inputs).double()
    return Fit(split, log_probs, share, regressions, kinds, said, rows, features)


def _kinds(
    plan: side_plan.RegressionPlan, side: SideInformation
) -> tuple[tuple[str, float, int], ...]:
    """Return basis, ridge and offset of each regression, in the order of the stacks."""
    ridges = [*[("plain", each) for each in plan.ridges if plan.plain]]
    ridges += [("white", each) for each in plan.ridges]
    first = [(*each, offset) for offset in plan.offsets for each in ridges]
    second = [("kernel", each, offset) for offset in plan.offsets for each in plan.ridges]
    return (*first, *(second if side.counts[1] else ()))


Choice = Callable[[str, float, int], bool]
CHOICES: dict[str, Choice] = {
    "auto": lambda *_: True,
    "no plain ridges": lambda basis, *_: basis != "plain",
    "no whitened ridges": lambda basis, *_: basis != "white",
    "no kernel": lambda basis, *_: basis != "kernel",
    "whitened only": lambda basis, *_: basis == "white",
    "plain only": lambda basis, *_: basis == "plain",
    "no fixed offset": lambda _, __, offset: offset == 1,
    "no adaptive offset": lambda _, __, offset: offset == 0,
    "two ridges": lambda _, ridge, __: ridge in (3.0, 30.0),
    "without the weakest ridge": lambda _, ridge, __: ridge > 1,
    "without the strongest ridge": lambda _, ridge, __: ridge < 300,
    "whitened and kernel, adaptive": lambda basis, _, offset: basis != "plain" and offset == 1,
    "whitened and kernel, fixed": lambda basis, _, offset: basis != "plain" and offset == 0,
}


def weighed(found: Fit, choice: Choice, prior: Prior | None = None, gate: str = "auto") -> Tensor:
    """Return log-probabilities of the test rows, with some of the regressions and another prior or gate."""
    count = len(found.log_probs)
    chosen = [index for index, kind in enumerate(found.kinds) if choice(*kind)]
    side = found.regressions.side.select(chosen)
    at = [*range(count), *(count + index for index in chosen)]
    regressions = replace(
        found.regressions,
        side=side,
        log_probs=found.regressions.log_probs[at],
        prior=prior or found.regressions.prior,
        predict_unseen_values=list,
    )
    trust = side.gate.trust.clone()
    regressions = replace(regressions, side=copy.deepcopy(side))  # trust is set in place
    kept, share, _ = mf.weigh_regressions(found.split, regressions, found.log_probs, found.share)
    outside = found.share(found.members)
    if kept is None or share is None:
        return outside
    with torch.no_grad():
        if gate == "no ranges":
            kept.ranges = None
        others, open_ = kept(found.rows, found.features)
        if gate == "no distance":
            open_ = torch.full_like(open_, float(trust))
        elif gate == "none":
            open_ = torch.full_like(open_, 1 - 1e-9)
        inside = share(torch.cat([found.members, others], dim=1))
    return torch.logaddexp(inside + open_.log(), outside + torch.log1p(-open_))


SIZES: dict[str, list[tuple[Any, str, Any]]] = {
    "at most 16 directions": [
        (mf, "choose_plan", lambda *sizes: replace(side_plan.choose_plan(*sizes), rank=16))
    ],
    "50 landmarks": [(side_fit, "LANDMARKS", 50)],
}
"""What is fitted anew."""


def variants(case: stacks.Case) -> Iterator[tuple[str, Callable[[], Tensor]]]:
    """Yield the variants of a case with features."""
    found: list[Fit] = []

    def once() -> Fit:
        if not found:
            found.append(fit(case))
        return found[0]

    for name, choice in CHOICES.items():
        yield name, lambda choice=choice: weighed(once(), choice)
    everything = CHOICES["auto"]
    yield "no features", lambda: once().share(once().members)
    usual = fm._member_prior
    yield (
        "prior of logits",
        lambda: weighed(
            once(), everything, usual(once().split.val, ("as predicted", "temperature"))
        ),
    )
    for gate in ("no ranges", "no distance", "none"):
        yield f"gate: {gate}", lambda gate=gate: weighed(once(), everything, gate=gate)
    for name, changes in SIZES.items():
        yield name, lambda changes=changes: patched(changes, lambda: weighed(fit(case), everything))


def patched(changes: list[tuple[Any, str, Any]], work: Callable[[], Any]) -> Any:
    """Return what ``work`` returns with some functions replaced."""
    patches = [mock.patch.object(*change) for change in changes]
    for patch in patches:
        patch.start()
    try:
        return work()
    finally:
        for patch in patches:
            patch.stop()


def shifted(case: stacks.Case) -> stacks.Case:
    """Return the case fitted below, and tested above, the 70 % quantile of the first principal direction."""
    if case.inputs is None or case.test_inputs is None:
        raise ValueError("a case with inputs")
    center = case.inputs.mean(axis=0)
    axis = np.linalg.svd(case.inputs - center, full_matrices=False)[2][0]
    places = [(each - center) @ axis for each in (case.inputs, case.test_inputs)]
    edge = np.quantile(places[0], 0.7)
    low, high = places[0] <= edge, places[1] > edge
    return replace(
        case,
        group="features, shifted",
        fit=case.fit[low],
        target=case.target[low],
        inputs=case.inputs[low],
        test=case.test[high],
        labels=case.labels[high],
        test_inputs=case.test_inputs[high],
    )


def run_features(args: argparse.Namespace, log: Log) -> None:
    """Score the variants with features, like and unlike the fit."""
    for draw in args.draws:
        for size in (1000, 200):
            for names in (stacks.TWO, stacks.SEVERAL):
                for case in stacks.table_cases(names, draw, (size,), args, MODELS):
                    some = [replace(case, group="features")]
                    some += [shifted(case)] if size == 1000 else []
                    for each in some:
                        for name, work in variants(each):
                            if name not in SIZES or (each.group == "features" and size == 1000):
                                log.run(each, name, work, None)
        print("features", draw, time.strftime("%H:%M"), flush=True)


# Groups.


def no_group_factor(*arguments: Any) -> Any:
    """Fit offsets whose factor does not depend on the group."""
    samples, directions, inputs, temperatures = arguments
    plain = replace(inputs, codes=None, size=0)
    starts, _, factors = FIT_OFFSETS(samples, directions, plain, temperatures)
    return starts, zeros(len(temperatures), inputs.size), factors


FIT_OFFSETS = side_fit.fit_offsets
OF_GROUPS: dict[str, list[tuple[Any, str, Any]]] = {
    "auto": [],
    "no group factor": [(side_fit, "fit_offsets", no_group_factor)],
    "no folds of categories": [(mf, "_predict_unseen_values", lambda *_: [])],
}


def run_groups(args: argparse.Namespace, log: Log) -> None:
    """Score the variants with a group as covariate, for known groups and for new ones."""
    for draw in args.draws:
        for name in KNOWN:
            for kind in ("logistic", "forest"):
                for size in (500, 2000):
                    arrays = grouped.case(name, kind, size, draw)
                    if arrays is None:
                        continue
                    val, *tests = arrays
                    for place, test in zip(("known", "new"), tests, strict=True):
                        _score_group(log, (name, kind, draw, size, place), val, test)
        print("groups", draw, time.strftime("%H:%M"), flush=True)


def _score_group(log: Log, about: tuple[Any, ...], val: Predictions, test: Predictions) -> None:
    name, kind, draw, size, place = about
    case = stacks.Case(
        *(f"groups, {place}", name, kind, draw, size),
        *(val.logits, val.target, test.logits, test.target),
    )

    def of(val: Predictions, test: Predictions) -> Tensor:
        return AutoCalibration().fit(val).transform(test).tensors().logits.double().log_softmax(1)

    for variant, changes in OF_GROUPS.items():
        log.run(case, variant, lambda c=changes: patched(c, lambda: of(val, test)), None)
    log.run(case, "no features", lambda: of(grouped.plain(val), grouped.plain(test)), None)


def main() -> None:
    """Run what the first argument names."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parts = {"features": run_features, "groups": run_groups}
    parser.add_argument("what", choices=parts)
    parser.add_argument("--packages", type=Path, required=True)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--draws", type=int, nargs="+", default=[1])
    parser.add_argument("--frozen", default="")
    parser.add_argument("--log", default="scores-side.jsonl")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    signal.signal(signal.SIGPROF, late)
    parts[args.what](args, Log(args.cache / args.log))


if __name__ == "__main__":
    main()
