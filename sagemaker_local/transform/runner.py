"""One transform job: fetch the model, start its server, send it every object, store the answers."""

from __future__ import annotations

import gzip
import http.client
import io
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor, wait

from sagemaker_local import s3
from sagemaker_local.artifacts import fetch_model
from sagemaker_local.container_run import COMPLETED, POLL, ContainerRun, JobFailed
from sagemaker_local.input_files import find_files
from sagemaker_local.job_kind import JobKind
from sagemaker_local.logs import TRANSFORM_GROUP
from sagemaker_local.mlroot import container_environment
from sagemaker_local.models import find_model
from sagemaker_local.transform.records import RecordTooLargeError, assemble, payloads
from sagemaker_local.transform.server import ModelServer

TRANSFORM = JobKind("Transform")
DEFAULT_TIMEOUT = 600
DEFAULT_RETRIES = 3
_TRANSFERS = 4
_SERVER_ERRORS = 500
_MOST_UNPACKED = 1 << 30  # bytes of one object: a few are in memory at once


class TransformRun(ContainerRun):
    """Runs one transform job."""

    kind = TRANSFORM.kind
    folder = "transform"

    def steps(self) -> str:
        """Everything from the model's download to the last answer's upload."""
        if self.job.status == "Stopping":
            raise s3.Cancelled
        self.begin_attempt()
        self.enter(lambda job: self.note_start(job, "Transform"))
        model = find_model(self.ctx, self.job.body["ModelName"])
        container = model.internal["container"]
        source = self.job.body["TransformInput"]["DataSource"]["S3DataSource"]
        role = model.body.get("ExecutionRoleArn")
        cancelled = self.control.cancelled
        bucket, files = find_files(self.ctx, source["S3DataType"], source["S3Uri"], role, cancelled)
        self.root.prepare()
        if container["ModelDataUrl"]:
            fetch_model(self.ctx, container["ModelDataUrl"], self.root.model, cancelled)
        with self.logged(TRANSFORM_GROUP):
            server = self._start_server(container)
            server.wait_ready(cancelled)
            self._transform_all(server, bucket, files)
        return COMPLETED

    def finish(self, outcome: str, reason: str) -> None:
        """The final status and its event."""
        TRANSFORM.finish(self.ctx, self.name, outcome, reason)

    def _start_server(self, container: dict[str, object]) -> ModelServer:
        body = self.job.body
        image = self.ctx.images.find(str(container["Image"]))
        command = image.run("serve")
        port = self.ctx.processes.port(command)
        own = {
            "SAGEMAKER_BIND_TO_PORT": str(port),
            "SAGEMAKER_BATCH": "true",
            "SAGEMAKER_MAX_PAYLOAD_IN_MB": str(body.get("MaxPayloadInMB", 6)),
            "SAGEMAKER_BATCH_STRATEGY": body.get("BatchStrategy", "MultiRecord"),
            "SAGEMAKER_MAX_CONCURRENT_TRANSFORMS": str(max(1, body.get("MaxConcurrentTransforms", 1))),
        }
        given = {**container["Environment"], **body.get("Environment", {})}  # type: ignore[dict-item]
        environment = container_environment(self.ctx, self.root, image, own, given)
        started = self.spawn(command, environment)
        timeout = (body.get("ModelClientConfig") or {}).get("InvocationsTimeoutInSeconds", DEFAULT_TIMEOUT)
        return ModelServer(started, lambda: started.connect(port), timeout)

    def _transform_all(self, server: ModelServer, bucket: str, files: dict[str, str]) -> None:
        """A few objects move at once, but no more than MaxConcurrentTransforms are with the model."""
        parallel = max(1, self.job.body.get("MaxConcurrentTransforms", 1))
        gate = threading.Semaphore(parallel)
        with ThreadPoolExecutor(max(parallel, _TRANSFERS), thread_name_prefix="transform") as pool:
            pending = [pool.submit(self._transform, server, gate, bucket, *item) for item in sorted(files.items())]
            try:
                for future in pending:
                    while not wait([future], POLL).done:
                        if self.control.cancelled.is_set():
                            raise s3.Cancelled
                    future.result()
            except BaseException:
                self.kill_container()  # what is with the model breaks off
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _transform(self, server: ModelServer, gate: threading.Semaphore, bucket: str, key: str, place: str) -> None:
        body = self.job.body
        cancelled = self.control.cancelled
        content = s3.get_bytes(self.ctx, f"s3://{bucket}/{key}", cancelled)
        if body["TransformInput"]["CompressionType"] == "Gzip":
            content = _unpacked(content, f"s3://{bucket}/{key}")
        answers = []
        requests = payloads(
            content,
            split=body["TransformInput"]["SplitType"],
            strategy=body.get("BatchStrategy", "MultiRecord"),
            limit_mb=body.get("MaxPayloadInMB", 6),
        )
        try:
            for request in requests:
                if cancelled.is_set():
                    raise s3.Cancelled
                with gate:
                    answers.append(self._invoke(server, request, f"s3://{bucket}/{key}"))
        except RecordTooLargeError as error:
            raise s3.DataError(f"s3://{bucket}/{key}: {error}") from error
        output = body["TransformOutput"]
        result = assemble(answers, output["AssembleWith"])
        target = s3.join_uri(output["S3OutputPath"], f"{place}.out")
        content_type = output.get("Accept") or "application/octet-stream"
        s3.put_bytes(self.ctx, target, result, content_type, cancelled)

    def _invoke(self, server: ModelServer, payload: bytes, origin: str) -> bytes:
        """One answer of the model; a 5xx or a broken connection is tried again as often as ModelClientConfig says."""
        headers = {"Content-Type": self.job.body["TransformInput"].get("ContentType") or "application/octet-stream"}
        if accept := self.job.body["TransformOutput"].get("Accept"):
            headers["Accept"] = accept
        retries = (self.job.body.get("ModelClientConfig") or {}).get("InvocationsMaxRetries", DEFAULT_RETRIES)
        for attempt in range(retries + 1):
            if self.control.cancelled.is_set():
                raise s3.Cancelled
            try:
                status, answer = server.invoke(payload, headers)
            except (OSError, http.client.HTTPException) as error:
                problem = f"no answer from the model server ({type(error).__name__}: {error})"
            else:
                if status == http.client.OK:
                    return answer
                problem = f"Bad HTTP status received from algorithm: {status} ({answer[:200].decode(errors='replace')})"
                if status < _SERVER_ERRORS:
                    break
            if attempt < retries:
                self.control.pause(0.2 * 2**attempt)
        raise JobFailed(f"AlgorithmError: {problem} for {origin}. See job logs for more information")


def _unpacked(content: bytes, origin: str) -> bytes:
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(content)) as packed:
            unpacked = packed.read(_MOST_UNPACKED + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise s3.DataError(f"{origin} is not gzip data: {error}") from error
    if len(unpacked) > _MOST_UNPACKED:
        raise s3.DataError(f"{origin} unpacks to more than {_MOST_UNPACKED} bytes")
    return unpacked
