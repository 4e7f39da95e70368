"""Begin with the weights of another model: one of a run, or one that was trained on ImageNet."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import keras
import numpy as np
from numpy.typing import NDArray

from bigearthnet.errors import OptionError, RunError
from trainer.model.blocks import drop_blocks
from trainer.model.layers import ClassLogits
from trainer.model.networks import describe_model, list_layers, list_networks, load_model, make_network
from trainer.run.folder import RunFolder
from trainer.run.function import is_function_name
from trainer.run.recipe import Recipe

IMAGENET: Final = "imagenet"
_RGB: Final = ("B04", "B03", "B02")
_IMAGENET_STD: Final = 58.0
"""Standard deviation of ImageNet's pixels, of 0 to 255, over all colours."""
_CAFFE: Final = ("vgg16", "vgg19", "resnet50", "resnet101", "resnet152")
"""Networks of `keras.applications` that were trained on blue, green and red less their means, of 0 to 255."""
_TORCH: Final = ("densenet", "convnext", "efficientnetb", "efficientnetv2-b")
"""Beginnings of the names of those that were trained on standardised pixels; all others were on those of -1 to 1."""


@dataclass(frozen=True, eq=False)
class Weights:
    """Weights to begin with."""

    bands: tuple[str, ...]
    """What the first kernel takes, in its order."""
    network: list[tuple[str, NDArray[Any]]]
    """Name and values of each weight of the network, in order."""
    head: list[NDArray[Any]]
    """Those of the last layer."""
    classes: tuple[str, ...]
    """Of the last layer; none if there is none."""

    @property
    def digest(self) -> str:
        """Identify them."""
        hashed = hashlib.blake2b(repr((self.bands, self.classes)).encode(), digest_size=16)
        for values in (*(values for _, values in self.network), *self.head):
            hashed.update(np.ascontiguousarray(values).tobytes())
        return hashed.hexdigest()


def read_weights(recipe: Recipe) -> Weights:
    """Read the weights that a recipe names.

    Raises:
        OptionError: There are none for its network.
        RunError: There is no such run or model, or it cannot be read.
    """
    path, network = Path(recipe.weights), str(recipe.network)
    if path.is_dir() or path.suffix == ".keras":
        model = load_model(
            RunFolder(path).model_path if path.is_dir() else path, network if is_function_name(network) else ""
        )
        card = describe_model(model)
        head = next(layer for layer in model.layers if isinstance(layer, ClassLogits))
        return Weights(tuple(card.band_names), _list_weights(model), head.get_weights(), card.classes)
    if recipe.weights != IMAGENET and not path.is_file():
        raise OptionError(f"weights={recipe.weights}: there is no such run or file; or choose {IMAGENET}")
    known = network.lower() in (name.lower() for name in list_networks())
    if not known or (recipe.weights != IMAGENET and path.suffix != ".h5"):
        raise OptionError(
            f"weights={recipe.weights}: expected the folder of a run, a .keras file of one, or for a network of "
            f"keras.applications {IMAGENET} or an .h5 file of its weights; the network is {network}"
        )
    size = 224  # as it was trained; the weights of a convolution do not depend on it
    try:
        source = drop_blocks(make_network(network, (size, size, len(_RGB)), weights=recipe.weights), 0, 0)
    except Exception as error:  # of a download, of h5py
        reason = " ".join(str(error).split())
        raise RunError(
            f"weights={recipe.weights}: cannot be loaded for {network} ({reason}); without internet, fetch the file of "
            "weights without top (notop) elsewhere and give its path"
        ) from error
    scale, bands = _find_scaling(source.name)
    weights = _list_weights(source)
    place = _find_first_kernel(weights)
    weights[place] = weights[place][0], weights[place][1] * np.float32(scale)
    return Weights(bands, weights, [], ())


def begin_with(model: Any, weights: Weights) -> None:
    """Give a model the weights of another one of the same network.

    The kernel of its first layer is fitted to its bands: a band that the other one had too keeps its weights, any
    other gets their mean over all bands, and all are multiplied by the ratio of the number of bands, so that bands
    that say the same give what they gave before. The last layer is taken over if the classes are the same ones, in
    the same order; if not, it begins anew.

    Raises:
        RunError: The weights are those of another network.
    """
    card = describe_model(model)
    values = dict(enumerate(weights.network))
    place = _find_first_kernel(weights.network)
    values[place] = values[place][0], _fit_kernel(values[place][1], weights.bands, card.band_names)
    layers = [layer for layer in _list_network(model) if layer.weights]
    expected = [(weight.name, tuple(weight.shape)) for layer in layers for weight in layer.weights]
    given = [(name, array.shape) for name, array in values.values()]
    if expected != given:
        at = next((i for i, pair in enumerate(zip(expected, given, strict=False)) if pair[0] != pair[1]), None)
        what = f"{len(given)} weights, not {len(expected)}" if at is None else f"{given[at]}, not {expected[at]}"
        raise RunError(f"the weights to begin with are those of another network: they have {what}")
    left = iter(array for _, array in values.values())
    for layer in layers:
        layer.set_weights([next(left) for _ in layer.weights])
    if weights.classes == card.classes:
        model.get_layer("logits").set_weights(weights.head)


def _list_network(model: Any) -> list[Any]:
    """List the layers whose weights are taken over: EfficientNet's statistics of pixels are not."""
    return [layer for layer in list_layers(model) if not isinstance(layer, ClassLogits | keras.layers.Normalization)]


def _list_weights(model: Any) -> list[tuple[str, NDArray[Any]]]:
    return [
        (weight.name, keras.ops.convert_to_numpy(weight)) for layer in _list_network(model) for weight in layer.weights
    ]


def _find_first_kernel(weights: Sequence[tuple[str, NDArray[Any]]]) -> int:
    return next((place for place, (_, values) in enumerate(weights) if values.ndim > 1), 0)


def _fit_kernel(kernel: NDArray[Any], bands: Sequence[str], wanted: Sequence[str]) -> NDArray[Any]:
    """Fit a kernel, whose axis before the last is that of the bands, to other bands."""
    if kernel.ndim < 2 or kernel.shape[-2] != len(bands):
        raise RunError(
            f"the weights to begin with have a first kernel of shape {kernel.shape}, which does not take "
            f"{len(bands)} bands on its last axis but one"
        )
    if tuple(bands) == tuple(wanted):
        return kernel
    mean = kernel.mean(-2)
    columns = [kernel[..., bands.index(band), :] if band in bands else mean for band in wanted]
    fitted: NDArray[Any] = np.stack(columns, -2) * np.float32(len(bands) / len(wanted))
    return fitted


def _find_scaling(network: str) -> tuple[float, tuple[str, ...]]:
    """Say how many of its units a standard deviation is, and in which order a network takes the colours."""
    if network in _CAFFE:
        return _IMAGENET_STD, _RGB[::-1]
    return (1.0 if network.startswith(_TORCH) else _IMAGENET_STD / 127.5), _RGB
