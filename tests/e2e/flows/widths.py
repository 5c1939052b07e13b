from flowkiln import FlowSpec, Parameter, step


class Widths(FlowSpec):
    width = Parameter("width", default=3)
    kind = Parameter("kind", default="list")

    @step
    def start(self):
        if self.kind == "generator":
            self.items = (n for n in range(self.width))
        else:
            self.items = list(range(self.width))
        self.next(self.work, foreach="items")

    @step
    def work(self):
        self.y = self.input * 2
        self.next(self.join)

    @step
    def join(self, inputs):
        self.total = sum(each.y for each in inputs)
        self.next(self.end)

    @step
    def end(self):
        print(f"total {self.total}")


if __name__ == "__main__":
    Widths()
