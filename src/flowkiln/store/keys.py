"""Every key of the store in one place. Keys are ``/``-separated; each segment is safe as a file name."""

from __future__ import annotations


def run_opened(flow: str, run: str) -> str:
    """The record made when a run opens: plan, code digest, tags, who and where."""
    return f"flows/{flow}/runs/{run}"


def opened_runs(flow: str) -> str:
    """What holds a flow's opened runs, by id."""
    return f"flows/{flow}/runs"


def run_ended(flow: str, run: str) -> str:
    """The record written when a run closes: status and its tasks packed."""
    return f"flows/{flow}/ends/{run}"


def journal(run: str, sequence: int) -> str:
    """One journal entry."""
    return f"r/{run}/journal/{sequence:08d}"


def journal_folder(run: str) -> str:
    """What holds the journal's entries."""
    return f"r/{run}/journal"


def claim(run: str) -> str:
    """Made first when a run opens: it takes the id among all flows and names the flow."""
    return f"r/{run}/flow"


def begin(run: str, task: int, attempt: int) -> str:
    """The record that names the execution of an attempt."""
    return f"r/{run}/t/{task}/{attempt}/begin"


def outcome(run: str, task: int, attempt: int) -> str:
    """The one outcome of an attempt."""
    return f"r/{run}/t/{task}/{attempt}/outcome"


def live_log(run: str, task: int, attempt: int) -> str:
    """The scratch file with the lines so far of an attempt that has run for some seconds."""
    return f"tmp/log-{run}-{task}-{attempt}"


def inputs(run: str, task: int) -> str:
    """The packed manifest of a join's inputs."""
    return f"r/{run}/inputs/{task}"


def cancel(run: str) -> str:
    """Present once somebody asked for the run to be cancelled."""
    return f"r/{run}/cancel"


def heartbeat(run: str) -> str:
    """The driver's sign of life, overwritten while it runs."""
    return f"r/{run}/heartbeat"


def tags(flow: str, run: str, number: int) -> str:
    """A numbered full set of a run's tags."""
    return f"flows/{flow}/tags/{run}/{number:06d}"


def tag_sets(flow: str, run: str) -> str:
    """What holds a run's numbered sets of tags."""
    return f"flows/{flow}/tags/{run}"


def blob(sha256: str) -> str:
    """Content-addressed bytes; ``sha256`` is 64 hex digits."""
    return f"blobs/{sha256[:2]}/{sha256}"
