"""Hugging Face Trainer: a small vision transformer, built here, trained in two runs with a stop between.

Run it with: python examples/huggingface_trainer.py.
"""

import tempfile

import torch
from noisy_digits import data_sets, show
from torch import nn
from transformers import TrainingArguments, ViTConfig, ViTForImageClassification, set_seed
from transformers.trainer_utils import get_last_checkpoint
from transformers.utils.logging import disable_progress_bar

from fedlas.integrations.huggingface import ComputeMetrics, CriterionTrainer
from fedlas.losses import FedLAS


def collate(samples):
    """What an image processor and its collator return."""
    images, target = zip(*samples, strict=True)
    return {"pixel_values": torch.stack(images), "labels": torch.stack(target)}


def trainer(criterion, folder):
    """The usual Trainer; only the criterion and the metrics are new."""
    set_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = ViTConfig(image_size=8, patch_size=2, num_channels=1, num_labels=10, **sizes)
    options = {
        "num_train_epochs": 40,
        "learning_rate": 3e-3,
        "weight_decay": 0.01,
        "save_strategy": "steps",
        "save_steps": 240,
    }
    options |= {"per_device_train_batch_size": 25, "gradient_accumulation_steps": 2, "save_total_limit": 1}
    options |= {"report_to": "none", "disable_tqdm": True, "logging_strategy": "no", "use_cpu": True}
    train_set, _, test_set = data_sets(noise=0.1, shape=(1, 8, 8))
    return CriterionTrainer(
        ViTForImageClassification(config),
        TrainingArguments(folder, remove_unused_columns=False, **options),
        criterion=criterion,
        train_dataset=train_set,
        eval_dataset=test_set,
        data_collator=collate,
        compute_metrics=ComputeMetrics(["accuracy", "ece"]),
    )


if __name__ == "__main__":
    disable_progress_bar()
    for name, criterion in {
        "before: cross-entropy": nn.CrossEntropyLoss,
        "after:  FedLAS": lambda: FedLAS(num_classes=10),
    }.items():
        with tempfile.TemporaryDirectory() as folder:
            first = trainer(criterion(), folder)
            first.args.num_train_epochs = 20
            first.train()
            second = trainer(criterion(), folder)  # nothing of the first is left but its checkpoint, gate and NCI in it
            second.train(resume_from_checkpoint=get_last_checkpoint(folder))
            show(name, {key.removeprefix("eval_"): value for key, value in second.evaluate().items()})
