"""Hugging Face: the criterion's state in the checkpoints of a Trainer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from fedlas._core.check import InputError
from fedlas._core.extras import require
from fedlas._core.files import write_atomically

CRITERION_FILE = "criterion.pt"
"""Name of the file with gate and NCI, in each checkpoint and next to a saved model."""


class CriterionCheckpoints:
    """Saves and loads ``criterion`` with the model of a Hugging Face ``Trainer``; a base of ``CriterionMixin``."""

    criterion: nn.Module
    _owner: str
    _untranslated = False

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """As the Trainer, and the criterion's state next to the model."""
        parent: Any = super()
        parent.save_model(output_dir, _internal_call=_internal_call)
        args: Any = self.args  # type: ignore[attr-defined]  # the Trainer's
        if args.should_save:
            path = Path(output_dir or args.output_dir) / CRITERION_FILE
            write_atomically(path, lambda file: torch.save(self.criterion.state_dict(), file))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        parent: Any = super()
        self._untranslated = False
        parent._load_from_checkpoint(resume_from_checkpoint, model)
        self._load_rest(resume_from_checkpoint)

    def _load_best_model(self) -> None:
        parent: Any = super()
        self._untranslated = False
        parent._load_best_model()
        state: Any = self.state  # type: ignore[attr-defined]  # the Trainer's
        self._load_rest(state.best_model_checkpoint)

    def _issue_warnings_after_load(self, load_result: Any) -> None:
        # transformers 5 saves some models (ViT) under the keys of older releases, and the Trainer loads them without
        # translating: weights stay as they were. from_pretrained translates, so it loads what is missing.
        this: Any = self
        model = this.accelerator.unwrap_model(this.model)
        if load_result.missing_keys and isinstance(model, require("transformers", extra="hf").PreTrainedModel):
            self._untranslated = True
            return
        parent: Any = super()
        parent._issue_warnings_after_load(load_result)

    def _load_rest(self, folder: str) -> None:
        # The model: transformers may have renamed weights on the way to disk, so it translates them back.
        if self._untranslated:
            this: Any = self
            model = this.accelerator.unwrap_model(this.model)
            translated, about = type(model).from_pretrained(
                folder, config=model.config, dtype=model.dtype, local_files_only=True, output_loading_info=True
            )
            if about["missing_keys"]:
                raise InputError(
                    self._owner,
                    "a checkpoint must hold every weight of the model",
                    f"{folder} without {', '.join(sorted(about['missing_keys'])[:5])}",
                    "Resume with the model that wrote it.",
                )
            model.load_state_dict(translated.state_dict())
        # The criterion: its state lies next to the model's.
        path = Path(folder) / CRITERION_FILE
        if path.exists():
            self.criterion.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
        elif self.criterion.state_dict():
            raise InputError(
                self._owner,
                f"a checkpoint must hold the criterion's state in {CRITERION_FILE}",
                f"{folder} without it",
                "Resume from a checkpoint that this Trainer wrote, with the same criterion.",
            )
