"""Clients for image registries, as the settings say: certificates, time limits, logins of the user's tools."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

from flowkiln.envs.transport import certificates
from flowkiln.images.errors import RegistryNeeded
from flowkiln.images.http import Http
from flowkiln.images.login import Logins
from flowkiln.images.registry import Registry

if TYPE_CHECKING:
    import ssl

    from flowkiln._base.settings import Settings


class Registries:
    """One client for each host, made when it is first needed. Threads may share it."""

    def __init__(self, settings: Settings) -> None:
        self._offline = settings.flag("offline")
        self._retries = settings.count("retries") or 5
        stall = float(settings.count("download-timeout") or 30)
        self._http = Http(context, stall=stall)
        self._logins = Logins(os.environ)
        self._clients: dict[str, Registry] = {}
        self._lock = threading.Lock()

    def __call__(self, host: str) -> Registry:
        """The client for ``host``. Raises ``RegistryNeeded`` when no network may be used."""
        if self._offline:
            message = f"registry {host} has to be asked, and --offline forbids it"
            raise RegistryNeeded(message, hint="Run the same command once without --offline.")
        with self._lock:
            if host not in self._clients:
                self._clients[host] = Registry(host, self._http, self._logins, retries=self._retries)
            return self._clients[host]

    def login(self, host: str) -> dict[str, str] | None:
        """What an engine is told to log in at ``host`` with, None without a login."""
        found = self._logins.find(host)
        if found is None:
            return None
        if found.identity:
            return {"identitytoken": found.secret, "serveraddress": host}
        return {"username": found.user, "password": found.secret, "serveraddress": host}


def context() -> ssl.SSLContext:
    """The TLS settings of registries: the authorities that downloads trust too."""
    return certificates(None, os.environ)
