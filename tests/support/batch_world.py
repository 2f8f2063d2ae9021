"""A deployed workflow whose endpoint answers by script, to run real batches in: real Lambdas, real Step Functions."""

from __future__ import annotations

import json
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from struct import pack
from types import SimpleNamespace
from typing import Any
from urllib.parse import unquote

from embedded.container import LOCAL_PARAMETERS
from infrastructure.deploy import Deployment
from scones.batch.plan import ChunkReference, make_plan
from scones.batch.store import BatchStore
from scones.training.served import ServedModel

SURE, UNSURE = [0.98, 0.02], [0.6, 0.4]
MODEL = ServedModel(
    "scones-courier",
    endpoint_config="config-7",
    model_name="model-7",
    package_arn="package/7",
    version=7,
    dataset_version="ds-1",
    classes=("bicycle", "motorcycle"),
)
PARAMS: dict[str, Any] = {
    "prefix": "",
    "manifest": "",
    "keys": [],
    "classes": [],
    "rerun_failed_of": "",
    "only_new": False,
    "suffixes": [".png", ".jpg", ".jpeg"],
    "modified_after": "",
    "modified_before": "",
    "sample_size": 0,
    "sample_seed": 0,
    "fan_out": "executions",
    "concurrency": 16,
    "starts_per_second": 1000.0,
    "defer_after_seconds": 10,
    "chunk_size": 1000,
    "execution_timeout_seconds": 60,
    "threshold": 0.9,
    "max_failed_share": 0.1,
    "max_rejected_share": 0.9,
}


def png(red: int = 200) -> bytes:
    """A whole 2x2 PNG."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return pack(">I", len(body)) + kind + body + pack(">I", zlib.crc32(kind + body))

    rows = (b"\0" + bytes([red % 256, 0, 0]) * 2) * 2
    header = pack(">IIBBBBB", 2, 2, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@dataclass
class StubSageMaker:
    """SageMaker's protocol, as much of it as a batch meets: an endpoint that is described, and that answers by key.

    A key with ``unsure`` in it gets a low confidence, one with ``modelerror`` a refusal; before ``down_until`` every
    invocation fails, as while an endpoint restarts.
    """

    url: str = ""
    status: str = "InService"
    config: str = MODEL.endpoint_config
    requests: Counter[str] = field(default_factory=Counter)
    down_until: float = 0.0
    delay_s: float = 0.0

    def answer(self, key: str) -> tuple[int, str, Any]:
        self.requests[key] += 1
        time.sleep(self.delay_s)
        if time.monotonic() < self.down_until:
            return 503, "ServiceUnavailable", {"Message": "restarting"}
        if "modelerror" in key:
            return 400, "ValidationError", {"Message": "the model refused the image"}
        return 200, "", UNSURE if "unsure" in key else SURE

    def describe(self, operation: str) -> dict[str, Any]:
        config = {"EndpointConfigName": self.config}
        answers: dict[str, dict[str, Any]] = {
            "DescribeEndpoint": {"EndpointName": "e", "EndpointArn": "arn", "EndpointStatus": self.status, **config},
            "DescribeEndpointConfig": {**config, "ProductionVariants": [{"VariantName": "v", "ModelName": "model-7"}]},
            "DescribeModel": {"ModelName": "model-7", "PrimaryContainer": {"ModelPackageName": "package/7"}},
            "DescribeModelPackage": {
                "ModelPackageArn": MODEL.package_arn,
                "ModelPackageVersion": MODEL.version,
                "CustomerMetadataProperties": {
                    "dataset_version": MODEL.dataset_version,
                    "classes": ":".join(MODEL.classes),
                    "training_job": "job-7",
                    "image_shape": "3:32:32",
                },
            },
        }
        return answers[operation]


@contextmanager
def stub_sagemaker(port: int) -> Iterator[StubSageMaker]:
    """Serve the stub on loopback."""
    stub = StubSageMaker()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            target = self.headers.get("X-Amz-Target", "")
            if target:
                status, code, content = 200, "", stub.describe(target.split(".")[1])
            else:
                status, code, content = stub.answer(unquote(self.headers.get("X-Amzn-SageMaker-Custom-Attributes", "")))
            body = json.dumps(content).encode()
            self.send_response(status)
            if code:
                self.send_header("x-amzn-ErrorType", code)
            self.send_header("Content-Type", "application/json")
            self.send_header("x-Amzn-Invoked-Production-Variant", "AllTraffic")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: Any) -> None:
            """Keep the output clean."""

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    stub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield stub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@dataclass
class World:
    """The deployed resources, and ways to make batches in them."""

    outputs: dict[str, str]
    client: Callable[..., Any]
    sagemaker: StubSageMaker
    airflow_connection: str

    @property
    def bucket(self) -> str:
        return self.outputs["BucketName"]

    @property
    def store(self) -> BatchStore:
        return BatchStore(self.bucket, client=self.client("s3"))

    def put(self, key: str, content: bytes | None = None) -> None:
        self.client("s3").put_object(Bucket=self.bucket, Key=key, Body=png(len(key)) if content is None else content)

    def plan(self, batch_id: str, **params: Any) -> list[ChunkReference]:
        return make_plan(self.store, batch_id, {**PARAMS, **params}, self.outputs, MODEL).references()


def deploy_world(aws: Callable[..., Any], stub: StubSageMaker, connection: str, stack: str = "batch-test") -> World:
    """Deploy the project's stack once more, with a classify function that asks the stub."""
    outputs = Deployment(SimpleNamespace(region_name="us-east-1", client=aws), stack).deploy(LOCAL_PARAMETERS)
    variables = {"ENDPOINT_NAME": outputs["EndpointName"], "AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME": stub.url}
    aws("lambda").update_function_configuration(
        FunctionName=outputs["ClassifyFunctionName"], Environment={"Variables": variables}
    )
    document = json.loads(connection)
    document["extra"]["service_config"]["sagemaker"] = {"endpoint_url": stub.url}
    return World(outputs, aws, stub, json.dumps(document))
