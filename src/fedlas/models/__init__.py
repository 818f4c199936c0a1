"""Backbones for small images, by name."""

from __future__ import annotations

# Importing a module registers its models.
from fedlas.models import mlp, resnet_small, resnet_torchvision  # noqa: F401
from fedlas.models.base import MODELS, Builder, build_model

__all__ = ["MODELS", "Builder", "build_model"]
