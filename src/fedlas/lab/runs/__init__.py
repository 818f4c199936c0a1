"""One run: executed, stored in its folder, loaded again, and summarized with others.

In: a :class:`~fedlas.lab.recipes.plan.Run` (recipe, loss, seed). Out: a ``RunFolder``, and a ``Summary`` of many.

A run's folder holds ``config.yaml`` (resolved; compared on every restart), ``data.json`` (fingerprint of its data,
compared too), ``data_root.txt`` (where it was read; compared with nothing, and not for publication),
``environment.json`` (one entry a start), ``splits.npz``, ``log.jsonl`` (one line an epoch), ``checkpoint.pt`` (model,
loss, hooks, optimizer, schedule, generators, best weights; plain tensors only), ``predictions/{val,test}.npz`` (logits,
target, features), ``metrics.json`` (written last: it marks the run as finished) and ``error.txt`` if it failed. A
report adds ``intervals.json``, tied to the predictions by their hash. Without checkpoint and predictions a folder still
counts as finished and can be reported. The runs of a bench can be packed into a zip, which is read as if the folders
were there (``pack.py`` writes it, ``folder.py`` reads it); ``results/`` keeps such zips.

Every file but the log is written next to its place and moved there whole. The log grows by a line an epoch and is cut
back to the checkpoint on a restart. A lock keeps a second process out.
"""
