import sys

from shared import locked

from flowkiln import FlowSpec, current, retry, step


@locked
class Retried(FlowSpec):
    @retry(times=2, minutes_between_retries=0)
    @step
    def start(self):
        print("attempt", current.retry_count)
        print("trouble", current.retry_count, file=sys.stderr)
        if current.retry_count < 2:
            raise RuntimeError(f"not yet: {current.retry_count}")
        self.tries = current.retry_count
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    Retried()
