from shared import locked

from flowkiln import FlowSpec, catch, step


@locked
class Caught(FlowSpec):
    @catch(var="failure", print_exception=False)
    @step
    def start(self):
        self.kept = "before"
        self.next(self.end)
        raise KeyError("gone")

    @step
    def end(self):
        self.told = [self.failure.type, self.failure.exception]


if __name__ == "__main__":
    Caught()
