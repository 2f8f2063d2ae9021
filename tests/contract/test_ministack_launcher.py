"""Each behaviour that embedded/patches adds to MiniStack, in a MiniStack of its own with two slots."""

from __future__ import annotations

import contextlib
import io
import json
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import boto3
import psutil
import pytest
import yaml
from botocore.config import Config
from botocore.exceptions import BotoCoreError

from embedded import services
from embedded.container import LOCAL_PARAMETERS
from embedded.patches import (
    checks,
    cloudformation,
    cloudwatch,
    eventbridge,
    lambda_workers,
    s3,
    state_language,
    step_functions,
)
from embedded.processes import stop_all
from embedded.settings import EmbeddedSettings, free_port
from infrastructure.deploy import template_body
from tests.support.local_service import wait_execution

SLOTS = 2

HANDLER = """
import os, time
calls = 0

class BUSINESS_OUTCOME(Exception):
    pass

def handler(event, context):
    global calls
    calls += 1
    if event.get("exit"):
        os._exit(3)
    if "sleep" in event:
        open(event["file"], "a").write(f"start {os.getpid()}\\n")
        time.sleep(event["sleep"])
        open(event["file"], "a").write(f"end {os.getpid()}\\n")
    if event.get("raise"):
        raise BUSINESS_OUTCOME(event["raise"])
    return {"pid": os.getpid(), "calls": calls}
"""


class Platform:
    """A MiniStack and clients of it."""

    def __init__(self, settings: EmbeddedSettings) -> None:
        self.settings, self.service = settings, services.ministack(settings)
        # One for all clients: it keeps what it has read of the services. It makes one at a time.
        self._making = threading.Lock()
        self._session = boto3.Session("test", "test", region_name=settings.region)

    @property
    def process(self) -> psutil.Process:
        assert self.service.process
        return psutil.Process(self.service.process.pid)

    def client(self, name: str) -> Any:
        config = Config(retries={"total_max_attempts": 1}, read_timeout=60, max_pool_connections=20)
        with self._making:
            return self._session.client(name, endpoint_url=self.settings.aws_url, config=config)

    @property
    def role(self) -> str:
        account = self.client("sts").get_caller_identity()["Account"]
        return f"arn:aws:iam::{account}:role/unused"

    def function(self, name: str) -> str:
        package = io.BytesIO()
        with zipfile.ZipFile(package, "w") as content:
            content.writestr("code.py", HANDLER)
        arn: str = self.client("lambda").create_function(
            FunctionName=name,
            Runtime=LOCAL_PARAMETERS["FunctionRuntime"],
            Role=self.role,
            Handler="code.handler",
            Timeout=60,
            Code={"ZipFile": package.getvalue()},
        )["FunctionArn"]
        return arn

    def invoke(self, name: str, event: dict[str, Any]) -> tuple[str | None, dict[str, Any]]:
        answer = self.client("lambda").invoke(FunctionName=name, Payload=json.dumps(event))
        return answer.get("FunctionError"), json.loads(answer["Payload"].read())

    def machine(self, name: str, definition: dict[str, Any]) -> str:
        arn: str = self.client("stepfunctions").create_state_machine(
            name=name, roleArn=self.role, definition=json.dumps(definition)
        )["stateMachineArn"]
        return arn

    def ended(self, execution: str) -> dict[str, Any]:
        return wait_execution(self.client("stepfunctions"), execution)


def until(condition: Callable[[], Any], seconds: float = 60) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.02)
    return found


def start(folder: Path, settings: EmbeddedSettings) -> Platform:
    platform = Platform(replace(settings, run_dir=folder, aws_port=free_port(), lambda_concurrency=SLOTS))
    # No box: the functions of these tests tell by files what they do.
    platform.service.environment = {**platform.service.environment, "SCONES_BOX": "off"}
    platform.service.start()
    platform.service.wait_ready()
    return platform


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory, platform_settings: EmbeddedSettings) -> Iterator[Platform]:
    running = start(tmp_path_factory.mktemp("ministack"), platform_settings)
    yield running
    stop_all([running.service])


@pytest.fixture(scope="module")
def function(platform: Platform) -> str:
    platform.function("probe")
    return "probe"


def test_an_exception_keeps_its_class_name_and_the_worker_stays_warm(platform: Platform, function: str) -> None:
    _, first = platform.invoke(function, {})
    failed, error = platform.invoke(function, {"raise": "why"})
    assert failed
    assert (error["errorType"], error["errorMessage"]) == ("BUSINESS_OUTCOME", "why")
    assert any("BUSINESS_OUTCOME" in line for line in error["stackTrace"])
    assert platform.invoke(function, {})[1] == {"pid": first["pid"], "calls": first["calls"] + 2}


def test_an_execution_fails_under_that_name_and_retry_and_catch_match_on_it(platform: Platform, function: str) -> None:
    task: dict[str, Any] = {"Type": "Task", "Resource": "arn:aws:states:::lambda:invoke"}
    task["Parameters"] = {"FunctionName": function, "Payload": {"raise": "why"}}
    retry = {"ErrorEquals": ["BUSINESS_OUTCOME"], "IntervalSeconds": 1, "MaxAttempts": 1}
    catch = {"ErrorEquals": ["BUSINESS_OUTCOME"], "Next": "Caught"}
    plain = platform.machine("plain", {"StartAt": "T", "States": {"T": task | {"End": True}}})
    caught = platform.machine(
        "caught",
        {
            "StartAt": "T",
            "States": {"T": task | {"Retry": [retry], "Catch": [catch], "End": True}, "Caught": {"Type": "Succeed"}},
        },
    )
    states = platform.client("stepfunctions")
    failed = platform.ended(states.start_execution(stateMachineArn=plain)["executionArn"])
    assert (failed["status"], failed["error"]) == ("FAILED", "BUSINESS_OUTCOME")
    passed = platform.ended(states.start_execution(stateMachineArn=caught)["executionArn"])
    assert json.loads(passed["output"])["Error"] == "BUSINESS_OUTCOME"
    history = states.get_execution_history(executionArn=passed["executionArn"])["events"]
    assert sum(event["type"] == "TaskFailed" for event in history) == 2, "one try and one retry"


def test_a_worker_that_dies_is_an_exit_error(platform: Platform, function: str) -> None:
    failed, error = platform.invoke(function, {"exit": True})
    assert failed
    assert error["errorType"] == "Runtime.ExitError"
    assert platform.invoke(function, {})[0] is None, "the next call gets a new worker"


def test_a_burst_queues_for_the_slots_there_are(platform: Platform, function: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    payload = json.dumps({"sleep": 0.4, "file": str(log)})
    client = platform.client("lambda")
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda _: client.invoke(FunctionName=function, Payload=payload), range(6)))
    assert not [answer for answer in answers if "FunctionError" in answer]
    running = most = 0
    for line in log.read_text().splitlines():
        running += 1 if line.startswith("start") else -1
        most = max(most, running)
    assert most == SLOTS


def test_a_stopped_execution_stays_aborted_when_its_task_fails_later(
    platform: Platform, function: str, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    payload = {"sleep": 0.3, "file": str(log), "raise": "late"}
    task: dict[str, Any] = {"Type": "Task", "Resource": "arn:aws:states:::lambda:invoke", "End": True}
    task["Parameters"] = {"FunctionName": function, "Payload": payload}
    states = platform.client("stepfunctions")
    arn = platform.machine("stopped", {"StartAt": "T", "States": {"T": task}})
    execution = states.start_execution(stateMachineArn=arn)["executionArn"]
    until(log.exists)
    states.stop_execution(executionArn=execution)
    until(lambda: "end" in log.read_text())
    until(
        lambda: any(
            event["type"] == "TaskFailed" for event in states.get_execution_history(executionArn=execution)["events"]
        )
    )
    assert states.describe_execution(executionArn=execution)["status"] == "ABORTED"


def distributed_map(function: str, payload: dict[str, Any]) -> dict[str, Any]:
    item = {
        "Type": "Task",
        "Resource": "arn:aws:states:::lambda:invoke",
        "Parameters": {"FunctionName": function, "Payload": payload},
        "End": True,
    }
    return {
        "StartAt": "M",
        "States": {
            "M": {
                "Type": "Map",
                "Label": "M",
                "ItemsPath": "$.items",
                "MaxConcurrencyPath": "$.most",
                "ToleratedFailurePercentagePath": "$.tolerated",
                "ItemProcessor": {"ProcessorConfig": {"Mode": "DISTRIBUTED"}, "StartAt": "T", "States": {"T": item}},
                "End": True,
            }
        },
    }


def test_a_stopped_map_starts_no_further_item(platform: Platform, function: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    arn = platform.machine("stopped-map", distributed_map(function, {"sleep": 0.2, "file": str(log)}))
    states = platform.client("stepfunctions")
    data = json.dumps({"items": list(range(30)), "most": 1, "tolerated": 0})
    execution = states.start_execution(stateMachineArn=arn, input=data)["executionArn"]
    until(log.exists)
    states.stop_execution(executionArn=execution)
    (run,) = states.list_map_runs(executionArn=execution)["mapRuns"]
    until(lambda: states.describe_map_run(mapRunArn=run["mapRunArn"])["status"] != "RUNNING")
    assert log.read_text().count("start") <= 2
    assert states.describe_execution(executionArn=execution)["status"] == "ABORTED"


@pytest.mark.parametrize(("tolerated", "status"), [(100, "SUCCEEDED"), (99, "FAILED")])
def test_a_maps_settings_may_come_from_its_input(
    platform: Platform, function: str, tolerated: int, status: str
) -> None:
    arn = platform.machine("paths", distributed_map(function, {"raise": "always"}))
    states = platform.client("stepfunctions")
    data = json.dumps({"items": [1, 2, 3], "most": 2, "tolerated": tolerated})
    execution = states.start_execution(stateMachineArn=arn, input=data)["executionArn"]
    assert platform.ended(execution)["status"] == status
    (run,) = states.list_map_runs(executionArn=execution)["mapRuns"]
    described = states.describe_map_run(mapRunArn=run["mapRunArn"])
    assert (described["maxConcurrency"], described["toleratedFailurePercentage"]) == (2, tolerated)


@pytest.mark.parametrize("most", ["four", -1, None, True])
def test_a_setting_that_is_no_number_fails_the_execution(platform: Platform, function: str, most: Any) -> None:
    arn = platform.machine("paths", distributed_map(function, {"raise": "always"}))
    states = platform.client("stepfunctions")
    data = json.dumps({"items": [1], "most": most, "tolerated": 0})
    ended = platform.ended(states.start_execution(stateMachineArn=arn, input=data)["executionArn"])
    assert (ended["status"], ended["error"]) == ("FAILED", "States.Runtime")
    assert "MaxConcurrencyPath $.most" in ended["cause"]


def test_versions_are_kept_on_disk_and_not_in_memory(platform: Platform) -> None:
    client = platform.client("s3")
    client.create_bucket(Bucket="versions")
    client.put_bucket_versioning(Bucket="versions", VersioningConfiguration={"Status": "Enabled"})
    size = 16 * 1024 * 1024
    client.put_object(Bucket="versions", Key="warm", Body=b"w" * size)
    before = platform.process.memory_info().rss
    bodies = [bytes([number]) * size for number in range(8)]
    ids = [client.put_object(Bucket="versions", Key="k", Body=body)["VersionId"] for body in bodies]
    assert platform.process.memory_info().rss - before < 4 * size
    for version, body in zip(ids, bodies, strict=True):
        assert client.get_object(Bucket="versions", Key="k", VersionId=version)["Body"].read() == body
    client.delete_object(Bucket="versions", Key="k", VersionId=ids[-1])
    assert client.get_object(Bucket="versions", Key="k")["Body"].read() == bodies[-2]
    marker = client.delete_object(Bucket="versions", Key="k")["VersionId"]
    client.delete_object(Bucket="versions", Key="k", VersionId=marker)
    assert client.get_object(Bucket="versions", Key="k")["Body"].read() == bodies[-2]


def test_an_alarm_rings_for_its_own_dimensions_only(platform: Platform) -> None:
    client = platform.client("cloudwatch")
    common: dict[str, Any] = {"Namespace": "Probe", "MetricName": "Errors", "Statistic": "Sum", "Period": 60}
    common |= {"EvaluationPeriods": 1, "Threshold": 1, "ComparisonOperator": "GreaterThanOrEqualToThreshold"}
    dimensions = {name: [{"Name": "Endpoint", "Value": name}] for name in ("ill", "well")}
    for name, own in dimensions.items():
        client.put_metric_alarm(AlarmName=name, Dimensions=own, **common)
    client.put_metric_alarm(AlarmName="without", **common)
    client.put_composite_alarm(AlarmName="either", AlarmRule="ALARM(ill) OR ALARM(well)")

    def put(name: str, value: float) -> dict[str, str]:
        data = {"MetricName": "Errors", "Dimensions": dimensions[name], "Value": value}
        client.put_metric_data(Namespace="Probe", MetricData=[data])
        found = client.describe_alarms(AlarmTypes=["MetricAlarm", "CompositeAlarm"])
        alarms = [*found["MetricAlarms"], *found["CompositeAlarms"]]
        return {alarm["AlarmName"]: alarm["StateValue"] for alarm in alarms}

    assert put("well", 0)["well"] == "OK"
    states = put("ill", 3)
    assert (states["ill"], states["well"], states["either"]) == ("ALARM", "OK", "ALARM")
    assert states["without"] == "INSUFFICIENT_DATA", "on AWS a metric without dimensions is another metric"


def test_an_alarm_without_further_data_recovers(platform: Platform) -> None:
    """As CloudWatch does with TreatMissingData=notBreaching; one that ignores missing data keeps its state."""
    client = platform.client("cloudwatch")
    common: dict[str, Any] = {"Namespace": "Quiet", "MetricName": "Errors", "Statistic": "Sum", "Period": 1}
    common |= {"EvaluationPeriods": 1, "Threshold": 1, "ComparisonOperator": "GreaterThanOrEqualToThreshold"}
    client.put_metric_alarm(AlarmName="forgives", TreatMissingData="notBreaching", **common)
    client.put_metric_alarm(AlarmName="remembers", TreatMissingData="ignore", **common)

    def states() -> dict[str, str]:
        found = client.describe_alarms(AlarmNames=["forgives", "remembers"])["MetricAlarms"]
        return {alarm["AlarmName"]: alarm["StateValue"] for alarm in found}

    client.put_metric_data(Namespace="Quiet", MetricData=[{"MetricName": "Errors", "Value": 3}])
    assert states() == {"forgives": "ALARM", "remembers": "ALARM"}
    deadline = time.monotonic() + 30
    while states()["forgives"] != "OK":
        assert time.monotonic() < deadline, states()
        time.sleep(0.1)
    assert states() == {"forgives": "OK", "remembers": "ALARM"}


def test_sagemaker_may_send_as_itself_and_nobody_else_may(platform: Platform) -> None:
    def codes(agent: str, *sources: str) -> list[str | None]:
        session = boto3.Session("test", "test", region_name=platform.settings.region)
        events = session.client("events", endpoint_url=platform.settings.aws_url, config=Config(user_agent_extra=agent))
        entries = [{"Source": source, "DetailType": "probe", "Detail": "{}"} for source in sources]
        return [entry.get("ErrorCode") for entry in events.put_events(Entries=entries)["Entries"]]

    refused = "NotAuthorizedForSourceException"
    assert codes("sagemaker_local", "aws.sagemaker", "mine") == [None, None]
    assert codes("sagemaker_local", "aws.ec2") == [refused]
    assert codes("somebody", "aws.sagemaker", "mine") == [refused, None]


def test_it_listens_on_loopback_only(platform: Platform) -> None:
    listening = [item.laddr for item in platform.process.net_connections() if item.status == psutil.CONN_LISTEN]
    assert [(address.ip, address.port) for address in listening] == [("127.0.0.1", platform.settings.aws_port)]


def test_workers_end_with_it_after_kill_9_in_the_middle_of_a_call(
    tmp_path: Path, platform_settings: EmbeddedSettings
) -> None:
    platform = start(tmp_path / "run", platform_settings)
    try:
        platform.function("probe")
        platform.client("s3").create_bucket(Bucket="kept")
        platform.client("s3").put_object(Bucket="kept", Key="k", Body=b"v")
        log = tmp_path / "log"
        calling = threading.Thread(target=_ignoring_loss, args=(platform, {"sleep": 50, "file": str(log)}))
        calling.start()
        until(log.exists)
        workers = platform.process.children(recursive=True)
        assert int(log.read_text().split()[1]) in {worker.pid for worker in workers}
        left = list(platform.settings.run_dir.rglob("unpacked/*"))
        assert left
        platform.process.kill()
        until(lambda: not any(_lives(worker) for worker in workers), 10)
        calling.join(20)

        platform.service.start()
        platform.service.wait_ready()
        assert not [folder for folder in left if folder.exists()], "the unpacked code of the killed run is cleared"
        assert platform.client("s3").get_object(Bucket="kept", Key="k")["Body"].read() == b"v"
    finally:
        stop_all([platform.service])


def _lives(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.status() != psutil.STATUS_ZOMBIE
    return False


def _ignoring_loss(platform: Platform, event: dict[str, Any]) -> None:
    # The server is killed in the middle of this call.
    with contextlib.suppress(BotoCoreError):
        platform.invoke("probe", event)


def test_another_version_is_refused_with_what_to_do() -> None:
    checks.check_version()
    with pytest.raises(checks.IncompatibleMiniStackError, match=r"pip install ministack==1\.5\.33"):
        checks.check_version("1.5.34")


@pytest.mark.parametrize(
    "patch",
    [
        lambda module: lambda_workers.run_functions_as_lambda(module, module, Path("unused")),
        lambda_workers.log_by_environment,
        lambda_workers.count_calls_by_trace,
        lambda module: lambda_workers.refuse_absent_pythons(module, module),
        lambda module: lambda_workers.queue_invocations(module, 1),
        state_language.refuse_paths_to_nowhere,
        state_language.name_errors_as_aws_does,
        state_language.limit_payloads,
        state_language.time_out_executions,
        step_functions.keep_aborted_executions_aborted,
        step_functions.describe_no_half_of_an_end,
        step_functions.honour_map_paths,
        s3.keep_versions_on_disk,
        cloudformation.read_templates_in_c,
        cloudwatch.evaluate_alarms_as_aws_does,
        eventbridge.let_sagemaker_announce,
    ],
)
def test_each_patch_refuses_a_ministack_that_has_changed(patch: Callable[[Any], None]) -> None:
    changed = SimpleNamespace(__name__="changed")
    with pytest.raises(checks.IncompatibleMiniStackError, match="adapt it"):
        patch(changed)


def test_an_end_is_told_whole() -> None:
    """MiniStack notes the status first, then the output, then the time, while others ask."""
    execution: dict[str, Any] = {"status": "SUCCEEDED", "output": None, "stopDate": None}

    def _describe_execution(data: dict[str, Any]) -> dict[str, Any]:
        return dict(execution)

    engine = SimpleNamespace(
        __name__="engine",
        _describe_execution=_describe_execution,
        _executions={"e": execution, "r": {"status": "RUNNING"}},
    )
    step_functions.describe_no_half_of_an_end(engine)
    with ThreadPoolExecutor(1) as executor:
        asked = executor.submit(engine._describe_execution, {"executionArn": "e"})
        with pytest.raises(TimeoutError):
            asked.result(0.05)
        execution["output"] = "{}"
        execution["stopDate"] = "now"
        assert asked.result(10) == {"status": "SUCCEEDED", "output": "{}", "stopDate": "now"}
    for arn in ("r", "unknown"):
        engine._describe_execution({"executionArn": arn})


def test_a_failure_is_whole_at_once_and_a_stopped_execution_stays_so() -> None:
    seen: list[dict[str, Any]] = []

    def _fail_execution(execution: Any, error: Any, cause: Any) -> None:
        """MiniStack's, which is replaced."""

    def _run_sub_machine(states: Any, start_at: Any, input_data: Any, execution: Any, ctx: Any) -> None:
        """Not called."""

    class Noting(dict[str, Any]):
        def __ior__(self, other: Any) -> Noting:  # type: ignore[misc, override]
            super().__ior__(other)
            seen.append(dict(self))
            return self

    engine = SimpleNamespace(
        __name__="engine",
        _fail_execution=_fail_execution,
        _run_sub_machine=_run_sub_machine,
        _map_runs={},
        _executions={},
        now_iso=lambda: "now",
        _add_event=lambda *_: None,
        _emit_execution_status_event=lambda _: None,
    )
    step_functions.keep_aborted_executions_aborted(engine)
    running = Noting(status="RUNNING", output="half", outputDetails={"included": True}, stopDate=None)
    engine._fail_execution(running, "E", "why")
    whole = {"status": "FAILED", "error": "E", "cause": "why", "output": None, "outputDetails": None, "stopDate": "now"}
    assert seen == [whole]
    stopped = Noting(status="ABORTED", output=None)
    engine._fail_execution(stopped, "E", "why")
    assert stopped == {"status": "ABORTED", "output": None}


def test_a_template_read_in_c_is_the_same_template(monkeypatch: pytest.MonkeyPatch) -> None:
    from ministack.services.cloudformation import engine

    in_python = engine.CfnLoader
    monkeypatch.setattr(engine, "CfnLoader", in_python)
    cloudformation.read_templates_in_c(engine)
    for text in (template_body(), "A: !GetAtt B.C.D\nE: !If [F, !Ref G, 2026-11-29]\nH: !Sub ${I}"):
        assert yaml.load(text, engine.CfnLoader) == yaml.load(text, in_python)


class Slots:
    """MiniStack's slots in small: two for all functions together, and one for the function `narrow`."""

    __name__ = "slots"

    def __init__(self) -> None:
        self.held: list[str] = []

        def _acquire_execution_slot(func: Any, config: Any) -> tuple[str | None, str | None]:
            name = config["name"]
            if len(self.held) >= 2 or (name == "narrow" and "narrow" in self.held):
                return None, "account"
            self.held.append(name)
            return name, None

        def _release_execution_slot(key: Any) -> None:
            self.held.remove(key)

        self._acquire_execution_slot: Any = _acquire_execution_slot
        self._release_execution_slot: Any = _release_execution_slot


def test_a_queue_gives_up_in_the_end_and_then_holds_nothing() -> None:
    slots = Slots()
    lambda_workers.queue_invocations(slots, 0.05)
    taken = [slots._acquire_execution_slot({}, {"name": "wide"}) for _ in range(2)]
    began = time.monotonic()
    assert slots._acquire_execution_slot({}, {"name": "wide"}) == (None, "account")
    assert time.monotonic() - began >= 0.05
    for slot, _ in taken:
        slots._release_execution_slot(slot)
    assert slots.held == []


def test_a_freed_slot_goes_to_the_first_that_may_have_it() -> None:
    slots = Slots()
    lambda_workers.queue_invocations(slots, 30)
    served: list[str] = []
    slots._acquire_execution_slot({}, {"name": "narrow"})
    slots._acquire_execution_slot({}, {"name": "wide"})

    def ask(name: str) -> None:
        slot, _ = slots._acquire_execution_slot({}, {"name": name})
        served.append(slot)

    threads = [threading.Thread(target=ask, args=(name,)) for name in ("narrow", "wide", "wide")]
    for thread in threads:
        thread.start()
    slots._release_execution_slot("wide")
    until(lambda: served == ["wide"])
    slots._release_execution_slot("wide")
    until(lambda: served == ["wide", "wide"])
    slots._release_execution_slot("narrow")
    until(lambda: served == ["wide", "wide", "narrow"])
    for thread in threads:
        thread.join()


def test_many_that_wait_are_served_one_by_one_and_none_is_lost() -> None:
    slots = Slots()
    lambda_workers.queue_invocations(slots, 30)
    done: list[int] = []

    def work(number: int) -> None:
        slot, _ = slots._acquire_execution_slot({}, {"name": "wide"})
        assert len(slots.held) <= 2
        done.append(number)
        slots._release_execution_slot(slot)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(300)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(done) == list(range(300))
    assert slots.held == []
