"""Layers and losses that are saved with a model. Through `keras.ops` alone, so they run on every backend."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import keras
from keras import ops

from bigearthnet.errors import OptionError
from trainer.run.function import load_function

PACKAGE: Final = "bigearthnet_store"
"""Namespace of our classes in saved models."""


@keras.saving.register_keras_serializable(PACKAGE)
class StandardizeBands(keras.layers.Layer):  # type: ignore[misc] # Keras has no types
    """Turn stored pixels (patch, band, row, col) into standardised float32 (patch, row, col, band).

    Args:
        bands: Names of the bands, in the order of the input.
        mean: Of each band, in stored units.
        std: Of each band; one that does not vary is only centred.
    """

    def __init__(self, bands: Sequence[str], mean: Sequence[float], std: Sequence[float], **kwargs: Any) -> None:
        # In half precision, values above 2,048 would already have been rounded.
        super().__init__(**{**kwargs, "dtype": "float32"}, autocast=False)
        self.bands, self.mean, self.std = list(bands), list(mean), list(std)

    def call(self, pixels: Any) -> Any:
        """Cast before anything is computed: uint16 wraps."""
        pixels = ops.transpose(ops.cast(pixels, "float32"), (0, 2, 3, 1))
        scale = ops.convert_to_tensor([1.0 / (std or 1.0) for std in self.std], "float32")
        return (pixels - ops.convert_to_tensor(self.mean, "float32")) * scale

    def compute_output_shape(self, shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Move the bands to the end."""
        return (shape[0], shape[2], shape[3], shape[1])

    def get_config(self) -> dict[str, Any]:
        """Return what rebuilds the layer."""
        config = super().get_config()
        del config["dtype"]
        return {**config, "bands": self.bands, "mean": self.mean, "std": self.std}


@keras.saving.register_keras_serializable(PACKAGE)
class RandomSymmetry(keras.layers.Layer):  # type: ignore[misc]
    """Flip patches (patch, row, col, band) at random, each by itself, in training only; pixels only move.

    Args:
        transpose: Swap rows and columns at random too, which with the flips gives all eight symmetries of the square.
        seed: Seed of the draws; their state is a variable of the layer and so part of a checkpoint.
    """

    def __init__(self, *, transpose: bool, seed: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.transpose, self.seed = transpose, seed
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.built = True

    def call(self, pixels: Any, *, training: bool = False) -> Any:
        """Draw three bits for each patch."""
        if not training:
            return pixels
        drawn = _draw(pixels, 3, self.seed_generator) < 0.5
        for bit, moved in enumerate((lambda x: ops.flip(x, 1), lambda x: ops.flip(x, 2), _swap)):
            if moved is not _swap or self.transpose:
                pixels = ops.where(ops.reshape(drawn[:, bit], (-1, 1, 1, 1)), moved(pixels), pixels)
        return pixels

    def compute_output_shape(self, shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Change nothing."""
        return shape

    def get_config(self) -> dict[str, Any]:
        """Return what rebuilds the layer."""
        return {**super().get_config(), "transpose": self.transpose, "seed": self.seed}


def _swap(pixels: Any) -> Any:
    return ops.transpose(pixels, (0, 2, 1, 3))


@keras.saving.register_keras_serializable(PACKAGE)
class DropPath(keras.layers.Layer):  # type: ignore[misc]
    """Add two tensors, the end of a residual block; in training, leave out what the block made, each patch by itself.

    It takes the place of the addition, so that a network has its layers in the same order with and without it.

    Args:
        branch: Which of the two the block made, 0 or 1; the other one leads round it.
        rate: How often it is left out; what is kept is divided by 1 - rate, so that its mean stays.
        seed: Seed of the draws.
    """

    def __init__(self, branch: int, rate: float, *, seed: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.branch, self.rate, self.seed = branch, rate, seed
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.built = True

    def call(self, added: Sequence[Any], *, training: bool = False) -> Any:
        """Draw once for each patch."""
        branch, shortcut = added[self.branch], added[1 - self.branch]
        if training and self.rate > 0:
            kept = _draw(branch, 1, self.seed_generator) >= self.rate
            kept = ops.reshape(kept, (-1, *(1 for _ in branch.shape[1:])))
            branch = ops.where(kept, branch / (1 - self.rate), ops.zeros_like(branch))
        return shortcut + branch

    def compute_output_shape(self, shapes: Sequence[tuple[int | None, ...]]) -> tuple[int | None, ...]:
        """Give what both have."""
        return shapes[0]

    def get_config(self) -> dict[str, Any]:
        """Return what rebuilds the layer."""
        return {**super().get_config(), "branch": self.branch, "rate": self.rate, "seed": self.seed}


def _draw(patches: Any, n_draws: int, seed: Any) -> Any:
    """Draw numbers from 0 to 1 for each patch."""
    return keras.random.uniform((ops.shape(patches)[0], n_draws), seed=seed)


@keras.saving.register_keras_serializable(PACKAGE)
class ClassLogits(keras.layers.Dense):  # type: ignore[misc]
    """The last layer: one logit for each class, whose names it carries. Always float32."""

    def __init__(self, classes: Sequence[str], **kwargs: Any) -> None:
        super().__init__(len(classes), **{**kwargs, "dtype": "float32"})
        self.classes = list(classes)

    def get_config(self) -> dict[str, Any]:
        """Return what rebuilds the layer."""
        config = super().get_config()
        del config["units"], config["dtype"]
        return {**config, "classes": self.classes}


@keras.saving.register_keras_serializable(PACKAGE)
class WeightedCrossEntropy(keras.losses.Loss):  # type: ignore[misc]
    """Binary cross-entropy of logits, mean over classes, in which a present class counts more.

    Args:
        pos_weight: Weight of each class where it is present; 1 is the plain cross-entropy.
    """

    def __init__(self, pos_weight: Sequence[float], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.pos_weight = list(pos_weight)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Return the loss of each patch."""
        y_true = ops.cast(y_true, y_pred.dtype)
        weight = ops.convert_to_tensor(self.pos_weight, y_pred.dtype)
        losses = weight * y_true * ops.softplus(-y_pred) + (1 - y_true) * ops.softplus(y_pred)
        return ops.mean(losses, axis=-1)

    def get_config(self) -> dict[str, Any]:
        """Return what rebuilds the loss."""
        return {**super().get_config(), "pos_weight": self.pos_weight}


class OwnLoss(keras.losses.Loss):  # type: ignore[misc]
    """A loss of the user's own. No saved model has it, so it is never loaded.

    Args:
        function: Labels and logits, each (patch, class), to the loss of each patch, shape (patch,).
    """

    def __init__(self, function: Callable[[Any, Any], Any], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.function = function

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Return the loss of each patch."""
        return self.function(ops.cast(y_true, y_pred.dtype), y_pred)


def make_own_loss(name: str, n_classes: int) -> OwnLoss:
    """Make a loss of a function of the user's own, `module:function`, and try it on two patches.

    Raises:
        OptionError: There is no such function, it fails, or does not give one number for each patch.
    """
    function = load_function(name)
    try:
        shape = tuple(function(ops.zeros((2, n_classes)), ops.zeros((2, n_classes))).shape)
    except Exception as error:  # a function of the user's may raise anything
        raise OptionError(
            f"{name}: fails on labels and logits of 2 patches ({type(error).__name__}: {error})"
        ) from error
    if shape != (2,):
        raise OptionError(f"{name}: expected the loss of each patch, of shape (2,) for 2 patches, found {shape}")
    return OwnLoss(function)
