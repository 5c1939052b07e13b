from pathlib import Path

from flowkiln import FlowSpec, Parameter, docker, step


class Waits(FlowSpec):
    """Each task of ``work`` notes that it begins, waits for the file ``go``, and notes that it ends."""

    width = Parameter("width", default=3)

    @step
    def start(self):
        self.items = list(range(self.width))
        self.next(self.work, foreach="items")

    @docker(mounts=["./out:/out"])
    @step
    def work(self):
        import time

        out = Path("/out")
        print(f"begins {self.input}", flush=True)
        with (out / f"{self.input}").open("a") as stream:
            stream.write("began\n")
        while not (out / "go").exists():
            time.sleep(0.05)
        with (out / f"{self.input}").open("a") as stream:
            stream.write("ended\n")
        self.square = self.input**2
        self.next(self.join)

    @step
    def join(self, inputs):
        self.squares = [each.square for each in inputs]
        self.next(self.end)

    @step
    def end(self):
        print("squares", self.squares)


if __name__ == "__main__":
    Waits()
