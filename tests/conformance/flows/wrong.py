from shared import locked

from flowkiln import FlowSpec, step


@locked
class Wrong(FlowSpec):
    @step
    def start(self):
        print("before")
        raise ValueError("this is wrong")
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    Wrong()
