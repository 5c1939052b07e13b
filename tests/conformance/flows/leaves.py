import os
import sys

from shared import locked

from flowkiln import FlowSpec, step


@locked
class Leaves(FlowSpec):
    @step
    def start(self):
        print("without a newline", end="")
        sys.stdout.flush()
        os._exit(42)
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    Leaves()
