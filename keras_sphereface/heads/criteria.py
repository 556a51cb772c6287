r"""What a head minimizes, in the parts that a pass over blocks of classes needs.

A criterion sees the logits of the classes that are not the target block by block, then the targets'. Its gradient to the
logits is `factor * slopes`, with a factor per example, so that the largest matrix needs no pass to be scaled.
"""

import keras
from keras import ops

# Below every logit, but finite: the peak before the first block, and of a head with one class.
LOWEST = -1e30


def largest(values):
    """The largest value of each row of `(batch, classes)`, and not below `LOWEST`."""
    if keras.backend.backend() == "torch":  # whose `ops.max` makes `initial` on the CPU, and fails on an accelerator
        return values.amax(dim=1).clamp(min=LOWEST)
    return ops.max(values, axis=1, initial=LOWEST)


class Softmax:
    r"""Cross-entropy, $\log(1 + e^{\ell - z_y})$ with $\ell = \log\sum_{i \ne y} e^{z_i}$ kept as a peak and a sum.

    Its gradient is $\sigma(\ell - z_y)$ times the softmax of the others, and $-\sigma(\ell - z_y)$ for the target.
    """

    def start(self, zeros):
        """The state before the first block; `zeros` is of shape `(batch,)`."""
        return zeros + LOWEST, zeros

    def fold(self, state, logits):
        """Takes in a block; returns the state and the block's slopes, which hold if no further block comes."""
        peaks = ops.maximum(state[0], logits.peaks())
        slopes = logits.map(_exponential, peaks)
        return (peaks, state[1] * ops.exp(state[0] - peaks) + ops.sum(slopes, axis=1)), slopes

    def slopes(self, state, logits):
        """The slopes of a block under the last state."""
        return logits.map(_exponential, state[0])

    def finish(self, state, target_logits):
        """Returns `(losses, factor, target_slopes)`, each of shape `(batch,)`."""
        peaks, sums = state
        safe_sums = ops.maximum(sums, 1e-30)  # 0 where there is one class
        gap = (peaks - target_logits) + ops.log(safe_sums)
        return ops.softplus(gap), ops.sigmoid(gap) / safe_sums, -sums


class OneVsAll:
    r"""Weighted binary cross-entropies, $\lambda \log(1 + e^{-z_y}) + (1 - \lambda) \sum_{i \ne y} \log(1 + e^{z_i})$.

    Args:
        positive_weight: lambda, in (0, 1).
    """

    def __init__(self, positive_weight):
        self.positive_weight = positive_weight

    def start(self, zeros):
        """See `Softmax`."""
        return (zeros,)

    def fold(self, state, logits):
        """See `Softmax`."""
        return (state[0] + ops.sum(logits.weighted(logits.map(ops.softplus)), axis=1),), self.slopes(state, logits)

    def slopes(self, state, logits):
        """See `Softmax`."""
        return logits.weighted(logits.map(lambda z: (1.0 - self.positive_weight) * ops.sigmoid(z)))

    def finish(self, state, target_logits):
        """See `Softmax`."""
        losses = self.positive_weight * ops.softplus(-target_logits) + (1.0 - self.positive_weight) * state[0]
        return losses, ops.ones_like(losses), -self.positive_weight * ops.sigmoid(-target_logits)


def _exponential(logits, peaks):
    return ops.exp(logits - peaks)
