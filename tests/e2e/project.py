"""A user's project in a folder of its own, driven through the real command line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

KEPT = ("SSL_CERT_FILE", "SSL_CERT_DIR", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY", "COVERAGE_PROCESS_START")
SOURCE = Path(__file__).resolve().parents[2] / "src"


@dataclass
class Done:
    """What a command left: its exit code and what it printed."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    def ok(self) -> Done:
        assert self.code == 0, f"exit {self.code}\n--- stdout\n{self.out[-4000:]}\n--- stderr\n{self.err[-6000:]}"
        return self

    def failed(self, code: int, *texts: str) -> Done:
        shown = f"exit {self.code}\n--- stdout\n{self.out[-4000:]}\n--- stderr\n{self.err[-6000:]}"
        assert self.code == code, shown
        for text in texts:
            assert text in self.err, f"{text!r} is missing\n{shown}"
        assert "Traceback" not in self.err or code == 1, shown
        return self


@dataclass
class Project:
    """A folder with its own home, cache and settings; nothing of the developer's machine leaks in."""

    folder: Path
    home: Path
    environ: dict[str, str] = field(default_factory=dict)
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    def variables(self, **more: str) -> dict[str, str]:
        kept = {key: os.environ[key] for key in KEPT if key in os.environ}
        return {
            **kept,
            "PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin",
            "HOME": str(self.home),
            "USER": "tester",
            "LANG": "C.UTF-8",
            "PYTHONPATH": str(SOURCE),
            "PYTHONWARNINGS": "default",
            "FLOWKILN_CACHE": str(self.home / "cache"),
            "FLOWKILN_PYTHON_DOWNLOADS": "never",
            **self.environ,
            **more,
        }

    def write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def flow(self, name: str) -> Path:
        """Copies ``flows/<name>.py`` beside the user's other files as ``flow.py``."""
        source = Path(__file__).parent / "flows" / f"{name}.py"
        return self.write("flow.py", source.read_text())

    def python(self, *words: str | Path, **environ: str) -> Done:
        """``python WORDS`` in the project's folder."""
        return self.timed(240, *words, **environ)

    def timed(self, seconds: float, *words: str | Path, **environ: str) -> Done:
        """The same with another bound on its time."""
        done = subprocess.run(
            [sys.executable, *map(str, words)],
            cwd=self.folder,
            env=self.variables(**environ),
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            stdin=subprocess.DEVNULL,
            timeout=seconds,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    def run(self, *words: str, **environ: str) -> Done:
        """``python flow.py run WORDS``."""
        return self.python("flow.py", "run", *words, **environ)

    def flowkiln(self, *words: str | Path, **environ: str) -> Done:
        """``flowkiln WORDS``."""
        return self.python("-m", "flowkiln", *words, **environ)

    def start(self, *words: str | Path, **environ: str) -> subprocess.Popen[str]:
        """``python WORDS`` in a process group of its own, to be killed by the test."""
        process = subprocess.Popen(
            [sys.executable, *map(str, words)],
            cwd=self.folder,
            env=self.variables(**environ),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.started.append(process)
        return process

    def end(self) -> None:
        """Ends what is still running of what ``start`` began."""
        for process in self.started:
            with process:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
