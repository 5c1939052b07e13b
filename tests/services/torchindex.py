"""An index for each variant below one address, as PyTorch's: ``/whl/cpu/torch/``, ``/whl/cu124/torch/``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.services.index import _HTML, Fault, PackageIndex, _html_page
from tests.services.wheels import Distribution, normalise

if TYPE_CHECKING:
    from aiohttp import web


class TorchIndex(PackageIndex):
    """A package index whose files stand on the pages of the variants that they were added to."""

    def __init__(self) -> None:
        super().__init__()
        self._variants: dict[str, set[str]] = {}

    @property
    def root(self) -> str:
        """What the variants' indexes lie below."""
        return f"{self.base}/whl/"

    def variant(self, name: str, *distributions: Distribution) -> None:
        """Publishes ``distributions`` in the index of the variant ``name``."""
        self.add(*distributions)
        self._variants.setdefault(name, set()).update(one.filename for one in distributions)

    async def _content(
        self, request: web.Request, kind: str, package: str, filename: str, fault: Fault
    ) -> web.StreamResponse:
        parts = request.path.strip("/").split("/")
        if parts[0] != "whl" or len(parts) != 3:
            return await super()._content(request, kind, package, filename, fault)
        name = normalise(parts[2])
        held = self._variants.get(parts[1], set())
        files = [one for one in self._state.files.get(name, []) if one.distribution.filename in held]
        if not files:
            return await super()._content(request, "unknown", "", "", fault)
        page = _html_page(name, files).replace("../../files/", "/files/")
        return await self._send(request, page.encode(), _HTML, fault)
