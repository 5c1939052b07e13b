from shared import locked

from flowkiln import FlowSpec, step


@locked
class Large(FlowSpec):
    @step
    def start(self):
        import numpy as np

        self.table = np.arange(4_000_000, dtype=np.float64)  # 32 MB
        self.next(self.end)

    @step
    def end(self):
        self.table = self.table[::-1]
        self.total = float(self.table.sum())
        self.first = float(self.table[0])


if __name__ == "__main__":
    Large()
