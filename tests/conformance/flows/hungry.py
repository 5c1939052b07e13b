from shared import locked

from flowkiln import FlowSpec, resources, step


@locked
class Hungry(FlowSpec):
    @resources(memory=96)
    @step
    def start(self):
        print("hungry")
        self.next(self.end)
        held = []
        for _ in range(64):
            held.append(bytearray(b"x" * (16 << 20)))

    @step
    def end(self):
        pass


if __name__ == "__main__":
    Hungry()
