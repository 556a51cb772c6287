"""A backbone's training pass as one flat program of PyTorch's operators.

Keras decides anew in each call of each layer what to cast, to convert and to check, and a deep network's step waits for
Python where the device is fast: on an NVIDIA H200 IResNet-50 trains at 3,069 images a second so, at 1,816 layer after
layer (benchmarks/RESULTS.md).
"""

from typing import Any

import keras

from keras_sphereface.backbones import FaceBackbone
from keras_sphereface.hints import Tensor


def can_trace(backbone: keras.Model) -> bool:
    """Whether a backbone computes the same in each step, as `TracedBackbone` takes for granted.

    Args:
        backbone: A `keras.Model`.

    Returns:
        Whether it is one of this package's on the PyTorch backend, without random numbers (dropout, masks), losses of
        layers' own, hooks of PyTorch's, and layers that are computed again in the backward pass (`keras.RematScope`).
    """
    is_ours = isinstance(backbone, FaceBackbone) and type(backbone).__module__.startswith(f"{__package__}.")
    if keras.backend.backend() != "torch" or not is_ours:
        return False
    return all(_is_plain(layer) for layer in (backbone, *backbone.layers))


def _is_plain(layer):
    is_random = getattr(layer, "seed_generator", None) is not None
    has_hooks = layer._forward_hooks or layer._forward_pre_hooks or layer._backward_hooks or layer._backward_pre_hooks
    return not (is_random or has_hooks or layer.activity_regularizer or getattr(layer, "_remat_mode", None))


class TracedBackbone:
    """Calls a backbone in training as its operators alone, recorded once for each shape of images.

    What it computes, its gradients and its moving averages are the backbone's to the bit.

    Args:
        backbone: A `FaceBackbone` that `can_trace`.
        compiled: Whether `torch.compile` makes the recorded operators fewer and larger ones, which takes minutes at the
            first step. Defaults to `False`.

    Call arguments:
        images: Tensor `(batch, height, width, 3)`.

    Returns:
        Embeddings `(batch, embedding_dim)`.

    Example:
    >>> embeddings = TracedBackbone(backbone)(images)
    """

    def __init__(self, backbone: keras.Model, compiled: bool = False):
        self.backbone, self.compiled = backbone, compiled
        self._programs = {}

    def __call__(self, images: Tensor) -> Any:
        """Returns the embeddings, and moves the averages on."""
        images = keras.ops.convert_to_tensor(images)
        key = (images.shape, images.dtype, tuple(layer.trainable for layer in self.backbone.layers))
        if key not in self._programs:
            self._programs[key] = self._record(images)
        program, variables, averages = self._programs[key]
        embeddings, values = program([variable.value for variable in variables], images)
        for average, value in zip(averages, values):
            average.assign(value)
        return embeddings

    def _record(self, images):
        """Returns the program, the variables that it takes, and those whose new values it returns after the embeddings."""
        import torch
        from torch.fx.experimental.proxy_tensor import make_fx

        variables = self.backbone.variables
        averages = []

        def run(values, images):
            with keras.StatelessScope(state_mapping=zip(variables, values)) as scope:
                embeddings = self.backbone(images, training=True)
            after = [scope.get_current_value(variable) for variable in variables]
            moved = [index for index, value in enumerate(after) if value is not values[index]]
            averages[:] = [variables[index] for index in moved]
            return embeddings, [after[index] for index in moved]

        program = make_fx(run)([variable.value for variable in variables], images)
        return torch.compile(program) if self.compiled else program, variables, averages
