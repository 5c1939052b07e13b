import time
from pathlib import Path

from flowkiln import FlowSpec, Parameter, step


class Sleeps(FlowSpec):
    folder = Parameter("folder", required=True)
    seconds = Parameter("seconds", default=0.3)
    width = Parameter("width", default=8)

    @step
    def start(self):
        self.items = list(range(self.width))
        self.next(self.work, foreach="items")

    @step
    def work(self):
        print(f"working on {self.input}")
        time.sleep(self.seconds)
        with (Path(self.folder) / "done").open("a") as stream:
            stream.write(f"{self.input}\n")
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
    Sleeps()
