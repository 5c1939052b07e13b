"""Flows written once and run by both libraries: the import line is the only difference."""

from __future__ import annotations

THREE_STEPS = """
from {library} import FlowSpec, step

class Three(FlowSpec):
    @step
    def start(self):
        self.x = 1
        self.next(self.middle)

    @step
    def middle(self):
        self.x += 1
        self.next(self.end)

    @step
    def end(self):
        print(self.x)

if __name__ == "__main__":
    Three()
"""

FOREACH = """
from {library} import FlowSpec, Parameter, step

class Wide(FlowSpec):
    width = Parameter("width", default=100)

    @step
    def start(self):
        self.items = list(range(self.width))
        self.next(self.work, foreach="items")

    @step
    def work(self):
        {body}
        self.next(self.join)

    @step
    def join(self, inputs):
        self.total = sum(each.y for each in inputs)
        self.next(self.end)

    @step
    def end(self):
        print(self.total)

if __name__ == "__main__":
    Wide()
"""

BARE = "self.y = self.input * 2"
PANDAS = "import pandas; self.y = int(pandas.Series([self.input, self.input]).sum())"

DECLARED = """
from flowkiln import FlowSpec, pypi, step

class Declared(FlowSpec):
    @pypi(python="{python}", packages={{"six": "1.16.0"}})
    @step
    def start(self):
        self.x = 1
        self.next(self.middle)

    @pypi(python="{python}", packages={{"six": "1.16.0"}})
    @step
    def middle(self):
        self.x += 1
        self.next(self.end)

    @pypi(python="{python}", packages={{"six": "1.16.0"}})
    @step
    def end(self):
        print(self.x)

if __name__ == "__main__":
    Declared()
"""

CONTAINED = """
from flowkiln import FlowSpec, pypi, step

PACKAGES = {{"pandas": "2.*", "scikit-learn": "1.*", "requests": "2.*"}}

class Contained(FlowSpec):
    @pypi(python="{python}", packages=PACKAGES)
    @step
    def start(self):
        import pandas, sklearn, requests
        self.version = pandas.__version__
        self.next(self.end)

    @pypi(python="{python}", packages=PACKAGES)
    @step
    def end(self):
        import time
        print("clock", time.time())

if __name__ == "__main__":
    Contained()
"""
