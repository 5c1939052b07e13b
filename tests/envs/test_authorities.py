"""One decision on certificates, for our downloads and for uv."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from flowkiln._base import known
from flowkiln.cli.output import Session
from flowkiln.envs import authorities, indexes, uv, uvpython
from flowkiln.envs.uv import Solver

ORDER = ["FLOWKILN_CERTIFICATES", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "PIP_CERT"]


def given_to_uv(environ: dict[str, str]) -> dict[str, str]:
    plan = indexes.plan(environ=environ)
    given = uv.environment(Solver(plan=plan, environ={"HOME": "/nonexistent", **environ}))
    assert authorities.variables(environ).items() <= uvpython._environment(environ, "never").items()
    return {name: value for name, value in given.items() if name in authorities.NATIVE}


@pytest.mark.parametrize("first", range(len(ORDER)))
def test_the_best_place_wins_for_both(first: int) -> None:
    environ = {name: f"/{name}.pem" for name in ORDER[first:]}
    assert authorities.named(environ) == f"/{ORDER[first]}.pem"
    assert given_to_uv(environ) == {"SSL_CERT_FILE": f"/{ORDER[first]}.pem"}


def test_a_folder_is_told_to_uv_as_one(tmp_path: Path) -> None:
    assert given_to_uv({"PIP_CERT": str(tmp_path)}) == {"SSL_CERT_DIR": str(tmp_path)}


def test_what_openssl_reads_itself_is_left_to_it() -> None:
    environ = {"SSL_CERT_DIR": "/a:/b", "PIP_CERT": "/pip.pem"}
    assert authorities.named(environ) is None
    assert given_to_uv(environ) == {"SSL_CERT_DIR": "/a:/b"}
    assert given_to_uv({}) == {}


def test_the_setting_reaches_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWKILN_CERTIFICATES", "")
    monkeypatch.setenv("FLOWKILN_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("FLOWKILN_CERTIFICATES")
    (tmp_path / "pyproject.toml").write_text(
        '[tool.flowkiln]\ncertificates = "company.pem"\ndownload-timeout = 7\n'
    )
    found = Session().settings(tmp_path)
    assert found.count("download-timeout") == 7
    assert authorities.named(dict(os.environ)) == str(tmp_path / "company.pem")
    assert known.BY_KEY["certificates"].variable == authorities.SETTING


def test_pips_proxy_is_listed_as_ignored() -> None:
    plan = indexes.plan(environ={"PIP_PROXY": "http://proxy:1", "PIP_CLIENT_CERT": "/c.pem"})
    assert {"PIP_PROXY", "PIP_CLIENT_CERT"} <= set(plan.ignored)
