from shared import locked

from flowkiln import FlowSpec, step, timeout


@locked
class Late(FlowSpec):
    @timeout(seconds=1)
    @step
    def start(self):
        import time

        print("sleeping")
        time.sleep(60)
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    Late()
