"""Python functions in execution environments: what awslambdaric 4.2 and AWS's documentation of Lambda say, held to."""

from __future__ import annotations

import io
import json
import re
import socket
import sys
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

import psutil
import pytest

from embedded.functions import pythons
from embedded.functions.code import Unpacked, lambda_packages
from embedded.functions.execution import Answer, Environment, Invocation, Platform
from sagemaker_local.box import open_box

OWN = f"python{sys.version_info.major}.{sys.version_info.minor}"

CODE = """
import base64, datetime, decimal, logging, os, sys, tempfile, time

ANSWERS = {
    "bytes": {"d": b"abc"},
    "base64": {"body": {"image_data": base64.b64encode(b"png")}},
    "all bytes": b"abc",
    "decimal": {"d": decimal.Decimal("1.50")},
    "nan": float("nan"),
    "decimal nan": [decimal.Decimal("NaN")],
    "set": {"d": {1}},
    "date": datetime.date(2026, 1, 1),
    "large": "x" * 6_291_556,
}

class THRESHOLD_CONFIDENCE_NOT_MET(Exception):
    pass

def handler(event, context):
    return ANSWERS[event]

def echo(event, context):
    return [type(event).__name__, event]

def fail(event, context):
    raise THRESHOLD_CONFIDENCE_NOT_MET("0.4 < 0.93")

def end(event, context):
    os._exit(event)

def sleep(event, context):
    time.sleep(event)

def speak(event, context):
    print("one")
    print("two", file=sys.stderr)
    logging.getLogger().warning("three")
    return event

def flood(event, context):
    print("x" * event)
    return os.getpid()

def keep(event, context):
    path = os.path.join(tempfile.gettempdir(), "image.png")
    before = open(path).read() if os.path.exists(path) else None
    open(path, "w").write(event)
    return before

def look(event, context):
    import boto3
    return {
        "environ": dict(os.environ), "path": sys.path, "executable": sys.executable,
        "version": list(sys.version_info[:2]), "cwd": os.getcwd(), "boto3": boto3.__file__,
        "context": {name: getattr(context, name) for name in (
            "function_name", "function_version", "memory_limit_in_mb", "invoked_function_arn", "aws_request_id",
            "log_group_name", "log_stream_name", "client_context")},
        "left": context.get_remaining_time_in_millis(), "identity": context.identity.cognito_identity_id,
        "temporary": tempfile.gettempdir(), "stdin": sys.stdin.read(),
    }
"""


def zipped(**files: str) -> bytes:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as content:
        for name, text in files.items():
            content.writestr(name.replace("__", "/") + ".py", text)
    return archive.getvalue()


@pytest.fixture(scope="module", params=["boxed", "plain"])
def platform(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Platform]:
    box = open_box(["http://127.0.0.1:4566"], "these tests") if request.param == "boxed" else None
    if box is None and request.param == "boxed":
        pytest.skip("no user namespaces on this machine")
    folder = tmp_path_factory.mktemp("functions")
    linked = lambda_packages(folder / "runtime")

    def variables(config: dict[str, Any]) -> dict[str, str]:
        return {"_HANDLER": config["Handler"], "AWS_LAMBDA_FUNCTION_NAME": "probe", "OWN": "yes"}

    yield Platform(
        packages=folder / "runtime",
        linked=linked,
        unpacked=Unpacked(folder / "unpacked"),
        python=pythons.find,
        layers=lambda config: config.get("LayerZips", []),
        variables=variables,
        box=box,
    )
    if box is not None and box.network is not None:
        box.network.close()


Function = Callable[..., Environment]


@pytest.fixture
def function(platform: Platform) -> Iterator[Function]:
    made = []

    def make(handler: str = "code.handler", code: bytes | None = None, **config: Any) -> Environment:
        config = {"Handler": handler, "Runtime": OWN, "Timeout": 30, **config}
        made.append(Environment(platform, config, code or zipped(code=CODE)))
        return made[-1]

    yield make
    for environment in made:
        environment.kill()


@pytest.fixture(scope="module")
def warm(platform: Platform) -> Iterator[Function]:
    """`warm("echo")`: the environment of this handler that tests share, as a start takes longer than what they ask."""
    made: dict[str, Environment] = {}

    def named(handler: str) -> Environment:
        if handler not in made:
            config = {"Handler": f"code.{handler}", "Runtime": OWN, "Timeout": 30}
            made[handler] = Environment(platform, config, zipped(code=CODE))
        return made[handler]

    yield named
    for environment in made.values():
        environment.kill()


def invoke(environment: Environment, event: Any = None, **more: Any) -> Answer:
    return environment.invoke(Invocation(json.dumps(event).encode(), "the-id", "the-arn", "Root=1-2-3", **more))


@pytest.mark.parametrize(
    ("event", "payload"),
    [
        ("bytes", b'{"d": "abc"}'),
        ("base64", b'{"body": {"image_data": "cG5n"}}'),
        ("all bytes", b"abc"),
        ("decimal", b'{"d": 1.50}'),
        ("nan", b"NaN"),
        ("decimal nan", b"[NaN]"),
    ],
)
def test_an_answer_is_what_awslambdaric_makes_of_it(warm: Function, event: str, payload: bytes) -> None:
    answer = invoke(warm("handler"), event)
    assert (answer.failed, answer.payload, answer.raw) == (False, payload, event == "all bytes")


@pytest.mark.parametrize(
    ("handler", "event", "error", "message"),
    [
        ("code.absent", None, "Runtime.HandlerNotFound", "Handler 'absent' missing on module 'code'"),
        ("absent.handler", None, "Runtime.ImportModuleError", "No module named 'absent'"),
        ("sick.handler", None, "Runtime.ImportModuleError", "No module named 'airflow'"),
        ("wrong.handler", None, "Runtime.UserCodeSyntaxError", "wrong.py, line 1"),
        ("handler", None, "Runtime.MalformedHandlerName", "Bad handler 'handler'"),
        ("sys.exit", None, "Runtime.BuiltInModuleConflict", "Cannot use built-in module sys"),
        ("early.handler", None, "ValueError", "at import"),
        ("code.fail", None, "THRESHOLD_CONFIDENCE_NOT_MET", "0.4 < 0.93"),
        ("code.end", 3, "Runtime.ExitError", "RequestId: the-id Error: Runtime exited with error: exit status 3"),
        ("code.end", 0, "Runtime.ExitError", "RequestId: the-id Error: Runtime exited without providing a reason"),
        ("gone.handler", None, "Runtime.ExitError", "exit status 7"),
    ],
)
def test_an_error_has_lambdas_name(function: Function, handler: str, event: Any, error: str, message: str) -> None:
    code = zipped(
        code=CODE,
        sick="import airflow",
        wrong="def handler(:",
        early="raise ValueError('at import')",
        gone="import os; os._exit(7)",
    )
    assert_told(invoke(function(handler, code), event), error, message)


@pytest.mark.parametrize(
    ("event", "error", "message"),
    [
        ("set", "Runtime.MarshalError", "Object of type set is not JSON serializable"),
        ("date", "Runtime.MarshalError", "Object of type date is not JSON serializable"),
        ("large", "Function.ResponseSizeTooLarge", "(6291558 bytes) exceeded maximum"),
    ],
)
def test_an_answer_that_cannot_be_sent_is_an_error(warm: Function, event: str, error: str, message: str) -> None:
    assert_told(invoke(warm("handler"), event), error, message)


def assert_told(answer: Answer, error: str, message: str) -> None:
    """It has failed, and says so in Lambda's words."""
    told = json.loads(answer.payload)
    assert answer.failed
    assert told["errorType"] == error
    assert message in told["errorMessage"]
    if error not in {"Runtime.ExitError", "Function.ResponseSizeTooLarge"}:
        assert set(told) == {"errorMessage", "errorType", "requestId", "stackTrace"}
    assert any(error in line or message in line for line in answer.log)


@pytest.mark.parametrize("event", [{"a": 1}, [1], "text", 1.5, None, True, {"ü": "😀"}])
def test_an_event_keeps_its_type(warm: Function, event: Any) -> None:
    assert json.loads(invoke(warm("echo"), event).payload) == [type(event).__name__, event]


def test_a_timeout_ends_the_environment_and_the_next_call_starts_another(function: Function) -> None:
    environment = function("code.sleep", Timeout=1)
    answer = invoke(environment, 30)
    told = json.loads(answer.payload)
    assert told == {
        "errorType": "Sandbox.Timedout",
        "errorMessage": "RequestId: the-id Error: Task timed out after 1.00 seconds",
    }
    assert "RequestId: the-id Error: Task timed out after 1.00 seconds" in answer.log
    assert invoke(environment, 0).payload == b"null"


def test_the_log_is_lambdas(function: Function) -> None:
    environment = function("code.speak", MemorySize=256)
    first, second = invoke(environment, 1), invoke(environment, 2)
    start, one, two, three, end, report = first.log
    assert (start, one, two, end) == (
        "START RequestId: the-id Version: $LATEST", "one", "two", "END RequestId: the-id",
    )  # fmt: skip
    assert re.fullmatch(r"\[WARNING\]\t\d{4}-\d\d-\d\dT[\d:.]+Z\tthe-id\tthree", three)
    pattern = (
        r"REPORT RequestId: the-id\tDuration: [\d.]+ ms\tBilled Duration: \d+ ms\tMemory Size: 256 MB\t"
        r"Max Memory Used: \d+ MB\t"
    )
    assert re.fullmatch(pattern + r"Init Duration: [\d.]+ ms\t", report)
    assert re.fullmatch(pattern, second.log[-1])
    failed = invoke(function("code.fail"))
    (frame,) = json.loads(failed.payload)["stackTrace"]
    assert failed.log[1] == (
        "[ERROR] THRESHOLD_CONFIDENCE_NOT_MET: 0.4 < 0.93\nTraceback (most recent call last):\n"
        + frame.rstrip().replace("  ", "\u00a0\u00a0")
    )


def test_output_beyond_a_pipe_does_not_hold_up_the_handler(function: Function) -> None:
    environment = function("code.flood")
    assert len(invoke(environment, 300_000).log[1]) == 300_000
    answer = invoke(environment, 10_000_000)
    assert not answer.failed
    assert sum(len(line) for line in answer.log) < 5_000_000, "bounded"


def test_a_function_sees_its_own_code_boto3_and_the_standard_library(
    function: Function, platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_OF_THE_USER", "x")
    seen = json.loads(invoke(function("code.look"), variables={"_OF_THIS_CALL": "1"}).payload)
    assert seen["version"] == list(sys.version_info[:2])
    assert seen["path"][0] == seen["cwd"] == seen["environ"]["LAMBDA_TASK_ROOT"]
    runtime, layers = seen["environ"]["LAMBDA_RUNTIME_DIR"], seen["environ"]["LAMBDA_LAYERS_ROOT"]
    assert seen["boto3"].startswith(runtime)
    assert not [path for path in seen["path"] if path.endswith("site-packages") and not path.startswith(layers)]
    if platform.box is not None:
        assert (seen["cwd"], runtime, layers, seen["temporary"]) == ("/var/task", "/var/runtime", "/opt", "/tmp")
    assert (seen["environ"]["OWN"], seen["environ"]["_OF_THIS_CALL"]) == ("yes", "1")
    assert seen["environ"]["_X_AMZN_TRACE_ID"] == "Root=1-2-3"
    assert "SECRET_OF_THE_USER" not in seen["environ"]
    assert seen["stdin"] == ""
    assert 0 < seen["left"] <= 30_000
    context = seen["context"]
    assert (context["aws_request_id"], context["invoked_function_arn"]) == ("the-id", "the-arn")
    assert re.fullmatch(r"\d{4}/\d\d/\d\d/\[\$LATEST\][0-9a-f]{32}", context["log_stream_name"])


def test_environments_have_a_temporary_folder_each(function: Function) -> None:
    """Many functions write /tmp/image.png: another execution must not read it."""
    one, other = function("code.keep"), function("code.keep")
    assert [json.loads(invoke(each, text).payload) for each, text in ((one, "1"), (other, "2"), (one, "3"))] == [
        None, None, "1",
    ]  # fmt: skip


def test_it_ends_with_ministack_in_the_middle_of_a_handler(function: Function) -> None:
    environment = function("code.sleep", Timeout=600)
    assert invoke(environment, 0).payload == b"null"
    assert environment._proc is not None
    assert environment._connection is not None
    family = [psutil.Process(environment._proc.pid), *psutil.Process(environment._proc.pid).children(recursive=True)]
    environment._send(Invocation(b"600", "the-id", "the-arn", "Root=1"), 600)
    environment._connection.shutdown(socket.SHUT_RDWR)
    assert environment._proc.wait(20) == 1
    assert not psutil.wait_procs(family[1:], timeout=20)[1]


def test_layers_lie_over_each_other_and_under_the_code(function: Function) -> None:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as content:
        content.writestr(f"python/lib/{OWN}/site-packages/deep.py", "NAME = 'deep'")
        content.writestr("python/lower.py", "NAME = 'second'")
        content.writestr("python/code.py", "raise ValueError")
    code = zipped(code="import deep, lower, other\ndef handler(e, c): return [deep.NAME, lower.NAME, other.NAME]")
    first = zipped(python__lower="NAME = 'first'", python__other="NAME = 'other'")
    answer = invoke(function(code=code, LayerZips=[first, archive.getvalue()]))
    assert json.loads(answer.payload) == ["deep", "second", "other"]


def test_executables_of_a_package_can_be_run(function: Function) -> None:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as content:
        info = zipfile.ZipInfo("tool")
        info.external_attr = 0o755 << 16
        content.writestr(info, "#!/bin/sh\necho ran\n")
        content.writestr("code.py", "import subprocess\ndef handler(e, c): return subprocess.check_output('./tool')")
    assert invoke(function(code=archive.getvalue())).payload == b"ran\n"


def test_code_is_unpacked_once_and_goes_with_its_last_environment(function: Function, platform: Platform) -> None:
    code = zipped(code="def handler(e, c): return e")
    one, other = function(code=code), function(code=code)
    invoke(one), invoke(other)
    place = one._folders[0]
    assert other._folders[0] == place
    one.kill()
    assert (place / "code.py").exists()
    other.kill()
    assert not place.exists()


@pytest.mark.parametrize("runtime", [name for name in pythons.here() if name != OWN])
def test_another_version_that_is_here_is_the_one_that_runs(function: Function, runtime: str) -> None:
    seen = json.loads(invoke(function("code.look", Runtime=runtime)).payload)
    assert runtime == "python{}.{}".format(*seen["version"])
    assert invoke(function(Runtime=runtime), "bytes").payload == b'{"d": "abc"}'


@pytest.mark.parametrize("runtime", ["python3.99", "python2", "python3", "python3.11x", "../python3.11", ""])
def test_a_version_that_is_not_here_is_not_found(runtime: str) -> None:
    assert pythons.find(runtime) is None


def test_a_place_that_may_not_be_looked_into_holds_no_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYENV_ROOT", f"/{300 * 'a'}")  # an error to everyone; another user's folder is none to root
    assert pythons.find("python3.98") is None
