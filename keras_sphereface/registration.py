"""Registers all layers and models of the package with Keras, so that saved ones load without `custom_objects`."""

from keras_sphereface import backbones, classifier, fused_sgd, guarded_optimizer, heads, schedules

__all__ = ["backbones", "classifier", "fused_sgd", "guarded_optimizer", "heads", "schedules"]
