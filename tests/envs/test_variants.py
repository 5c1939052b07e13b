"""``cuda``: PyTorch's packages in the variant that was asked for, with no index URL in sight."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from flowkiln._base import command, settings
from flowkiln._base.report import Silent
from flowkiln.envs import uv, variants
from flowkiln.envs.errors import UnknownOption
from flowkiln.envs.lockfolder import LockFolder
from flowkiln.envs.sources import spec
from flowkiln.envs.spec import EnvSpec
from flowkiln.wiring.locks import Request, solver_of
from tests.envs.locking import AMD64, ARM64, lock, versions
from tests.services.torchindex import TorchIndex
from tests.services.wheels import wheel

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flowkiln.envs.resolve import Resolution
    from tests.services.home import Home
    from tests.services.index import PackageIndex

X86 = "cp311-cp311-manylinux_2_28_x86_64"


@pytest.fixture
def variant(home: Home, monkeypatch: pytest.MonkeyPatch) -> Iterator[TorchIndex]:
    """PyTorch's indexes; the one for all others has the default variant, and newer versions."""
    with TorchIndex() as torch:
        torch.variant("cpu", wheel("torch", "2.5.0+cpu"), wheel("numpy", "9.0"))
        needed = ["nvidia-runtime", "triton"]
        torch.variant("cu124", wheel("torch", "2.5.0+cu124", tag=X86, requires=needed), wheel("triton", "3.1"))
        monkeypatch.setenv("FLOWKILN_TORCH_INDEX", torch.root)
        yield torch


@pytest.fixture
def main(package_index: PackageIndex, monkeypatch: pytest.MonkeyPatch) -> PackageIndex:
    monkeypatch.setenv("FLOWKILN_INDEXES", package_index.url)
    package_index.add(wheel("lightning", requires=["torch"]), wheel("numpy"), wheel("nvidia-runtime"))
    return package_index.add(wheel("torch", "2.9.0"), wheel("triton", "9.9"))


def request(**options: Any) -> EnvSpec:
    return spec({"python": "3.11", **options}, folder=Path.cwd())


def locked(wanted: EnvSpec, folder: Path) -> Resolution:
    asked = Request(name="fit", spec=wanted, folder=LockFolder(folder / "f.locks"), declared=folder / "f.py")
    return lock(wanted, solver_of(asked, settings.load(folder), Silent()))


def test_d01_two_environments_have_two_variants(variant: TorchIndex, main: PackageIndex, tmp_path: Path) -> None:
    packages = {"lightning": "", "torch": "2.*", "numpy": ""}
    cpu = locked(request(packages=packages, cuda="cpu"), tmp_path)
    assert versions(cpu) == versions(cpu, ARM64) == {"lightning": "1.0", "torch": "2.5.0+cpu", "numpy": "1.0"}
    cuda = locked(request(packages=packages, cuda="12.4"), tmp_path)
    assert versions(cuda) == {
        **versions(cpu),
        "torch": "2.5.0+cu124",
        "nvidia-runtime": "1.0",
        "triton": "3.1",
    }
    assert [str(one.platform) for one in cuda.lock.absent] == ["linux/arm64"]
    assert cpu.lock.spec_id != cuda.lock.spec_id


def test_d01_the_driver_that_a_variant_needs_is_recorded(
    variant: TorchIndex, main: PackageIndex, tmp_path: Path
) -> None:
    made = locked(request(packages=["lightning"], cuda="12.4", platforms=["linux/amd64"]), tmp_path).lock
    part = made.on(AMD64)
    assert part is not None
    assert part.virtual == (("cuda", "12.0"),)
    folder = LockFolder(tmp_path / "flow.locks")
    folder.write({"fit": made})
    assert folder.read() == {"fit": made}
    assert variants.driver("12.0") == "525.60.13"
    cpu = locked(request(packages=["lightning"], cuda="cpu"), tmp_path).lock
    assert {one.virtual for one in cpu.platforms} == {()}


def test_a_variant_of_nothing_is_told(variant: TorchIndex, main: PackageIndex, tmp_path: Path) -> None:
    made = locked(request(packages=["numpy"], cuda="12.4"), tmp_path)
    assert versions(made) == {"numpy": "1.0"}
    assert made.warnings == ["fit: cuda='12.4' chooses nothing: no package of the environment has variants"]
    assert {one.virtual for one in made.lock.platforms} == {()}


def test_a_pin_of_ones_own_wins_over_the_variant(variant: TorchIndex, main: PackageIndex, tmp_path: Path) -> None:
    wanted = request(packages={"torch": {"index": main.url}}, cuda="cpu")
    assert versions(locked(wanted, tmp_path)) == {"torch": "2.9.0"}


def test_requests_without_a_variant_keep_their_identity() -> None:
    assert request(packages=["torch"]).spec_id == EnvSpec(python="3.11", requirements=("torch",)).spec_id


@pytest.mark.parametrize("cuda", ["", "auto", "12", "12.4.1", "9.2", "cu124", 12.4])
def test_what_is_no_variant_is_an_error(cuda: object) -> None:
    with pytest.raises(UnknownOption, match="is no variant"):
        request(packages=["torch"], cuda=cuda)


def test_the_packages_are_those_that_uv_takes_from_pytorchs_index(tmp_path: Path) -> None:
    def taken(name: str) -> bool:
        (tmp_path / "r.in").write_text(name)
        program, backend = str(uv.find({})), ["--torch-backend", "cpu", "--offline"]
        environment = {"UV_DEFAULT_INDEX": "http://127.0.0.1:9/simple", "UV_CACHE_DIR": str(tmp_path / "cache")}
        environment |= {"UV_NO_CONFIG": "1", "UV_PYTHON_DOWNLOADS": "never", "RUST_LOG": "uv_client=trace"}
        environment["PATH"] = "/usr/bin:/bin"
        words = [program, "pip", "compile", "r.in", *backend, "--python", sys.executable]
        done = command.run(words, environment=environment, folder=tmp_path)
        return "download.pytorch.org" in done.stderr

    others = ("numpy", "nvidia-cublas-cu12", "torchdata", "vllm")
    assert [name for name in (*variants.PACKAGES, *others) if taken(name)] == list(variants.PACKAGES)
