"""Who retries a failed attempt: the user's ``@retry``, the system, ``@catch``, or nobody. A pure decision."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from flowkiln.executor.plan import StepPlan
    from flowkiln.executor.vocabulary import Verdict

Owner = Literal["user", "system", "catch", "takeover"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The settings of the state machine; times in seconds.

    ``infrastructure_retries`` bounds the retries after lost or interrupted attempts. ``grace`` is how long an
    end without an outcome is read again; ``backoff`` the first pause after a refused submission, doubled up to
    ``backoff_limit``; ``refusals`` how many are borne. ``patience`` is the wait for a confirmed cancellation
    before it is asked for again. ``durable`` says that submissions outlive the driver, so that they are
    journalled and can be found again.
    """

    infrastructure_retries: int = 3
    grace: float = 10.0
    backoff: float = 1.0
    backoff_limit: float = 60.0
    refusals: int = 5
    patience: float = 15.0
    durable: bool = False


@dataclass(slots=True)
class Tries:
    """What a task has used up: the present attempt, user and system retries, and whether it is the fallback."""

    attempt: int = 0
    user: int = 0
    system: int = 0
    fallback: bool = False

    def advance(self, owner: Owner) -> None:
        """Moves on to the next attempt on account of ``owner``."""
        self.attempt += 1
        if owner == "user":
            self.user += 1
        elif owner == "system":
            self.system += 1
        elif owner == "catch":
            self.fallback = True


def owner_of(step: StepPlan, tries: Tries, verdict: Verdict, policy: Policy) -> Owner | None:
    """Whose retry follows the failure ``verdict``, None when the failure is final.

    An attempt that was interrupted because its driver went away costs nobody a retry.
    """
    if verdict.failure_class == "infrastructure":
        if verdict.takeover:
            return "takeover"
        if tries.fallback or tries.system >= policy.infrastructure_retries:
            return None
        return "system"
    if verdict.failure_class not in ("user", "timeout") or tries.fallback:
        return None
    if tries.user < step.retries:
        return "user"
    return "catch" if step.catch else None


def pause(policy: Policy, seed: int, task: int, times: int) -> float:
    """Seconds before the next submission after ``times`` refusals in a row: doubling, capped, with jitter."""
    full = min(policy.backoff * 2.0 ** (times - 1), policy.backoff_limit)
    return full * (0.5 + 0.5 * random.Random(f"{seed}/{task}/{times}").random())  # noqa: S311  jitter, no secret
