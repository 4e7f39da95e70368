"""Devices that share each batch, through JAX: some of one process, or all of the processes that train together.

Each device holds all values, and its slice of every batch. What a step computes, JAX computes over the whole batch,
statistics of batch normalisation and random draws too, so what comes out does not depend on the number of devices, but
for the rounding of sums that are added in another order.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

import keras
import numpy as np
from numpy.typing import NDArray

from bigearthnet.errors import OptionError
from trainer.model.hosts import Hosts

ALL: Final = "all"
Wanted = int | Literal["all"]
"""How many devices to use; `all` means all GPUs that JAX sees, or without any, all its CPU devices."""


class Mesh:
    """Several devices.

    Args:
        devices: As JAX lists them; if there are several processes, all devices of all of them.
    """

    def __init__(self, devices: Sequence[Any]) -> None:
        import jax  # noqa: PLC0415 - other backends do without

        self._jax: Any = jax
        self._devices = devices
        self._local = [device for device in devices if device.process_index == jax.process_index()]
        mesh = jax.sharding.Mesh(np.array(devices), ("patch",))
        self.everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
        self._sliced = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("patch"))

    def __len__(self) -> int:
        """Count the devices."""
        return len(self._devices)

    @property
    def n_local(self) -> int:
        """Count those of this process."""
        return len(self._local)

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

    def share(self, data: Any) -> Any:
        """Make one batch of the slices that the processes have; arrays (patch, ...)."""
        return self._jax.tree.map(lambda part: self._jax.make_array_from_process_local_data(self._sliced, part), data)

    def spread(self, values: Any) -> Any:
        """Make values that are everywhere of those that each process has, in a tree of any form."""

        def put(value: Any) -> Any:
            copies = [self._jax.device_put(value, device) for device in self._local]
            return self._jax.make_array_from_single_device_arrays(value.shape, self.everywhere, copies)

        return self._jax.tree.map(put, values)

    def collect(self, values: Any) -> Any:
        """Return values that are everywhere so that no other process is needed to use them."""
        if self.n_local == len(self):
            return values
        return self._jax.tree.map(lambda value: value.addressable_data(0), values)


def find_mesh(wanted: Wanted, hosts: Hosts) -> Mesh | None:
    """Find the devices that are to share each batch; None for one, which needs nothing of this module.

    Args:
        wanted: How many of this process, which must be 1 if there are several: they share batches by all they have.
        hosts: The processes that train together.

    Raises:
        OptionError: There are not so many, or the backend knows only one.
    """
    if wanted != ALL and wanted < 1:
        raise OptionError(f"devices must be at least 1, or {ALL}, not {wanted}")
    if wanted == 1 and hosts.n == 1:
        return None
    if keras.config.backend() != "jax":
        raise OptionError(
            f"several devices need Keras on JAX, not on {keras.config.backend()}: "
            "set KERAS_BACKEND=jax, or choose devices=1"
        )
    import jax  # noqa: PLC0415 - see above

    seen = jax.devices()
    if hosts.n > 1:
        if wanted != 1:
            raise OptionError(f"{hosts.n} processes share each batch by all devices that they see; leave out devices")
        return Mesh(seen)
    n_wanted = len(seen) if wanted == ALL else wanted
    if n_wanted > len(seen):
        names = ", ".join(map(str, seen))
        raise OptionError(f"{n_wanted} devices wanted, but JAX sees {len(seen)} ({names}); choose fewer, or {ALL}")
    return Mesh(seen[:n_wanted]) if n_wanted > 1 else None


class QueuedModel:
    """A model of JAX that predicts without waiting for the outcome.

    Args:
        model: Built; if there are several devices, trained on them, so that its variables are on all of them.
        mesh: The devices that share each batch.
    """

    def __init__(self, model: Any, mesh: Mesh | None = None) -> None:
        import jax  # noqa: PLC0415 - other backends do without

        self._model, self._mesh = model, mesh
        self._predict = jax.jit(
            lambda trained, others, pixels: model.stateless_call(trained, others, pixels, training=False)[0]
        )

    def predict_on_batch(self, pixels: Mapping[str, NDArray[Any]]) -> Any:
        """Put a batch of any size in line, and return what becomes an array when somebody looks at it."""
        groups = self._model.trainable_variables, self._model.non_trainable_variables
        values = [[variable.value for variable in group] for group in groups]
        if self._mesh is None:
            return self._predict(*values, dict(pixels))
        n_patches = len(next(iter(pixels.values())))
        if n_missing := -n_patches % len(self._mesh):
            pixels = {name: np.concatenate([part, part[:1].repeat(n_missing, 0)]) for name, part in pixels.items()}
        return self._predict(*values, self._mesh.share(dict(pixels)))[:n_patches]


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
