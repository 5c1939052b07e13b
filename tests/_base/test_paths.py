from __future__ import annotations

import sys
from pathlib import Path

import pytest

from flowkiln._base import paths


def test_cache_root_follows_setting_then_xdg(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FLOWKILN_CACHE", str(tmp_path / "told"))
    assert paths.cache_root() == tmp_path / "told"
    monkeypatch.delenv("FLOWKILN_CACHE")
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert paths.cache_root() == tmp_path / "xdg" / "flowkiln"
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert paths.cache_root() == tmp_path / "Library" / "Caches" / "flowkiln"


def test_user_settings_file_follows_setting_then_xdg(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FLOWKILN_CONFIG", str(tmp_path / "c.toml"))
    assert paths.user_settings_file() == tmp_path / "c.toml"
    monkeypatch.delenv("FLOWKILN_CONFIG")
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert paths.user_settings_file() == tmp_path / "flowkiln" / "config.toml"
