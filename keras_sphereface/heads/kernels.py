"""Where a backend needs its own words to pass over (batch, classes) no more often than it must."""

import keras
from keras import ops

from keras_sphereface.devices import builds_for_tensorflow_cpu
from keras_sphereface.heads import class_blocks
from keras_sphereface.margins import target_mask

_ROWS = 8  # that are read side by side: few enough for a CPU to fetch them ahead


def is_traced(tensor):
    """Whether the computation that `tensor` belongs to is being compiled: then loops must be the backend's own."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return not tf.executing_eagerly()
    if keras.backend.backend() == "jax":
        import jax

        return isinstance(tensor, jax.core.Tracer)
    return False


def compiled(function):
    """The function as one program of XLA inside a TensorFlow graph; elsewhere itself, as JAX compiles whole steps.

    TensorFlow's own elementwise operations each read and write the whole matrix.
    """
    if keras.backend.backend() != "tensorflow":
        return function
    import tensorflow as tf

    return function if tf.executing_eagerly() else tf.function(function, jit_compile=True)


def with_gradient(losses, inputs, gradient):
    """Losses `(batch,)` that were computed without a gradient, with one.

    Args:
        losses: The losses.
        inputs: Tensors.
        gradient: Function from the gradient to the losses to those to each of `inputs`.

    Returns:
        The losses.
    """
    if keras.backend.backend() == "jax" and any(map(is_traced, inputs)):
        return _with_gradient_on_jax(losses, inputs, gradient)

    @ops.custom_gradient
    def attach(*inputs):
        def of_inputs(*args, upstream=None):  # PyTorch hands over the inputs as well, and the gradient by name
            return gradient(args[-1] if upstream is None else upstream)

        return ops.copy(losses), of_inputs

    return attach(*inputs)


def _with_gradient_on_jax(losses, inputs, gradient):
    """Hands over what the gradient needs of the program around it: JAX differentiates a `jit`, `checkpoint` or `scan` after
    that has ended, and then nothing of it is there to be reached for.
    """
    import jax
    from jax.extend import core

    program = jax.make_jaxpr(lambda upstream: tuple(gradient(upstream)))(losses)

    @jax.custom_vjp
    def attach(losses, needed, *inputs):
        return losses

    def backward(needed, upstream):
        return None, None, *core.jaxpr_as_fun(core.ClosedJaxpr(program.jaxpr, needed))(upstream)

    attach.defvjp(lambda losses, needed, *inputs: (losses, needed), backward)
    return attach(losses, program.consts, *inputs)


def unit_columns(matrix):
    """A matrix `(dim, classes)` with its columns put on the unit sphere, as `keras.constraints.UnitNorm(axis=0)` does."""
    if builds_for_tensorflow_cpu():
        return _on_cpu_in_two_passes(matrix)
    matrix = ops.convert_to_tensor(matrix)
    return _unit(matrix, ops.norm(matrix, axis=0))


def _on_cpu_in_two_passes(matrix):
    """Reads the matrix twice and writes it once. A sum over axis 0 jumps from row to row instead, four times as long.

    A variable is written in place, which saves memory that is new with each step: what is returned is its own value.
    """
    import tensorflow as tf

    def project(matrix):
        rows, columns = matrix.shape

        def add_rows(start, size, squares):
            return squares + ops.sum(ops.square(ops.slice(matrix, [start, 0], [size, columns])), axis=0)

        squares = class_blocks.fold(add_rows, ops.zeros_like(matrix[0]), rows, _ROWS, traced=True)
        return _unit(matrix, ops.sqrt(squares))

    if not isinstance(matrix, keras.Variable) or tf.distribute.has_strategy():
        return compiled(project)(tf.convert_to_tensor(matrix))
    variable = matrix.value

    def project_in_place():
        variable.assign(project(tf.convert_to_tensor(variable)))

    compiled(project_in_place)()
    return tf.convert_to_tensor(variable)


def _unit(matrix, norms):
    return matrix / (keras.config.epsilon() + norms)


def matmul(a, b, transpose_a=False, transpose_b=False):
    """Matrix product, with transposition left to the product: TensorFlow's `transpose` would copy the class weights."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.matmul(a, b, transpose_a=transpose_a, transpose_b=transpose_b)
    return ops.matmul(ops.transpose(a) if transpose_a else a, ops.transpose(b) if transpose_b else b)


def take_targets(matrix, labels, all_inside):
    """The entries `(batch,)` of a matrix `(batch, classes)` at the labels; 0 for a label outside.

    `all_inside` says that no label is outside, for a backend that can then gather.
    """
    if all_inside and keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.gather(matrix, labels, axis=1, batch_dims=1)
    # A sum, because a class axis that is sharded over devices is reduced where it lies, but gathered by moving it.
    return ops.sum(ops.where(target_mask(labels, matrix.shape[1]), matrix, 0.0), axis=1)


def replace_targets(matrix, labels, values, all_inside):
    """The matrix `(batch, classes)` with the entries at the labels replaced by `values`, `(batch,)`; see `take_targets`."""
    if all_inside and keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        # Written in place where nothing else waits for `matrix`.
        return tf.tensor_scatter_nd_update(matrix, tf.stack([tf.range(tf.size(labels)), labels], axis=1), values)
    return ops.where(target_mask(labels, matrix.shape[1]), values[:, None], matrix)
