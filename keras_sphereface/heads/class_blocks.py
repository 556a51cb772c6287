"""Loops over blocks of classes, so that nothing of size (batch, classes) exists."""

import keras
from keras import ops

from keras_sphereface.arguments import is_whole

# "auto": up to this many bytes for a float32 matrix of (batch, classes) the loss is computed in one piece, which takes three
# matrix products of that size instead of four; beyond, blocks of the second size.
DENSE_BYTES = 2**28
BLOCK_BYTES = 2**25
# Assumed where a traced program's batch size isn't known.
TYPICAL_BATCH = 128


def check_class_block(class_block, detach):
    """Returns `class_block` if it is None, "auto" or a positive integer that `detach` allows; raises ValueError."""
    if class_block is None or class_block == "auto":
        return class_block
    if not is_whole(class_block, 1):
        raise ValueError(
            f"`class_block` must be None, 'auto' or an integer of at least 1. Received: class_block={class_block!r}"
        )
    if not detach:
        raise ValueError(
            "`class_block` needs detach=True, whose gradient has a closed form: leave it at 'auto' or None with "
            f"detach=False. Received: class_block={class_block}"
        )
    return int(class_block)


def block_size(class_block, batch_size, num_classes):
    """The number of classes of a block; `num_classes` where all are one block."""
    if class_block is None or (class_block == "auto" and _classes_are_sharded()):
        return num_classes
    if class_block == "auto":
        bytes_per_class = 4 * (batch_size or TYPICAL_BATCH)
        class_block = num_classes if bytes_per_class * num_classes <= DENSE_BYTES else BLOCK_BYTES // bytes_per_class
    return max(1, min(class_block, num_classes))


def _classes_are_sharded():
    # Then each device computes with its share of the classes, and blocks would cut across the shares.
    return isinstance(keras.distribution.distribution(), keras.distribution.ModelParallel)


def fold(step, state, num_classes, size, traced):
    """Folds `step(start, size, state) -> state` over the blocks.

    Args:
        step: Function; `size` is always an integer, `start` an integer or, traced, a tensor.
        state: The first state; traced, a tuple of tensors whose shapes stay.
        num_classes: Number of classes; None where it isn't known, and all are one block.
        size: Number of classes of a block; the last block has what remains.
        traced: Whether to use the backend's loop instead of Python's.

    Returns:
        The last state.
    """
    if num_classes is None:
        return step(0, None, state)
    blocks, rest = divmod(num_classes, size)
    if traced and blocks > 1:
        state = ops.fori_loop(0, blocks, lambda i, state: step(i * size, size, state), state)
    else:
        for i in range(blocks):
            state = step(i * size, size, state)
    return step(blocks * size, rest, state) if rest else state


def columns(tensor, start, size):
    """`size` entries of the last axis from `start` on; the tensor itself where that's all of them."""
    if size == tensor.shape[-1]:
        return tensor
    leading = list(tensor.shape[:-1])
    return ops.slice(tensor, [0] * len(leading) + [start], [*leading, size])


class Assembled:
    """A tensor put together from blocks along its last axis: traced or PyTorch's, in place; else joined at the end."""

    def __init__(self, shape, traced):
        self.shape, self.traced = shape, traced

    def start(self):
        """The state before the first block."""
        return ops.zeros(self.shape, dtype="float32") if self.traced else ()

    def write(self, state, start, block):
        """The state with a block more."""
        if self.traced:
            return ops.slice_update(state, [0] * (len(self.shape) - 1) + [start], block)
        if keras.backend.backend() != "torch" or block.shape[-1] == self.shape[-1]:
            return (*state, block)
        (tensor,) = state or (ops.empty(self.shape, dtype="float32"),)
        tensor[..., start : start + block.shape[-1]] = block
        return (tensor,)

    def finish(self, state):
        """The tensor."""
        if self.traced:
            return state
        return state[0] if len(state) == 1 else ops.concatenate(state, axis=-1)
