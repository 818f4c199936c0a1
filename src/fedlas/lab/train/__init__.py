"""The training loop, on accelerate, and checkpoints that survive a kill at any moment.

In: a ``TrainingJob``: objective, batches, configuration of loop, optimizer and schedule. Out: the objective with the
best epoch's weights, and a folder with ``checkpoint.pt`` and ``log.jsonl``.
"""
