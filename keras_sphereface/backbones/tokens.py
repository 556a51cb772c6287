"""Layers of a transformer's tokens, `(batch, tokens, dimensions)`, that Keras has not."""

import keras
from keras import initializers, ops

from keras_sphereface.arguments import whole_number

_STDDEV = 0.02  # of positions and of what stands for a masked token, before training


@keras.saving.register_keras_serializable(package="keras_sphereface")
class PositionEmbedding(keras.layers.Layer):
    """Adds to each token a learned vector of its position.

    Call arguments:
        inputs: `(batch, tokens, dimensions)`.

    Returns:
        The same shape.

    Reference:
        - An Image is Worth 16x16 Words (arXiv 2010.11929), equation 1
    """

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True

    def build(self, input_shape):
        """Makes the positions, `(tokens, dimensions)`."""
        initializer = initializers.TruncatedNormal(stddev=_STDDEV)
        self.positions = self.add_weight(name="positions", shape=tuple(input_shape[1:]), initializer=initializer)

    def call(self, inputs):
        """Returns the sum."""
        return inputs + ops.cast(self.positions, inputs.dtype)

    def compute_output_shape(self, input_shape):
        """The shape that came."""
        return input_shape


@keras.saving.register_keras_serializable(package="keras_sphereface")
class SelfAttention(keras.layers.Layer):
    """Scaled dot-product attention of several heads; the linear layers before and after it are layers of their own.

    Args:
        num_heads: How many parts of the dimensions attend by themselves.
        **kwargs: As `keras.layers.Layer`.

    Call arguments:
        inputs: `(batch, tokens, 3 * dimensions)`: queries, keys and values side by side, each by heads.

    Returns:
        `(batch, tokens, dimensions)`.

    Raises:
        ValueError: If queries, keys and values of so many heads do not go into the last axis.

    Reference:
        - Attention Is All You Need (arXiv 1706.03762), section 3.2
    """

    def __init__(self, num_heads, **kwargs):
        super().__init__(**kwargs)
        self.num_heads = whole_number("num_heads", num_heads)
        self.supports_masking = True

    def build(self, input_shape):
        """Checks the length of the last axis."""
        if input_shape[-1] % (3 * self.num_heads):
            raise ValueError(
                f"The last axis must be three times as long as a multiple of `num_heads`. Received: {input_shape[-1]}, "
                f"num_heads={self.num_heads}"
            )

    def call(self, inputs):
        """Returns what the tokens take from each other."""
        tokens, dimensions = inputs.shape[1], inputs.shape[2] // 3
        parts = ops.reshape(inputs, (-1, tokens, 3, self.num_heads, dimensions // self.num_heads))
        attended = ops.dot_product_attention(*(parts[:, :, part] for part in range(3)))
        return ops.reshape(attended, (-1, tokens, dimensions))

    def compute_output_shape(self, input_shape):
        """The shape that came, with a third of the last axis."""
        return (*input_shape[:-1], input_shape[-1] // 3)

    def get_config(self):
        """Returns the constructor's arguments."""
        return {**super().get_config(), "num_heads": self.num_heads}


@keras.saving.register_keras_serializable(package="keras_sphereface")
class RandomOrder(keras.layers.Layer):
    """An order of the tokens by chance for each example, in training; `KeepFirst` and `PutBack` go by it.

    Args:
        seed: Integer. Defaults to `None`, Keras's own.
        **kwargs: As `keras.layers.Layer`.

    Call arguments:
        inputs: `(batch, tokens, dimensions)`.
        training: Whether to draw. Without, the tokens stay as they are.

    Returns:
        int32 `(batch, tokens, 1)`, the numbers of the tokens.
    """

    def __init__(self, seed=None, **kwargs):
        super().__init__(**kwargs)
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.built = True

    def call(self, inputs, training=False):
        """Returns the numbers of the tokens in the order drawn."""
        shape = (ops.shape(inputs)[0], inputs.shape[1])
        if training:
            order = ops.argsort(keras.random.uniform(shape, seed=self.seed_generator), axis=1)
        else:
            order = ops.broadcast_to(ops.arange(shape[1], dtype="int32"), shape)
        return ops.cast(order, "int32")[..., None]

    def compute_output_spec(self, inputs, training=False):
        """An integer for each token."""
        return keras.KerasTensor((*inputs.shape[:2], 1), "int32")

    def get_config(self):
        """Returns the constructor's arguments."""
        return {**super().get_config(), "seed": self.seed}


@keras.saving.register_keras_serializable(package="keras_sphereface")
class KeepFirst(keras.layers.Layer):
    """Passes on, in training, the first tokens of an order alone.

    Args:
        mask_ratio: The share of the tokens that is left out, from 0 to below 1.
        **kwargs: As `keras.layers.Layer`.

    Call arguments:
        inputs: `(batch, tokens, dimensions)`.
        order: int32 `(batch, tokens, 1)`, of `RandomOrder`.
        training: Whether to leave tokens out.

    Returns:
        `(batch, kept, dimensions)`, at least one token.

    Reference:
        - Masked Autoencoders Are Scalable Vision Learners (arXiv 2111.06377), section 3
    """

    def __init__(self, mask_ratio, **kwargs):
        super().__init__(**kwargs)
        self.mask_ratio = mask_ratio

    def call(self, inputs, order, training=False):
        """Returns the tokens that are kept."""
        if not training:
            return inputs
        kept = max(1, int(inputs.shape[1] * (1 - self.mask_ratio)))
        return ops.take_along_axis(inputs, order[:, :kept], axis=1)

    def compute_output_spec(self, inputs, order, training=False):
        """All tokens: how many are kept in training is nothing that another layer is built for."""
        return keras.KerasTensor(inputs.shape, self.compute_dtype)

    def get_config(self):
        """Returns the constructor's arguments."""
        return {**super().get_config(), "mask_ratio": self.mask_ratio}


@keras.saving.register_keras_serializable(package="keras_sphereface")
class PutBack(keras.layers.Layer):
    """Puts the first tokens of an order back to where they were, and a learned one where others were left out.

    Call arguments:
        inputs: `(batch, kept, dimensions)`.
        order: int32 `(batch, tokens, 1)`, of `RandomOrder`.

    Returns:
        `(batch, tokens, dimensions)`.
    """

    def build(self, input_shape, *_):
        """Makes the token that stands for those left out."""
        initializer = initializers.RandomNormal(stddev=_STDDEV)
        self.mask_token = self.add_weight(name="mask_token", shape=(1, 1, input_shape[-1]), initializer=initializer)

    def call(self, inputs, order):
        """Returns all tokens in their own order."""
        missing = order.shape[1] - inputs.shape[1]
        if missing == 0:  # nothing was left out, and nothing changed its place
            return inputs
        filling = ops.broadcast_to(
            ops.cast(self.mask_token, inputs.dtype), (ops.shape(inputs)[0], missing, inputs.shape[2])
        )
        return ops.take_along_axis(ops.concatenate([inputs, filling], axis=1), ops.argsort(order, axis=1), axis=1)

    def compute_output_spec(self, inputs, order):
        """As many tokens as the order has."""
        return keras.KerasTensor((*order.shape[:2], inputs.shape[2]), self.compute_dtype)
