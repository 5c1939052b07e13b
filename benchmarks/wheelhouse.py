"""The wheels of locks in one folder that the loopback serves: installing from it costs no network."""

from __future__ import annotations

import http.server
import shutil
import ssl
import threading
import urllib.request
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path
    from typing import Any

    from flowkiln.envs.lock import LockedWheel


class Wheelhouse:
    """Serves ``folder`` from a thread until ``close``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        handler = partial(_Quiet, directory=str(folder))
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        """A page with a link to each wheel."""
        return f"http://127.0.0.1:{self._server.server_port}/"

    def add(self, wheels: Iterable[LockedWheel]) -> None:
        """Downloads what is not there yet."""
        for wheel in wheels:
            path = self._folder / wheel.filename
            if not path.exists():
                scratch = path.with_suffix(".part")
                context = ssl.create_default_context() if wheel.url.startswith("https") else None
                with urllib.request.urlopen(wheel.url, context=context) as answer, scratch.open("wb") as file:
                    shutil.copyfileobj(answer, file)
                scratch.rename(path)

    def close(self) -> None:
        """Serves no longer."""
        self._server.shutdown()
        self._server.server_close()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        return
