from shared import locked

from flowkiln import FlowSpec, resources, step


@locked
class Hungry(FlowSpec):
    @resources(memory=96)
    @step
    def start(self):
        print("hungry")
        held = []
        for _ in range(64):
            held.append(bytearray(b"x" * (16 << 20)))
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    Hungry()
