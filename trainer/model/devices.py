"""Several devices of one host that share each batch, through `tf.distribute.MirroredStrategy`.

Every device holds all weights and takes an equal part of each batch; gradients are summed. Batch normalisation takes
its statistics from the whole batch, and each device uses its part of the random draws that one device would make, so
what comes out does not depend on the number of devices, but for the rounding of sums that are added in another order.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import cache
from typing import Any, Final, Literal

import keras
import numpy as np
from numpy.typing import NDArray

from bigearthnet.errors import OptionError
from trainer.stream.buffers import ALIGNMENT

ALL: Final = "all"
Wanted = int | Literal["all"]
"""How many devices to use; `all` means all GPUs that TensorFlow sees, or without any, all its CPU devices."""


class Devices:
    """What a model is built on and trained by.

    Args:
        strategy: TensorFlow's, for several devices; None for one, which needs nothing of this module.
    """

    def __init__(self, strategy: Any | None = None) -> None:
        self._strategy = strategy

    def __len__(self) -> int:
        """Count the devices."""
        return self._strategy.num_replicas_in_sync if self._strategy else 1

    def check_batch(self, batch_size: int) -> None:
        """Check that each device gets as many patches.

        Raises:
            OptionError: It does not.
        """
        if batch_size % len(self):
            fitting = max(batch_size // len(self), 1) * len(self)
            raise OptionError(
                f"a batch of {batch_size:,} patches cannot be shared equally by {len(self)} devices; "
                f"choose a multiple of {len(self)}, such as {fitting:,}"
            )

    def scope(self) -> Any:
        """Return the context in which a model and its optimizer are built."""
        return self._strategy.scope() if self._strategy else nullcontext()

    def spread(self, model: Any) -> Any:
        """Return what has the model's `predict_on_batch`, on all devices."""
        if self._strategy:
            return SpreadModel(model, self)
        return QueuedModel(model) if keras.config.backend() == "jax" else model

    def share(self, data: Any, gpu: str | None = None) -> Any:
        """Put nested arrays on the device, or on each its part of them, in the order of the devices.

        Args:
            data: Arrays (patch, ...).
            gpu: The device, if there is one alone and it is not the host.
        """
        import tensorflow as tf  # noqa: PLC0415 - other backends do without

        if not self._strategy:
            with tf.device(gpu) if gpu else nullcontext():
                return tf.nest.map_structure(tf.convert_to_tensor if gpu else _share_memory, data)

        def take_part(context: Any) -> Any:
            place = context.replica_id_in_sync_group

            def take(values: NDArray[Any]) -> Any:
                size = len(values) // len(self)
                return tf.convert_to_tensor(values[place * size : (place + 1) * size])

            return tf.nest.map_structure(take, data)

        return self._strategy.experimental_distribute_values_from_function(take_part)

    def run(self, step: Callable[..., Any], data: Any) -> Any:
        """Call a function on each device with its part of shared data, and return the sum of what it returns."""
        if not self._strategy:
            return step(*data)
        return self._strategy.reduce("SUM", self._strategy.run(step, args=data), axis=None)

    def find_gpu(self) -> str | None:
        """Find the device to which batches are to be copied ahead; None if it is the host, or there are several."""
        import tensorflow as tf  # noqa: PLC0415 - other backends do without

        gpus = [] if self._strategy else tf.config.list_logical_devices("GPU")
        return gpus[0].name if gpus else None

    @contextmanager
    def training(self, model: Any) -> Iterator[None]:
        """Let batch normalisation take the statistics of the whole batch, while a model is trained.

        Only then: other backends cannot load a saved model whose layers say that they are synchronized.
        """
        layers = _find_normalizations(model) if self._strategy else []
        for layer in layers:
            layer.synchronized = True
        try:
            yield
        finally:
            for layer in layers:
                layer.synchronized = False


class QueuedModel:
    """A model of JAX that predicts without waiting for the outcome.

    Args:
        model: Built.
    """

    def __init__(self, model: Any) -> None:
        import jax  # noqa: PLC0415 - other backends do without

        self._model = model
        self._predict = jax.jit(
            lambda trained, others, pixels: model.stateless_call(trained, others, pixels, training=False)[0]
        )

    def predict_on_batch(self, pixels: Mapping[str, NDArray[Any]]) -> Any:
        """Put a batch in line, and return what becomes an array when somebody looks at it."""
        groups = self._model.trainable_variables, self._model.non_trainable_variables
        return self._predict(*([variable.value for variable in group] for group in groups), dict(pixels))


class SpreadModel:
    """A model whose batches are shared by several devices.

    Args:
        model: Built and compiled in the scope of the devices.
        devices: Several.
    """

    def __init__(self, model: Any, devices: Devices) -> None:
        self._model, self._devices = model, devices
        model.make_predict_function()

    def predict_on_batch(self, pixels: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        """Predict a batch of any size."""
        n_patches = len(next(iter(pixels.values())))
        n_missing = -n_patches % len(self._devices)
        filled = {name: np.concatenate([values, values[:1].repeat(n_missing, 0)]) for name, values in pixels.items()}
        outputs = self._model.predict_function([self._devices.share((filled,))])
        return np.asarray(outputs.numpy()[:n_patches])


def _is_news(record: logging.LogRecord) -> bool:
    """Tell whether to show what TensorFlow says: not that several models, as in a comparison, are traced one by one."""
    return "triggered tf.function retracing" not in record.getMessage()


logging.getLogger("tensorflow").addFilter(_is_news)


def start_backend() -> None:
    """Let TensorFlow look for its devices and say now what it says once a process, while nobody listens."""
    if keras.config.backend() == "tensorflow":
        import tensorflow as tf  # noqa: PLC0415 - other backends do without

        tf.config.list_logical_devices()
        tf.transpose(tf.zeros((1, 1), tf.uint16))  # that oneDNN has no uint16 on most processors


def _share_memory(values: NDArray[Any]) -> Any:
    """Make a tensor of TensorFlow on the memory of an array, which lives as long; NumPy's own way would copy it."""
    import tensorflow as tf  # noqa: PLC0415 - other backends do without

    if values.ctypes.data % ALIGNMENT:
        return tf.convert_to_tensor(values)
    return tf.experimental.dlpack.from_dlpack(values.__dlpack__())


def find_devices(wanted: Wanted = 1) -> Devices:
    """Find the devices to train on.

    Raises:
        OptionError: There are not so many, or the backend knows only one.
    """
    if wanted == 1:
        return Devices()
    if wanted != ALL and wanted < 1:
        raise OptionError(f"devices must be at least 1, or {ALL}, not {wanted}")
    if keras.config.backend() != "tensorflow":
        raise OptionError(
            f"several devices need Keras on TensorFlow, not on {keras.config.backend()}: "
            "set KERAS_BACKEND=tensorflow, or choose devices=1"
        )
    import tensorflow as tf  # noqa: PLC0415 - see above

    logical = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    if wanted == ALL:
        wanted = len(logical)
    if wanted > len(logical):
        names = ", ".join(device.name for device in logical)
        raise OptionError(
            f"{wanted} devices wanted, but TensorFlow sees {len(logical)} ({names}); choose fewer, or {ALL}"
        )
    return Devices(_make_strategy(tuple(device.name for device in logical[:wanted])) if wanted > 1 else None)


@cache
def _make_strategy(names: tuple[str, ...]) -> Any:
    """Make a strategy once for all trainings of this process: two of them would number their exchanges alike."""
    import tensorflow as tf  # noqa: PLC0415 - see above

    return tf.distribute.MirroredStrategy(names)


def locate_device() -> tuple[int, int]:
    """Say how many devices share the batch that a layer is working on, and which of them this is, from 0."""
    if keras.config.backend() == "tensorflow":
        import tensorflow as tf  # noqa: PLC0415 - see above

        context = tf.distribute.get_replica_context()
        if context is not None:
            return context.num_replicas_in_sync, context.replica_id_in_sync_group
    return 1, 0


def _find_normalizations(model: Any) -> list[Any]:
    """Find the batch normalisations of a model and of the models in it."""
    normalizations: list[Any] = []
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            normalizations += _find_normalizations(layer)
        elif isinstance(layer, keras.layers.BatchNormalization):
            normalizations.append(layer)
    return normalizations
