"""Hand a stream to PyTorch, and to what trains with it, such as Lightning."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch.distributed
import torch.utils.data

from trainer.adapters.batches import Transform
from trainer.stream.options import check_hosts
from trainer.stream.stream import Stream


class TorchBatches(torch.utils.data.IterableDataset):  # type: ignore[misc] # mypy does not follow it
    """A stream as an `IterableDataset` of batches, for `DataLoader(TorchBatches(stream), batch_size=None)`.

    Each iteration is an epoch, or what is left of it. The loader turns arrays into tensors that share their memory. It
    needs no workers, and is refused with them: the stream decodes on threads of its own. In a training on several
    processes each makes its own stream, with its rank as `host` and their number as `n_hosts`; any other is refused.

    Args:
        stream: The stream.
        transform: What to make of each batch; by default it stays a dict of arrays.
    """

    def __init__(self, stream: Stream, transform: Transform = dict) -> None:
        self._stream, self._transform = stream, transform

    def __len__(self) -> int:
        """Count the batches of an epoch."""
        return len(self._stream)

    def __iter__(self) -> Iterator[Any]:
        """Give the batches from where the stream stands to the end of the epoch."""
        is_shared = torch.distributed.is_available() and torch.distributed.is_initialized()
        check_hosts(
            self._stream.options, torch.distributed.get_world_size() if is_shared else self._stream.options.n_hosts
        )
        return map(self._transform, self._stream)
