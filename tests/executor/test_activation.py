from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from flowkiln.executor import activation
from flowkiln.executor.activation import ActivationError, activated, told

BEFORE = {"PATH": "/usr/bin:/bin", "KEPT": "mine", "VIRTUAL_ENV": "/elsewhere"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for folder in ("conda-meta", activation.SCRIPTS, activation.VARIABLES):
        (tmp_path / folder).mkdir(parents=True)
    return tmp_path


def script(root: Path, name: str, text: str) -> None:
    (root / activation.SCRIPTS / name).write_text(text)


def test_an_environment_without_conda_packages_changes_nothing(tmp_path: Path) -> None:
    assert activated(str(tmp_path), BEFORE) == BEFORE


def test_variables_and_scripts_in_the_order_of_names(root: Path) -> None:
    (root / activation.VARIABLES / "a.json").write_text(json.dumps({"A": "file", "NUMBER": 3}))
    script(root, "b.sh", 'echo noise; export B="$A:$CONDA_PREFIX/share" KEPT=theirs; hidden=1; unset NOTHING')
    script(root, "a.sh", "echo more noise >&2; export A=first; export PATH=$CONDA_PREFIX/extra:$PATH; false")
    script(root, "c.fish", "exit 9")
    found = activated(str(root), BEFORE, kept=("KEPT",))
    assert found == {
        "PATH": f"{root}/extra:/usr/bin:/bin",
        "KEPT": "mine",
        "A": "first",
        "NUMBER": "3",
        "B": f"first:{root}/share",
        "CONDA_PREFIX": str(root),
        "CONDA_DEFAULT_ENV": str(root),
        "CONDA_SHLVL": "1",
    }


def test_it_is_what_sourcing_in_a_shell_gives(root: Path) -> None:
    text = """
if [ -n "${OLD:-}" ]; then export _BACKUP_OLD="$OLD"; fi
export OLD="a b
c" QUOTED='it is "$HOME"'
add() { export ADDED="$1"; }
add "${CONDA_PREFIX##*/}"
unset GONE
"""
    script(root, "x.sh", text)
    before = {**BEFORE, "OLD": "before", "GONE": "1"}
    dump = f". {root / activation.SCRIPTS / 'x.sh'}; env -0"
    own = {**{k: v for k, v in before.items() if k != "VIRTUAL_ENV"}, "CONDA_PREFIX": str(root)}
    shown = subprocess.run(["sh", "-c", dump], env=own, check=True, capture_output=True, text=True).stdout
    by_shell = dict(line.split("=", 1) for line in shown.split("\0") if line)
    ours = activated(str(root), before)
    assert {k: by_shell[k] for k in ("OLD", "_BACKUP_OLD", "QUOTED", "ADDED")} == {
        k: ours[k] for k in ("OLD", "_BACKUP_OLD", "QUOTED", "ADDED")
    }
    assert "GONE" not in ours
    assert not {"_", "PWD", "SHLVL", "flowkiln_script"} & ours.keys()


def test_much_is_no_trouble(root: Path) -> None:
    script(root, "x.sh", "for i in 1 2 3 4 5 6 7 8; do export BIG$i=$(head -c 100000 /dev/zero | tr '\\0' x); done")
    assert len(activated(str(root), BEFORE)["BIG8"]) == 100_000


@pytest.mark.parametrize(
    ("text", "why"),
    [("exit 3", "exit code 3"), ("echo no luck >&2; kill -9 $$", "no luck"), ("exec true", "ended the shell")],
)
def test_a_script_that_ends_the_shell_is_told(root: Path, text: str, why: str) -> None:
    script(root, "bad.sh", text)
    with pytest.raises(ActivationError, match=why) as caught:
        activated(str(root), BEFORE)
    assert "bad.sh" in str(caught.value)


def test_scripts_that_never_end_are_given_up(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(activation, "_LIMIT", 0.2)
    script(root, "slow.sh", "while :; do :; done")
    with pytest.raises(ActivationError, match=r"longer than .*slow\.sh"):
        activated(str(root), BEFORE)


@pytest.mark.parametrize("text", ["[]", "{", "3"])
def test_a_file_that_holds_no_variables_is_told(root: Path, text: str) -> None:
    (root / activation.VARIABLES / "a.json").write_text(text)
    with pytest.raises(ActivationError, match=r"a\.json holds no variables"):
        activated(str(root), BEFORE)


def test_the_record_is_equal_wherever_the_prefix_is(root: Path, tmp_path: Path) -> None:
    script(root, "x.sh", "export DATA=$CONDA_PREFIX/share TOKEN_COPY=$TOKEN")
    before = {"PATH": "/bin", "TOKEN": "s3cret"}
    here = told(str(root), before, activated(str(root), before))
    elsewhere = told(
        "/opt/env", before, {k: v.replace(str(root), "/opt/env") for k, v in activated(str(root), before).items()}
    )
    assert here is not None
    assert here == elsewhere
    assert here["variables"] == ["CONDA_DEFAULT_ENV", "CONDA_PREFIX", "CONDA_SHLVL", "DATA", "TOKEN_COPY"]
    assert "s3cret" not in json.dumps(here)
