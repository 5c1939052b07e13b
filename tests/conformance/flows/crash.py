from shared import locked

from flowkiln import FlowSpec, step


@locked
class Crash(FlowSpec):
    @step
    def start(self):
        import ctypes

        print("now")
        ctypes.string_at(0)
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    Crash()
