from flowkiln import FlowSpec, Parameter, current, step


class Linear(FlowSpec):
    """Adds up."""

    alpha = Parameter("alpha", default=2, help="what is added")
    label = Parameter("label", default="none")

    @step
    def start(self):
        """First."""
        self.total = self.alpha
        self._private = "kept"
        self.next(self.middle)

    @step
    def middle(self):
        self.total += self.alpha
        print(f"middle of {current.run_id} says {self.label}")
        self.next(self.end)

    @step
    def end(self):
        print(f"total {self.total} {self._private}")


if __name__ == "__main__":
    Linear()
