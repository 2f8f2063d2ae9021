"""
### generate_traffic: send photographs through the inference workflow, for demonstrations and drills

Draws the served model's test images, changes a share of them if asked (blur, night, noise), and sends each through the
Step Functions workflow, so that everything downstream sees it as real traffic: the endpoint, its data capture, the
drift report of `monitor_endpoint`, the reject queue.

| mode | sends |
|---|---|
| `burst` | `images` requests as fast as `concurrency` and the account allow |
| `stream` | `rate_per_second` requests a second for `duration_seconds` |

**Reads** that dataset's manifest and test images. **Writes** changed images to `s3://<bucket>/traffic/<batch_id>/`
and results and a report like those of `batch_inference` to `s3://<bucket>/batches/<batch_id>/`.

**Drill for drift**: run with `drift=night`, `drifted_share=1`, then `monitor_endpoint`: its report must show it.
**Safe to run again**: a cleared task goes on where it was; a new run sends new traffic. Marking `send_traffic` failed
stops it and what it has running.
**When it fails**: `prepare_traffic` says which param to change, or that `train_and_deploy` must run first. Failures of
single images do not fail the run unless `max_failed_share` says so.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import Param, dag

from scones.aws.tasks import resolve_resources
from scones.batch import tasks
from scones.batch.operator import BatchChunkOperator
from scones.defaults import BATCH_POOL, DAG_DEFAULT_ARGS, TAGS
from scones.images.transformations import KINDS
from scones.notifications import AwsRetryPolicy, run_failed_notifier

WHAT, PACE, DRIFT, LIMITS = "What to send", "How fast", "Drift", "When the run fails"
BUCKET = "{{ ti.xcom_pull(task_ids='resolve_resources')['BucketName'] }}"
RATE = "{{ params.rate_per_second if params.mode == 'stream' else 150 }}"

PARAMS = {
    "mode": Param(
        "burst", type="string", enum=["burst", "stream"], title="Mode", section=WHAT,
        description="burst: all at once. stream: at an even rate for a while.",
    ),
    "images": Param(
        100, type="integer", minimum=1, maximum=1_000_000, title="Images", section=WHAT,
        description="How many requests a burst sends; images repeat when there are fewer.",
    ),
    "class_mix": Param(
        "", type=["null", "string"], title="Class mix", section=WHAT,
        description="Weights by class, as bicycle=3, motorcycle=1. Empty: every class alike.",
    ),
    "seed": Param(
        0, type="integer", minimum=0, title="Seed", section=WHAT, description="The same seed sends the same images.",
    ),
    "rate_per_second": Param(
        2.0, type="number", exclusiveMinimum=0, maximum=300, title="Rate (1/s)", section=PACE,
        description="Requests a second of a stream.",
    ),
    "duration_seconds": Param(
        60, type="integer", minimum=1, maximum=604_800, title="Duration (s)", section=PACE,
        description="How long a stream lasts.",
    ),
    "concurrency": Param(
        64, type="integer", minimum=1, maximum=1000, title="Concurrency", section=PACE,
        description="Executions in flight at most.",
    ),
    "execution_timeout_seconds": Param(
        300, type="integer", minimum=1, title="Execution deadline (s)", section=PACE,
        description="An execution that runs longer is stopped and counts as timed out.",
    ),
    "drift": Param(
        "none", type="string", enum=["none", *KINDS, "mixed"], title="Drift", section=DRIFT,
        description="How images are changed before they are sent; mixed: each in one of the ways.",
    ),
    "drifted_share": Param(
        1.0, type="number", minimum=0, maximum=1, title="Share that drifted", section=DRIFT,
        description="Share of the requests that are changed.",
    ),
    "drift_strength": Param(
        0.7, type="number", minimum=0, maximum=1, title="Strength", section=DRIFT,
        description="0 leaves an image as it is, 1 makes it hard to recognise.",
    ),
    "max_failed_share": Param(
        1.0, type="number", minimum=0, maximum=1, title="Failures tolerated", section=LIMITS,
        description="The run fails when a larger share of the requests got no answer.",
    ),
    "max_rejected_share": Param(
        1.0, type="number", minimum=0, maximum=1, title="Rejections tolerated", section=LIMITS,
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
    tags=[*TAGS, "inference", "drill"],
    max_active_runs=4,
    render_template_as_native_obj=True,
)
def generate_traffic() -> None:
    resources = resolve_resources()
    chunks = tasks.prepare_traffic(resources)
    send_traffic = BatchChunkOperator.partial(
        task_id="send_traffic",
        bucket=BUCKET,
        concurrency="{{ params.concurrency }}",
        starts_per_second=RATE,
        map_index_template="{{ task.chunk['title'] }}",
        pool=BATCH_POOL,
        execution_timeout=timedelta(days=8),
    ).expand(chunk=chunks)
    collected = tasks.collect_results(resources)
    judged = tasks.summarize_batch(resources)
    send_traffic >> collected >> judged


generate_traffic()
