"""Starts MiniStack with the few behaviours of AWS that this project needs and MiniStack 1.5.33 lacks.

    python -m embedded.ministack_launcher

Settings come from MiniStack's own environment variables (GATEWAY_PORT, BIND_HOST, S3_PERSIST, S3_DATA_DIR,
PERSIST_STATE, STATE_DIR, LAMBDA_ACCOUNT_CONCURRENCY). BIND_HOST is 127.0.0.1 here unless it is set. What is
patched, each with a test in tests/contract/test_ministack_launcher.py:

* Python functions run under Amazon's own runtime client (`embedded/functions/`): events, answers, errors, context and
  log lines are those of AWS, and a function sees its code, boto3 and the standard library alone, in the version of
  Python it asks for. A version that this machine lacks is refused when the function is made.
* A Lambda task of Step Functions gives a JSON text as the event it is; the result's fields and the errors' names are
  those of AWS.
* Beyond LAMBDA_ACCOUNT_CONCURRENCY invocations queue, up to LAMBDA_QUEUE_SECONDS (default 120), instead of failing
  with a throttle that Step Functions here would call `Lambda.Unknown`.
* A Python function ends when MiniStack does, also after kill -9 and in the middle of a call; its unpacked code lies
  under STATE_DIR and is cleared at the next start.
* A path of a state machine that finds nothing is `States.Runtime`, which nothing catches; payloads beyond 262,144 bytes
  are `States.DataLimitExceeded`; `Fail` may name no error; a failed execution has no output; `TimeoutSeconds` of a
  state machine ends it TIMED_OUT.
* A stopped execution stays ABORTED, and a stopped Distributed Map starts no further item.
* `MaxConcurrencyPath`, `ToleratedFailurePercentagePath` and `ToleratedFailureCountPath` of a Distributed Map are
  honoured.
* With S3_PERSIST the bodies of object versions are read from disk instead of being kept in memory as well, so a
  versioned bucket may hold more than the machine's memory.
* A CloudFormation template in YAML is read by libyaml, in a tenth of the time.
* An alarm looks at the metric with its own dimensions, not at every metric of that name: one endpoint's 5XX errors do
  not ring the alarm of another.
* An alarm that treats missing data as not breaching is OK again once its window holds no data.
* `sagemaker_local` may send events as `aws.sagemaker`, which it stands for here; everybody else is refused, as on AWS.

The patches (`embedded/patches/`, a module for each service) replace private functions, so another MiniStack version is
refused: see `checks.check_version`.
"""

from __future__ import annotations

import os
import resource
import signal
import tempfile
from pathlib import Path

from embedded.patches.checks import check_version
from embedded.patches.cloudformation import read_templates_in_c
from embedded.patches.cloudwatch import evaluate_alarms_as_aws_does
from embedded.patches.door import guard
from embedded.patches.eventbridge import let_sagemaker_announce
from embedded.patches.jsonata import honour_jsonata
from embedded.patches.lambda_task import call_lambda_as_aws_does
from embedded.patches.lambda_workers import (
    QUEUE_SECONDS,
    count_calls_by_trace,
    log_by_environment,
    own_temporary_folder,
    queue_invocations,
    refuse_absent_pythons,
    run_functions_as_lambda,
)
from embedded.patches.s3 import keep_versions_on_disk
from embedded.patches.state_language import (
    limit_payloads,
    name_errors_as_aws_does,
    refuse_paths_to_nowhere,
    time_out_executions,
)
from embedded.patches.step_functions import (
    describe_no_half_of_an_end,
    honour_map_paths,
    keep_aborted_executions_aborted,
)
from sagemaker_local.box import Box, Network, open_box
from sagemaker_local.box.relay import App, Relays


def apply_patches(folder: Path, box: Box | None, relays: Relays) -> None:
    """Patch the imported MiniStack in this process.

    Args:
        folder: where unpacked Lambda code goes.
        box: what Python functions run in, if anything.
        relays: how those reach what does not listen in their network.

    Raises:
        IncompatibleMiniStackError: it is another version than the patches were written for.
    """
    check_version()
    from ministack.core import lambda_runtime
    from ministack.services import cloudwatch, eventbridge, lambda_svc, s3, stepfunctions
    from ministack.services.cloudformation import engine, provisioners

    run_functions_as_lambda(lambda_runtime, lambda_svc, folder, box, relays.open)
    log_by_environment(lambda_svc)
    count_calls_by_trace(lambda_svc)
    refuse_absent_pythons(lambda_svc, provisioners)
    queue_invocations(lambda_svc, float(os.environ.get("LAMBDA_QUEUE_SECONDS", QUEUE_SECONDS)))
    call_lambda_as_aws_does(stepfunctions, lambda_svc)
    keep_aborted_executions_aborted(stepfunctions)
    describe_no_half_of_an_end(stepfunctions)
    refuse_paths_to_nowhere(stepfunctions)
    name_errors_as_aws_does(stepfunctions)
    limit_payloads(stepfunctions)
    time_out_executions(stepfunctions)
    honour_map_paths(stepfunctions)
    honour_jsonata(stepfunctions)
    keep_versions_on_disk(s3)
    read_templates_in_c(engine)
    evaluate_alarms_as_aws_does(cloudwatch)
    let_sagemaker_announce(eventbridge)


def main() -> None:
    """Run MiniStack in the foreground until SIGTERM or SIGINT."""
    os.environ.setdefault("BIND_HOST", "127.0.0.1")
    # MiniStack opens this one on every interface and at a fixed port, which two platforms on one machine cannot share.
    os.environ.setdefault("IOT_MTLS_ENABLED", "0")
    folder = own_temporary_folder(Path(os.environ.get("STATE_DIR") or tempfile.mkdtemp(prefix="ministack-")))
    port = int(os.environ.get("GATEWAY_PORT", "4566"))
    os.environ.setdefault("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")  # for functions; MiniStack's own default
    endpoints = [url for name, url in os.environ.items() if name.startswith("AWS_ENDPOINT_URL")]
    box = open_box(endpoints, "Python functions of Lambda")
    network = box.network if box else None
    relays = Relays(network, port)
    apply_patches(folder / "functions", box, relays)
    from ministack import app

    guard(
        app,
        allowed_hosts=os.environ.get("SCONES_ALLOWED_HOSTS", "").split(","),
        secret_key=os.environ.get("SCONES_VERIFIED_SECRET_KEY") or None,
    )
    serve(relays.serving(app.app, endpoints), os.environ["BIND_HOST"], port, network)


def serve(app: App, host: str, port: int, network: Network | None) -> None:
    """Serve MiniStack by uvicorn, by which an image of a batch takes half its processor time.

    Args:
        network: where it listens at the same port as well.
    """
    import uvicorn

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:  # a burst of connections must not end at the soft limit
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    # uvicorn raises the signal again once it has shut down; by then there is nothing left to end.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        log_level="warning",
        access_log=False,
        server_header=False,
        date_header=False,  # MiniStack's own
        timeout_keep_alive=75,
        timeout_graceful_shutdown=3,
    )
    sockets = [config.bind_socket()] + ([network.listen(port)] if network else [])
    uvicorn.Server(config).run(sockets=sockets)


if __name__ == "__main__":
    main()
