r"""Losses of detached margins, and their gradients in closed form.

Because of characteristic gradient detachment the gradient of a loss to a cosine is its gradient to the logit times the
magnitude. So nothing has to be differentiated: the loss is computed without a gradient, block by block of classes if wanted,
and its gradient is three matrix products. Reference: arXiv 2109.05565, section 3.4.
"""

import dataclasses
from collections.abc import Callable

from keras import ops

from keras_sphereface.heads import class_blocks, criteria, kernels

HIDDEN = -float("inf")  # In place of the target among the other classes


@dataclasses.dataclass(frozen=True)
class Problem:
    """A batch and what is to be minimized.

    Args:
        criterion: One of `criteria`.
        others: Function of cosines, the values g of the classes that are not the target; None for the cosine.
        targets: The same for the targets, `(batch,)`; None for the cosine.
        labels: int32 `(batch,)`, in `[0, classes)`.
        norm_flows: Whether the magnitudes need a gradient.
        block: Number of classes of a block.
        weights: What each class counts in a sum over the others, `(classes,)`; None for once. Defaults to `None`.
    """

    criterion: object
    others: Callable | None
    targets: Callable | None
    labels: object
    norm_flows: bool
    block: int
    weights: object = None


def detached_loss(problem, directions, kernel, magnitudes, bias=None):
    """The losses, with their gradients to all four tensors, and how near the targets are.

    Args:
        problem: A `Problem`.
        directions: Unit embeddings, `(batch, embedding_dim)`.
        kernel: Class weights, `(embedding_dim, classes)`.
        magnitudes: rho, `(batch,)`: the logits are `magnitudes * g + bias`.
        bias: `(classes,)`, `(1,)` or None.

    Returns:
        `(losses, target_cosines, is_nearest)`, each `(batch,)`: `is_nearest` says whether the target's logit without the
        margin is above every other. Only the losses have a gradient.
    """
    inputs = [directions, kernel, magnitudes] + ([] if bias is None else [bias])
    passes = _Passes(problem, *[ops.stop_gradient(tensor) for tensor in inputs])
    losses, target_cosines, is_nearest, saved = passes.forward()
    losses = kernels.with_gradient(losses, inputs, lambda upstream: passes.backward(upstream, saved))
    return losses, target_cosines, is_nearest


class _Passes:
    """The forward and the backward pass of a problem."""

    def __init__(self, problem, directions, kernel, magnitudes, bias=None):
        self.problem = problem
        self.directions, self.kernel, self.magnitudes, self.bias = directions, kernel, magnitudes, bias
        self.num_classes = kernel.shape[1]
        self.bias_per_class = bias is not None and bias.shape[0] == self.num_classes
        # A number of classes that isn't known is that of a draw for a batch of any size: all at once.
        self.one_block = self.num_classes is None or problem.block >= self.num_classes
        self.traced = not self.one_block and kernels.is_traced(directions)

    def forward(self):
        """Returns losses, target cosines, whether they are nearest, and what the backward pass needs."""
        blocks = kernels.compiled(self._forward_blocks) if self.traced else self._forward_blocks
        (target_cosines, nearest, state), kept = blocks()
        values = target_cosines if self.problem.targets is None else self.problem.targets(target_cosines)
        losses, factor, target_slopes = self.problem.criterion.finish(state, self._target_logits(values))
        ranked = self._target_logits(target_cosines) if self.bias_per_class else target_cosines
        return losses, target_cosines, ranked > nearest, (target_cosines, values, state, factor, target_slopes, kept)

    def _target_logits(self, values):
        logits = self.magnitudes * values
        if self.bias is None:
            return logits
        return logits + (ops.take(self.bias, self.problem.labels) if self.bias_per_class else self.bias)

    def _forward_blocks(self):
        kept = []

        def step(start, size, carried):
            target_cosines, nearest, state = carried
            found, logits = self._logits(start, size)
            state, slopes = self.problem.criterion.fold(state, logits)
            if self.one_block:  # Then the backward pass need not compute them again.
                kept.extend((slopes, self._dot_of_others(slopes, logits)))
            return target_cosines + found, ops.maximum(nearest, logits.nearest), state

        zeros = ops.zeros_like(self.magnitudes)
        first = (zeros, zeros + criteria.LOWEST, self.problem.criterion.start(zeros))
        return class_blocks.fold(step, first, self.num_classes, self.problem.block, self.traced), kept

    def _logits(self, start, size):
        """The target cosines that lie in a block, else 0, and the logits of its other classes."""
        cosines = kernels.matmul(self.directions, class_blocks.columns(self.kernel, start, size))
        labels = self.problem.labels - start
        found = kernels.take_targets(cosines, labels, self.one_block)
        # Hidden by a value that depends on `found`, so that the targets are taken before they are written over.
        cosines = kernels.replace_targets(cosines, labels, found + HIDDEN, self.one_block)
        bias = class_blocks.columns(self.bias, start, size) if self.bias_per_class else self.bias
        weights = self.problem.weights
        weights = None if weights is None else class_blocks.columns(weights, start, size)
        return found, BlockLogits(cosines, self.magnitudes, self.problem.others, bias, weights, self.bias_per_class)

    def _dot_of_others(self, slopes, logits):
        """The slopes times the values of the other classes where that isn't a by-product of the gradient to directions."""
        if not self.problem.norm_flows or self.problem.others is None:
            return ops.zeros_like(self.magnitudes)
        return ops.sum(slopes * self.problem.others(logits.cosines), axis=1)

    def backward(self, upstream, saved):
        """Returns the gradients to directions, kernel, magnitudes and, if there is one, bias."""
        target_cosines, values, state, factor, target_slopes, kept = saved
        factor = upstream * factor
        scales = factor * self.magnitudes

        def blocks():
            return self._backward_blocks(state, scales, factor, target_slopes, kept)

        products, to_kernel, to_bias, dots = (kernels.compiled(blocks) if self.traced else blocks)()
        if self.problem.others is None:
            dots = ops.sum(self.directions * products, axis=1) + target_slopes * (values - target_cosines)
        else:
            dots = dots + target_slopes * values
        to_magnitudes = factor * dots if self.problem.norm_flows else ops.zeros_like(factor)
        gradients = (scales[:, None] * products, to_kernel, to_magnitudes)
        if self.bias is None:
            return gradients
        return *gradients, to_bias if self.bias_per_class else ops.reshape(ops.sum(to_bias), (1,))

    def _backward_blocks(self, state, scales, factor, target_slopes, kept):
        scaled = scales[:, None] * self.directions
        to_kernel = class_blocks.Assembled(self.kernel.shape, self.traced)
        to_bias = class_blocks.Assembled((self.num_classes,), self.traced)

        def step(start, size, carried):
            products, kernel_blocks, bias_blocks, dots = carried
            if kept:
                slopes, dots = kept
            else:
                _, logits = self._logits(start, size)
                slopes = self.problem.criterion.slopes(state, logits)
                dots = dots + self._dot_of_others(slopes, logits)
            slopes = kernels.replace_targets(slopes, self.problem.labels - start, target_slopes, self.one_block)
            block = class_blocks.columns(self.kernel, start, size)
            products = products + kernels.matmul(slopes, block, transpose_b=True)
            kernel_blocks = to_kernel.write(kernel_blocks, start, kernels.matmul(scaled, slopes, transpose_a=True))
            if self.bias is not None:
                bias_blocks = to_bias.write(bias_blocks, start, ops.matmul(factor, slopes))
            return products, kernel_blocks, bias_blocks, dots

        first = (ops.zeros_like(scaled), to_kernel.start(), to_bias.start(), ops.zeros_like(factor))
        products, kernel_blocks, bias_blocks, dots = class_blocks.fold(
            step, first, self.num_classes, self.problem.block, self.traced
        )
        to_bias = None if self.bias is None else to_bias.finish(bias_blocks)
        return products, to_kernel.finish(kernel_blocks), to_bias, dots


class BlockLogits:
    """The logits of a block's classes that are not the target; the target's is -inf.

    Args:
        cosines: `(batch, size)`, -inf for the target.
        magnitudes: `(batch,)`.
        others: Function of cosines or None; see `Problem`.
        bias: `(size,)`, `(1,)` or None.
        weights: `(size,)` or None; see `Problem`.
        bias_per_class: Whether the bias is `(size,)`: then the nearest class has the largest logit without the margin.
            Defaults to `False`.
    """

    def __init__(self, cosines, magnitudes, others, bias, weights=None, bias_per_class=False):
        self.cosines, self.magnitudes, self.weights = cosines, magnitudes, weights
        self.values = None
        if others is not None or bias is not None:
            self.values = kernels.compiled(lambda c: _logits_of_others(c, magnitudes, others, bias))(cosines)
        ranked = cosines
        if bias_per_class:
            ranked = self.values if others is None else _logits_of_others(cosines, magnitudes, bias=bias)
        self.nearest = criteria.largest(ranked)

    def peaks(self):
        """The largest logit of each example, or a little below any where there is none."""
        if self.values is None:
            return self.magnitudes * self.nearest
        return criteria.largest(self.values)

    def weighted(self, values):
        """Values of shape `(batch, size)` times what their classes count."""
        return values if self.weights is None else self.weights * values

    def map(self, function, *rows):
        """`function(logits, ...)` elementwise, with further arguments of shape `(batch,)`, in one pass."""

        def evaluate(matrix, *rows):
            logits = _logits_of_others(matrix, self.magnitudes) if self.values is None else matrix
            return function(logits, *[row[:, None] for row in rows])

        return kernels.compiled(evaluate)(self.cosines if self.values is None else self.values, *rows)


def _logits_of_others(cosines, magnitudes, others=None, bias=None):
    logits = magnitudes[:, None] * (cosines if others is None else others(cosines))
    if bias is not None:
        logits = logits + bias
    return ops.where(cosines == HIDDEN, HIDDEN, logits)
