from shared import locked

from flowkiln import FlowSpec, step


@locked
class Nested(FlowSpec):
    @step
    def start(self):
        self.letters = ["a", "b"]
        self.next(self.outer, foreach="letters")

    @step
    def outer(self):
        self.letter = self.input
        self.numbers = range(self.index + 1)
        self.next(self.inner, foreach="numbers")

    @step
    def inner(self):
        self.word = f"{self.letter}{self.input}"
        self.next(self.inner_join)

    @step
    def inner_join(self, inputs):
        self.words = [each.word for each in inputs]
        self.next(self.outer_join)

    @step
    def outer_join(self, inputs):
        self.words = [each.words for each in inputs]
        self.next(self.end)

    @step
    def end(self):
        print(self.words)


if __name__ == "__main__":
    Nested()
