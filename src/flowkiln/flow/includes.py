"""``IncludeFile``: a file whose content travels with the run."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from flowkiln.flow.errors import IncludeUnreadable
from flowkiln.flow.parameters import Parameter

if TYPE_CHECKING:
    from flowkiln.flow.parameters import ParameterContext


class IncludeFile(Parameter):
    """A parameter that takes the path of a file and gives the file's content in steps.

    The file is read once, when a run starts, and stored with the run. A relative path is looked up in the
    current folder, then beside the flow file. The content is text in ``encoding``, or bytes with
    ``is_text=False``.
    """

    accepts = "name, default, required, is_text, encoding, help, show_default"

    def __init__(
        self,
        name: str,
        required: bool | None = None,
        is_text: bool | None = None,
        encoding: str | None = None,
        help: str | None = None,  # noqa: A002  the public name
        default: Any = None,
        show_default: bool | None = None,
        **unknown: object,
    ) -> None:
        super().__init__(name, default, str, help, required, show_default)
        self.unknown = tuple(unknown)
        from flowkiln.flow.marks import caller  # noqa: PLC0415  the place is that of the subclass's caller

        self.file, self.line = caller(1)
        self.is_text = True if is_text is None else is_text
        self.encoding = encoding or "utf-8"

    def _kind_problems(self) -> list[str]:
        if self.default is None or self.deferred or isinstance(self.default, (str, os.PathLike)):
            return []
        return [f"default is the path of a file, not {self.default!r}"]

    @property
    def kind_name(self) -> str:
        """What its value on the command line is."""
        return "path"

    def convert(self, text: str) -> str | bytes:
        """The content of the file at the path ``text``. Raises ``IncludeUnreadable``."""
        if "://" in text:
            message = f"parameter {self.name!r}: {text!r} is an address; only files on this machine can be included"
            raise IncludeUnreadable(message, hint="Download it first, or read it inside a step.")
        path = self._find(os.path.expanduser(text))
        try:
            with open(path, "rb") as stream:
                data = stream.read()
        except OSError as error:
            message = f"parameter {self.name!r}: cannot read {path}: {error.strerror}"
            raise IncludeUnreadable(message) from error
        if not self.is_text:
            return data
        try:
            return data.decode(self.encoding)
        except (UnicodeDecodeError, LookupError) as error:
            message = f"parameter {self.name!r}: {path} is not text in {self.encoding}: {error}"
            raise IncludeUnreadable(message, hint="Give `encoding=`, or `is_text=False` for bytes.") from error

    def fallback(self, context: ParameterContext) -> str | bytes | None:
        """The content of the default's file, None without one. Raises ``IncludeUnreadable``."""
        path = super().fallback(context) if self.deferred else self.default
        return None if path is None else self.convert(os.fspath(path))

    def _find(self, path: str) -> str:
        beside = os.path.join(os.path.dirname(os.path.abspath(self.file)), path)
        tried = [os.path.abspath(path), beside]
        found = next((one for one in tried if os.path.isfile(one)), None)
        if found is None:
            looked = " and ".join(dict.fromkeys(tried))
            message = f"parameter {self.name!r}: there is no file {path!r} (looked for {looked})"
            raise IncludeUnreadable(message).at(self.file, self.line)
        return found
