"""uv's failures in our words: one kind of error each, the solver's own explanation kept."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from flowkiln._base import redact
from flowkiln.envs import errors, provided
from flowkiln.envs.spec import normal_name

if TYPE_CHECKING:
    from pathlib import Path

    from flowkiln._base.command import Finished
    from flowkiln._base.json import JSONObject
    from flowkiln.envs.uv import Question, Solver
    from flowkiln.envs.uvtrace import Trace

LINES = 14
"""Most lines of uv's text in a message; the log has the rest."""
_TAIL = 6

_NO_VERSION = re.compile(
    r"there (?:is|are) no versions? of (?P<a>[A-Za-z0-9][\w.-]*)|"
    r"only (?P<b>[A-Za-z0-9][\w.-]*?)[<=>!~ ].*? (?:is|are) available"
)
_NOT_FOUND = re.compile(r"\b([A-Za-z0-9][\w.-]*) was not found in the package registry")
_UNTOLD = ("warning:", "hint: Wheels are required for")
"""Lines of uv's that are told elsewhere, or are about a switch of its own that is always set."""
_NO_WHEEL = re.compile(
    r"(?<![\w.<>=!~-])([A-Za-z0-9][\w.-]*?)(?:[<>=!~]+\S+)? ha(?:s|ve) no (?:usable )?wheels"
    r"|Wheels are required for `([^`]+)`"
)
_STATUS = re.compile(r"HTTP status (?:client|server) error \((?P<status>\d{3})[^)]*\) for url \((?P<url>[^)]+)\)")
_DENIED = re.compile(r"An index(?: URL)? \((?P<url>[^)]+)\) .*?\b(?P<status>40[13])\b")
_UNREACHABLE = ("error sending request", "Failed to fetch", "operation timed out", "Request failed after")


def translate(
    finished: Finished, trace: Trace, question: Question, solver: Solver, log: Path | None
) -> errors.EnvError:
    """The error for a run of uv that gave no answer; it names the environment and the platform."""
    if finished.ended != "exit":
        return _timeout(finished, trace, question, solver, log)
    said = _tidy(trace.failure)
    for recognise in (_malformed, _offline, _denied, _service, _hashes, _missing, _provided, _unsolvable):
        error = recognise(said, question, solver)
        if isinstance(error, errors.NoSuchPackage):
            error = _hidden(error, trace, question) or error
        if error is not None:
            break
    else:
        error = errors.ResolveFailed(_says(question, "uv failed", said), hint="The log has uv's whole output.")
    if isinstance(error, errors.NoWheel):
        error.data |= _lacking(trace, list(error.data.get("packages", ())))
    error.log = str(log) if log else None
    error.step = question.steps[0] if question.steps else None
    error.data |= {"environment": question.name, "platform": str(question.target.platform)}
    return error


def _tidy(lines: list[str]) -> str:
    text = redact.text("\n".join(line.rstrip() for line in lines).strip())
    text = re.sub(r"(?m)^error: No solution found when resolving dependencies\n\s*cause: ", "", text)
    text = re.sub(r"(?m)^(error|\s*cause): ", "", text)
    return re.sub(r"(?m)^ {9}(?=\S)", "", text)


def _says(question: Question, what: str, said: str) -> str:
    lines = [line for line in said.splitlines() if line.strip() and not line.startswith(_UNTOLD)]
    if len(lines) > LINES:
        # uv ends with what it concludes, and with hints: both ends say more than the middle.
        head, tail = lines[: LINES - _TAIL], lines[-_TAIL:]
        lines = [*head, f"... ({len(lines) - LINES} more lines in the log)", *tail]
    return "\n".join([f"environment {question.name!r} for {question.target.platform}: {what}", *lines])


def _timeout(
    finished: Finished, trace: Trace, question: Question, solver: Solver, log: Path | None
) -> errors.EnvError:
    item = f", last package {trace.item}" if trace.item else ""
    if finished.ended == "stall":
        what = f"no progress for {solver.limits.stall:.0f} s"
    else:
        what = f"not done after {solver.limits.total:.0f} s"
    return errors.LockTimeout(
        f"environment {question.name!r} for {question.target.platform}: {what}, while {trace.phase}{item}",
        hint=f"Asked were {solver.plan.shown}. Raise the limit with FLOWKILN_LOCK_TIMEOUT=600 (`lock-timeout`).",
        step=question.steps[0] if question.steps else None,
        log=str(log) if log else None,
        retryable=True,
    )


def _malformed(said: str, question: Question, _: Solver) -> errors.EnvError | None:
    if "Couldn't parse requirement" not in said:
        return None
    return errors.BadRequirement(_says(question, "a requirement is not valid", said), hint="Correct it.")


def _offline(said: str, question: Question, _: Solver) -> errors.EnvError | None:
    if "network was disabled" not in said and "network connectivity is disabled" not in said:
        return None
    what = "not everything is in uv's cache"
    return errors.Offline(_says(question, what, said), hint="Lock once without --offline.")


def _denied(said: str, question: Question, _: Solver | None = None) -> errors.EnvError | None:
    found = _DENIED.search(said) or _STATUS.search(said)
    if found is None or found["status"] not in {"401", "403"}:
        return None
    what = f"{redact.url(found['url'])} refused access ({found['status']})"
    hint = "Put user and password into the index URL of your own settings, or into ~/.netrc; locks never hold them."
    return errors.IndexDenied(_says(question, what, ""), hint=hint, data={"url": redact.url(found["url"])})


def _hidden(error: errors.NoSuchPackage, trace: Trace, question: Question) -> errors.EnvError | None:
    """The refusal behind a package that uv did not find: of a pinned index it says no more than that."""
    for name in error.data["packages"]:
        for url, status in trace.refused.items():
            if url.rstrip("/").rpartition("/")[2] == name:
                index = url.rstrip("/").removesuffix(f"/{name}")
                return _denied(f"An index ({index}) answered {status}", question)
    return None


def _service(said: str, question: Question, solver: Solver) -> errors.EnvError | None:
    found = _STATUS.search(said)
    if found is None and not any(text in said for text in _UNREACHABLE):
        return None
    what = f"the package index answered {found['status']}" if found else "the package index could not be reached"
    if "invalid peer certificate" in said:
        hint = "Point SSL_CERT_FILE at a file with the certificates of your network's own authority."
        return errors.IndexUnavailable(
            _says(question, "the certificate of the index is not trusted", said), hint=hint
        )
    hint = f"Asked were {solver.plan.shown}. Try again later; `flowkiln doctor` checks proxies and certificates."
    return errors.IndexUnavailable(_says(question, what, said), hint=hint, retryable=True)


def _hashes(said: str, question: Question, _: Solver) -> errors.EnvError | None:
    if not re.search(r"(?i)hash mismatch|hashes? .*do(es)? not match", said):
        return None
    hint = "Compare the hashes with the publisher's; nothing was locked."
    return errors.HashMismatch(_says(question, "a hash does not match", said), hint=hint)


def _missing(said: str, question: Question, solver: Solver) -> errors.EnvError | None:
    names = sorted(set(_NOT_FOUND.findall(said)))
    if not names:
        return None
    asked = solver.plan.asked(names)
    what = f"no package {' or '.join(repr(name) for name in names)} on {', '.join(asked)}"
    hint = 'Check the spelling. A package of another index needs `indexes = ["URL", "pypi"]`.'
    error = errors.NoSuchPackage(_says(question, what, _chain(said)), hint=hint)
    error.data |= {"packages": names, "indexes": asked}
    return error


def _chain(said: str) -> str:
    """uv's explanation where it says more than that the package is missing."""
    return said if said.count("\n") or " depends on " in said else ""


def _provided(said: str, question: Question, _: Solver) -> errors.EnvError | None:
    names = provided.named_in(said)
    if not names:
        return None
    what = "PyPI packages need another version than conda provides"
    text = _says(question, what, provided.readable(said))
    return provided.conflict(text, question.conda, names, None)


def _unsolvable(said: str, question: Question, _: Solver) -> errors.EnvError | None:
    if "unsatisfiable" not in said and "cannot be used" not in said:
        return None
    if "no wheels with a matching" in said or "has no usable wheels" in said or "no wheels" in said:
        names = sorted({normal_name(one or other) for one, other in _NO_WHEEL.findall(said)})
        what = f"no wheel of {', '.join(names)} fits" if names else "no wheel fits"
        return errors.NoWheel(
            _says(question, f"{what} ({_accepts(question)})", said),
            hint=_wheel_hint(said, question),
            data={"packages": names},
        )
    if "yanked" in said:
        hint = "Pin the version exactly (==) to use it nevertheless."
        return errors.OnlyYanked(_says(question, "only yanked versions match", said), hint=hint)
    name = _no_version(said)
    if name is not None:
        what = f"no version of {name} satisfies the requirements"
        hint = f"Ask for a version of {name} that exists; the index lists them."
        return errors.NoSuchVersion(_says(question, what, said), hint=hint)
    hint = "Widen one of the versions named above, or give the steps environments of their own."
    return errors.Conflict(_says(question, "the requirements contradict each other", said), hint=hint)


def _lacking(trace: Trace, names: list[str]) -> JSONObject:
    """Of packages without a wheel: the index that has each, and the versions that everything allows."""
    return {
        "indexes": {name: trace.indexes[name] for name in names if name in trace.indexes},
        "ranges": {name: trace.ranges[name] for name in names if name in trace.ranges},
    }


def _no_version(said: str) -> str | None:
    """The package that the request names in a version that does not exist, where no other one is to blame."""
    text = " ".join(said.partition("hint:")[0].split())
    found = _NO_VERSION.search(text)
    if found is None or " depends on " in text or " depend on " in text:
        return None
    return found["a"] or found["b"]


def _accepts(question: Question) -> str:
    target = question.target
    if target.glibc is not None:
        return f"Python {target.python}, glibc {target.glibc[0]}.{target.glibc[1]}"
    return f"Python {target.python}"


def _wheel_hint(said: str, question: Question) -> str:
    needed = sorted({int(minor) for minor in re.findall(r"`manylinux_2_(\d+)_\w+`", said.partition("hint:")[2])})
    floor = question.target.glibc
    if floor is not None and needed and needed[0] > floor[1]:
        return (
            f"The wheels need glibc 2.{needed[0]}, the floor is {floor[0]}.{floor[1]}: "
            f'allow it with glibc="2.{needed[0]}", or choose another version.'
        )
    return "Choose a version that has a wheel for it, or name only the platforms that you need."
