"""rattler's failures in our words: one kind of error each, the solver's own explanation kept."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from flowkiln._base import redact
from flowkiln.envs import condaerrors, errors
from flowkiln.envs.channels import bare

if TYPE_CHECKING:
    from flowkiln.envs.condaquestion import CondaQuestion, CondaSolver

LINES = 16
"""Most lines of rattler's text in a message."""

_STATUS = re.compile(r"HTTP status (?:client|server) error \((?P<status>\d{3})[^)]*\) for url \((?P<url>[^)]+)\)")
_NO_SUBDIR = re.compile(r"could not find subdir '(?P<subdir>[^']+)' in channel '(?P<url>[^']+)'")
_UNREACHABLE = ("error sending request", "connection", "request or response body error", "dns error")
_MALFORMED = (
    "failed to parse",
    "failed to download",
    "decompress",
    "Destination buffer",
    "invalid type",
    "checksum",
)
_ABSENT = re.compile(
    r"No candidates were found for (\S+)|nothing provides (?:requested )?(\S+)|(\S+) does not exist"
    r"|not available from current channels:\s+- (\S+)"
)
"""How the solvers say that no channel has what is asked for."""
_URL = re.compile(r"[a-z]+://[^\s()'\"]+")


def translate(error: Exception, solver: CondaSolver, question: CondaQuestion) -> errors.EnvError | None:
    """The error for what rattler raised; it names environment and platform. None for what is not rattler's."""
    kind = type(error).__name__
    said = _tidy(str(error))
    if kind == "SolverError":
        found = unsolvable(said, solver, question)
    elif kind in ("GatewayError", "FetchRepoDataError", "ExtractError", "IoError"):
        found = _service(said, solver, question)
    elif kind in ("InvalidMatchSpecError", "InvalidChannelError", "InvalidUrlError", "ParseSubdirError"):
        what = "a conda package or channel is not understood"
        found = condaerrors.BadMatchSpec(_says(question, what, said), hint="Correct it.")
    else:
        return None
    found.step = found.step or next(iter(question.steps), None)
    found.data |= {"environment": question.name, "platform": str(question.platform)}
    return found


def of_package(error: Exception, filename: str, label: str) -> errors.EnvError:
    """The error for a package file that could not be read."""
    said = _tidy(str(error))
    found = _STATUS.search(said)
    if found and found["status"] in ("401", "403"):
        return _denied(f"environment {label}", found["url"], found["status"])
    what = f"environment {label}: the package {filename} could not be read"
    if found and found["status"] == "404":
        return condaerrors.BrokenChannel(f"{what}: its channel names it and does not have it (404)", hint=_AGAIN)
    if found or any(text in said for text in _UNREACHABLE):
        return condaerrors.ChannelUnavailable(f"{what}\n{said}", hint=_LATER, retryable=True)
    return condaerrors.BrokenChannel(f"{what}\n{said}", hint=_AGAIN)


def offline(label: str, filename: str) -> errors.EnvError:
    """The error for a package that has to be read and the network is off."""
    message = f"environment {label}: what {filename} holds is not known, and the network is off"
    return errors.Offline(message, hint="Lock once without --offline.")


_LATER = "Try again later; `flowkiln doctor` checks proxies and certificates."
_AGAIN = "Try again; whoever runs the channel can index it anew. Nothing was locked."


def unsolvable(said: str, solver: CondaSolver, question: CondaQuestion) -> errors.EnvError:
    """The error for a request that has no solution, as the solver explains it."""
    text = said.removeprefix("Cannot solve the request because of: ")
    if text == "Solve operation has been cancelled":
        message = _says(question, f"conda packages not chosen after {solver.limits.total:.0f} s", "")
        return errors.LockTimeout(message, hint="Name exact versions of what you know, or raise `lock-timeout`.")
    if solver.offline and _ABSENT.search(text):
        hint = "The channels' packages are those that were read last. Lock once without --offline."
    else:
        hint = _hint(text, question)
    step = (
        f" of {'step' if len(question.steps) == 1 else 'steps'} {', '.join(question.steps)}"
        if question.steps
        else ""
    )
    assumed = "Assumed: " + ", ".join(map(str, question.virtual))
    message = _says(question, "no set of conda packages satisfies the request" + step, text)
    error = condaerrors.CondaConflict("\n".join((message, assumed, f"Asked were {solver.plan.shown}")), hint=hint)
    error.data |= {
        "channels": [channel.shown for channel in solver.plan.channels],
        "virtual": {one.name: f"{one.version}={one.build}" for one in question.virtual},
    }
    return error


def _hint(text: str, question: CondaQuestion) -> str:
    if re.search(r"__cuda\b", text):
        return 'The packages need a GPU: say which driver the machines have, as cuda="12.4".'
    if found := re.search(r"__glibc >=(\d+\.\d+)", text):
        floor = next((one.version for one in question.virtual if one.name == "__glibc"), "")
        return f'They need glibc {found[1]}, the floor is {floor}: allow it with glibc="{found[1]}".'
    if found := _ABSENT.search(text):
        name = next(filter(None, found.groups()))
        return f"Check the spelling of {name}, its version, and whether another channel has it."
    if "exclude" in text and question.exclude_newer:
        return f"exclude_newer hides what was built after {question.exclude_newer}, and what does not say when."
    return "Widen one of the versions named above, or give the steps environments of their own."


def _service(said: str, solver: CondaSolver, question: CondaQuestion) -> errors.EnvError:
    what = f"environment {question.name!r} for {question.platform}"
    about = _where(said, solver)
    if "no usable repodata cache" in said:
        found = re.search(rf"(?<={re.escape(about)})/[a-z0-9-]+(?=/)", said)
        message = f"{what}: {about}{found[0] if found else ''} was not read before, and the network is off"
        return errors.Offline(message, hint="Lock once without --offline.")
    if found := _NO_SUBDIR.search(said):
        return _missing(what, bare(found["url"]), found["subdir"])
    if found := _STATUS.search(said):
        return _answered(what, found["url"], found["status"])
    if "invalid peer certificate" in said:
        hint = "Point SSL_CERT_FILE at a file with the certificates of your network's own authority."
        return condaerrors.ChannelUnavailable(f"{what}: the certificate of {about} is not trusted", hint=hint)
    if "timed out" in said:
        message = f"{what}: {about} did not answer whole within {solver.limits.stall:.0f} s"
        hint = "Try again, or raise the limit with FLOWKILN_LOCK_TIMEOUT=600 (`lock-timeout`)."
        return errors.LockTimeout(message, hint=hint, retryable=True)
    if any(text in said for text in _UNREACHABLE):
        message = _says(question, f"{about} could not be reached", said)
        return condaerrors.ChannelUnavailable(message, hint=_LATER, retryable=True)
    return condaerrors.BrokenChannel(_says(question, f"{about} cannot be read", said), hint=_AGAIN)


def _answered(what: str, url: str, status: str) -> errors.EnvError:
    if status in ("401", "403"):
        return _denied(what, url, status)
    if status == "404":
        return _missing(what, bare(url.rpartition("/")[0]), "")
    message = f"{what}: the channel answered {status} for {bare(url)}"
    return condaerrors.ChannelUnavailable(message, hint=_LATER, retryable=True)


def _missing(what: str, url: str, subdir: str) -> errors.EnvError:
    lacks = f" (it has no {subdir}/repodata.json)" if subdir else ""
    hint = "Check the spelling; a name becomes a URL by `channel_alias` and `custom_channels` of .condarc."
    return condaerrors.NoSuchChannel(f"{what}: there is no conda channel {url}{lacks}", hint=hint)


def _denied(what: str, url: str, status: str) -> errors.EnvError:
    parts = urlsplit(bare(url))
    shown = f"{parts.scheme}://{parts.netloc}{parts.path.rpartition('/')[0].rpartition('/')[0]}"
    hint = "Name who gives the password: a command (`credentials`), ~/.netrc, the keyring, or the channel's URL."
    return condaerrors.ChannelDenied(f"{what}: {shown} refused access ({status})", hint=hint, data={"url": shown})


def _where(said: str, solver: CondaSolver) -> str:
    """The channel that a text of rattler's is about, or all of them."""
    found = _URL.search(said)
    about = [one.shown for one in solver.plan.channels if found and bare(found[0]).startswith(one.shown)]
    return about[0] if about else solver.plan.shown


def _tidy(text: str) -> str:
    whole = _URL.sub(lambda found: _bare_kept(found[0]), redact.text(text.strip()))
    return "\n".join(line.rstrip() for line in whole.splitlines() if line.strip())


def _bare_kept(url: str) -> str:
    return re.sub(r"(?<=/)t/[^/]+/", "", url)


def _says(question: CondaQuestion, what: str, said: str) -> str:
    lines = said.splitlines()
    if len(lines) > LINES:
        lines = [*lines[:LINES], f"... ({len(lines) - LINES} more lines)"]
    return "\n".join([f"environment {question.name!r} for {question.platform}: {what}", *lines])
