"""How far can one see? Visibility at New York's airports from the rest of the weather.

    python examples/mixed/weather.py run

`start` has pandas from conda, `fit` scikit-learn and numpy from conda with patsy from PyPI, `end` humanize from
PyPI alone. The three environments are named in `pyproject.toml`, and `stations.py` uses them too.
"""

from origins import origins, show

from flowkiln import FlowSpec, IncludeFile, Parameter, conda, pypi, step


class Weather(FlowSpec):
    """Fits one linear model to the hours of January 2013."""

    weather = IncludeFile("weather", default="../flights/weather.csv.gz", is_text=False, help="hourly weather")
    formula = Parameter("formula", default="temp + humid + wind_speed + precip + C(origin)", help="of patsy")
    learn_days = Parameter("learn-days", default=24, help="days of the month to learn from; the rest is the test")

    @conda(name="table")
    @step
    def start(self):
        """Reads the table and leaves out hours without an observation."""
        import io

        import pandas as pd

        table = pd.read_csv(io.BytesIO(self.weather), compression="gzip").dropna()
        self.hours = {name: table[name].to_numpy() for name in table if name != "origin"}
        self.airports = table["origin"].tolist()
        self.origins = [("start", origins())]
        self.next(self.fit)

    @conda(name="model")
    @step
    def fit(self):
        """Fits the model to the first days and measures its error on those that were held back."""
        import numpy as np
        from patsy import dmatrix
        from sklearn.linear_model import Ridge
        from sklearn.metrics import mean_absolute_error

        features = np.asarray(dmatrix(self.formula, {**self.hours, "origin": self.airports}))
        seen = self.hours["visib"]
        learn = self.hours["day"] <= self.learn_days
        model = Ridge(alpha=1.0).fit(features[learn], seen[learn])
        self.error = float(mean_absolute_error(seen[~learn], model.predict(features[~learn])))
        self.baseline = float(np.abs(seen[learn].mean() - seen[~learn]).mean())
        self.origins = [*self.origins, ("fit", origins())]
        self.next(self.end)

    @pypi(name="report")
    @step
    def end(self):
        """Prints the errors, and which side each imported distribution came from."""
        import humanize

        print(f"{humanize.intcomma(len(self.airports))} hours at {len(set(self.airports))} airports")
        print(f"error {self.error:.3f} miles, of the mean alone {self.baseline:.3f}")
        for name, rows in [*self.origins, ("end", origins())]:
            show(name, rows)


if __name__ == "__main__":
    Weather()
