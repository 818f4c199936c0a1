"""Backbones by name.

In it: small networks of our own, torchvision's, timm's and Hugging Face's, and pre-trained weights from a file.
In: a registry name (or ``timm:NAME``), classes, channels and image size. Out: a module from images to logits.
"""

from __future__ import annotations

# Importing a module registers its models.
from fedlas.lab.models import airnet, library_models, mlp, residual, torchvision_models  # noqa: F401
from fedlas.lab.models.base import LIBRARIES, MODELS, build_model
from fedlas.lab.models.weights import load_weights, weights_digest

__all__ = ["LIBRARIES", "MODELS", "build_model", "load_weights", "weights_digest"]
