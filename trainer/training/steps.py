"""Train the next steps in one call, on batches that are on the device before they are needed.

No loss is looked at before the end of a call. However many steps a call has, what comes out is the same to the last
bit: each step computes what it would alone, and the losses are added up by whoever called.
"""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Self

import keras
import numpy as np
from numpy.typing import NDArray

from trainer.model.devices import Mesh
from trainer.model.networks import ModelCard
from trainer.score.predict import take_pixels
from trainer.stream.buffers import align
from trainer.stream.stream import Stream

_N_AHEAD: Final = 2
"""Batches on their way to the device before they are needed, and, with JAX, steps that wait there for their turn."""

_MAX_TOGETHER: Final = 16
_TOGETHER_BYTES: Final = 64 * 2**20
"""So many batches, of so many bytes in all, are at most handed to TensorFlow together. What calling a function costs
matters only if a step takes about as long, and then batches are small."""


@dataclass(frozen=True)
class Outcome:
    """What came of some steps."""

    losses: NDArray[np.float64]
    """Of each step, shape (step,)."""
    wait_s: float
    """Time that went by until batches were decoded."""
    copy_s: float
    """Time that went by until they were on the device."""


class Steps(ABC):
    """Trains a compiled model on the batches of a stream, from where the stream stands at the first call.

    Batches are fetched ahead, so the position of the stream says nothing of what was trained. On leaving the context,
    close the stream before this: what waits for a batch ends then.

    Args:
        model: Its variables are true after `publish`; from a call of `train` until then, nobody may change them.
        card: The model's own description.
        stream: Nobody else may take batches from it.
        ahead: Copy batches in a thread of their own; where nothing is copied, that would only cost time.
    """

    def __init__(self, model: Any, card: ModelCard, stream: Stream, *, ahead: bool) -> None:
        self._model, self._card, self._batches = model, card, stream.forever()
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="trainer-copy") if ahead else None
        self._ahead: deque[Future[tuple[Any, float]]] = deque()
        self._wait_s = self._copy_s = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Wait for the thread that copies."""
        if self._executor:
            self._executor.shutdown(wait=True, cancel_futures=True)
        self._ahead.clear()

    def train(self, n_steps: int) -> Outcome:
        """Train on the next batches."""
        self._wait_s = self._copy_s = 0.0
        losses = self._train(n_steps)
        return Outcome(losses.astype(np.float64), self._wait_s, self._copy_s)

    def publish(self) -> None:  # noqa: B027 - most have nothing to do
        """Make the variables of the model true."""

    @abstractmethod
    def _train(self, n_steps: int) -> NDArray[Any]:
        """Train, and return the loss of each step."""

    def _put(self, parts: Any) -> Any:
        """Put arrays on the device, or begin to."""
        return parts

    def _settle(self, parts: Any) -> Any:
        """Wait until they are there."""
        return parts

    def _take(self) -> Any:
        """Return pixels and labels of the next batch, on the device."""
        start = time.perf_counter()
        if self._executor:
            while len(self._ahead) <= _N_AHEAD:
                self._ahead.append(self._executor.submit(self._fetch))
            parts, decoded = self._ahead.popleft().result()
        else:
            parts, decoded = self._fetch()
        parts = self._settle(parts)
        self._wait_s += max(decoded - start, 0.0)
        self._copy_s += time.perf_counter() - max(decoded, start)
        return parts

    def _fetch(self) -> tuple[Any, float]:
        """Start to put the next batch on the device, and say when it was decoded."""
        batch = next(self._batches)
        decoded = time.perf_counter()
        return self._put((take_pixels(batch, self._card), batch["labels"])), decoded


def make_steps(model: Any, card: ModelCard, stream: Stream, mesh: Mesh | None = None) -> Steps:
    """Choose the way of training that the backend of Keras knows; several devices only JAX does."""
    backend = keras.config.backend()
    if backend == "tensorflow":
        return _TensorFlowSteps(model, card, stream)
    return _JaxSteps(model, card, stream, mesh) if backend == "jax" else _SingleSteps(model, card, stream, ahead=False)


class _SingleSteps(Steps):
    """Steps one by one through Keras, each of which waits for the last one: on any backend."""

    def _train(self, n_steps: int) -> NDArray[Any]:
        return np.array([self._model.train_on_batch(*self._take(), return_dict=True)["loss"] for _ in range(n_steps)])


class _JaxSteps(Steps):
    """A compiled function of one step, which JAX puts in line on the device without waiting for it.

    The state is one long array for each dtype instead of one array for each variable, since JAX lets go of Python's
    lock for each array that a call is given, and threads that decode batches take it meanwhile: beside a stream, a call
    with the 750 arrays of ResNet50 took 17 ms, and one with three 5 us (medians of `python -m benchmarks.fit --only
    calls`, 2 cores).
    """

    def __init__(self, model: Any, card: ModelCard, stream: Stream, mesh: Mesh | None) -> None:
        import jax  # noqa: PLC0415 - other backends do without

        super().__init__(model, card, stream, ahead=jax.default_backend() != "cpu")
        self._jax, self._mesh = jax, mesh
        self._groups = (model.trainable_variables, model.non_trainable_variables, model.optimizer.variables)
        placed = {"out_shardings": mesh.everywhere} if mesh else {}
        self._step: Any = jax.jit(self._compute_step, donate_argnums=0, **placed)
        self._pack, self._unpack = jax.jit(self._join), jax.jit(self._split)
        self._state: Any = None

    def publish(self) -> None:
        """Give the variables the values that they have after the last step."""
        if self._state is None:
            return
        packed = self._mesh.collect(self._state) if self._mesh else self._state
        for group, values in zip(self._groups, self._unpack(packed), strict=True):
            for variable, value in zip(group, values, strict=True):
                variable.assign(value)
        self._state = None

    def _train(self, n_steps: int) -> NDArray[Any]:
        if self._state is None:
            packed = self._pack([[variable.value for variable in group] for group in self._groups])
            self._state = self._mesh.spread(packed) if self._mesh else packed
        losses: list[Any] = []
        for step in range(n_steps):
            if step >= _N_AHEAD:  # or batches would pile up on the device
                losses[step - _N_AHEAD].block_until_ready()
            self._state, loss = self._step(self._state, *self._take())
            losses.append(loss)
        return np.array(self._jax.device_get(losses))

    def _put(self, parts: Any) -> Any:
        # JAX keeps the arrays, and with them the batch's memory, until it has copied them, or, where the device is the
        # host and nothing is copied, for as long as it uses them. There a call takes them as they are: `device_put`
        # would cost more than the rest of the call.
        if self._mesh:
            return self._mesh.share(parts)
        return self._jax.device_put(parts) if self._executor else parts

    def _settle(self, parts: Any) -> Any:
        return self._jax.block_until_ready(parts)

    def _compute_step(self, packed: Any, pixels: Any, labels: Any) -> tuple[Any, Any]:
        """Compute the state after a step, and its loss, from the state before."""
        model, (trained, others, optimizer_values) = self._model, self._split(packed)

        def compute_loss(trained: Any) -> tuple[Any, tuple[Any, Any]]:
            logits, updated, penalties = model.stateless_call(
                trained, others, pixels, training=True, return_losses=True
            )
            loss = keras.ops.mean(model.loss(labels, logits)) + sum(penalties)
            mapping = list(zip(model.optimizer.variables, optimizer_values, strict=True))
            with keras.StatelessScope(state_mapping=mapping):
                return model.optimizer.scale_loss(loss), (loss, updated)

        (_, (loss, others)), gradients = self._jax.value_and_grad(compute_loss, has_aux=True)(trained)
        trained, optimizer_values = model.optimizer.stateless_apply(optimizer_values, gradients, trained)
        return self._join([trained, others, optimizer_values]), loss

    def _join(self, groups: Any) -> dict[str, Any]:
        """Make one long array a dtype of the values of all variables."""
        parts: dict[str, list[Any]] = {}
        for value in (value for group in groups for value in group):
            parts.setdefault(str(value.dtype), []).append(value.reshape(-1))
        return {dtype: self._jax.numpy.concatenate(values) for dtype, values in parts.items()}

    def _split(self, packed: dict[str, Any]) -> list[list[Any]]:
        """Undo `_join`."""
        places = dict.fromkeys(packed, 0)

        def cut(variable: Any) -> Any:
            dtype, size = str(variable.value.dtype), math.prod(variable.shape)
            places[dtype] += size
            return packed[dtype][places[dtype] - size : places[dtype]].reshape(variable.shape)

        return [[cut(variable) for variable in group] for group in self._groups]


class _TensorFlowSteps(Steps):
    """A compiled function of several steps, compiled once for any number of them."""

    def __init__(self, model: Any, card: ModelCard, stream: Stream) -> None:
        import tensorflow as tf  # noqa: PLC0415 - other backends do without

        self._tf, self._gpu = tf, find_gpu()
        super().__init__(model, card, stream, ahead=self._gpu is not None)
        self._step = tf.function(self._compute_step, jit_compile=bool(model.jit_compile), autograph=False)
        self._steps: Any = None
        self._n_together = max(1, min(_MAX_TOGETHER, _TOGETHER_BYTES // stream.batch_bytes))

    def _train(self, n_steps: int) -> NDArray[Any]:
        losses: list[Any] = []
        while len(losses) < n_steps:
            batches = [self._take() for _ in range(min(n_steps - len(losses), self._n_together))]
            if self._n_together == 1:
                losses.append(self._step(*batches[0]))
            else:
                filled = batches + batches[-1:] * (self._n_together - len(batches))
                losses += self._call_together(len(batches), filled).numpy().tolist()
        return np.array([float(loss) for loss in losses])

    def _put(self, parts: Any) -> Any:
        pixels, labels = parts
        if self._gpu is None:
            return {name: share_memory(values) for name, values in pixels.items()}, share_memory(labels)
        with self._tf.device(self._gpu):
            return self._tf.nest.map_structure(self._tf.convert_to_tensor, parts)

    def _call_together(self, n_steps: int, batches: Any) -> Any:
        """Train a step on each of the first batches, and return the losses.

        The tensors are given one by one to one compiled function. TensorFlow's own way, which looks into lists and
        searches for a function that suits them, takes as long as a small step.
        """
        given = (self._tf.constant(n_steps), *self._tf.nest.flatten(batches))
        if self._steps is None:
            places = self._tf.nest.map_structure(lambda tensor: tensor.dtype, batches)
            compiled = self._tf.function(partial(self._compute_steps, places), autograph=False)
            self._steps = compiled.get_concrete_function(*given)
        return self._steps(*given)

    def _compute_steps(self, places: Any, n_steps: Any, *tensors: Any) -> Any:
        tf = self._tf
        batches = tf.nest.pack_sequence_as(places, tensors)

        def train(step: Any, losses: Any) -> tuple[Any, Any]:
            batch = tf.switch_case(step, [lambda batch=batch: batch for batch in batches])
            return step + 1, losses.write(step, self._step(*batch))

        start = (tf.constant(0), tf.TensorArray(tf.float32, n_steps))
        _, losses = tf.while_loop(lambda step, _: step < n_steps, train, start, parallel_iterations=1)
        return losses.stack()

    def _compute_step(self, pixels: Any, labels: Any) -> Any:
        """Train a step, and return its loss."""
        model, variables = self._model, self._model.trainable_variables
        with self._tf.GradientTape() as tape:
            logits = model(pixels, training=True)
            loss = model.compute_loss(y=labels, y_pred=logits, training=True)
            scaled = model.optimizer.scale_loss(loss)
        model.optimizer.apply_gradients(zip(tape.gradient(scaled, variables), variables, strict=True))
        return loss


def find_gpu() -> str | None:
    """Find the device of TensorFlow to which batches are to be copied ahead; None if it is the host."""
    import tensorflow as tf  # noqa: PLC0415 - other backends do without

    gpus = tf.config.list_logical_devices("GPU")
    return gpus[0].name if gpus else None


def share_memory(values: NDArray[Any]) -> Any:
    """Make a tensor of TensorFlow on the memory of an array, which lives as long; NumPy's own way would copy it.

    An array that is not aligned is copied, but here: TensorFlow takes six times as long for the labels of a batch.
    """
    import tensorflow as tf  # noqa: PLC0415 - other backends do without

    return tf.experimental.dlpack.from_dlpack(align(values).__dlpack__())
