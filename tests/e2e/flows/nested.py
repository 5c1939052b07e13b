from flowkiln import FlowSpec, step


class Nested(FlowSpec):
    @step
    def start(self):
        self.shared = {"k": [1, 2]}
        self.next(self.left, self.right)

    @step
    def left(self):
        self.outer = ["a", "b", "c"]
        self.side = "left"
        self.next(self.each, foreach="outer")

    @step
    def each(self):
        self.letter = self.input
        self.numbers = range(self.index + 1)
        self.next(self.inner, foreach="numbers")

    @step
    def inner(self):
        self.word = f"{self.letter}{self.input}"
        assert [frame[0] for frame in self.foreach_stack()] == ["abc".index(self.letter), self.input]
        self.next(self.inner_after)

    @step
    def inner_after(self):
        self.word = self.word.upper()
        self.next(self.inner_join)

    @step
    def inner_join(self, inputs):
        self.words = [each.word for each in inputs]
        self.merge_artifacts(inputs, include=["letter", "shared", "side"])
        self.next(self.outer_join)

    @step
    def outer_join(self, inputs):
        self.words = [word for each in inputs for word in each.words]
        self.letters = [each.letter for each in inputs]
        self.merge_artifacts(inputs, include=["shared", "side"])
        self.next(self.both)

    @step
    def right(self):
        self.side = "right"
        self.only_right = 7
        self.next(self.both)

    @step
    def both(self, inputs):
        assert inputs.left if hasattr(inputs, "left") else True
        assert inputs.right.side == "right"
        self.words = inputs.outer_join.words
        self.merge_artifacts(inputs, exclude=["side"])
        self.next(self.end)

    @step
    def end(self):
        print(self.words, self.letters, self.only_right, self.shared)


if __name__ == "__main__":
    Nested()
