"""A bench in Python: data sets, models and losses as objects, runs in a folder that resumes, a result to show."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from fedlas._core.check import InputError, check_count, check_kinds
from fedlas._core.files import check_name, checked_path
from fedlas._core.terminal import passing_lines
from fedlas.lab.benches.run_all import run_all
from fedlas.lab.recipes.objects import recipe_of_objects
from fedlas.lab.recipes.plan import Run, plan
from fedlas.lab.report.after_calibrators import RAW, check_calibrators
from fedlas.lab.report.result import BenchResult, bench_result

Builder = Callable[..., nn.Module]


@check_kinds
def bench(
    train: Any,
    val: Any,
    test: Any,
    *,
    models: Mapping[str, Builder | None],
    losses: Sequence[str] | Mapping[str, Builder | None],
    out: str | Path,
    seeds: int | Sequence[int] = 5,
    calibrators: Sequence[str] = (RAW,),
    settings: Mapping[str, Any] | None = None,
    name: str = "bench",
) -> BenchResult:
    """Train every model with every loss and seed, calibrate it, and compare the outcomes by paired tests over seeds.

    Nothing is divided: seeds change the order of the data and the initial weights, equally for every loss.

    Args:
        train: ``Dataset`` of ``(input, class index)``, or a pair ``(inputs, target)`` of arrays or tensors: float32 of
            any shape, or uint8 images. Inputs may be the output of a tokenizer of transformers, whose fields the models
            take by name.
        val: As ``train``; epochs and calibrators are chosen on it.
        test: As ``train``; what is reported is measured on it.
        models: Functions that build a model, by name; they may take ``num_classes``. None builds the registered model
            of that name, such as ``mlp``.
        losses: Registered losses; or functions that build losses by name, None for the registered one of that name.
        out: Folder of the runs, with a folder for each model.
        seeds: Number of seeds, from 0 on, or the seeds.
        calibrators: Registered calibrators, or ``raw`` for none; each becomes a method of every loss.
        settings: Sections of a recipe, such as ``{"train": {"epochs": 20}, "optimizer": {"lr": 0.05}}``.
        name: Name of the data in tables.

    Returns:
        The result, which a notebook shows; see :class:`BenchResult`. A run that failed is named there.

    Raises:
        InputError: Before anything starts: for data, models, losses, calibrators or settings that cannot be used, or a
            folder with runs of other settings or data. Or, after the runs, if none of a model finished.

    State:
        Everything is in ``out``. The same call resumes: a run that was killed ends as an undisturbed one, bit for bit,
        and what is finished is not computed again.

    Example:
        >>> import torch, tempfile
        >>> x = torch.randn(90, 2, generator=torch.Generator().manual_seed(0))
        >>> data = (x, (x[:, 0] > 0).long())
        >>> folder = tempfile.mkdtemp()
        >>> result = bench(data, data, data, models={"linear": None}, losses=["ce"], out=folder,
        ...     seeds=1, settings={"train": {"epochs": 1, "batch_size": 30}})
        >>> result.to_frame().shape[0]
        1
    """
    check_calibrators(calibrators)
    folder = checked_path(out)
    chosen = range(check_count("seeds", seeds)) if isinstance(seeds, int) else seeds
    own = {n: b for n, b in losses.items() if b} if isinstance(losses, Mapping) else {}
    if not models:
        raise InputError("models must name at least one", models, "Pass e.g. {'mlp': None}.")
    runs: list[Run] = []
    folders = {}
    for model, build in models.items():
        folders[model] = folder / check_name("the model", model, "Rename it: it names a folder.")
        recipe = recipe_of_objects(
            train, val, test, build, name=name, model_name=model, settings=settings, losses=own
        )
        runs += plan(recipe, losses=list(losses), seeds=chosen, out=folders[model])
    failures = {}
    with passing_lines() as console:
        for model, place in folders.items():
            planned = [run for run in runs if run.recipe.model.name == model]
            outcome = run_all(planned, console=console)
            outcome.check_finished(place)
            failures[model] = outcome.failed
    return bench_result(folders, calibrators, name=name, kind="models", failures=failures)
