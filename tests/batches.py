"""The checked batch that a loss computes from, and the penalty that it makes of it."""

from fedlas.losses import Loss


class _Kept(Loss):
    """Keeps the batch that it is called with."""

    masked_classes = True

    def per_sample(self, batch):
        self.batch = batch
        return batch.cross_entropy()


def batch_of(logits, target, *, weight=None, **extras):
    """The batch that every loss makes of its arguments."""
    kept = _Kept()
    kept.weight = weight  # as it is, in float64 too
    kept(logits, target, **extras)
    return kept.batch


def penalty_of(criterion, logits, target):
    """The penalty of a loss that is a classification loss plus ``alpha`` times a penalty."""
    return criterion.parts(batch_of(logits, target))[1]
