from shared import locked

from flowkiln import FlowSpec, step


@locked
class Wide(FlowSpec):
    @step
    def start(self):
        self.items = list(range(40))
        self.next(self.each, foreach="items")

    @step
    def each(self):
        self.square = self.input**2
        print("square", self.square)
        self.next(self.join)

    @step
    def join(self, inputs):
        self.squares = [each.square for each in inputs]
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    Wide()
