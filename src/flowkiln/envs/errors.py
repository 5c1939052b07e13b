"""Errors of ``flowkiln.envs``: ENV001 to ENV029 speak of locking, ENV030 to ENV059 of installing and trees."""

from __future__ import annotations

from flowkiln._base.errors import FlowkilnError


class EnvError(FlowkilnError):
    """Base of the errors raised by ``flowkiln.envs``."""


# -- locking: ENV001 to ENV029 ---------------------------------------------------------------------------------


# -- installing, trees, interpreters: ENV030 to ENV059 ---------------------------------------------------------
