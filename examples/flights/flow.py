"""How late will a flight arrive? A model per airline, each step in a locked environment of its own.

    python examples/flights/flow.py run

`start` cleans the tables with pandas 2, `fit` has scikit-learn and no pandas, `compare` has pandas 1.5 on numpy 1.
They exchange numpy arrays and plain records, so no step needs another step's packages.
"""

from flowkiln import FlowSpec, IncludeFile, Parameter, pypi, pypi_base, step

FEATURES = ["dep_delay", "distance", "time", "weekend"]
WEATHER = ["temp", "humid", "wind_speed", "precip", "pressure", "visib"]


@pypi_base(python="3.11", platforms=["linux/amd64", "linux/arm64", "darwin/arm64"])
class Flights(FlowSpec):
    """Predicts arrival delays of flights from New York in January 2013, airline by airline."""

    flights = IncludeFile("flights", default="flights.csv.gz", is_text=False, help="table of flights")
    weather = IncludeFile("weather", default="weather.csv.gz", is_text=False, help="hourly weather by airport")
    airlines = IncludeFile("airlines", default="airlines.csv.gz", is_text=False, help="names of the airlines")
    train_days = Parameter("train-days", default=24, help="days of the month to learn from; the rest is the test")
    min_flights = Parameter("min-flights", default=100, help="airlines with fewer flights get no model")

    @pypi(packages={"pandas": ">=2.2,<3"})
    @step
    def start(self):
        """Cleans the flights, joins the weather and splits the table by airline."""
        import io

        import pandas as pd

        def table(data):
            return pd.read_csv(io.BytesIO(data), compression="gzip")

        flights = table(self.flights).dropna(subset=["dep_delay", "arr_delay"])
        weather = table(self.weather).drop_duplicates(["origin", "month", "day", "hour"])
        joined = flights.merge(weather, on=["origin", "month", "day", "hour"], how="left")
        joined["time"] = joined["hour"] + joined["minute"] / 60
        weekday = pd.to_datetime({"year": 2013, "month": joined["month"], "day": joined["day"]}).dt.weekday
        joined["weekend"] = weekday >= 5
        joined[FEATURES + WEATHER] = joined[FEATURES + WEATHER].astype(float)
        joined = joined.fillna(joined[WEATHER].median())

        self.names = dict(table(self.airlines).itertuples(index=False))
        columns = ["day", "arr_delay", *FEATURES, *WEATHER]
        self.parts = [
            {"carrier": carrier, "flights": part[columns].to_records(index=False)}
            for carrier, part in joined.groupby("carrier")
        ]
        print(f"{len(joined)} of {len(table(self.flights))} flights arrived; {len(self.parts)} airlines")
        self.next(self.fit, foreach="parts")

    @pypi(packages={"scikit-learn": ">=1.7,<1.8", "numpy": ">=2"})
    @step
    def fit(self):
        """Learns one airline's arrival delays and measures the error on the days that were held back."""
        import numpy as np
        from sklearn.linear_model import Ridge
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        flights = self.input["flights"]
        features = np.column_stack([flights[name] for name in FEATURES + WEATHER])
        delay = flights["arr_delay"]
        learn = flights["day"] <= self.train_days

        self.carrier = self.input["carrier"]
        self.delay = delay
        self.model_error = self.baseline_error = None
        if len(flights) >= self.min_flights:
            model = make_pipeline(StandardScaler(), Ridge(alpha=1.0)).fit(features[learn], delay[learn])
            self.model_error = float(np.abs(model.predict(features[~learn]) - delay[~learn]).mean())
            self.baseline_error = float(np.abs(delay[learn].mean() - delay[~learn]).mean())
        self.next(self.compare)

    @pypi(packages={"pandas": "1.5.3", "numpy": "<2"})
    @step
    def compare(self, inputs):
        """Puts the airlines side by side, the busiest first."""
        import pandas as pd

        names = inputs[0].names
        rows = [
            {
                "carrier": one.carrier,
                "name": names[one.carrier],
                "flights": len(one.delay),
                "mean_delay": one.delay.mean(),
                "model_error": one.model_error,
                "baseline_error": one.baseline_error,
            }
            for one in inputs
        ]
        table = pd.DataFrame(rows).sort_values(["flights", "carrier"], ascending=[False, True])
        self.table = table.astype(object).where(table.notna(), None).to_dict("records")
        self.next(self.end)

    @step
    def end(self):
        """Prints the result. This step needs no package: its environment is Python alone."""

        def minutes(value):
            return "-" if value is None else f"{value:.1f}"

        print(f"{'':2}  {'airline':28} {'flights':>7}  {'mean delay':>10}  {'model error':>11}  {'baseline':>8}")
        for row in self.table:
            print(
                f"{row['carrier']:2}  {row['name']:28} {row['flights']:7}  {minutes(row['mean_delay']):>10}"
                f"  {minutes(row['model_error']):>11}  {minutes(row['baseline_error']):>8}"
            )
        print("Minutes of arrival delay; errors are mean absolute errors on the days not learned from.")
        print("The baseline always predicts the airline's mean delay.")


if __name__ == "__main__":
    Flights()
