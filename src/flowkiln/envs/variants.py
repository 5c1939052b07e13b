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
    return DRIVERS.get(major) if minor in {"", "0"} else None
