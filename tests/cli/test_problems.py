"""Errors as people and programs see them."""

from __future__ import annotations

import json
from pathlib import Path

import click
import pytest

from flowkiln._base.errors import ExitCode, FlowkilnError, NoSpace
from flowkiln.cli import problems
from flowkiln.cli.explain import page, registry
from flowkiln.cli.options import verb


def run(function: object, arguments: list[str] | None = None) -> int:
    command = verb("test", example="test")(function)  # type: ignore[arg-type]
    return problems.execute(command, arguments or [], program="test")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FLOWKILN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_an_error_has_code_step_message_hint_and_log() -> None:
    error = NoSpace("disk full", step="fit", hint="free some", log="/var/log/x")
    assert problems.render(error) == [
        "error[SYS001] step 'fit': disk full",
        "  hint: free some",
        "  full log: /var/log/x",
    ]


def test_a14_an_error_has_at_most_25_lines_and_its_whole_text_is_kept() -> None:
    message = "\n".join(f"line {number}" for number in range(400))
    lines = problems.render(NoSpace(message, hint="a\nb"))
    assert len(lines) == 25
    kept = Path(lines[-1].removeprefix("  full log: ")).read_text()
    assert "line 200" in kept
    assert lines[0].endswith("line 0")
    assert "line 399" in "\n".join(lines)


@pytest.mark.parametrize("code", sorted(registry()))
def test_a14_every_error_renders_short_and_has_a_page(code: str) -> None:
    kind = registry()[code]
    error = kind.__new__(kind)
    FlowkilnError.__init__(error, "x " * 3000 + "\n" * 50, step="fit", hint="next")
    lines = problems.render(error)
    assert len(lines) <= 25
    assert lines[0].startswith(f"error[{code}] step 'fit': ")
    assert max(map(len, lines)) < 600
    assert kind.title
    assert len(page(kind)) > 40
    assert isinstance(kind.exit_code, ExitCode)


def test_secrets_in_urls_are_masked(capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        message = "cannot reach https://me:secret@corp.example/simple"
        raise NoSpace(message, hint="see https://a:secret@b/")

    assert run(fail) == 5
    assert "secret" not in capsys.readouterr().err
    assert run(fail, ["--json"]) == 5
    assert "secret" not in capsys.readouterr().out


def test_json_gives_the_error_object_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        raise NoSpace("full", step="fit")

    assert run(fail, ["--json"]) == 5
    shown = json.loads(capsys.readouterr().out)
    assert shown["schema"] == 1
    assert shown["error"]["code"] == "SYS001"
    assert shown["error"]["step"] == "fit"


def test_the_unexpected_is_one_line_with_the_traceback_in_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        raise RuntimeError("boom")

    assert run(fail) == ExitCode.INTERNAL
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "error[CLI070] RuntimeError: boom"
    assert "Traceback" in Path(lines[-1].removeprefix("  full log: ")).read_text()


def test_a_cache_that_cannot_be_written_hides_no_error(
    cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cache.write_text("a file in the way")

    def fail() -> None:
        raise RuntimeError("boom")

    assert run(fail) == ExitCode.INTERNAL
    assert "boom" in capsys.readouterr().err


def test_interrupted(capsys: pytest.CaptureFixture[str]) -> None:
    def stop() -> None:
        raise KeyboardInterrupt

    assert run(stop) == ExitCode.INTERRUPTED
    assert capsys.readouterr().err.endswith("interrupted\n")


def test_bad_usage_names_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    def nothing() -> None:
        return

    assert run(nothing, ["--no-such"]) == 2
    shown = capsys.readouterr().err
    assert shown.startswith("error[CLI001] No such option")
    assert "`test --help`" in shown


def test_a_verb_gives_its_exit_code() -> None:
    def seventeen() -> int:
        return ExitCode.ENVIRONMENT

    assert run(seventeen) == 17


def test_an_error_survives_click_exits() -> None:
    def leave() -> None:
        click.get_current_context().exit(3)

    assert run(leave) == 3


def test_codes_are_unique() -> None:
    def tree(kind: type[FlowkilnError]) -> list[type[FlowkilnError]]:
        return [kind, *(found for sub in kind.__subclasses__() for found in tree(sub))]

    registry()
    own = [k.code for k in tree(FlowkilnError) if k.__dict__.get("code") and k.__module__.startswith("flowkiln.")]
    assert len(own) == len(set(own))


def test_verbose_shows_the_whole_error(capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        raise NoSpace("\n".join(f"line {number}" for number in range(400)))

    assert run(fail, ["--verbose"]) == 5
    assert "line 200\n" in capsys.readouterr().err


def test_json_after_two_dashes_is_another_programs(capsys: pytest.CaptureFixture[str]) -> None:
    @click.argument("words", nargs=-1, type=click.UNPROCESSED)
    def fail(words: tuple[str, ...]) -> None:
        raise NoSpace(" ".join(words))

    assert run(fail, ["--", "nosuch", "--json"]) == 5
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("", "error[SYS001] nosuch --json\n")
