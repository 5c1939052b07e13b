"""The templates of one run: started when first needed, ended when memory gets short or the run ends."""

from __future__ import annotations

import itertools
import selectors
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from flowkiln.executor import activation, environ
from flowkiln.executor.memory import memory_limit
from flowkiln.executor.runtime import runtime_folder
from flowkiln.executor.templates import Start, Template

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from flowkiln._base.json import JSONObject
    from flowkiln.executor.plan import Prefix, RunPlan, StepPlan
    from flowkiln.executor.templates import TemplateKey

    Verify = Callable[[Prefix, str], None]

_CLOSING = 5.0
"""Seconds that a template gets to end by itself."""
_SHARE = 4
"""Templates may hold one part in so many of the memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What templates are started with besides their prefix. ``info`` goes to every step's process as it is."""

    code_dir: Path
    cache: Path
    host: Mapping[str, str]
    passed: tuple[str, ...] = ()
    info: JSONObject = field(default_factory=dict)


class Pool:
    """Templates by what they serve. Each is registered with ``selector``, its output as a tuple of itself."""

    def __init__(
        self, plan: RunPlan, around: Surroundings, verify: Verify, selector: selectors.BaseSelector
    ) -> None:
        self._plan = plan
        self._around = around
        self._verify = verify
        self._selector = selector
        self._templates: dict[TemplateKey, Template] = {}
        self._ending: list[Template] = []
        self._runtime: Path | None = None
        self._uses = itertools.count()
        self._budget = (memory_limit() or 0) // _SHARE

    def of(self, step: StepPlan) -> Template:
        """The template that serves ``step``, started now if there is none.

        Raises what ``verify`` raises, the errors of disks, ``ActivationError``, and ``OSError`` when the process
        cannot be started.
        """
        key = (step.prefix, step.environ)
        found = self._templates.get(key)
        if found is None:
            self._make_room()
            self._verify(step.prefix, self._plan.process_level)
            found = self._templates[key] = Template(self._how_to_start(key))
            self._selector.register(found, selectors.EVENT_READ, found)
            self._selector.register(found.output, selectors.EVENT_READ, (found,))
        found.used = next(self._uses)
        return found

    def drop(self, template: Template) -> int:
        """Forgets a template whose channel has closed and returns its process's return code."""
        self._release(template)
        return template.reap(_CLOSING)

    def output_ended(self, template: Template) -> None:
        """Nobody holds the template's output any more."""
        self._selector.unregister(template.output)
        template.listening = False

    def close(self) -> None:
        """Ends every template; those that still serve end their attempts first."""
        for template in list(self._templates.values()):
            self._release(template)
            self._ending.append(template)
        for template in self._ending:
            template.reap(_CLOSING)
            template.remove()
        self._ending.clear()

    def _release(self, template: Template) -> None:
        del self._templates[template.key]
        self._selector.unregister(template)
        if template.listening:
            self.output_ended(template)
        template.close()

    def _make_room(self) -> None:
        """Ends idle templates, the longest unused first, while all together hold too much memory."""
        held = sum(template.memory for template in self._templates.values())
        for template in sorted(self._templates.values(), key=lambda each: each.used):
            if held <= self._budget or not self._budget:
                return
            if not template.running and template.ready is not None:
                held -= template.memory
                self._release(template)
                self._ending.append(template)

    def _how_to_start(self, key: TemplateKey) -> Start:
        prefix, step_environ = key
        around, plan = self._around, self._plan
        if self._runtime is None:
            self._runtime = runtime_folder(around.cache)
        variables = environ.variables(
            prefix,
            host=around.host,
            runtime=self._runtime,
            cache=around.cache,
            threads=environ.cores() // plan.max_workers,
            step=step_environ,
            passed=around.passed,
        )
        active = variables
        if prefix.root is not None:
            active = activation.activated(prefix.root, variables, {*dict(step_environ), *environ.OWN})
        flags = ["-s"] if prefix.managed else []
        return Start(
            key=key,
            command=[prefix.python, *flags, str(around.code_dir / plan.script)],
            environ=active,
            activation=activation.told(prefix.root or "", variables, active),
            folder=plan.user_folder,
            hello={"info": around.info, "isolation": plan.isolation},
        )
