"""
### score_arrivals: score images as they arrive

Starts by itself when images are written below the prefix of arrivals (`incoming/` in the project's bucket, a parameter
of the stack), by whoever and however many, and scores each **once**, with the same workflow and the same results as
`batch_inference`. What arrives while a run is at work is the next run's batch.

**How**: S3 tells EventBridge of every new object, a rule puts those below the prefix into an SQS queue, and an
AssetWatcher in the triggerer waits at that queue (asset `scones_arrivals`). It takes nothing out: `plan_arrivals` does,
and deletes a message only when the batch has written down what it says. While this DAG is paused nobody looks into the
queue, which keeps messages for 14 days.

**Reads** the queue, the objects it tells of. **Writes** `batches/<batch_id>/` as `batch_inference` does, with
`arrivals.json` (what lay in the queue); `arrivals/<mark>` for each image: the batch that scores it.

**Once**: an image is its key and its ETag. The same object told of twice, or written again with the same bytes, is not
scored again; an overwritten one is a new image. Counted, quoted in the log and in the report, and passed over: messages
that are none of S3's, keys that don't end like images, objects that are gone or were overwritten meanwhile.

**Safe to run again**: yes. A cleared run goes on with what it took. By hand it takes what lies in the queue; `sweep`
looks through the whole prefix too, for what no message told of (images older than the stack, a platform that was
killed).

**When it fails**: as `batch_inference`: see the log of the failed task and clear it; its images wait for that run, and
the next arrivals don't wait for it. *Skipped at `plan_arrivals`*: nothing was new, or there is no endpoint yet. Then
the messages stay in the queue until a model is deployed, which starts a run; after a day of waiting an alarm says so.
"""

from __future__ import annotations

from airflow.sdk import Asset, AssetWatcher, Param, dag

from scones.aws.tasks import resolve_resources
from scones.batch import params, tasks
from scones.batch.operator import run_chunks
from scones.batch.trigger import ArrivalsTrigger
from scones.defaults import BUCKET, RUN_TYPES, TAGS
from scones.deployment.tasks import MODEL_ASSET
from scones.notifications import DAG_DEFAULT_ARGS, run_failed_notifier

ARRIVALS = Asset(
    name="scones_arrivals",
    uri="x-scones://arrivals/queue",
    group="scones",
    watchers=[AssetWatcher(name="arrivals_queue", trigger=ArrivalsTrigger())],
)


@dag(
    schedule=ARRIVALS | MODEL_ASSET,  # what waited for an endpoint is scored when there is one
    catchup=False,
    allowed_run_types=RUN_TYPES,
    default_args=DAG_DEFAULT_ARGS,
    on_failure_callback=run_failed_notifier(),
    params={name: Param(**field) for name, field in params.ARRIVALS.items()},
    doc_md=__doc__,
    tags=[*TAGS, "inference"],
    max_active_runs=1,
    render_template_as_native_obj=True,
)
def score_arrivals() -> None:
    resources = resolve_resources()
    run_chunk = run_chunks(tasks.plan_arrivals(resources), BUCKET)
    # Without a chunk there is nothing to collect.
    collected = tasks.collect_results.override(trigger_rule="all_success")(resources)
    judged = tasks.summarize_batch.override(outlets=[tasks.BATCH_ASSET])(resources)
    run_chunk >> collected >> judged


score_arrivals()
