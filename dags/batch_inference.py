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

from datetime import timedelta

from airflow.sdk import Param, dag

from scones.aws.tasks import resolve_resources
from scones.batch import tasks
from scones.batch.operator import BatchChunkOperator
from scones.defaults import BATCH_ASSET, BATCH_POOL, DAG_DEFAULT_ARGS, TAGS
from scones.notifications import AwsRetryPolicy, run_failed_notifier

FAN_OUTS = ["executions", "distributed_map", "express"]
INPUT, PACE, LIMITS = "What to score", "How fast", "When the run fails"
BUCKET = "{{ ti.xcom_pull(task_ids='resolve_resources')['BucketName'] }}"

PARAMS = {
    "prefix": Param(
        "", type=["null", "string"], title="S3 prefix", section=INPUT,
        description="Folder in the project's bucket, as photos/2026-11-20/. Empty: the served model's test images.",
    ),
    "manifest": Param(
        "", type=["null", "string"], title="Manifest", section=INPUT,
        description="S3 key of a .jsonl or .csv file with the keys to score, instead of a prefix.",
    ),
    "keys": Param(
        [], type=["null", "array"], items={"type": "string"}, title="Keys", section=INPUT,
        description="S3 keys to score, one per line, instead of a prefix.",
    ),
    "rerun_failed_of": Param(
        "", type=["null", "string"], title="Run the failed ones again", section=INPUT,
        description="Id of an earlier batch: scores its failed, timed out and aborted images.",
    ),
    "only_new": Param(
        False, type="boolean", title="Only new images", section=INPUT,
        description="Leave out images that have a row in the results of an earlier batch (unless overwritten since).",
    ),
    "suffixes": Param(
        [".png", ".jpg", ".jpeg"], type="array", items={"type": "string"}, title="Suffixes", section=INPUT,
        description="Only keys that end so, in any case; lists and manifests never reach the classifier.",
    ),
    "modified_after": Param(
        "", type=["null", "string"], title="Not older than", section=INPUT,
        description="ISO date or time; images last modified before it are left out.",
    ),
    "modified_before": Param(
        "", type=["null", "string"], title="Older than", section=INPUT,
        description="ISO date or time; images last modified at or after it are left out.",
    ),
    "sample_size": Param(
        0, type="integer", minimum=0, title="Sample size", section=INPUT, description="Score so many at random; 0: all",
    ),
    "sample_seed": Param(
        0, type="integer", title="Sample seed", section=INPUT, description="The same seed picks the same images.",
    ),
    "fan_out": Param(
        "executions", type="string", enum=FAN_OUTS, title="Fan out by", section=PACE,
        description="executions, distributed_map or express: see the notes above.",
    ),
    "concurrency": Param(
        64, type="integer", minimum=1, maximum=10_000, title="Concurrency", section=PACE,
        description="Executions in flight at most. It adapts below that: throttling lowers it, success raises it.",
    ),
    "starts_per_second": Param(
        150, type="number", exclusiveMinimum=0, title="Starts per second", section=PACE,
        description="StartExecution calls per second at most; the quota is 150 to 300, by region.",
    ),
    "defer_after_seconds": Param(
        10, type="number", minimum=0, title="Defer after (s)", section=PACE,
        description="A batch of up to 500 images that takes longer is left to the triggerer, and its worker freed.",
    ),
    "chunk_size": Param(
        1000, type="integer", minimum=1, maximum=100_000, title="Images per chunk", section=PACE,
        description="Images per mapped task; raised where that would make more than 1000 tasks.",
    ),
    "execution_timeout_seconds": Param(
        300, type="integer", minimum=1, title="Execution deadline (s)", section=PACE,
        description="An execution that runs longer is stopped and counts as timed out.",
    ),
    "threshold": Param(
        None, type=["null", "number"], minimum=0, maximum=1, title="Threshold", section=LIMITS,
        description="Confidence below which an answer is rejected. Empty: the deployed one (config/threshold.json).",
    ),
    "max_failed_share": Param(
        0.1, type="number", minimum=0, maximum=1, title="Failures tolerated", section=LIMITS,
        description="The run fails when a larger share of all images failed, timed out or was aborted.",
    ),
    "max_rejected_share": Param(
        0.9, type="number", minimum=0, maximum=1, title="Rejections tolerated", section=LIMITS,
        description="The run fails when a larger share of the answers was rejected.",
    ),
}  # fmt: skip


@dag(
    schedule=None,
    catchup=False,
    default_args={**DAG_DEFAULT_ARGS, "retry_policy": AwsRetryPolicy()},
    on_failure_callback=run_failed_notifier(),
    params=PARAMS,
    doc_md=__doc__,
    tags=[*TAGS, "inference"],
    max_active_runs=4,
    render_template_as_native_obj=True,
)
def batch_inference() -> None:
    resources = resolve_resources()
    chunks = tasks.plan_batch(resources)
    run_chunk = BatchChunkOperator.partial(
        task_id="run_chunk",
        bucket=BUCKET,
        concurrency="{{ params.concurrency }}",
        starts_per_second="{{ params.starts_per_second }}",
        defer_after_s="{{ params.defer_after_seconds }}",
        map_index_template="{{ task.chunk['title'] }}",
        pool=BATCH_POOL,
        execution_timeout=timedelta(hours=24),
    ).expand(chunk=chunks)
    collected = tasks.collect_results(resources)
    judged = tasks.summarize_batch.override(outlets=[BATCH_ASSET])(resources)
    run_chunk >> collected >> judged


batch_inference()
