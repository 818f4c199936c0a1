"""Models of other libraries: ``timm:NAME``, and transformers classifiers of images or texts from a checkpoint."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from fedlas._core.check import InputError, suggestion
from fedlas._core.extras import require
from fedlas.lab.data.tokens import TOKEN_FIELDS
from fedlas.lab.models.base import LIBRARIES, MODELS, Builder, check_dropout


@LIBRARIES.register("timm", url="https://huggingface.co/docs/timm")
def timm_builder(name: str) -> Builder:
    """Any model of timm by its name; untrained, unless ``model.weights`` names a file.

    Args:
        name: Name in timm, e.g. ``vit_base_patch16_384``, with an optional ``.TAG`` of pre-trained weights.

    Raises:
        InputError: If timm has no such model; the message names the closest one.
    """
    _check_timm_name(name)

    def build(
        num_classes: int,
        in_channels: int,
        *,
        image_size: int = 224,
        dropout: float = 0.0,
        drop_path: float = 0.0,
        global_pool: str | None = None,
    ) -> nn.Module:
        """Return a model of timm.

        Args:
            num_classes: ``C``.
            in_channels: Channels of an image.
            image_size: Height and width of an image; some models accept no other after they are built.
            dropout: Rate of dropout on the features, before the classifier, in [0, 1).
            drop_path: Rate at which residual branches are skipped in training, in [0, 1).
            global_pool: Pooling of the last map or the tokens, e.g. ``avg`` or ``token``; null is the model's own.
        """
        # drop_path, global_pool and img_size are passed only if needed, since many models lack them.
        options: dict[str, Any] = {"drop_rate": check_dropout(dropout)}
        if drop_path:
            options["drop_path_rate"] = check_dropout(drop_path, option="drop_path")
        if global_pool is not None:
            options["global_pool"] = global_pool
        timm = require("timm", extra="timm")
        config = timm.get_pretrained_cfg(name, allow_unregistered=True)
        if config is not None and config.fixed_input_size:
            options["img_size"] = image_size
        try:
            model: nn.Module = timm.create_model(
                name, pretrained=False, num_classes=num_classes, in_chans=in_channels, **options
            )
        except (TypeError, ValueError, AssertionError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            expected = f"timm must accept in_chans={in_channels}, {', '.join(f'{k}={v}' for k, v in options.items())}"
            raise InputError(
                expected, reason, "Choose another image_size or leave the option out."
            ) from error
        return model

    return build


def _check_timm_name(name: str) -> str:
    """Raise InputError unless timm has a model of this name; return the name."""
    timm = require("timm", extra="timm")
    model, dot, _ = name.partition(".")
    if timm.is_model(model) and (not dot or name in timm.list_pretrained(f"{model}.*")):
        return name
    # timm has over a thousand names, so only those with the same first part are suggested.
    names = timm.list_pretrained(f"{model}*") if dot else timm.list_models()
    head = re.split(r"[_.]", name)[0]
    near = [each for each in names if each.startswith(head)] or names
    raise InputError(
        "timm must have a model of that name", repr(f"timm:{name}"), suggestion(name, near)
    )


def load_pretrained(model: Any, folder: Path) -> tuple[set[str], list[str]]:
    """Load a checkpoint into a transformers model, including weights under older names.

    Args:
        model: A ``PreTrainedModel``.
        folder: With ``config.json`` and ``model.safetensors``; nothing else is read, and nothing is downloaded.

    Returns:
        Names of model weights that the checkpoint lacks, and names of checkpoint weights that the model lacks.

    State:
        The weights of the checkpoint are in the model.
    """
    loaded, loading_info = type(model).from_pretrained(
        folder,
        config=model.config,
        ignore_mismatched_sizes=True,
        local_files_only=True,
        use_safetensors=True,
        output_loading_info=True,
    )
    mismatched = {
        name if isinstance(name, str) else name[0] for name in loading_info["mismatched_keys"]
    }
    unfilled = {*loading_info["missing_keys"], *mismatched}
    state = {k: v for k, v in loaded.state_dict().items() if k not in unfilled}
    model.load_state_dict(model.state_dict() | state)
    return unfilled, sorted(loading_info["unexpected_keys"])


@MODELS.register("hf", tokens=True, url="https://huggingface.co/docs/transformers")
def build_hf(
    num_classes: int, in_channels: int, *, image_size: int = 224, checkpoint: str | None = None
) -> nn.Module:
    """Classifier of images or texts of transformers, by a checkpoint's ``config.json``; ``model.weights`` fills it.

    Args:
        num_classes: ``C``; a head of another number starts untrained.
        in_channels: Channels of an image, those of the checkpoint; or fields of tokens.
        image_size: Height and width of an image, that of the checkpoint if it is bound to one; or length of a text.
        checkpoint: Folder that ``save_pretrained`` wrote, which must be given. Nothing is downloaded, and no code in it
            is run.

    Raises:
        InputError: If there is no such folder, it holds no such classifier, or channels or size differ from its own.
    """
    if checkpoint is None or not (Path(checkpoint) / "config.json").is_file():
        expected = "model.checkpoint must be a folder with the config.json of a model"
        fix = "Save one with model.save_pretrained(FOLDER) where there is a network."
        raise InputError(expected, checkpoint, fix)
    transformers: Any = require("transformers", extra="hf")
    try:
        config = transformers.AutoConfig.from_pretrained(
            checkpoint, local_files_only=True, trust_remote_code=False
        )
        config.num_labels = num_classes
        mappings = require("transformers.models.auto.modeling_auto", extra="hf")
        is_image_model = config.model_type in mappings.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES
        kind = "Image" if is_image_model else "Sequence"
        auto = getattr(transformers, f"AutoModelFor{kind}Classification")
        model: nn.Module = auto.from_config(config, trust_remote_code=False)
    except (
        Exception
    ) as error:  # transformers raises many kinds for a configuration it does not know
        expected = "model.checkpoint must hold an image or text classifier that transformers knows"
        got = f"{checkpoint} ({' '.join(str(error).split())[:200]})"
        raise InputError(expected, got, "Choose another checkpoint.") from error
    if not is_image_model:
        max_length = getattr(config, "max_position_embeddings", None) or image_size
        if in_channels not in (2, len(TOKEN_FIELDS)) or image_size > max_length:
            got = f"inputs of shape ({in_channels}, {image_size})"
            fix = "Set data.tokenizer to a module:function that truncates texts."
            raise InputError(f"the model takes at most {max_length} tokens per sequence", got, fix)
        return accept_token_array(model)
    channels = getattr(config, "num_channels", in_channels)
    size = getattr(config, "image_size", image_size)
    if channels != in_channels or size != image_size:
        expected = f"images must match the checkpoint: {channels} channels, {size} x {size}"
        fix = f"Set data.channels={channels} and data.crop={size} or data.image_size={size}."
        raise InputError(expected, f"{in_channels} channels, {image_size} x {image_size}", fix)
    return model


def accept_token_array(model: nn.Module) -> nn.Module:
    """Make the model accept the array of ``token_array`` instead of token fields by name, and return the model.

    State:
        Adds a hook to the model that passes the fields by their names.
    """
    model.register_forward_pre_hook(_unstack_token_fields, with_kwargs=True)
    return model


def _unstack_token_fields(
    model: nn.Module, inputs: tuple[Tensor], _: object
) -> tuple[tuple[()], dict[str, Tensor]]:
    """Pass the fields of a token array to the model by name, as a forward pre-hook."""
    fields = inputs[0].long()
    if bool((fields != inputs[0]).any()):
        fix = "Leave out losses that mix inputs and studies that add noise to inputs."
        raise InputError("tokens must be whole numbers", "fractions", fix)
    words = getattr(getattr(model, "config", None), "vocab_size", None)
    if words is not None and bool((fields[:, 0] >= words).any()):
        fix = "Use the tokenizer of the checkpoint."
        largest = int(fields[:, 0].max())
        raise InputError(
            f"token ids must be below {words:,}, the vocabulary size of the model", largest, fix
        )
    return (), dict(zip(TOKEN_FIELDS, fields.unbind(1), strict=False))
