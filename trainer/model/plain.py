"""Use a Keras model that knows nothing of this package: its user names its bands, its classes and its pixels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import keras
import numpy as np

from bigearthnet.bands import GROUPS, QUANTIFICATION_VALUE, resolve_bands
from bigearthnet.errors import OptionError
from bigearthnet.labels import LABELS_19, LABELS_43, split_names
from bigearthnet.store.arrays import ArrayInfo
from trainer.model.networks import ModelCard, join_bands, load_keras
from trainer.run.recipe import PIXELS, Pixels

_PROBABILITIES: Final = ("sigmoid", "softmax")
_EPSILON: Final = 1e-7
"""A probability of 0 or 1 becomes one that has a logit in float32."""


PUBLISHED: Final = tuple(
    ArrayInfo(group.name, group.name, group.bands, (0, *group.patch_shape), (), group.dtype, 1, "other")
    for group in GROUPS
)
"""The arrays that BigEarthNet's files would be."""


@dataclass(frozen=True)
class PlainModel:
    """What must be said of a model that was not made by this package."""

    bands: str
    """Bands or sets of bands, joined by commas or plus signs, in the order of the model's channels."""
    classes: str
    """In the order of the model's outputs: 19 or 43 for the lists of BigEarthNet, or names joined by semicolons."""
    pixels: Pixels

    def __post_init__(self) -> None:
        if self.pixels not in PIXELS:
            raise OptionError(f"pixels must be one of {', '.join(PIXELS)}, not {self.pixels!r}")


def wrap_model(
    path: Path,
    plain: PlainModel,
    arrays: Sequence[ArrayInfo] = PUBLISHED,
    class_lists: tuple[tuple[str, ...], tuple[str, ...]] = (LABELS_19, LABELS_43),
    scale_of: Callable[[Sequence[str]], Any] | None = None,
    network: str = "",
) -> tuple[Any, ModelCard]:
    """Load a plain Keras model, and build one around it that takes stored pixels and gives logits.

    Args:
        path: A `.keras` file. It has one input, (patch, row, col, band) or (patch, band, row, col), of the size of the
            finest bands chosen; others are brought to it by repeating pixels. It has one output, (patch, class):
            probabilities if its last layer has a sigmoid or softmax, logits if that has no activation.
        plain: What it takes and gives.
        arrays: What there is.
        class_lists: What 19 and 43 classes are.
        scale_of: Gives mean and standard deviation of some bands; None if nobody knows them.
        network: `module:function`, if layers of the user's own are in the module.

    Raises:
        OptionError: The model does not take such bands or give such classes.
        RunError: There is no model, or it cannot be loaded.
    """
    model = load_keras(path, network)
    wanted = resolve_bands(plain.bands, [band for info in arrays for band in info.bands])
    if len(set(wanted)) < len(wanted):
        raise OptionError(f"each band can be given once, found {', '.join(wanted)}")
    bands = {info.name: tuple(band for band in wanted if band in info.bands) for info in arrays}
    bands = {name: names for name, names in bands.items() if names}
    scales = {name: _find_scale(plain.pixels, name, names, scale_of) for name, names in bands.items()}
    inputs, pixels = join_bands([info for info in arrays if info.name in bands], bands, scales, "nearest")
    joined = [band for names in bands.values() for band in names]
    if joined != list(wanted):
        pixels = keras.ops.take(pixels, np.array([joined.index(band) for band in wanted]), axis=-1)
    outputs = model(_lay_out(path, model, pixels))
    classes = {"19": class_lists[0], "43": class_lists[1]}.get(plain.classes.strip()) or split_names(plain.classes)
    if getattr(outputs, "shape", ())[1:] != (len(classes),):
        raise OptionError(
            f"{path}: expected one number for each of {len(classes)} classes, found outputs of shape "
            f"{getattr(outputs, 'shape', type(outputs).__name__)}; name its classes"
        )
    return keras.Model(inputs, _find_logits(path, model, outputs)), ModelCard(bands, classes)


def _find_scale(
    pixels: Pixels, array: str, bands: Sequence[str], scale_of: Callable[[Sequence[str]], Any] | None
) -> tuple[list[float], list[float]]:
    """Find what is taken from the pixels of an array, and what they are divided by."""
    if pixels == "standardised":
        if scale_of is None:
            raise OptionError("standardised pixels need the statistics of a store: choose stored or reflectance")
        mean, std = scale_of(bands)
        return mean.tolist(), std.tolist()
    scale = QUANTIFICATION_VALUE if pixels == "reflectance" and array.startswith("s2") else 1
    return [0.0] * len(bands), [float(scale)] * len(bands)


def _lay_out(path: Path, model: Any, pixels: Any) -> Any:
    """Bring pixels (patch, row, col, band) into the shape that a model takes."""
    inputs: Sequence[Any] = getattr(model, "inputs", None) or ()  # of one input, `model.input` may be a list or not
    wanted = tuple(inputs[0].shape) if len(inputs) == 1 else ()
    _, n_rows, n_columns, n_bands = pixels.shape
    for shape, order in (((n_rows, n_columns, n_bands), None), ((n_bands, n_rows, n_columns), (0, 3, 1, 2))):
        if len(wanted) == 4 and all(size in (None, ours) for size, ours in zip(wanted[1:], shape, strict=True)):
            return pixels if order is None else keras.ops.transpose(pixels, order)
    raise OptionError(
        f"{path}: expected one input of shape (patch, {n_rows}, {n_columns}, {n_bands}) or (patch, {n_bands}, "
        f"{n_rows}, {n_columns}), found {wanted or f'{len(inputs)} inputs'}; name other bands, or put a layer "
        "in front that resizes"
    )


def _find_logits(path: Path, model: Any, outputs: Any) -> Any:
    """Turn what a model gives into logits."""
    last = model.layers[-1]
    while isinstance(last, keras.Model):
        last = last.layers[-1]
    activation = getattr(getattr(last, "activation", None), "__name__", type(last).__name__)
    outputs = keras.ops.cast(outputs, "float32")
    if activation == "linear":
        return outputs
    if activation not in _PROBABILITIES:
        raise OptionError(
            f"{path}: expected a last layer with a sigmoid, a softmax or no activation, found {last.name} with "
            f"{activation}, of which nobody knows whether it gives logits or probabilities"
        )
    probabilities = keras.ops.clip(outputs, _EPSILON, 1 - _EPSILON)
    return keras.ops.log(probabilities) - keras.ops.log1p(-probabilities)
