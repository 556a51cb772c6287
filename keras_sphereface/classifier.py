"""Training a backbone with a margin head through `model.fit`."""

import inspect

import keras
import numpy as np

from keras_sphereface.devices import tensorflow_has_accelerator
from keras_sphereface.embedder import as_backbone, batch_shape, build_embedder, images_shape, only_tensor
from keras_sphereface.finite_mean import FiniteMean
from keras_sphereface.hints import Shape, Tensor
from keras_sphereface.losses import HeadLoss
from keras_sphereface.sampled_optimizers import for_sampling
from keras_sphereface.traced_backbone import TracedBackbone, can_trace

STATISTICS = ("accuracy", "embedding_norm", "target_angle")
# Where the optimizers are that Keras puts in the place of its own, under their names, with PyTorch
TORCH_OPTIMIZERS = "keras.src.backend.torch.optimizers."
OWN_COMPILE_ARGUMENTS = ("loss", "loss_weights", "metrics", "weighted_metrics")


@keras.saving.register_keras_serializable(package="keras_sphereface")
class FaceClassifier(keras.Model):
    """A backbone with a margin head, trained on `(images, labels)` by `fit`.

    The loss is the head's, with the margin and every penalty; sample weights, scaling over replicas, regularization and
    mixed precision are Keras's. Metrics are taken without the margin: `accuracy` (the nearest class is the label),
    `embedding_norm` (mean norm) and `target_angle` (mean angle to the label's class weights, in degrees). Where the head
    draws classes, `fit` takes its accuracy among those drawn, which is easier; `evaluate` takes all classes.

    Args:
        backbone: A `keras.Model` from images to embeddings `(batch, embedding_dim)`, its one output. One of your own class
            is built, as the head is, by the first batch. Of an embedder, such as `load_pretrained` gives, it is all but the
            normalization to unit length, and its training goes on.
        head: A head of `keras_sphereface.heads`.
        **kwargs: `name`, `dtype`, `trainable`.

    Call arguments:
        images: Tensor of shape `(batch, height, width, 3)`, RGB, 0..255.

    Returns:
        Embeddings of shape `(batch, embedding_dim)`, not normalized. `head(embeddings)` gives the logits.

    Raises:
        TypeError: If the backbone is no `keras.Model`, or the head none of `keras_sphereface.heads`.

    Example:
    >>> head = keras_sphereface.heads.SphereFaceR(num_classes=100)
    >>> trainer = keras_sphereface.FaceClassifier(keras_sphereface.backbones.SFNet4(embedding_dim=64), head)
    >>> trainer.compile(keras.optimizers.SGD(0.1, momentum=0.9))
    >>> history = trainer.fit(images, labels)
    >>> trainer.embedder.save("model.keras")
    """

    def __init__(self, backbone: keras.Model, head: keras.layers.Layer, **kwargs):
        # Images reach the backbone as they are: its own layers, the first in float32, cast them.
        super().__init__(**{**kwargs, "autocast": False})
        if not isinstance(backbone, keras.Model):
            raise TypeError(
                "`backbone` must be a keras.Model from images to embeddings, e.g. backbones.SFNet20(). "
                f"Received: backbone={backbone!r}"
            )
        if not callable(getattr(head, "loss_and_statistics", None)):
            raise TypeError(
                f"`head` must be a head of keras_sphereface.heads, e.g. SphereFaceR(num_classes). Received: head={head!r}"
            )
        self.backbone = as_backbone(backbone)
        self.head = head
        # Whether it is told that a step is one of training, which a head of somebody's own class need not know.
        self._head_asks = self._samples or "training" in inspect.signature(head.loss_and_statistics).parameters
        self._trackers = [FiniteMean(name=name) for name in STATISTICS]
        for name in ("_embedder", "_traced"):  # Not tracked: their weights are the backbone's.
            object.__setattr__(self, name, None)
        shape = images_shape(self.backbone)
        if shape is not None:
            self.build(shape)

    def build(self, input_shape: Shape) -> None:
        """Builds the backbone, and the head for its embeddings."""
        embeddings = self.compute_output_spec(keras.Input(batch_shape=input_shape))
        if not self.head.built:
            self.head.build(embeddings.shape)
        self.built = True

    def call(self, images: Tensor, training: bool | None = None) -> Tensor:
        """Returns the embeddings; see the class."""
        if self._traced and training:  # in this order: under `keras.RematScope` JAX traces `training`
            return self._traced(images)
        return only_tensor(self.backbone(images, training=training))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Embeddings: `(batch, embedding_dim)`."""
        return self.compute_output_spec(keras.KerasTensor(input_shape)).shape

    def compute_output_spec(self, images: Tensor, training: bool | None = None) -> keras.KerasTensor:
        """Embeddings in the dtype that the backbone gives them, which need not be the policy's."""
        # A subclassed model is built by a call only, and only then has a shape of outputs.
        of_backbone = self.backbone.compute_output_spec if self.backbone.built else self.backbone
        return only_tensor(of_backbone(images))

    @property
    def _samples(self):
        return getattr(self.head, "samples", False)

    @property
    def embedder(self) -> keras.Model:
        """The model to keep: preprocessing inside, unit-length embeddings out. It shares the backbone's weights."""
        if self._embedder is None:
            object.__setattr__(self, "_embedder", build_embedder(self.backbone))
        return self._embedder

    def compile(
        self, optimizer: str | keras.optimizers.Optimizer = "sgd", jit_compile: bool | str = "auto", **kwargs
    ) -> None:
        """Configures training; the loss and the metrics are the head's.

        Args:
            optimizer: A Keras optimizer or its name. With a head that draws classes (`sample_rate`) a `keras.optimizers.SGD`
                is made a `SampledSGD`, an `Adam` or `AdamW` a `SampledAdam`, and others are refused. Defaults to `"sgd"`.
            jit_compile: As in `keras.Model.compile`; `"auto"` leaves XLA out on TensorFlow without an accelerator, where
                its convolutions are slower. On PyTorch it is about this package's backbones: `"auto"` trains them as a
                `TracedBackbone`, `True` has `torch.compile` work on that, `False` calls layer after layer. Defaults to
                `"auto"`.
            **kwargs: Further arguments of `keras.Model.compile`, except losses and metrics.

        Raises:
            ValueError: If a loss or metrics are given, the optimizer does not suit a head that draws classes, or something
                is asked for that Keras can't do under `tf.distribute.MirroredStrategy`.
        """
        for name in OWN_COMPILE_ARGUMENTS:
            if kwargs.get(name) is not None:
                raise ValueError(
                    f"FaceClassifier takes its loss and metrics from the head: remove `{name}` from compile(), or put the "
                    f"head into a functional model to use your own. Received: {name}={kwargs[name]!r}"
                )
            kwargs.pop(name, None)
        if self._samples:
            optimizer = for_sampling(optimizer)
        if keras.backend.backend() == "tensorflow":
            _check_mirrored(self.distribute_strategy, optimizer, kwargs.get("steps_per_execution") or 1)
        self._asked_jit_compile = jit_compile
        if jit_compile == "auto" and keras.backend.backend() == "tensorflow" and not tensorflow_has_accelerator():
            jit_compile = False
        traced = None
        if jit_compile and not kwargs.get("run_eagerly") and can_trace(self.backbone):
            # Keras's own `torch.compile` of a whole step breaks into pieces at each layer, and is slower than none.
            traced, jit_compile = TracedBackbone(self.backbone, compiled=jit_compile is True), False
        object.__setattr__(self, "_traced", traced)
        super().compile(optimizer=optimizer, loss=HeadLoss(), jit_compile=jit_compile, **kwargs)
        # Keras has no public way. Not tracked a second time: `metrics` has it by this name.
        object.__setattr__(self, "_loss_tracker", FiniteMean(name="loss"))

    def get_compile_config(self) -> dict:
        """Returns what a saved model is compiled with again, `jit_compile` as it was asked for: each device chooses anew."""
        config = super().get_compile_config()
        return {**config, "jit_compile": self._asked_jit_compile} if config else config

    def fit(self, *args, **kwargs) -> keras.callbacks.History:
        """As `keras.Model.fit`. Labels in an array are checked before: on JAX, and under XLA, a step could not raise for one
        that is no class, and its loss is NaN. Averaged class weights (`use_ema`) are put back on the sphere at the end.
        """
        shape = None if self.built else batch_shape(args[0] if args else kwargs.get("x"))
        if shape is not None and keras.backend.backend() == "tensorflow":
            # Elsewhere Keras does so itself before the callbacks begin, which look for the head's variables.
            with self.distribute_strategy.scope():
                self.build(shape)
        labels = args[1] if len(args) > 1 else kwargs.get("y")
        if isinstance(labels, np.ndarray) and hasattr(self.head, "check_labels"):
            self.head.check_labels(labels)
        history = super().fit(*args, **kwargs)
        if getattr(self.optimizer, "inner_optimizer", self.optimizer).use_ema:
            self.project()
        return history

    def project(self) -> None:
        """Puts the head's weights under their constraints: Keras averages them before, and a mean is not on the sphere."""
        for variable in self.head.trainable_variables:
            if variable.constraint is not None:
                variable.assign(variable.constraint(variable))

    def compute_loss(
        self,
        x: Tensor | None = None,
        y: Tensor | None = None,
        y_pred: Tensor | None = None,
        sample_weight: Tensor | None = None,
        training: bool = True,
    ) -> Tensor:
        """Returns the mean of the head's losses, scaled over replicas by Keras, and updates the metrics."""
        if y is None:
            raise ValueError("FaceClassifier trains on (images, labels). Received data without labels")
        for tracker in (self._loss_tracker, *self._trackers):
            # Of batches that a `GuardedOptimizer` skips; what is evaluated counts as it is.
            tracker.leaves_out = training and getattr(self.optimizer, "skips_batches", False)
        arguments = {"training": training} if self._head_asks else {}
        losses, statistics = self.head.loss_and_statistics(y_pred, y, **arguments)
        for tracker in self._trackers:
            tracker.update_state(statistics[tracker.name], sample_weight=sample_weight)
        return super().compute_loss(x=x, y=y, y_pred=losses, sample_weight=sample_weight, training=training)

    def get_config(self) -> dict:
        """Returns the backbone's and the head's configuration."""
        return {
            **super().get_config(),
            "backbone": keras.saving.serialize_keras_object(self.backbone),
            "head": keras.saving.serialize_keras_object(self.head),
        }

    @classmethod
    def from_config(cls, config: dict, custom_objects: dict | None = None) -> "FaceClassifier":
        """Makes the model again from `get_config`'s dictionary."""
        config = dict(config)
        for name in ("backbone", "head"):
            config[name] = keras.saving.deserialize_keras_object(config[name], custom_objects=custom_objects)
        return cls(**config)

    def compile_from_config(self, config: dict) -> None:
        """Compiles as a saved model was; the loss and the metrics are the head's."""
        config = keras.saving.deserialize_keras_object(_for_any_backend(config))
        self.compile(**{name: value for name, value in config.items() if name not in OWN_COMPILE_ARGUMENTS})
        self.optimizer.build(self.trainable_variables)


def _for_any_backend(config):
    """A saved optimizer's configuration, with Keras's public module instead of PyTorch's, at any depth."""
    if not isinstance(config, dict):
        return config
    config = {name: _for_any_backend(value) for name, value in config.items()}
    if str(config.get("module")).startswith(TORCH_OPTIMIZERS):
        config["module"] = "keras.optimizers"
    return config


def _check_mirrored(strategy, optimizer, steps_per_execution):
    """Refuses what Keras ends with a traceback of TensorFlow's in the first step."""
    import tensorflow as tf

    if not isinstance(strategy, tf.distribute.MirroredStrategy):
        return
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    if getattr(optimizer, "gradient_accumulation_steps", None):
        raise ValueError(
            "Keras can't accumulate gradients under MirroredStrategy: take larger batches. "
            f"Received: gradient_accumulation_steps={optimizer.gradient_accumulation_steps}"
        )
    if steps_per_execution > 1 and strategy.num_replicas_in_sync > 1:
        raise ValueError(
            "Keras can't run several steps at once on several replicas: leave `steps_per_execution` out. "
            f"Received: steps_per_execution={steps_per_execution}"
        )
