"""Two steps with conda packages, one of them with a PyPI package beside; both say what activation gave them."""

import json
import os
from pathlib import Path

from flowkiln import FlowSpec, conda, conda_base, environment, pypi, step

NAMES = ("ACTIVATED_HOME", "ACTIVATED_PATHS", "ENV_VARS_ONE", "ENV_VARS_TEXT")


def seen():
    """What activation sets, with the prefix as a sign."""
    values = {name: os.environ.get(name) for name in NAMES}
    return {name: value and value.replace(os.environ["CONDA_PREFIX"], "@") for name, value in values.items()}


@conda_base(python="3.11", packages={"activated": "*", "env-vars": "*"})
class Activating(FlowSpec):
    @conda(packages={"numpy": "*"})
    @step
    def start(self):
        import numpy as np

        self.seen = seen()
        self.numpy = np.__version__
        self.next(self.end)

    @environment(vars={"ENV_VARS_ONE": "the step's"})
    @pypi(packages={"alpha": "*"})
    @step
    def end(self):
        import alpha

        data = Path(os.environ["ACTIVATED_HOME"], "data.txt").read_text().strip()
        print("seen", json.dumps([self.seen, seen()]))
        print("result", self.numpy, alpha.__version__, data)


if __name__ == "__main__":
    Activating()
