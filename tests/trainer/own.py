"""What a user might write: networks and losses that the package does not know."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # TensorFlow's own, on import
    import keras
    from keras import layers, ops


def network(pixels: Any) -> Any:
    """A residual block of Keras's own layers."""
    features = layers.Conv2D(8, 3, padding="same", name="stem")(pixels)
    branch = layers.BatchNormalization(name="norm")(layers.Conv2D(8, 3, padding="same", name="branch")(features))
    return layers.GlobalAveragePooling2D()(layers.Add()([features, branch]))


class Scale(layers.Layer):  # type: ignore[misc]
    """A layer that Keras does not know, registered nowhere."""

    def build(self, shape: Any) -> None:
        self.factor = self.add_weight(shape=(shape[-1],), initializer="ones", name="factor")

    def call(self, features: Any) -> Any:
        return features * self.factor


def network_with_own_layer(pixels: Any) -> Any:
    return Scale()(layers.GlobalAveragePooling2D()(pixels))


def network_with_code(pixels: Any) -> Any:
    return layers.Lambda(lambda features: features * 2)(layers.GlobalAveragePooling2D()(pixels))


def network_of_maps(pixels: Any) -> Any:
    return layers.Conv2D(8, 3)(pixels)


def network_that_fails(pixels: Any) -> Any:
    return layers.Conv2D(8, 3)(pixels)["features"]


def loss(truth: Any, logits: Any) -> Any:
    """Squared error of the probabilities."""
    return ops.mean((truth - ops.sigmoid(logits)) ** 2, axis=-1)


def loss_of_all(truth: Any, logits: Any) -> Any:
    return ops.mean((truth - ops.sigmoid(logits)) ** 2)


def make_loss() -> Callable[[Any, Any], Any]:
    """Return a function that has no name of its own."""

    def inner(truth: Any, logits: Any) -> Any:
        return loss(truth, logits)

    return inner


tversky = keras.losses.Tversky()
