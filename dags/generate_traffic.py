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
from scones.batch import params, tasks
from scones.batch.names import BATCH_POOL
from scones.batch.operator import BatchChunkOperator
from scones.defaults import BUCKET, TAGS
from scones.notifications import DAG_DEFAULT_ARGS, run_failed_notifier

RATE = "{{ params.rate_per_second if params.mode == 'stream' else 150 }}"


@dag(
    schedule=None,
    catchup=False,
    default_args=DAG_DEFAULT_ARGS,
    on_failure_callback=run_failed_notifier(),
    params={name: Param(**field) for name, field in params.TRAFFIC.items()},
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
