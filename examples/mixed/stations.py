"""How alike are the airports? A second flow in the environments that `weather.py` uses.

python examples/mixed/stations.py run
"""

from origins import origins, show

from flowkiln import FlowSpec, IncludeFile, conda, pypi, step


class Stations(FlowSpec):
    """Compares the temperatures of each two airports, hour by hour."""

    weather = IncludeFile("weather", default="../flights/weather.csv.gz", is_text=False, help="hourly weather")

    @conda(name="table")
    @step
    def start(self):
        """Puts the temperatures of an hour side by side."""
        import io

        import pandas as pd

        table = pd.read_csv(io.BytesIO(self.weather), compression="gzip")
        hours = table.pivot_table(index=["month", "day", "hour"], columns="origin", values="temp").dropna()
        self.airports = list(hours.columns)
        self.temperatures = hours.to_numpy()
        self.origins = [("start", origins())]
        self.next(self.compare)

    @conda(name="model")
    @step
    def compare(self):
        """The mean difference of each two airports."""
        from sklearn.metrics import mean_absolute_error

        columns = dict(zip(self.airports, self.temperatures.T, strict=True))
        self.differences = {
            f"{one}-{other}": float(mean_absolute_error(columns[one], columns[other]))
            for one in columns
            for other in columns
            if one < other
        }
        self.count = len(self.temperatures)
        self.origins = [*self.origins, ("compare", origins())]
        self.next(self.end)

    @pypi(name="report")
    @step
    def end(self):
        """Prints the result, and which side each imported distribution came from."""
        import humanize

        print(f"{humanize.intcomma(self.count)} hours that all airports have")
        for pair, difference in sorted(self.differences.items()):
            print(f"{pair} {difference:.2f} °F apart")
        for name, rows in [*self.origins, ("end", origins())]:
            show(name, rows)


if __name__ == "__main__":
    Stations()
