from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from flowkiln.flow import checks, decorators
from flowkiln.flow.decorators import (
    DECORATORS,
    catch,
    environment,
    resources,
    retry,
    timeout,
)
from flowkiln.flow.environmentdecorators import pypi, pypi_base
from flowkiln.flow.errors import BadDecorator, DecoratorNotAllowed, FlowError, MisplacedDecorator
from flowkiln.flow.marks import Decorator, flow_decorators, step, step_decorators
from tests.flow.source import load


def on_step(*lines: str) -> str:
    above = "\n".join(f"    {line}" for line in lines)
    return (
        f"class F(FlowSpec):\n{above}\n    @step\n    def start(self):\n        self.next(self.end)\n"
        "    @step\n    def end(self):\n        pass\n"
    )


def problems(tmp_path: Path, text: str) -> list[FlowError]:
    return checks.problems(load(tmp_path, text))


def used(tmp_path: Path, *lines: str) -> tuple[Decorator, ...]:
    kind = load(tmp_path, on_step(*lines))
    assert checks.problems(kind) == []
    return step_decorators(kind)["start"]


@pytest.mark.parametrize("name", ["retry", "catch", "environment", "resources", "pypi"])
def test_each_works_with_and_without_parentheses(tmp_path: Path, name: str) -> None:
    for line in (f"@{name}", f"@{name}()"):
        (one,) = used(tmp_path, line)
        assert one.name == name
        assert set(one.arguments) == set(DECORATORS[name].__kwdefaults__)


def test_defaults_are_those_of_metaflow(tmp_path: Path) -> None:
    found = {one.name: one.arguments for one in used(tmp_path, "@retry", "@catch", "@environment", "@resources")}
    assert found["retry"] == {"times": 3, "minutes_between_retries": 2}
    assert found["catch"] == {"var": None, "print_exception": True}
    assert found["resources"] == {"cpu": 1, "gpu": None, "disk": None, "memory": 4096, "shared_memory": None}


def test_decorators_keep_their_order_and_place(tmp_path: Path) -> None:
    kind = load(tmp_path, on_step("@retry(times=1)", "@timeout(seconds=5)"))
    found = step_decorators(kind)["start"]
    assert [one.name for one in found] == ["retry", "timeout"]
    assert [one.line for one in found] == [3, 4]
    assert found[0].file == sys.modules[kind.__module__].__file__


BAD = {
    "@retry(tmies=3)": "unknown argument 'tmies'; accepted: times, minutes_between_retries",
    "@retry(3)": "takes keyword arguments only, not 3; accepted: times, minutes_between_retries",
    "@retry(times=-1)": "times is a whole number from 0, not -1",
    "@retry(times=1.5)": "times is a whole number from 0, not 1.5",
    "@retry(times=True)": "times is a whole number from 0, not True",
    "@retry(minutes_between_retries='2')": "minutes_between_retries is a number from 0, not '2'",
    "@catch(var='not a name')": "var is the name of an attribute, not 'not a name'",
    "@catch(var='__x')": "var is the name of an attribute, not '__x'",
    "@catch(print_exception='no')": "print_exception is True or False, not 'no'",
    "@timeout": "needs a time above 0; give seconds, minutes or hours",
    "@timeout(seconds=0)": "needs a time above 0; give seconds, minutes or hours",
    "@timeout(seconds=-5, minutes=1)": "seconds is a number from 0, not -5",
    "@timeout(seconds='1m')": "seconds is a number from 0, not '1m'",
    "@environment(vars=['A'])": "vars is a dictionary of names and values, not ['A']",
    "@environment(vars={'A': 1})": "the value of A in vars is text, not 1",
    "@environment(vars={'A B': 'x'})": "'A B' in vars is not the name of an environment variable",
    "@resources(cpu=0)": "cpu is a number above 0, not 0",
    "@resources(gpu=-1)": "gpu is a number from 0, not -1",
    "@resources(memory='4G')": "memory is a number above 0, not '4G'",
    "@docker(memory=-1)": "memory is a number from 1 to 1000000000, not -1",
    "@docker(shared_memory=True)": "shared_memory is a number from 1 to 1000000000, not True",
    "@docker(gpu=1.5)": "gpu is a whole number from 0, or -1 for all, not 1.5",
    "@docker(image='')": "image is text without spaces, not ''",
    "@docker(user='me')": 'user is UID[:GID], as "1000" or "1000:1000", not \'me\'',
    "@docker(user=1000)": 'user is UID[:GID], as "1000" or "1000:1000", not 1000',
    "@docker(network=' ')": "network is text without spaces, not ' '",
    "@docker(read_only='yes')": "read_only is True or False, not 'yes'",
    "@docker(mounts='./a:/a')": "mounts is a list of texts such as",
    "@docker(mounts=['a:b'])": "'a:b' in mounts is not SOURCE:TARGET[:ro] with an absolute target",
    "@docker(disk=1)": "unknown argument 'disk'; accepted: image, cpu, memory, shared_memory,",
    "@resources(memory=float('nan'))": "memory is a number above 0, not nan",
    "@resources(cpu=float('inf'))": "cpu is a number above 0, not inf",
    "@timeout(seconds=10**400)": "seconds is a number from 0, not 1000",
    "@docker(cpu='2')": "cpu is a number from 0.01 to 100000, not '2'",
    "@docker(cpu=1e-12)": "cpu is a number from 0.01 to 100000, not 1e-12",
    "@docker(cpu=float('inf'))": "cpu is a number from 0.01 to 100000, not inf",
    "@docker(memory=float('nan'))": "memory is a number from 1 to 1000000000, not nan",
    "@docker(memory=1e-7)": "memory is a number from 1 to 1000000000, not 1e-07",
    "@docker(shared_memory=10**400)": "shared_memory is a number from 1 to 1000000000, not 1000",
    "@docker(gpu=10**20)": "gpu is a whole number from 0, or -1 for all, not 100000000000000000000",
    "@docker(image='python: 3')": "image is text without spaces, not 'python: 3'",
    "@docker(network='x\\0y')": "network is text without spaces, not 'x\\x00y'",
    "@docker(user='-1')": "user is UID[:GID], as",
    "@docker(user='99999999999')": "user is UID[:GID], as",
    "@docker(mounts=['/a\\0:/b'])": "in mounts is not SOURCE:TARGET[:ro]",
    "@docker(mounts=['/a:/d', '/b:/d/', '/c:/d/.'])": "/d is mounted to twice",
    "@docker(mounts=['/a:/tmp'])": "/tmp is every container's own: mount to a folder in it or elsewhere",
    "@docker(mounts=['/a:/opt/env/lib/python3.11/site-packages/idna/core.py'])": "would hide or change /opt/env",
    "@docker(mounts=['/a://opt/../opt/env'])": "a mount to /opt/env would hide or change /opt/env",
    "@docker(mounts=['/a:/opt/flowkiln'])": "would hide or change /opt/flowkiln",
    "@docker(mounts=['/a:/mnt'])": "a mount to /mnt would hide or change /mnt/flowkiln",
    "@pypi(packages='pandas')": "packages is a dictionary such as",
    "@pypi(packages={'pandas': 2.2})": 'write "pandas": "2.2"',
    "@pypi(packages=['pandas', 5])": "packages is a dictionary such as",
    "@pypi(python=3.11)": 'python is text, not 3.11; write python="3.11"',
    "@pypi(name='a b')": "name consists of letters, digits, '-' and '_', not 'a b'",
    "@pypi(requirements=5)": "requirements is the path of a file, not 5",
    "@pypi(platforms='linux/amd64')": "platforms is a list of texts, not 'linux/amd64'",
    "@pypi(script='yes')": "script is True or False, not 'yes'",
    "@pypi(winners={'a': 1})": "winners maps paths to packages",
    "@pypi(package={})": "unknown argument 'package'; accepted: packages, python, name,",
}


MEANT = {"@retry(tmies=3)": "Did you mean 'times'?", "@pypi(package={})": "Did you mean 'packages'?"}


@pytest.mark.parametrize("line", BAD)
def test_a_bad_argument_names_decorator_step_and_what_is_accepted(tmp_path: Path, line: str) -> None:
    (problem,) = problems(tmp_path, on_step(line))
    assert isinstance(problem, BadDecorator)
    name = line[1:].partition("(")[0]
    assert problem.hint == (MEANT.get(line) or f"`python -m pydoc flowkiln.{name}` describes it.")
    assert problem.message.startswith(f"step 'start': @{name}: ")
    assert BAD[line] in problem.message
    assert problem.place.endswith(".py:3")


def test_a_decorator_below_step_is_misplaced(tmp_path: Path) -> None:
    text = on_step("@retry").replace("    @retry\n    @step\n", "    @step\n    @retry\n")
    (problem,) = problems(tmp_path, text)
    assert isinstance(problem, MisplacedDecorator)
    assert problem.message == "step 'start': @retry stands below @step"
    assert problem.line == 4


def test_a_decorator_on_something_else_is_misplaced(tmp_path: Path) -> None:
    text = on_step("@retry") + "    @timeout(seconds=1)\n    def helper(self):\n        pass\n"
    (problem,) = problems(tmp_path, text)
    assert isinstance(problem, MisplacedDecorator)
    assert problem.message == "@timeout stands on 'helper', which is not a step"
    (problem,) = problems(tmp_path, "@retry\n" + on_step("@catch"))
    assert problem.message == "@retry stands on 'F', which is not a step"


def test_a_flow_decorator_on_a_step_is_misplaced(tmp_path: Path) -> None:
    (problem,) = problems(tmp_path, on_step("@pypi_base(packages={'a': '1'})"))
    assert isinstance(problem, MisplacedDecorator)
    assert "belongs above the class" in problem.message
    assert problem.hint == "Move @pypi_base above `class F`."


def test_a_decorator_twice(tmp_path: Path) -> None:
    (problem,) = problems(tmp_path, on_step("@retry", "@retry(times=1)"))
    assert isinstance(problem, DecoratorNotAllowed)
    assert problem.message == "step 'start' has @retry twice"


def test_a_flow_decorator_on_class_and_base(tmp_path: Path) -> None:
    text = f"@pypi_base(python='3.11')\n{on_step('@retry')}\nBase = F\n@pypi_base\nclass F(Base):\n    pass\n"
    (problem,) = problems(tmp_path, text)
    assert isinstance(problem, DecoratorNotAllowed)
    assert "has @pypi_base twice, its bases included" in problem.message


def test_flow_decorators_are_inherited(tmp_path: Path) -> None:
    text = f"@pypi_base(python='3.11')\n{on_step('@retry')}\nBase = F\nclass F(Base):\n    pass\n"
    kind = load(tmp_path, text)
    assert [one.arguments["python"] for one in flow_decorators(kind)] == ["3.11"]
    assert checks.problems(kind) == []


def test_catch_on_a_foreach_step(tmp_path: Path) -> None:
    text = (
        "class F(FlowSpec):\n    @catch\n    @step\n    def start(self):\n        self.next(self.a, foreach='x')\n"
        "    @step\n    def a(self):\n        self.next(self.j)\n"
        "    @step\n    def j(self, inputs):\n        self.next(self.end)\n"
        "    @step\n    def end(self):\n        pass\n"
    )
    (problem,) = problems(tmp_path, text)
    assert isinstance(problem, DecoratorNotAllowed)
    assert "@catch cannot stand on a step that opens a foreach" in problem.message


def test_an_unknown_argument_of_step(tmp_path: Path) -> None:
    (problem,) = problems(
        tmp_path, on_step("@retry").replace("@step\n    def start", "@step(begin=True)\n    def start")
    )
    assert isinstance(problem, BadDecorator)
    assert problem.message == "step 'start': @step: unknown argument 'begin'; accepted: start, end, node_info"


def test_every_decorator_has_a_check_and_a_docstring() -> None:
    assert set(decorators.CHECKS) == set(DECORATORS)
    assert all(function.__doc__ for function in DECORATORS.values())


def test_the_function_itself_comes_back() -> None:
    def body(self: Any) -> None:
        """Says what it does."""

    assert step(body) is body
    for use in (retry, catch, environment, resources, pypi, timeout(seconds=1), retry(times=1)):
        assert use(body) is body

    class Some:
        pass

    assert pypi_base(Some) is Some
    assert pypi_base(python="3.11")(Some) is Some


TYPED_WELL = """
from flowkiln import FlowSpec, Parameter, catch, environment, pypi, pypi_base, resources, retry, step, timeout

@pypi_base(packages={"requests": ">=2"}, python="3.12")
class F(FlowSpec):
    alpha = Parameter("alpha", default=1)

    @retry
    @timeout(minutes=1.5)
    @pypi(packages=["pandas"], platforms=("linux/amd64",), disabled=False)
    @step
    def start(self) -> None:
        self.x = self.alpha
        self.next(self.end, foreach="x")

    @catch(var="problem")
    @environment(vars={"A": "b"})
    @resources(cpu=2, memory=1024, gpu=1)
    @retry()
    @step(end=True)
    def end(self) -> None:
        reveal_type(self.start)
"""
TYPED_BADLY = """
from flowkiln import FlowSpec, catch, environment, pypi, pypi_base, resources, retry, step, timeout

class F(FlowSpec):
    @retry(tmies=3)
    @step
    def a(self) -> None: ...
    @retry(times="3")
    @step
    def b(self) -> None: ...
    @catch(var=5)
    @step
    def c(self) -> None: ...
    @timeout("5m")
    @step
    def d(self) -> None: ...
    @environment(vars={"A": 1})
    @step
    def e(self) -> None: ...
    @resources(memory="4G")
    @step
    def f(self) -> None: ...
    @pypi(packages=5)
    @step
    def g(self) -> None: ...
    @pypi(python=3.11)
    @step
    def h(self) -> None: ...
    @step(begin=True)
    def i(self) -> None: ...
    @pypi_base(python="3.11")
    @step
    def j(self) -> None: ...
"""


def typed(tmp_path: Path, text: str) -> str:
    path = tmp_path / "flow.py"
    path.write_text(textwrap.dedent(text), encoding="utf-8")
    source = Path(decorators.__file__).parents[2]
    command = [sys.executable, "-m", "mypy", "--strict", "--no-incremental", "--cache-dir", str(tmp_path / "cache")]
    answer = subprocess.run(
        [*command, "--no-error-summary", "--hide-error-context", "--follow-imports=silent", str(path)],
        capture_output=True,
        text=True,
        env={"MYPYPATH": str(source), "PATH": ""},
        check=False,
    )
    assert answer.stderr == ""
    return answer.stdout


def test_type_checkers_accept_good_decorators(tmp_path: Path) -> None:
    found = typed(tmp_path, TYPED_WELL)
    assert "error" not in found, found
    assert 'Revealed type is "def ()"' in found


def test_type_checkers_report_each_bad_decorator(tmp_path: Path) -> None:
    # what cannot be matched is untyped besides: one mistake, told twice
    found = [line for line in typed(tmp_path, TYPED_BADLY).splitlines() if ": error:" in line]
    found = [line for line in found if "untyped-decorator" not in line]
    assert [int(line.split(":")[1]) for line in found] == [5, 8, 11, 14, 17, 20, 23, 26, 29, 31], found
