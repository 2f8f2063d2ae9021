"""
### Watch the endpoint: a report over what it captured, an alarm and retraining when the images drift

Runs every hour, and by hand whenever you want to know. Open the result in the tab **Report** of the run, or under
**Scones monitor** in the navigation.

**Reads** the captures under `capture/<endpoint>/` (every record of every line of every file; each run what arrived
since the last), `datasets/<version>/baseline/`, the live model's `evaluation.json`, `config/threshold.json`, ground
truth under `ground-truth/<endpoint>/`, and CloudWatch.
**Writes** `reports/<endpoint>/<report_id>/report.html`, `report.json`, `statistics.json` and
`constraint_violations.json` (Model Monitor's forms), `index.json` and `watermark.json` beside them; metrics in the
namespace `Scones/ModelMonitor`.

**On a violation** the alert topic gets one message per report. Drift of the images, of the class mix or of the
confidence, and a loss of accuracy, emit the asset `scones_drift`, which starts `train_and_deploy`; the same model is
asked to be retrained at most once in `retrain_cooldown_hours`. What counts as a violation is set in
`datasets/<version>/baseline/constraints.json`.

**Labels** that no training has taken, `SCONES_LABELS_TO_RETRAIN` of them (0, the default: off), emit the asset
`scones_labels`, which starts `train_and_deploy` too.

**Safe to run again**: yes. A task tried again writes the same report over the same records. A run by hand with `since`
reports on that window and leaves the hourly reports as they are.

**When it fails**: the log of the failed task says why. *Skipped at `resolve_resources`*: there is no endpoint yet, run
`train_and_deploy`. *Capture broken* is a report, not a failure: it says what to check.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import chain, dag

from scones import defaults
from scones.monitoring import tasks
from scones.notifications import DAG_DEFAULT_ARGS, run_failed_notifier

TIME = {"type": ["null", "string"], "format": "date-time"}
# fmt: off
FORM: defaults.Form = {
    defaults.OPEN_SECTION: [
        ("endpoint_name", "", {"type": ["null", "string"], "pattern": r"^([a-zA-Z0-9](-*[a-zA-Z0-9]){0,62})?$"},
         "Endpoint", "Name of the endpoint; empty for the stack's."),
        ("classes", None, {"type": ["null", "array"], "items": {"type": "string", "minLength": 1}}, "Classes",
         "Class names in label order, for an endpoint whose model was not trained here; else empty."),
        ("since", None, TIME, "Since",
         "Report on records inferred at or after this time; empty for what is new since the last report."),
        ("until", None, TIME, "Until",
         "Report on records inferred before this time; only together with Since, empty for now."),
        ("capture_timeout_s", 60, {"type": "integer", "minimum": 0, "maximum": 1500}, "Wait for captures (s)",
         "How long to wait for records that were invoked but not captured yet (minutes on AWS)."),
    ],
    "What follows": [
        ("retrain_cooldown_hours", 24, {"type": "number", "minimum": 0, "maximum": 8760}, "Retrain at most every (h)",
         "Drift asks for retraining of the same model at most once in so many hours; 0: at every report."),
    ],
}
# fmt: on


@dag(
    schedule=defaults.at("0 * * * *"),
    catchup=False,
    allowed_run_types=defaults.RUN_TYPES,
    max_active_runs=1,
    default_args={**DAG_DEFAULT_ARGS, "execution_timeout": timedelta(minutes=30)},
    params=defaults.params_of(FORM),
    tags=[*defaults.TAGS, "monitoring"],
    doc_md=__doc__,
    on_failure_callback=run_failed_notifier(),
)
def monitor_endpoint() -> None:
    resources = tasks.resolve_resources()
    captured = tasks.await_capture(resources)
    written = tasks.write_report(resources)
    chain(captured, written)
    tasks.publish_metrics(resources, written)
    tasks.send_alarm(resources, written)
    tasks.report_drift(resources, written)
    tasks.report_labels(resources, written)


monitor_endpoint()
