"""Which devices train, and what energy they draw."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Final

import keras

from bigearthnet.machine import count_cores, name_processor

_PACKAGES: Final = Path("/sys/class/powercap")

Counter = Callable[[], float]
"""Reads the energy that a device has drawn since some moment, in joules."""


class EnergyMeter:
    """Adds up what several devices draw, together with whatever else runs on them.

    Sources: NVIDIA's Management Library, `nvmlDeviceGetTotalEnergyConsumption`, in millijoules since the driver was
    loaded; and for a host without GPUs https://docs.kernel.org/power/powercap/powercap.html, the `energy_uj` of each
    of its processors, in microjoules, which most systems let only root read.

    Args:
        counters: Of the devices; none if they do not tell.
    """

    def __init__(self, counters: Sequence[Counter]) -> None:
        self._counters = counters
        self._last = self._read()

    def take_j(self) -> float:
        """Return the joules drawn since the last call; 0 if the devices do not tell, or have begun anew."""
        before, self._last = self._last, self._read()
        return sum((max(now - then, 0.0) for now, then in zip(self._last, before, strict=False)), 0.0)

    def _read(self) -> list[float]:
        try:
            return [counter() for counter in self._counters]
        except Exception:  # noqa: BLE001 - of any driver: no training ends because of what is only told
            self._counters = []
            return []


def survey_devices(n_devices: int) -> tuple[str, EnergyMeter]:
    """Name what trains, and meter it: GPUs if Keras sees any, else the cores of this host.

    Args:
        n_devices: How many of them.
    """
    gpus = _list_gpus()
    if not gpus:
        n_cores = count_cores()
        return f"{n_cores} core{'s' * (n_cores > 1)} of {name_processor()}", EnergyMeter(_find_packages())
    named, counters = _find_gpus(n_devices)
    return f"{n_devices} {named or gpus[0].partition(':')[0].upper()}", EnergyMeter(counters)


def _list_gpus() -> list[str]:
    if keras.config.backend() != "torch":
        return [name for name in keras.distribution.list_devices() if not name.startswith("cpu")]
    import torch  # noqa: PLC0415 - other backends do without; Keras does not list its devices

    return [f"gpu:{number}" for number in range(torch.cuda.device_count())]


def _find_gpus(n_devices: int) -> tuple[str, list[Counter]]:
    """Find the first of the visible GPUs, in NVML's order, which is that of CUDA if all are of one kind."""
    with suppress(Exception):  # not NVIDIA's, or a driver that knows no such counter
        import pynvml  # noqa: PLC0415 - where there is no GPU, nothing of it is there either

        pynvml.nvmlInit()
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        names = [*map(str, range(pynvml.nvmlDeviceGetCount()))] if visible is None else visible.split(",")
        handles = [_open_gpu(pynvml, name.strip()) for name in names[:n_devices]]
        return str(pynvml.nvmlDeviceGetName(handles[0])), [partial(_ask_gpu, pynvml, handle) for handle in handles]
    return "", []


def _open_gpu(pynvml: Any, name: str) -> Any:
    return pynvml.nvmlDeviceGetHandleByIndex(int(name)) if name.isdigit() else pynvml.nvmlDeviceGetHandleByUUID(name)


def _ask_gpu(pynvml: Any, handle: Any) -> float:
    return int(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)) / 1e3


def _find_packages() -> list[Counter]:
    """Find the processors of this host that tell their energy; none of them if one does not."""
    files = sorted(path / "energy_uj" for path in _PACKAGES.glob("intel-rapl:*") if path.name.count(":") == 1)
    return [partial(_ask_package, path) for path in files]


def _ask_package(path: Path) -> float:
    return int(path.read_text()) / 1e6
