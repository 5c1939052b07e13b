from shared import locked

from flowkiln import FlowSpec, JSONType, Parameter, step


@locked
class Odd(FlowSpec):
    text = Parameter("text", type=str, required=True)
    dashes = Parameter("dashes", type=str, required=True)
    long = Parameter("long", type=str, required=True)
    tree = Parameter("tree", type=JSONType, required=True)

    @step
    def start(self):
        print(ascii(self.text))
        self.size = len(self.long)
        self.next(self.end)

    @step
    def end(self):
        self.again = [self.text, self.dashes, self.tree]


if __name__ == "__main__":
    Odd()
