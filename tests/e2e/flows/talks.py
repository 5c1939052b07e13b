import time
from pathlib import Path

from flowkiln import FlowSpec, step


class Talks(FlowSpec):
    @step
    def start(self):
        print("before the wait")
        while not Path("go").exists():
            time.sleep(0.05)
        self.next(self.end)

    @step
    def end(self):
        print("the end")


if __name__ == "__main__":
    Talks()
