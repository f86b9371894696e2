"""MLflow: a run in the experiment MLFLOW_EXPERIMENT_NAME (d3ssl), at MLFLOW_TRACKING_URI or in RUN/mlflow.db.

Every start of a training is a run of its own, with the tag ``d3ssl.folder``. MLflow's own telemetry is switched off
unless MLFLOW_DISABLE_TELEMETRY says otherwise.
"""

from __future__ import annotations

import importlib
import os
import time
from typing import Any, ClassVar

from d3ssl.train.log.target import Start, Target

_PARAMS = 100
"""That a server takes at a time."""
_LONGEST = 500
"""Characters of a value that every server takes."""


class MLflow(Target):
    """See above."""

    title: ClassVar[str] = "MLflow"
    package: ClassVar[str] = "mlflow"
    remedy: ClassVar[str] = "look at the server of MLFLOW_TRACKING_URI, or unset it to write to RUN/mlflow.db"

    def __init__(self, start: Start) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        self._mlflow: Any = importlib.import_module("mlflow")
        uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{start.run.resolve() / 'mlflow.db'}"
        self._client: Any = self._mlflow.MlflowClient(tracking_uri=uri)
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "d3ssl")
        found = self._client.get_experiment_by_name(name)
        experiment = self._client.create_experiment(name) if found is None else found.experiment_id
        tags = {"d3ssl.folder": str(start.run.resolve())}
        run = self._client.create_run(experiment, run_name=start.title, tags=tags)
        self._run = run.info.run_id
        params = [
            self._mlflow.entities.Param(key, str(value)[:_LONGEST]) for key, value in sorted(start.options.items())
        ]
        for first in range(0, len(params), _PARAMS):
            self._client.log_batch(self._run, params=params[first : first + _PARAMS])

    def write(self, step: int, figures: dict[str, float]) -> None:
        now = int(1000 * time.time())
        metrics = [self._mlflow.entities.Metric(name, value, now, step) for name, value in figures.items()]
        self._client.log_batch(self._run, metrics=metrics)

    def close(self) -> None:
        self._client.set_terminated(self._run)
