"""Gradients on whichever backend runs the tests."""

import keras
import numpy as np


def value_and_gradients(function, inputs, variables=()):
    """The value of `function(*inputs)`, a scalar, and its gradients to the inputs and to Keras variables, as NumPy.

    Args:
        function: Function of tensors that returns a scalar tensor.
        inputs: Arrays, each turned into a float32 tensor.
        variables: Trainable Keras variables that the function reads.

    Returns:
        `(value, input_gradients, variable_gradients)`.
    """
    backend = keras.backend.backend()
    inputs = [np.asarray(array, "float32") for array in inputs]
    return {"tensorflow": _tensorflow, "jax": _jax, "torch": _torch}[backend](function, inputs, list(variables))


def _tensorflow(function, inputs, variables):
    import tensorflow as tf

    tensors = [tf.constant(array) for array in inputs]
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        value = function(*tensors)
    sources = tensors + [variable.value for variable in variables]
    gradients = tape.gradient(value, sources, unconnected_gradients=tf.UnconnectedGradients.ZERO)
    gradients = [tf.convert_to_tensor(gradient).numpy() for gradient in gradients]
    return float(value), gradients[: len(inputs)], gradients[len(inputs) :]


def _jax(function, inputs, variables):
    import jax

    def pure(tensors, values):
        mapping = list(zip(variables, values))
        with keras.StatelessScope(state_mapping=mapping):
            return function(*tensors)

    value, (first, second) = jax.value_and_grad(pure, argnums=(0, 1))(inputs, [v.value for v in variables])
    return float(value), [np.asarray(g) for g in first], [np.asarray(g) for g in second]


def _torch(function, inputs, variables):
    import torch

    tensors = [keras.ops.convert_to_tensor(array).requires_grad_() for array in inputs]  # where Keras has its own
    value = function(*tensors)
    sources = tensors + [variable.value for variable in variables]
    gradients = torch.autograd.grad(value, sources, allow_unused=True)
    gradients = [
        np.zeros(tuple(source.shape)) if gradient is None else keras.ops.convert_to_numpy(gradient)
        for gradient, source in zip(gradients, sources)
    ]
    return float(value), gradients[: len(inputs)], gradients[len(inputs) :]
