"""Model and loss as one module; how a model is called, which arguments it takes, and where its logits are."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fedlas._core.check import InputError, check_kinds, describe
from fedlas.features import FeatureTap, find_head, find_pool
from fedlas.features.head import part_of
from fedlas.losses._base import without_autocast

_OFFERED = frozenset({"features", "index", "mixed", "mixed_share", "head_weight"})


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the module inside ``DistributedDataParallel``, ``DataParallel`` and ``torch.compile``, or itself.

    Example:
        >>> unwrapped(nn.DataParallel(nn.Linear(4, 3)))
        Linear(in_features=4, out_features=3, bias=True)
    """
    while True:
        inner = getattr(model, "_orig_mod", None)  # of torch.compile, whose class takes a second to import
        if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            inner = model.module
        if not isinstance(inner, nn.Module):
            return model
        model = inner


@dataclass(frozen=True)
class Arguments:
    """What a model's ``forward`` takes.

    Attributes:
        required: Names without a default, that can be given by position.
        others: Names that need not be given, or must be given by name.
        most: Number of arguments by position; None for any number.
        any_name: Whether it takes any keyword.
    """

    required: tuple[str, ...]
    others: frozenset[str]
    most: int | None
    any_name: bool

    @classmethod
    def of(cls, model: nn.Module) -> Arguments:
        """Return the arguments of a model; for a wrapped one, those of the module inside."""
        try:
            parameters = inspect.signature(unwrapped(model).forward).parameters.values()
        except (TypeError, ValueError):  # compiled by TorchScript, for example: it may take any argument
            return cls((), frozenset(), None, True)
        kinds = inspect.Parameter
        placed = [p for p in parameters if p.kind in (kinds.POSITIONAL_ONLY, kinds.POSITIONAL_OR_KEYWORD)]
        required = tuple(p.name for p in placed if p.default is kinds.empty)
        named = {p.name for p in parameters if p.kind in (kinds.POSITIONAL_OR_KEYWORD, kinds.KEYWORD_ONLY)}
        any_number, any_name = (
            any(p.kind is kind for p in parameters) for kind in (kinds.VAR_POSITIONAL, kinds.VAR_KEYWORD)
        )
        return cls(required, frozenset(named - set(required)), None if any_number else len(placed), any_name)

    def call(self, owner: str, model: nn.Module, inputs: Any, keywords: Mapping[str, Any]) -> Any:
        """Return the model's output for the inputs of a batch.

        Args:
            owner: The calling function, for errors.
            model: The model, wrapped or not.
            inputs: One input; a plain tuple or list of several, in the order of ``forward``; or a mapping from names to
                inputs. A model of one argument gets the whole tuple, and of a mapping with one entry the value.
            keywords: Further keywords.

        Raises:
            InputError: If ``forward`` takes other inputs.
        """
        missing = [name for name in self.required if name not in keywords]
        if isinstance(inputs, Mapping):
            named = dict(inputs)
            if set(missing) <= set(named) and (self.any_name or set(named) <= {*missing, *self.others}):
                return model(**named, **keywords)
            if self.most != 1 and (len(named) != 1 or len(missing) > 1):
                raise self._unfit(owner, model, f"inputs {', '.join(map(str, named))}")
            return model(next(iter(named.values())) if len(named) == 1 else inputs, **keywords)
        count = len(inputs) if type(inputs) in (tuple, list) else 1
        if count > 1 and len(missing) <= count and (self.most is None or count <= self.most):
            return model(*inputs, **keywords)
        if len(missing) > 1:
            raise self._unfit(owner, model, "one input" if count == 1 else f"{count} inputs")
        return model(inputs, **keywords)

    def _unfit(self, owner: str, model: nn.Module, got: str) -> InputError:
        names = ", ".join((*self.required, *(f"{name}=" for name in sorted(self.others))))
        return InputError(
            owner,
            f"a batch must hold the inputs that {type(unwrapped(model)).__name__}.forward takes, ({names})",
            got,
            "Pass several inputs as one tuple, ((a, b), target), or by name, {'a': a, 'b': b, 'label': target}.",
        )


def logits_of(owner: str, output: object) -> Tensor:
    """Return the logits in a model's output: itself, its ``.logits``, or its entry ``"logits"`` or ``"out"``.

    Raises:
        InputError: If the output has no logits.
    """
    logits = output if isinstance(output, Tensor) else getattr(output, "logits", None)
    if logits is None and isinstance(output, Mapping):
        logits = output.get("logits", output.get("out"))  # "out": the segmentation models of torchvision
    if isinstance(logits, Tensor):
        return logits
    raise InputError(
        owner,
        "the model must return logits, or an object with .logits",
        type(output).__name__,
        "Wrap the model in a module that returns the logits.",
    )


def class_logits(owner: str, output: object) -> Tensor:
    """Return logits ``(N, C, ...)`` of a model's output; a single output is the logit of the second of two classes.

    A model with one output, ``(N,)`` or ``(N, 1, ...)`` as for ``nn.BCEWithLogitsLoss``, gets a first class with logit
    0, so that the softmax over both is the sigmoid of the output.

    Raises:
        InputError: If the output has no logits.

    Example:
        >>> import torch
        >>> class_logits("predict", torch.tensor([[2.0], [-1.0]])).tolist()
        [[0.0, 2.0], [0.0, -1.0]]
    """
    logits = logits_of(owner, output)
    logits = logits.unsqueeze(1) if logits.ndim == 1 else logits
    return torch.cat([torch.zeros_like(logits), logits], dim=1) if logits.ndim > 1 and logits.shape[1] == 1 else logits


class Objective(nn.Module):
    """Calls a model and a criterion, and passes the criterion its needs.

    Pass this one module to the optimizer, DDP and ``torch.compile``, and call ``.to()``, ``.train()`` and
    ``state_dict`` on it. DDP around the model alone would give every rank a separate gate and running statistics.

    Args:
        model: Classifier from inputs to logits ``(N, C)`` or ``(N, C, d1, ...)``, or to an object with ``.logits``.
            Classes are the second axis; a model with ``(N, L, C)`` needs a wrapper that transposes.
        criterion: Called as ``criterion(logits, target, **needs)``; any loss of this library, ``nn.CrossEntropyLoss``,
            or a module whose attribute ``needs`` is a subset of ``{"features", "index", "mixed", "mixed_share",
            "head_weight"}``. If it has a method ``mix(inputs, target)``, it is trained on the
            :class:`~fedlas.losses.Mixed` that it returns.
        head: The classifier head, if the criterion or a monitor needs features: its dotted name, the module, or None to
            find it.
        features: Features for the criterion: ``"head"``, the head's input ``(N, D)``; ``"map"``, the input of the
            global pool, all positions of a sample in one row ``(N, D * H * W)``; or a module (or its dotted name) whose
            input is such a map, if the pool is not found.
        penalty: Called as ``penalty(model)`` after each forward pass in training mode, outside autocast. Its scalar
            result is added to the loss: a prior on the weights, or orthogonality to another model.

    State:
        Parameters and buffers of all under ``model.``, ``criterion.`` and ``penalty.``; ``model.state_dict()`` keeps
        its own keys.

    Raises:
        InputError: If one of them is not a module, the criterion has an unknown need, or it needs features and no head,
            or more than one, is found; or ``features`` is given and not needed, or there is no such map.

    Note:
        If a map has no negative values, as after ReLU, its L1 norm is ``H * W`` times that of its mean, and an
        indicator standardizes this factor away. Features before and after the pool then differ only in other norms
        (``norm_p``); those of a map with signs differ in every norm. Losses that need ``head_weight`` take only the
        head's input, which must fit the head.

        Several threads may call one objective: the criterion gets the features of the thread's own forward pass. The
        threads share the state that a criterion learns in training mode, such as running statistics, without a lock.

    Example:
        >>> import torch
        >>> from fedlas.losses import FedLAS
        >>> _ = torch.manual_seed(0)
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
        >>> objective = Objective(model, FedLAS(num_classes=3), head="2")
        >>> loss, logits = objective(torch.randn(5, 4), torch.tensor([0, 1, 2, 0, 1]))
        >>> loss.ndim, logits.shape
        (0, torch.Size([5, 3]))
    """

    def __init__(
        self,
        model: nn.Module,
        criterion: nn.Module,
        head: str | nn.Module | None = None,
        *,
        features: str | nn.Module = "head",
        penalty: nn.Module | None = None,
    ) -> None:
        super().__init__()
        # Checks: three modules, known needs, and features that the criterion can use.
        for name, module in (("model", model), ("criterion", criterion), ("penalty", penalty)):
            if not isinstance(module, nn.Module) and not (name == "penalty" and module is None):
                raise InputError(
                    "Objective",
                    f"the {name} must be an nn.Module",
                    describe(module),
                    "Build it first, e.g. Objective(resnet18(), FedLAS(num_classes=10)).",
                )
        self.model = model
        self.criterion = criterion
        self.penalty = penalty
        self.needs: frozenset[str] = frozenset(getattr(criterion, "needs", ()))
        if not self.needs <= _OFFERED:
            raise InputError(
                "Objective",
                f"the criterion's needs must be out of {sorted(_OFFERED)}",
                sorted(self.needs),
                "Call model and criterion yourself, and pass the criterion its needs.",
            )
        if features != "head" and self.needs & {"features", "head_weight"} != {"features"}:
            raise InputError(
                "Objective",
                "features can be chosen for a criterion that needs features and no head_weight",
                f"features={features!r} for needs {sorted(self.needs)}",
                "Leave features out.",
            )

        self._arguments = Arguments.of(model)

        # Where the criterion reads its features, and the weight of the head.
        self._tap: FeatureTap | None = None
        self._named_head = [head]  # in lists, so that modules are not registered a second time
        self._head: list[nn.Module] = []
        self._read: list[nn.Module] = []
        if self.needs & {"features", "head_weight"}:
            head_module = self._find_head()
            if "features" in self.needs:
                of_head = isinstance(features, str) and features == "head"
                if of_head:
                    read = head_module
                else:
                    is_map = isinstance(features, str) and features == "map"
                    read = find_pool(model) if is_map else part_of("Objective", "features", model, features)
                self._tap = FeatureTap(read, flatten=not of_head)
                self._read.append(read)
            if "head_weight" in self.needs:
                _check_linear(head_module)
            self._head.append(head_module)

    def forward(
        self, inputs: Any, target: Tensor, *, index: Tensor | None = None, **model_kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Return the loss and logits of a batch.

        Args:
            inputs: First argument of the model; several as a tuple, or a mapping from its arguments' names to them.
            target: In a form that the criterion takes.
            index: Position of each sample in the training set ``(N,)``, for criteria that need it.
            **model_kwargs: Passed to the model.

        Returns:
            ``(loss, logits)``; logits of the mixed batch in training, if the criterion mixes.

        Raises:
            TypeError: If the criterion needs ``index`` and it was not passed.
            InputError: As the criterion; or if the head did not run exactly once, or the model returned no logits.
        """
        # In training a criterion may replace the batch by a mixed one.
        mix = getattr(self.criterion, "mix", None) if self.training else None
        mixed = None
        if mix is not None:
            mixed = mix(inputs, target)
            inputs, target = mixed.inputs, mixed.target
        # The tensors that the criterion needs.
        logits, features = self._logits(inputs, model_kwargs)
        extra: dict[str, Tensor] = {}
        if features is not None:
            extra["features"] = features
        if mixed is not None and mixed.views:
            extra["mixed"] = torch.stack([self._logits(view, model_kwargs)[0] for view in mixed.views], dim=1)
            if "mixed_share" in self.needs:
                extra["mixed_share"] = mixed.shares
        if "head_weight" in self.needs:
            extra["head_weight"] = self._head[0].weight  # type: ignore[assignment]  # checked to be a matrix
        if index is not None and "index" in self.needs:
            extra["index"] = index
        loss = self.criterion(logits, target, **extra)
        if self.penalty is not None and self.training:
            with without_autocast(logits.device.type):
                loss = loss + self.penalty(self.model)
        return loss, logits

    @check_kinds
    def head_in(self, model: nn.Module) -> nn.Module | None:
        """Return the module of a model's copy whose input the criterion reads: head or pool; None if neither."""
        return model.get_submodule(self._name_of(self._read[0])) if self._read else None

    @check_kinds
    def classifier_in(self, model: nn.Module) -> nn.Module:
        """Return the classifier head in a copy of the model, whether or not the criterion needs features.

        Raises:
            InputError: If no head was named, and none or more than one is found.
        """
        return model.get_submodule(self._name_of(self._find_head()))

    def _find_head(self) -> nn.Module:
        return find_head(self.model, self._named_head[0], num_classes=getattr(self.criterion, "num_classes", None))

    def _name_of(self, part: nn.Module) -> str:
        """Return the dotted name of a module inside the model; empty if the model has no such part."""
        return next((name for name, module in self.model.named_modules() if module is part), "")

    def _call(self, inputs: Any, model_kwargs: dict[str, Any]) -> Any:
        return self._arguments.call("Objective", self.model, inputs, model_kwargs)

    def _logits(self, inputs: Any, model_kwargs: dict[str, Any]) -> tuple[Tensor, Tensor | None]:
        """Return logits, and the head's input if the criterion needs it."""
        tap = self._tap
        if tap is None:
            return logits_of("Objective", self._call(inputs, model_kwargs)), None
        tap.start()
        try:
            output = self._call(inputs, model_kwargs)
        except BaseException:
            tap.cancel()  # otherwise later passes would keep their activations alive
            raise
        features, logits = tap.stop(), logits_of("Objective", output)
        if features.ndim > logits.ndim == 2:
            named = self._name_of(self._read[0])
            raise InputError(
                "Objective",
                "the head's input must be (N, D), since the logits are (N, C)",
                f"{tuple(features.shape)}: {named!r} runs on a map that is pooled after it",
                f"Pass features={named!r} to hand over all positions of a sample in one row.",
            )
        return logits, features


def objective_in(owner: str, module: nn.Module) -> Objective:
    """Return the objective, also from ``DistributedDataParallel``, ``DataParallel`` or ``torch.compile``.

    Raises:
        InputError: If there is none.
    """
    inner = unwrapped(module) if isinstance(module, nn.Module) else module
    if isinstance(inner, Objective):
        return inner
    raise InputError(
        owner,
        "it takes an Objective, or one wrapped for several processes or by torch.compile",
        type(inner).__name__,
        "Wrap the model first: Objective(model, criterion).",
    )


def network_of(module: nn.Module) -> nn.Module:
    """Return the classifier in a module: that of an :class:`Objective`, without wrappers."""
    inner = unwrapped(module)
    return unwrapped(inner.model) if isinstance(inner, Objective) else inner


def _check_linear(head: nn.Module) -> None:
    weight = getattr(head, "weight", None)
    if not isinstance(weight, Tensor) or weight.ndim != 2:
        raise InputError(
            "Objective",
            "the head must be a linear layer, since the criterion needs its weight (C, D)",
            head,
            "Name the linear layer that makes the logits, e.g. head='classifier.3'.",
        )
