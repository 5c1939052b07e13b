from shared import locked

from flowkiln import FlowSpec, catch, step


@locked
class Caught(FlowSpec):
    @catch(var="failure", print_exception=False)
    @step
    def start(self):
        self.kept = "before"
        if self.kept:
            raise KeyError("gone")
        self.next(self.end)

    @step
    def end(self):
        self.told = [self.failure.type, self.failure.exception]


if __name__ == "__main__":
    Caught()
