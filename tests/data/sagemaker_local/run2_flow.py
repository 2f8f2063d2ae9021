"""Runs of an experiment logged and read back by the SDK 2.x: arguments are an experiment's name and a bucket."""
# ruff: noqa: T201
# mypy: ignore-errors

import json
import sys

from sagemaker.experiments import Run, list_runs, load_run
from sagemaker.session import Session

experiment, bucket = sys.argv[1:]
session = Session(default_bucket=bucket)

with Run(experiment_name=experiment, run_name="first", sagemaker_session=session) as run:
    run.log_parameters({"epochs": 3, "optimizer": "sgd"})
    for step, loss in enumerate((0.9, 0.5, 0.1)):
        run.log_metric("loss", loss, step=step)
    run.log_metric("accuracy", 0.75)
with load_run(experiment_name=experiment, run_name="first", sagemaker_session=session) as run:
    run.log_metric("loss", 0.3, step=3)

names = [one.run_name for one in list_runs(experiment_name=experiment, sagemaker_session=session)]
component = session.sagemaker_client.describe_trial_component(
    TrialComponentName=run._trial_component.trial_component_name
)
kept = ("Count", "Min", "Max", "Avg", "Last")
print(
    "REPORT "
    + json.dumps(
        {
            "runs": names,
            "parameters": component["Parameters"],
            "metrics": {one["MetricName"]: {name: one[name] for name in kept} for one in component["Metrics"]},
            "status": component["Status"]["PrimaryStatus"],
        }
    )
)
