"""Errors of images: IMG001 to IMG019 of references and bases, IMG020 onwards of baking, IMG040 of registries."""

from __future__ import annotations

from flowkiln._base.errors import FlowkilnError


class ImageError(FlowkilnError):
    """Base of the errors raised by ``flowkiln.images``."""


# -- references and bases: IMG001 to IMG019 --------------------------------------------------------------------


class BadReference(ImageError):
    """An image reference is not written as ``[host[:port]/]repository[:tag][@sha256:...]``.

    Repositories are in lower case; a digest is ``sha256:`` with 64 hexadecimal digits.
    """

    code = "IMG001"
    title = "Not an image reference"
    advice = "Write for example registry.example.com/team/flows or python:3.11-slim."
