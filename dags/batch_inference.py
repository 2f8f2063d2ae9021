"""
### batch_inference: score many photographs with the inference workflow

Lists images, starts one execution of the Step Functions workflow for each (serialize, classify, filter), follows them
all, and writes what came of every image: **classified**, **rejected** (the model was not sure enough: a business
outcome), **failed**, **timed out** or **aborted**.

**Reads** images under `prefix` (default: the served model's test images), or a `manifest` (JSONL or CSV with a column
`key`, optionally `label`), or `keys`, or what got no answer in an earlier batch (`rerun_failed_of`).
**Writes** `s3://<bucket>/batches/<batch_id>/`: `results/part-*.jsonl` and `.parquet` (a row per image), `summary.json`,
`report.html` (open it), `rejected.csv` (fill in `label` and accept it: the next training uses those images).

**Three ways to fan out, the same results.** `executions`: a trigger starts and follows executions, as many at once as
the account takes. `distributed_map`: parent executions do it inside Step Functions, for very large batches on AWS,
where DescribeExecution is limited to some 15 calls a second. `express`: synchronous executions, cheapest for short
ones, at least once instead of exactly once.

**Safe to run again.** Clearing a task, or losing a worker or the triggerer, resumes the batch: finished and running
executions are adopted, only what is missing is started. A new run is a new batch; `only_new` leaves out what has a row.
Marking `run_chunk` failed stops the executions it had running; clearing it afterwards starts those again.

**When it fails.** *Over a limit*: the log of `summarize_batch` names the most frequent causes; repair them, then run
with `rerun_failed_of` = the batch id. *Nothing to score*: the log of `plan_batch` says which param to change.
*Throttled*: it slows down by itself; lower `concurrency` to leave room for others.
"""

from __future__ import annotations

from airflow.sdk import Param, dag

from scones.aws.tasks import resolve_resources
from scones.batch import params, tasks
from scones.batch.operator import run_chunks
from scones.defaults import BUCKET, TAGS
from scones.notifications import DAG_DEFAULT_ARGS, run_failed_notifier


@dag(
    schedule=None,
    catchup=False,
    default_args=DAG_DEFAULT_ARGS,
    on_failure_callback=run_failed_notifier(),
    params={name: Param(**field) for name, field in params.BATCH.items()},
    doc_md=__doc__,
    tags=[*TAGS, "inference"],
    max_active_runs=4,
    render_template_as_native_obj=True,
)
def batch_inference() -> None:
    resources = resolve_resources()
    run_chunk = run_chunks(tasks.plan_batch(resources), BUCKET)
    collected = tasks.collect_results(resources)
    judged = tasks.summarize_batch.override(outlets=[tasks.BATCH_ASSET])(resources)
    run_chunk >> collected >> judged


batch_inference()
