from shared import later, locked

from flowkiln import FlowSpec, Parameter, step


@locked
class Linear(FlowSpec):
    """Two environments, a module of the user's own, a parameter."""

    alpha = Parameter("alpha", default=3)

    @step
    def start(self):
        import probe

        self.version = probe.__version__
        self.next(self.middle)

    @later
    @step
    def middle(self):
        import probe

        self.versions = [self.version, probe.__version__]
        print("middle has", *self.versions)
        self.next(self.end)

    @step
    def end(self):
        import os
        import sys

        self.total = self.alpha * 2
        self.mask = oct(os.umask(0o022))
        self.optimised = sys.flags.optimize
        self.foreign = sorted(name for name in os.environ if name.startswith(("PIP_", "LD_", "VIRTUAL_")))
        self.user_site = sys.flags.no_user_site


if __name__ == "__main__":
    Linear()
