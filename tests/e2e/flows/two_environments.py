from flowkiln import FlowSpec, pypi, step


class TwoEnvironments(FlowSpec):
    @pypi(python="3.11", packages={"alpha": "1.0"})
    @step
    def start(self):
        import alpha

        self.first = alpha.__version__
        self.next(self.other)

    @pypi(python="3.11", packages={"alpha": ">=2"})
    @step
    def other(self):
        import alpha

        self.second = alpha.__version__
        self.next(self.bare)

    @step
    def bare(self):
        try:
            import alpha
        except ImportError:
            self.third = "none"
        else:
            self.third = alpha.__version__
        self.next(self.end)

    @step
    def end(self):
        print(self.first, self.second, self.third)


if __name__ == "__main__":
    TwoEnvironments()
