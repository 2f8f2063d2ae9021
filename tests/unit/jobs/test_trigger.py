"""The triggers: every end, lost connections, deadlines, kills, and the live log."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from airflow.sdk.module_loading import import_string
from botocore.exceptions import EndpointConnectionError

from scones.jobs import cancellation
from scones.jobs import trigger as wait
from scones.jobs.trigger import EndpointGoneTrigger, SageMakerWaitTrigger, TrainingJobTrigger
from tests.support.fake_aws import AsyncScript, client_error

GONE = client_error("ValidationException", "Could not find it")
LOST = EndpointConnectionError(endpoint_url="http://127.0.0.1:1")


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    real = asyncio.sleep
    monkeypatch.setattr(wait.asyncio, "sleep", lambda _: real(0))


def scripted(
    script: AsyncScript,
    logs: AsyncScript | None = None,
    cls: type[SageMakerWaitTrigger] = SageMakerWaitTrigger,
    **changes: Any,
) -> SageMakerWaitTrigger:
    trigger = cls(**{"kind": "training", "name": "j", "deadline": time.time() + 60, **changes})
    trigger.hook = lambda client_type="sagemaker": (logs if client_type == "logs" and logs else script).hook()  # type: ignore[method-assign]
    return trigger


def run(trigger: SageMakerWaitTrigger) -> dict[str, Any]:
    async def first() -> Any:
        return [event.payload async for event in trigger.run()]

    events = asyncio.run(first())
    assert len(events) == 1
    payload: dict[str, Any] = events[0]
    return payload


def state(status: str, **more: Any) -> dict[str, Any]:
    return {"TrainingJobStatus": status, **more}


@pytest.mark.parametrize(
    ("end", "status"), [("Completed", "success"), ("Failed", "failed"), ("Stopped", "failed"), ("Deleting", "failed")]
)
def test_every_end_is_told(end: str, status: str) -> None:
    script = AsyncScript(
        describe_training_job=[state("InProgress"), state("Stopping"), state(end, FailureReason="why")]
    )
    assert run(scripted(script)) == {"kind": "training", "name": "j", "status": status, "state": end, "message": "why"}
    assert script.called("describe_training_job") == [{"TrainingJobName": "j"}] * 3


def test_what_the_operator_wants_back_comes_back() -> None:
    script = AsyncScript(describe_training_job=[state("Completed")])
    assert run(scripted(script, carry={"fingerprint": "f"}))["carry"] == {"fingerprint": "f"}


def test_a_thing_that_is_gone_is_a_failure() -> None:
    assert run(scripted(AsyncScript(describe_training_job=[GONE])))["state"] == "Gone"


@pytest.mark.parametrize(
    "hiccup", [LOST, client_error("ThrottlingException", "slow"), client_error("X", "x", status=503)]
)
def test_hiccups_are_waited_out(hiccup: Exception) -> None:
    script = AsyncScript(describe_training_job=[hiccup, hiccup, state("Completed")])
    assert run(scripted(script))["status"] == "success"


def test_a_long_outage_ends_the_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wait, "OUTAGE_TOLERANCE_S", -1)
    event = run(scripted(AsyncScript(describe_training_job=[LOST])))
    assert event["status"] == "error"
    assert "EndpointConnectionError" in event["message"]


def test_a_missing_permission_is_told_at_once() -> None:
    script = AsyncScript(describe_training_job=[client_error("AccessDeniedException", "not yours")])
    assert "AccessDenied" in run(scripted(script))["message"]
    assert len(script.calls) == 1


def test_at_the_deadline_the_job_is_stopped() -> None:
    script = AsyncScript(describe_training_job=[state("InProgress")], stop_training_job=[{}])
    event = run(scripted(script, deadline=time.time() - 1))
    assert event["status"] == "timeout"
    assert script.called("stop_training_job") == [{"TrainingJobName": "j"}]


def test_an_endpoint_is_never_stopped() -> None:
    script = AsyncScript(describe_endpoint=[{"EndpointStatus": "Updating"}])
    trigger = scripted(script, kind="endpoint", deadline=time.time() - 1)
    assert run(trigger)["status"] == "timeout"
    asyncio.run(trigger.on_kill())
    assert {name for name, _ in script.calls} == {"describe_endpoint"}


@pytest.mark.parametrize(
    ("kind", "operation"), [("training", "stop_training_job"), ("transform", "stop_transform_job")]
)
def test_a_kill_stops_the_job(kind: str, operation: str) -> None:
    script = AsyncScript(**{operation: [{}]})
    asyncio.run(scripted(script, kind=kind).on_kill())
    assert [name for name, _ in script.calls] == [operation]


def test_a_second_cancellation_does_not_keep_a_kill_from_stopping_the_job() -> None:
    """As the triggerer does it: it cancels again what has not ended a second after the first time."""
    stopped = []

    async def scenario() -> None:
        asked, answer = asyncio.Event(), asyncio.Event()

        class SlowToStop(SageMakerWaitTrigger):
            async def _stop(self, client: Any) -> None:
                asked.set()
                await answer.wait()
                stopped.append(self.name)

        trigger = scripted(AsyncScript(), cls=SlowToStop)
        killing = asyncio.create_task(trigger.on_kill())
        await asked.wait()
        killing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await killing
        assert stopped == []
        answer.set()
        await asyncio.gather(*cancellation._at_work)

    asyncio.run(scenario())
    assert stopped == ["j"]


def test_a_kill_is_known_as_one_though_the_connection_forgets_its_message() -> None:
    """asgiref's `sync_to_async` raises a CancelledError of its own, and the triggerer takes that for a shutdown."""

    async def scenario() -> tuple[Any, ...]:
        asked = asyncio.Event()

        class Forgetful(SageMakerWaitTrigger):
            async def _describe(self, client: Any) -> dict[str, Any] | None:
                asked.set()
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    raise asyncio.CancelledError from None
                return None

        async def follow() -> None:
            async for _ in scripted(AsyncScript(), cls=Forgetful).run():
                pass

        following = asyncio.create_task(follow())
        await asked.wait()
        following.cancel("user action")
        try:
            await following
        except asyncio.CancelledError as error:
            return error.args
        return ()

    assert asyncio.run(scenario()) == ("user action",)


def test_a_kill_after_the_end_does_no_harm() -> None:
    ended = client_error("ValidationException", "The request was rejected because the job is in status Completed.")
    asyncio.run(scripted(AsyncScript(stop_training_job=[ended])).on_kill())
    with pytest.raises(type(GONE)):
        asyncio.run(scripted(AsyncScript(stop_training_job=[client_error("AccessDenied", "no")])).on_kill())


def test_everything_about_the_connection_is_serialised() -> None:
    arguments: dict[str, Any] = {
        "kind": "transform",
        "name": "j",
        "deadline": 123.5,
        "stop_on_kill": False,
        "carry": {"fingerprint": "f"},
        "aws_conn_id": "aws_other",
        "region_name": "eu-west-1",
        "verify": False,
        "botocore_config": {"read_timeout": 5},
    }
    for cls in (SageMakerWaitTrigger, TrainingJobTrigger, EndpointGoneTrigger):
        path, kwargs = cls(**arguments).serialize()
        assert kwargs == arguments
        assert import_string(path) is cls
        hook = cls(**kwargs).hook("logs")
        assert (hook.aws_conn_id, hook._region_name, hook._verify, hook.client_type) == (
            "aws_other",
            "eu-west-1",
            False,
            "logs",
        )
        assert hook._config is not None


class Recorder:
    """A logger that keeps its lines."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def info(self, message: str, *values: Any) -> None:
        self.lines.append(message % values)

    debug = warning = info


def test_the_training_log_is_copied_line_by_line_once(monkeypatch: pytest.MonkeyPatch) -> None:
    pages = {None: (["one", "two"], "t1"), "t1": (["three"], "t2"), "t2": ([], "t2")}

    def events(nextToken: str | None = None, **_: Any) -> dict[str, Any]:
        lines, token = pages[nextToken]
        return {"events": [{"message": line + "\n"} for line in lines], "nextForwardToken": token}

    logs = AsyncScript(
        describe_log_streams=[
            client_error("ResourceNotFoundException", "no group yet"),
            {"logStreams": [{"logStreamName": "j/algo-1-1"}]},
        ],
        get_log_events=[events],
    )
    phases = [{"Status": "Downloading", "StatusMessage": "Downloading input data"}]
    job = AsyncScript(
        describe_training_job=[
            state("InProgress"),
            state("InProgress", SecondaryStatusTransitions=phases),
            state("Completed", SecondaryStatusTransitions=phases),
        ]
    )
    recorder = Recorder()
    monkeypatch.setattr(TrainingJobTrigger, "log", recorder)
    assert run(scripted(job, logs, TrainingJobTrigger))["status"] == "success"
    lines = recorder.lines
    assert [line for line in lines if line in ("one", "two", "three")] == ["one", "two", "three"]
    assert lines.count("Downloading - Downloading input data") == 1
    assert logs.called("describe_log_streams")[0]["logStreamNamePrefix"] == "j/"


def test_an_unreadable_log_does_not_end_the_wait() -> None:
    logs = AsyncScript(describe_log_streams=[client_error("AccessDeniedException", "no logs for you")])
    job = AsyncScript(describe_training_job=[state("Completed")])
    assert run(scripted(job, logs, TrainingJobTrigger))["status"] == "success"


def test_an_endpoint_is_waited_for_until_it_is_gone() -> None:
    script = AsyncScript(describe_endpoint=[{"EndpointStatus": "Deleting"}, LOST, GONE])
    assert run(scripted(script, cls=EndpointGoneTrigger, kind="endpoint"))["status"] == "success"
    late = scripted(AsyncScript(describe_endpoint=[{}]), cls=EndpointGoneTrigger, kind="endpoint", deadline=0)
    assert run(late)["status"] == "timeout"


def test_the_triggerer_stops_the_job_when_a_user_ends_the_task_and_not_when_it_restarts() -> None:
    from airflow.jobs.triggerer_job_runner import TriggerRunner

    async def end_as(user: bool) -> list[str]:
        script = AsyncScript(describe_training_job=[state("InProgress")], stop_training_job=[{}])
        trigger = scripted(script, deadline=time.time() + 600)
        trigger.task_instance = None
        runner = TriggerRunner()
        task = asyncio.create_task(runner.run_trigger(1, trigger, None, None))
        runner.triggers[1] = {"task": task, "name": "t", "is_watcher": False, "events": 0}
        while not script.calls:
            await asyncio.sleep(0)
        if user:
            runner.to_cancel.append(1)
            await runner.cancel_triggers()
        else:
            task.cancel()  # what a stopping triggerer does
        await asyncio.gather(task, return_exceptions=True)
        return [name for name, _ in script.calls if name.startswith("stop")]

    assert asyncio.run(end_as(user=True)) == ["stop_training_job"]
    assert asyncio.run(end_as(user=False)) == []
