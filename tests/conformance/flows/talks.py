import sys

from shared import locked

from flowkiln import FlowSpec, step


@locked
class Talks(FlowSpec):
    @step
    def start(self):
        for number in range(100_000):
            sys.stdout.write(f"out {number}\n")
            sys.stderr.write(f"error {number}\n")
        self.next(self.end)

    @step
    def end(self):
        sys.stdout.buffer.write(b"half \xff a line\r\nprogress 1\rprogress 2\n\ttabs\n")


if __name__ == "__main__":
    Talks()
