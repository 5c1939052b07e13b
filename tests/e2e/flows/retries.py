import time
from pathlib import Path

from flowkiln import FlowSpec, Parameter, catch, current, environment, retry, step, timeout


class Retries(FlowSpec):
    folder = Parameter("folder", required=True)

    @environment(vars={"COLOUR": "blue"})
    @retry(times=2, minutes_between_retries=0)
    @step
    def start(self):
        import os

        self.colour = os.environ["COLOUR"]
        with (Path(self.folder) / "tries").open("a") as stream:
            stream.write(f"{current.retry_count}\n")
        if current.retry_count < 2:
            raise RuntimeError("not yet")
        self.next(self.slow)

    @catch(var="failure", print_exception=False)
    @timeout(seconds=1)
    @step
    def slow(self):
        time.sleep(30)
        self.next(self.dies)

    @catch(var="death")
    @retry(times=1, minutes_between_retries=0)
    @step
    def dies(self):
        import os

        os.kill(os.getpid(), 9)
        self.next(self.end)

    @step
    def end(self):
        print("caught", type(self.failure).__name__, self.failure.type, "|", self.death.exception)


if __name__ == "__main__":
    Retries()
