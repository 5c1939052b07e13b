"""What a step sees inside its container; ``settings`` is written beside this file by the test."""

from settings import locked

from flowkiln import FlowSpec, environment, step


@locked
class Contained(FlowSpec):
    @environment(vars={"COLOUR": "blue"})
    @step
    def start(self):
        import alpha

        self.version = alpha.__version__
        self.next(self.look)

    @step
    def look(self):
        import os
        import socket
        import sys
        import tempfile
        from pathlib import Path

        self.ids = [os.getuid(), os.getgid()]
        self.interfaces = sorted(path.name for path in Path("/sys/class/net").iterdir())
        self.variables = sorted(os.environ)
        self.outside = sorted(
            name for name in sys.path if not name.startswith(("/opt/", "/usr/", "/mnt/flowkiln/"))
        )
        commands = [path.read_bytes().split(b"\0") for path in Path("/proc").glob("[0-9]*/cmdline")]
        self.programs = sorted({Path(words[0].decode()).name for words in commands if words[0]})
        self.writable = []
        for folder in ("/", "/usr", "/opt/env", tempfile.gettempdir(), Path.home(), Path.cwd()):
            try:
                (Path(folder) / "made-by-a-step").write_text("x")
            except OSError:
                continue
            self.writable.append(str(folder))
        try:
            socket.create_connection(("192.0.2.1", 80), timeout=2)
        except OSError as error:
            self.network = type(error).__name__
        self.next(self.end)

    @step
    def end(self):
        print("got", self.version)


if __name__ == "__main__":
    Contained()
