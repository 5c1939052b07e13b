"""Clients for image registries, as the settings say: certificates, time limits, logins of the user's tools."""

from __future__ import annotations

import os
import threading
from functools import cached_property
from typing import TYPE_CHECKING

from flowkiln.images.errors import RegistryNeeded

if TYPE_CHECKING:
    import ssl

    from flowkiln._base.settings import Settings
    from flowkiln.images.http import Http
    from flowkiln.images.login import Logins
    from flowkiln.images.registry import Registry


class Registries:
    """One client for each host, made when it is first needed. Threads may share it.

    Most commands ask no registry, and loading what speaks to one takes longer than all else that they do.
    """

    def __init__(self, settings: Settings) -> None:
        self._offline = settings.flag("offline")
        self._retries = settings.count("retries") or 5
        self._stall = float(settings.count("download-timeout") or 30)
        self._clients: dict[str, Registry] = {}
        self._lock = threading.Lock()

    def __call__(self, host: str) -> Registry:
        """The client for ``host``. Raises ``RegistryNeeded`` when no network may be used."""
        if self._offline:
            message = f"registry {host} has to be asked, and --offline forbids it"
            raise RegistryNeeded(message, hint="Run the same command once without --offline.")
        with self._lock:
            if host not in self._clients:
                from flowkiln.images.registry import Registry

                self._clients[host] = Registry(host, self._http, self._logins, retries=self._retries)
            return self._clients[host]

    @cached_property
    def _http(self) -> Http:
        from flowkiln.images.http import Http

        return Http(context, stall=self._stall)

    @cached_property
    def _logins(self) -> Logins:
        from flowkiln.images.login import Logins

        return Logins(os.environ)

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
    from flowkiln.envs.transport import certificates

    return certificates(None, os.environ)
