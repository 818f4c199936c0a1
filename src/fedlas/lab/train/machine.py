"""What suits a machine: the precision and the memory layout of a training step, and a step that is far too slow."""

from __future__ import annotations

from dataclasses import replace

import torch

from fedlas._core.check import InputError
from fedlas.lab.train.config import Precision, TrainConfig

__all__ = ["emulation_warning", "native_precision", "precision_text", "suited"]

_CPU_UNITS = {"_is_amx_tile_supported": "AMX", "_is_avx512_bf16_supported": "AVX512-BF16"}


def native_precision(device: torch.device) -> tuple[Precision, str]:
    """The precision that ``train.precision=auto`` stands for on a device, and why.

    Returns:
        ``bf16`` where the device multiplies bfloat16 numbers in hardware, else ``fp32``; and the reason.

    Note:
        A GPU has bf16 from compute capability 8 (Ampere) on, or if it runs under ROCm; torch is asked without
        emulation. A processor has it with the instruction sets AMX or AVX512-BF16, as torch reads them from the
        processor itself. Nothing is timed, so the answer does not depend on what else the machine is doing. Any other
        device, Apple's and ARM processors included, gets fp32: bf16 was never measured there.
    """
    if device.type == "cuda":
        with torch.cuda.device(device):
            native = torch.cuda.is_bf16_supported(including_emulation=False)
            name = torch.cuda.get_device_name()
        return ("bf16", f"{name} computes bf16 natively") if native else ("fp32", f"{name} only emulates bf16")
    if device.type == "cpu":
        # Releases of torch that lack one of these questions get fp32, which is never slow.
        units = [unit for question, unit in _CPU_UNITS.items() if getattr(torch.cpu, question, bool)()]
        if units:
            return "bf16", f"the processor has {' and '.join(units)}"
        return "fp32", f"the processor has neither {' nor '.join(_CPU_UNITS.values())}"
    return "fp32", f"bf16 is not measured on {device.type}"


def suited(config: TrainConfig, device: torch.device) -> TrainConfig:
    """The configuration with what it leaves open decided for a device: ``precision=auto``, ``channels_last=null``.

    Raises:
        InputError: For bf16 on a device for which torch has no autocast: it would be fp32 without a word.
    """
    precision: Precision = native_precision(device)[0] if config.precision == "auto" else config.precision
    if precision == "bf16" and not torch.amp.is_autocast_available(device.type):
        raise InputError(
            "train.precision",
            "bf16 needs a device with autocast",
            f"{device.type}, for which this torch has none",
            "Resume the run on a processor or a CUDA GPU, or start another with --precision fp32 and a new --out.",
        )
    layout = device.type in ("cpu", "cuda") if config.channels_last is None else config.channels_last
    return replace(config, precision=precision, channels_last=layout)


def precision_text(used: Precision, asked: Precision, device: torch.device) -> str:
    """The precision of a run and why it has it, such as ``bf16 (auto: the processor has AVX512-BF16)``."""
    native, why = native_precision(device)
    if asked == "auto":
        reason = f"auto: {why}" if used == native else "auto: as the run, or one beside it, began"
    else:
        reason = "of the recipe"
    slow = "" if emulation_warning(used, device) is None else "; emulated here, which is slow"
    return f"{used} ({reason}{slow})"


def emulation_warning(precision: Precision, device: torch.device) -> str | None:
    """What to tell a user who trains in bf16 on a device that only emulates it; None where there is nothing to tell."""
    native, why = native_precision(device)
    if precision != "bf16" or native == "bf16":
        return None
    return (
        f"train.precision=bf16 is emulated here and takes about eight times as long as fp32 ({why}). "
        "To be fast, train with --precision fp32 in a new --out."
    )
