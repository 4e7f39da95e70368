"""Skip residual blocks of a network at random while it trains: stochastic depth, also called drop path.

Huang et al., "Deep Networks with Stochastic Depth", 2016 (https://arxiv.org/abs/1603.09382). The networks of
`keras.applications` come without it, or with draws that differ between devices, so it is put into their graphs here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

import keras
import numpy as np

from bigearthnet.errors import OptionError
from trainer.model.layers import DropPath

_WITHOUT_BLOCKS: Final = "nasnet"
"""Its cells add branches to one another, of which none is the way round the others."""


def drop_blocks(network: Any, rate: float, seed: int) -> Any:
    """Let a network skip its residual blocks, each patch by itself; those that it skips of itself no longer are.

    A residual block ends where two tensors are added of which one is the input of the other's layers, or that input
    after one convolution: that one stays, and the other is dropped. Rates rise in equal steps from 0 for the first
    of several blocks to `rate` for the last one, as in the paper.

    Args:
        network: A functional model; its layers, with their weights, become those of the one that is returned.
        rate: How often the last block is skipped; 0 for no block.
        seed: Of the draws.

    Raises:
        OptionError: The network has no residual blocks.
    """
    own = [layer for layer in network.layers if _is_own_drop(layer)]
    if not rate and not own:
        return network
    graph = _Graph(seed, is_dropped=rate > 0)
    # Its layers are kept, so its weights are those that it would have without.
    changed = keras.models.clone_model(network, clone_function=lambda layer: layer, call_function=graph.call)
    if rate and (not graph.drops or network.name.startswith(_WITHOUT_BLOCKS)):
        raise OptionError(f"the network {network.name} has no residual blocks that drop_path could skip: leave it out")
    for layer, own_rate in zip(graph.drops, np.linspace(rate, 0, len(graph.drops))[::-1], strict=True):
        layer.rate = float(own_rate)
    return changed


@dataclass
class _Graph:
    """The graph of a network, known as far as it was walked through; what is added at the end of a block is dropped."""

    seed: int
    is_dropped: bool
    drops: list[Any] = field(default_factory=list)
    _origins: dict[int, tuple[Any, list[Any]]] = field(default_factory=dict)
    """For each tensor by its id, what made it, and of what."""
    _ancestors: dict[int, frozenset[int]] = field(default_factory=dict)
    """For each tensor all those that it was made of, itself among them."""
    _tensors: list[Any] = field(default_factory=list)
    """Kept, so that no id is used again."""

    def call(self, operation: Any, *args: Any, **kwargs: Any) -> Any:
        """Call an operation on what it is called on in the graph."""
        given = [value for value in keras.tree.flatten(args) if isinstance(value, keras.KerasTensor)]
        if _is_own_drop(operation):
            return given[0]
        branch = self._find_branch(given) if self.is_dropped and _is_addition(operation) else None
        if branch is None:
            made = operation(*args, **kwargs)
        else:
            number = len(self.drops) + 1
            self.drops.append(DropPath(branch, 0.0, seed=self.seed + number, name=f"drop_path_{number}"))
            made = self.drops[-1](given)
        for tensor in keras.tree.flatten(made):
            self._tensors.append(tensor)
            self._origins[id(tensor)] = operation, given
            self._ancestors[id(tensor)] = frozenset({id(tensor)}).union(*map(self._find_ancestors, given))
        return made

    def _find_ancestors(self, tensor: Any) -> frozenset[int]:
        return self._ancestors.get(id(tensor), frozenset({id(tensor)}))

    def _find_branch(self, added: list[Any]) -> int | None:
        """Say which of two tensors that are added a block made of what leads to the other; None if none did."""
        if len(added) != 2:
            return None
        for rule in (self._leads_to, self._leads_round):
            for branch in (1, 0):
                shortcut, other = added[1 - branch], added[branch]
                if rule(shortcut, other) and not rule(other, shortcut):
                    return branch
        return None

    def _leads_to(self, shortcut: Any, other: Any) -> bool:
        """Tell whether a tensor is what another was made of."""
        return id(shortcut) in self._find_ancestors(other)

    def _leads_round(self, shortcut: Any, other: Any) -> bool:
        """Tell whether a tensor is that, but for one convolution and what has no kernel."""
        n_kernels, tensor = 0, shortcut
        while not self._leads_to(tensor, other):
            operation, given = self._origins.get(id(tensor), (None, []))
            n_kernels += sum(weight.ndim > 1 for weight in getattr(operation, "weights", ()))
            if len(given) != 1 or n_kernels > 1:
                return False
            tensor = given[0]
        return True


def _is_own_drop(operation: Any) -> bool:
    """Tell whether an operation skips blocks of itself: EfficientNet's do, each device with draws of its own."""
    return isinstance(operation, keras.layers.Dropout) and operation.noise_shape is not None


def _is_addition(operation: Any) -> bool:
    return isinstance(operation, keras.layers.Add) or type(operation).__name__ == "Add"
