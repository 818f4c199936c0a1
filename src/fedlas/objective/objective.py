"""Training objective: model, criterion and penalty as one module."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from fedlas._core.autocast import without_autocast
from fedlas._core.check import InputError, check_number, describe, to_array, warn_user
from fedlas._core.kinds import check_argument_types
from fedlas.features import FeatureTap, find_head, find_pool
from fedlas.features.head import HeadNotFoundError, find_submodule
from fedlas.features.readers import find_head_by_run
from fedlas.objective.call import ForwardArguments, eval_mode, extract_logits, unwrap_model
from fedlas.predictions.probabilities import are_probabilities

_KNOWN_NEEDS = frozenset({"features", "index", "mixed", "mixed_share", "head_weight"})


class Objective(nn.Module):
    """Model and criterion as one module, which passes the criterion the inputs that it needs.

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
            find it: by its place in the model, or as the module whose output is the logits of the first batch.
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
            or more than one, is found, at the latest in the first batch; or ``features`` is given and not needed, or
            there is no such map.

    Warns:
        CalibrationWarning: In the first training batch, if the model returns probabilities in place of logits.

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
                    f"the {name} must be an nn.Module",
                    describe(module),
                    "Build it first, e.g. Objective(resnet18(), FedLAS(num_classes=10)).",
                )
        self.model = model
        self.criterion = criterion
        self.penalty = penalty
        self.needs: frozenset[str] = frozenset(getattr(criterion, "needs", ()))
        if not self.needs <= _KNOWN_NEEDS:
            raise InputError(
                f"the criterion's needs must be a subset of {sorted(_KNOWN_NEEDS)}",
                sorted(self.needs),
                "Call model and criterion yourself, and pass the other inputs to the criterion.",
            )
        if not isinstance(features, str | nn.Module):
            raise InputError(
                "features must name a module of the model",
                describe(features),
                "Pass 'head', 'map', the module, or its dotted name.",
            )
        if features != "head" and self.needs & {"features", "head_weight"} != {"features"}:
            raise InputError(
                "features must be 'head' unless the criterion needs features and no head_weight",
                f"features={features!r} for a criterion that needs {sorted(self.needs)}",
                "Leave features out.",
            )

        self._arguments = ForwardArguments.from_model(model)
        self._logits_seen = False

        # Where the criterion reads its features, and the weight of the head.
        self._tap: FeatureTap | None = None
        self._head_argument = [head]  # in lists, so that modules are not registered a second time
        self._heads_found: list[nn.Module] = []
        self._feature_modules: list[nn.Module] = []
        self._features = [features]
        self._head_is_pending = False
        if self.needs & {"features", "head_weight"}:
            try:
                self._read_from_head(self._find_head())
            except HeadNotFoundError:
                if next(model.parameters(), None) is None:
                    raise
                self._head_is_pending = True  # the head is found on the first batch

    def _read_from_head(self, head: nn.Module) -> None:
        """Read the criterion's inputs from this head, or from the feature map that was named."""
        features = self._features[0]
        if "features" in self.needs:
            of_head = isinstance(features, str) and features == "head"
            if of_head:
                module = head
            else:
                is_map = isinstance(features, str) and features == "map"
                module = (
                    find_pool(self.model)
                    if is_map
                    else find_submodule("features", self.model, features)
                )
            self._tap = FeatureTap(module, flatten=not of_head)
            self._feature_modules.append(module)
        if "head_weight" in self.needs:
            _check_linear(head)
        self._heads_found.append(head)
        self._head_is_pending = False

    def _find_head_by_run(self, inputs: object, model_kwargs: dict[str, Any]) -> None:
        """Find the head by running the model on a batch; no weight, buffer or mode changes."""
        if torch.compiler.is_compiling():
            self._find_head()  # no tracer follows the search, so the error asks for the name
        with eval_mode(self.model):
            head = find_head_by_run(
                self.model, lambda: extract_logits(self._call_model(inputs, model_kwargs))
            )
        self._read_from_head(self._find_head() if head is None else head)

    def forward(
        self, inputs: object, target: Tensor, *, index: Tensor | None = None, **model_kwargs: Any
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
            inputs = mixed.inputs
            target = mixed.target
        # The tensors that the criterion needs.
        logits, features = self._logits_and_features(inputs, model_kwargs)
        if self.training and not self._logits_seen and not torch.compiler.is_compiling():
            self._warn_if_softmax(logits)
        extra: dict[str, Tensor] = {}
        if features is not None:
            extra["features"] = features
        if mixed is not None and mixed.views:
            extra["mixed"] = torch.stack(
                [self._logits_and_features(view, model_kwargs)[0] for view in mixed.views], dim=1
            )
            if "mixed_share" in self.needs:
                extra["mixed_share"] = mixed.shares
        if "head_weight" in self.needs:
            extra["head_weight"] = self._heads_found[0].weight  # type: ignore[assignment]  # checked to be a matrix
        if index is not None and "index" in self.needs:
            extra["index"] = index
        loss = self.criterion(logits, target, **extra)
        if self.penalty is not None and self.training:
            with without_autocast(logits.device.type):
                loss = loss + self.penalty(self.model)
        return loss, logits

    def _warn_if_softmax(self, logits: Tensor) -> None:
        """Warn once, in the first training batch, if the model returns probabilities instead of logits."""
        self._logits_seen = True
        if logits.ndim > 1 and are_probabilities(
            to_array("logits", logits.movedim(1, -1).flatten(0, -2))
        ):
            warn_user(
                "Objective: the model must return logits; got probabilities (rows in [0, 1] that sum to 1). Remove the "
                "final softmax of the model: the loss applies its own, and two in a row shrink the gradients."
            )

    @check_argument_types
    def find_feature_module(self, model: nn.Module) -> nn.Module | None:
        """Return the module, in a copy of the model, whose input the criterion reads (head or pool), or None.

        Raises:
            InputError: If the module is only known after a batch, and no batch was run yet; or if the model lacks it.
        """
        if self._head_is_pending:
            self._find_head()
        modules = self._feature_modules
        return self._find_in_copy(model, modules[0]) if modules else None

    @check_argument_types
    def find_classifier(self, model: nn.Module) -> nn.Module:
        """Return the classifier head in a copy of the model, whether or not the criterion needs features.

        Raises:
            InputError: If no head was named, and none or more than one is found; or if the model lacks it.
        """
        head = self._heads_found[0] if self._heads_found else self._find_head()
        return self._find_in_copy(model, head)

    def _find_head(self) -> nn.Module:
        return find_head(
            self.model,
            self._head_argument[0],
            num_classes=getattr(self.criterion, "num_classes", None),
        )

    def _find_in_copy(self, model: nn.Module, part: nn.Module) -> nn.Module:
        """Return the submodule of a copy of the model that corresponds to ``part`` of the model."""
        try:
            return model.get_submodule(self._module_name(part))
        except AttributeError as error:
            raise InputError(
                "must be a copy of the model of this objective",
                f"{type(model).__name__} ({error})",
                "Pass copy.deepcopy(objective.model), or an average of it.",
                argument="model",
            ) from error

    def _module_name(self, part: nn.Module) -> str:
        """Return the dotted name of a submodule of the model; empty if the model does not contain it."""
        return next((name for name, module in self.model.named_modules() if module is part), "")

    def _call_model(self, inputs: object, model_kwargs: dict[str, Any]) -> Any:
        return self._arguments.call(self.model, inputs, model_kwargs)

    def _logits_and_features(
        self, inputs: object, model_kwargs: dict[str, Any]
    ) -> tuple[Tensor, Tensor | None]:
        """Return logits, and the head's input if the criterion needs features, else None."""
        if self._head_is_pending:
            self._find_head_by_run(inputs, model_kwargs)
        tap = self._tap
        if tap is None:
            return extract_logits(self._call_model(inputs, model_kwargs)), None
        tap.start()
        try:
            output = self._call_model(inputs, model_kwargs)
        except BaseException:
            tap.cancel()  # otherwise later passes would keep their activations alive
            raise
        features = tap.stop()
        logits = extract_logits(output)
        if features.ndim > logits.ndim == 2:
            named = self._module_name(self._feature_modules[0])
            raise InputError(
                "the head's input must be (N, D), since the logits are (N, C)",
                f"{tuple(features.shape)}: the input of {named!r} is a feature map that is pooled later",
                f"Pass features={named!r} to flatten all positions of a sample into one row.",
            )
        return logits, features


def unwrap_objective(module: nn.Module) -> Objective:
    """Return the ``Objective``, unwrapped from ``DistributedDataParallel``, ``DataParallel`` or ``torch.compile``.

    Raises:
        InputError: If there is none.
    """
    inner = unwrap_model(module) if isinstance(module, nn.Module) else module
    if isinstance(inner, Objective):
        return inner
    raise InputError(
        "objective must be an Objective, possibly wrapped by DDP, DataParallel or torch.compile",
        type(inner).__name__,
        "Wrap the model first: Objective(model, criterion).",
    )


def _check_linear(head: nn.Module) -> None:
    """Raise InputError unless the head has a weight matrix."""
    weight = getattr(head, "weight", None)
    if not isinstance(weight, Tensor) or weight.ndim != 2:
        raise InputError(
            "the head must be a linear layer, because the criterion needs its weight (C, D)",
            head,
            "Pass the linear layer that outputs the logits, e.g. head='classifier.3'.",
        )


@check_argument_types
def param_groups(
    objective: Objective | nn.Module,
    *,
    weight_decay: float = 0.0,
    lr: float | None = None,
    decay_criterion: bool = False,
) -> list[dict[str, Any]]:
    """Return parameter groups for an optimizer: the model's, and the criterion's without weight decay.

    Args:
        objective: An :class:`Objective`, or one wrapped by ``DistributedDataParallel``, ``DataParallel`` or
            ``torch.compile``.
        weight_decay: Weight decay of the model's group.
        lr: Learning rate of the criterion's group; None uses that of the optimizer.
        decay_criterion: Whether the weight decay applies to the criterion too, as in the published FedLAS code.

    Returns:
        One group, or two if the criterion has trainable parameters; each has a ``name``.

    Raises:
        InputError: If it is no objective, or weight_decay or lr is not a number of at least 0.

    Example:
        >>> from fedlas.objective import Objective
        >>> from fedlas.losses import FedLAS
        >>> objective = Objective(nn.Linear(4, 3), FedLAS(num_classes=3))
        >>> [(g["name"], g["weight_decay"]) for g in param_groups(objective, weight_decay=5e-4)]
        [('model', 0.0005), ('criterion', 0.0)]
    """
    inner = unwrap_objective(objective)
    return make_param_groups(
        inner.model,
        inner.criterion,
        weight_decay=weight_decay,
        lr=lr,
        decay_criterion=decay_criterion,
    )


def make_param_groups(
    model: nn.Module,
    criterion: nn.Module,
    *,
    weight_decay: float,
    lr: float | None,
    decay_criterion: bool = False,
) -> list[dict[str, Any]]:
    """Return the parameter groups of a separate model and criterion; see :func:`param_groups`."""
    check_number("weight_decay", weight_decay, low=0)
    if lr is not None:
        check_number("lr", lr, low=0)
    weights = [p for p in model.parameters() if p.requires_grad]
    model_ids = set(map(id, weights))
    criterion_params = [
        p for p in criterion.parameters() if p.requires_grad and id(p) not in model_ids
    ]
    groups: list[dict[str, Any]] = [
        {"name": "model", "params": weights, "weight_decay": weight_decay}
    ]
    if criterion_params:
        decay = weight_decay if decay_criterion else 0.0
        groups.append({"name": "criterion", "params": criterion_params, "weight_decay": decay})
        if lr is not None:
            groups[-1]["lr"] = lr
    return groups
