from shared import locked

from flowkiln import FlowSpec, step


@locked
class Branch(FlowSpec):
    @step
    def start(self):
        self.shared = {"k": [1, 2]}
        self.next(self.left, self.right)

    @step
    def left(self):
        self.side = "left"
        self.next(self.join)

    @step
    def right(self):
        self.side = "right"
        self.only_right = (7, None)
        self.next(self.join)

    @step
    def join(self, inputs):
        self.sides = [inputs.left.side, inputs.right.side]
        self.merge_artifacts(inputs, exclude=["side"])
        self.next(self.end)

    @step
    def end(self):
        print(self.sides, self.only_right, self.shared)


if __name__ == "__main__":
    Branch()
