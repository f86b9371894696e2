"""Looking through a data set before money is spent on it. Worker processes import this package: it stays light."""
