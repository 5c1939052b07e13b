"""The variant of PyTorch's packages for CUDA or none: their index, and what a driver must offer."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from flowkiln.envs.errors import UnknownOption

if TYPE_CHECKING:
    from collections.abc import Iterable

CPU = "cpu"
PACKAGES = (
    *("fbgemm-gpu", "pytorch-triton", "pytorch-triton-rocm", "pytorch-triton-xpu", "torch", "torch-tensorrt"),
    *("torchao", "torcharrow", "torchaudio", "torchcodec", "torchcsprng", "torchdistx", "torchrec", "torchserve"),
    *("torchtext", "torchtune", "torchvision", "triton", "triton-rocm", "triton-xpu", "xformers"),
)
"""What uv's ``--torch-backend`` takes from PyTorch's index."""
DRIVERS = {"11": "450.80.02", "12": "525.60.13", "13": "580.65.06"}
"""The oldest Linux driver for a major version of CUDA: newer minor versions run on it as well."""
_MINORS = {
    "11.1": "455.23",
    "11.2": "460.27.03",
    "11.3": "465.19.01",
    "11.4": "470.42.01",
    "11.5": "495.29.05",
    "11.6": "510.39.01",
    "11.7": "515.43.04",
    "11.8": "520.61.05",
    "12.1": "530.30.02",
    "12.2": "535.54.03",
    "12.3": "545.23.06",
    "12.4": "550.54.14",
    "12.5": "555.42.02",
    "12.6": "560.28.03",
    "12.8": "570.26",
    "12.9": "575.51.03",
}
"""The Linux driver that came with a minor version of CUDA: the oldest one that says that it offers it."""
_CUDA = re.compile(r"(?P<major>\d{2})\.(?P<minor>\d)")


def check(cuda: object, where: str = "") -> str:
    """``cuda`` where it is ``cpu`` or a version of CUDA. Raises ``UnknownOption``."""
    match = _CUDA.fullmatch(cuda) if isinstance(cuda, str) else None
    if cuda != CPU and (match is None or match["major"] not in DRIVERS):
        message = f"{where}{': ' if where else ''}cuda={cuda!r} is no variant"
        raise UnknownOption(message, hint='Write a version of CUDA 11, 12 or 13, as cuda="12.4", or cuda="cpu".')
    return str(cuda)


def pins(cuda: str, base: str) -> dict[str, str]:
    """The index of each package that has variants, below ``base``."""
    folder = CPU if cuda == CPU else "cu" + cuda.replace(".", "")
    return dict.fromkeys(PACKAGES, f"{base.rstrip('/')}/{folder}")


def virtual(cuda: str, names: Iterable[str]) -> tuple[tuple[str, str], ...]:
    """The CUDA that the driver must offer for packages ``names`` of a variant: the first of its major version."""
    if cuda == CPU or not set(PACKAGES) & set(names):
        return ()
    return (("cuda", f"{cuda.partition('.')[0]}.0"),)


def driver(version: str) -> str | None:
    """The oldest Linux driver that offers CUDA ``version``, None where that is not known."""
    major, _, minor = version.partition(".")
    return DRIVERS.get(major) if minor in {"", "0"} else _MINORS.get(version)
