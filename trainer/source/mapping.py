"""Map a file into memory without keeping it open.

Python's `mmap` keeps a descriptor for every mapping (before `trackfd=False` of Python 3.13), and the 7,000 shards of a
full store are more than the 1,024 descriptors that most systems allow a process.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import weakref
from typing import Final

import numpy as np
from numpy.typing import NDArray

_LIBC: Final = ctypes.CDLL(None, use_errno=True)
_LIBC.mmap.restype = ctypes.c_void_p
_LIBC.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
_LIBC.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]

_FAILED: Final = ctypes.c_void_p(-1).value


class _Mapping:
    """Owns a mapping; NumPy keeps it as the base of every array on it."""

    def __init__(self, descriptor: int, n_bytes: int) -> None:
        address = _LIBC.mmap(None, n_bytes, mmap.PROT_READ, mmap.MAP_SHARED, descriptor, 0)
        if address == _FAILED:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
        weakref.finalize(self, _LIBC.munmap, address, n_bytes).atexit = False
        read_only = True
        self.__array_interface__ = {
            "version": 3,
            "shape": (n_bytes,),
            "typestr": "|u1",
            "data": (address, read_only),
        }


def map_file(descriptor: int, n_bytes: int) -> NDArray[np.uint8]:
    """Map the first bytes of an open file, read-only; the descriptor may be closed at once.

    Args:
        descriptor: An open file.
        n_bytes: At least 1 and at most the size of the file.

    Returns:
        The bytes; they stay mapped until the array and all its views are gone.

    Raises:
        OSError: The system refuses.
    """
    return np.asarray(_Mapping(descriptor, n_bytes))
