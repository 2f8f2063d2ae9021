"""One training job from its first step to its last: download, train, upload.

Every step writes where the job stands before it begins, so that a service killed at any moment finds out what to do: an
interrupted job starts again from its inputs (with its checkpoints), one that had trained already only uploads.
"""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Callable
from pathlib import Path

from sagemaker_local import s3
from sagemaker_local.context import Context
from sagemaker_local.jobs import Control
from sagemaker_local.logs import TRAINING_GROUP, LogShipper
from sagemaker_local.metrics import MetricReader
from sagemaker_local.mlroot import HOST, MlRoot, container_environment, exit_status, resource_config
from sagemaker_local.processes import Container
from sagemaker_local.store import Resource
from sagemaker_local.training import state
from sagemaker_local.training.channels import channel_config, download_channels
from sagemaker_local.training.checkpoints import CheckpointSync
from sagemaker_local.training.checks import DEFAULT_MAX_RUNTIME

log = logging.getLogger(__name__)

_POLL = 0.2


class JobFailed(Exception):
    """The job ends as Failed with this reason."""


class TrainingRun:
    """Runs one job; made anew for every attempt. `run` returns when the job is final, and raises `Abandoned`."""

    def __init__(self, ctx: Context, name: str, control: Control) -> None:
        self._ctx = ctx
        self._name = name
        self._control = control
        job = ctx.store.get(state.KIND, name)
        if job is None:
            raise KeyError(name)
        self._job = job
        self._folder = ctx.config.data_dir / "training" / name
        self._root = MlRoot(self._folder / "ml")
        image_uri = job.body["AlgorithmSpecification"]["TrainingImage"]
        self._image = ctx.images.find(image_uri)
        definitions = job.body["AlgorithmSpecification"].get("MetricDefinitions") or []
        self._metrics = MetricReader(definitions)
        self._checkpoints: CheckpointSync | None = None
        self._container: Container | None = None

    def run(self) -> None:
        """Do the job, whatever is left of it."""
        try:
            outcome = self._steps()
        except s3.Cancelled:
            outcome = "Stopped"
        except JobFailed as error:
            self._finish("Failed", "Failed", str(error))
            return
        except s3.DataError as error:
            self._finish("Failed", "Failed", f"ClientError: {error}")
            return
        except s3.OutageError as error:
            self._finish("Failed", "Failed", f"InternalServerError: {error}. Please try again.")
            return
        except OSError as error:
            self._finish("Failed", "Failed", f"InternalServerError: {error}")
            return
        finally:
            if self._container is not None and self._container.exit_code() is None:
                self._container.kill()
            if self._checkpoints is not None:
                self._checkpoints.abandon()
        self._control.check_abandoned()
        if outcome == "Completed":
            self._finish("Completed", "Completed", "Training job completed")
        elif outcome == "MaxRuntimeExceeded":
            self._finish("Stopped", "MaxRuntimeExceeded", "Training job runtime exceeded MaxRuntimeInSeconds provided")
        else:
            self._finish("Stopped", "Stopped", "Training job stopped")

    def _steps(self) -> str:
        internal = self._job.internal
        if internal.get("phase") == "uploading":
            outcome = str(internal["outcome"])
        else:
            if self._job.status == "Stopping":
                if self._root.model.is_dir() and any(self._root.model.iterdir()):
                    self._upload()  # the service was killed while it stopped the job: keep the model all the same
                return "Stopped"
            self._begin_attempt()
            self._download()
            outcome = self._train()
            # From here on nothing but S3 can fail, and the upload can be repeated.
            self._save(lambda job: job.internal.update(phase="uploading", outcome=outcome))
        self._upload()
        return outcome

    # --- steps ---------------------------------------------------------------------------------------------------

    def _begin_attempt(self) -> None:
        attempt = self._job.internal.get("attempt", 0) + 1
        retries = (self._job.body.get("RetryStrategy") or {}).get("MaximumRetryAttempts", self._ctx.config.max_restarts)
        if attempt > 1 + retries:
            raise JobFailed(f"InternalServerError: the job was interrupted {attempt - 1} times. Please try again.")

        def begin(job: Resource) -> None:
            job.internal["attempt"] = attempt
            job.internal.setdefault("log_stream", f"{self._name}/{HOST}-{int(self._ctx.now())}")
            if attempt > 1:
                message = "The training service was interrupted. Restarting the training job"
                state.enter(job, "Restarting", message, self._ctx.now())

        self._save(begin)

    def _download(self) -> None:
        job = self._job
        self._root.prepare()
        if "CheckpointConfig" in job.body:
            config = job.body["CheckpointConfig"]
            folder = self._root.local(config.get("LocalPath", "/opt/ml/checkpoints"), "CheckpointConfig.LocalPath")
            self._checkpoints = CheckpointSync(self._ctx, config["S3Uri"], folder)

        def begin(row: Resource) -> None:
            row.body.setdefault("TrainingStartTime", self._ctx.now())
            state.enter(row, "Downloading", "Downloading input data", self._ctx.now())

        self._enter(begin)
        channels = job.body.get("InputDataConfig", [])
        download_channels(self._ctx, self._root, channels, job.body["RoleArn"], self._control.cancelled)
        if self._checkpoints is not None:
            self._checkpoints.restore(self._control.cancelled)
        mode = job.body["AlgorithmSpecification"]["TrainingInputMode"]
        self._root.write_config("hyperparameters", job.body.get("HyperParameters", {}))
        self._root.write_config("inputdataconfig", channel_config(channels, mode))
        self._root.write_config("resourceconfig", resource_config(job.body["ResourceConfig"].get("InstanceType")))

    def _train(self) -> str:
        message = "Training image download completed. Training in progress."
        self._enter(lambda job: state.enter(job, "Training", message, self._ctx.now()))
        shipper = LogShipper(
            self._ctx, TRAINING_GROUP, self._job.internal["log_stream"], self._folder / "log", self._metrics.observe
        ).start()
        try:
            self._container = self._spawn()
            if self._checkpoints is not None:
                self._checkpoints.start()
            outcome = self._watch(self._container)
        finally:
            if self._container is not None and self._container.exit_code() is None:
                self._container.kill()
            self._control.check_abandoned()
            shipper.finish()
            self._publish_metrics()
        if outcome == "Completed" and (code := self._container.exit_code()):
            raise JobFailed(f"AlgorithmError: {self._root.failure()[:980]}, exit code: {exit_status(code)}")
        return outcome

    def _spawn(self) -> Container:
        algorithm = self._job.body["AlgorithmSpecification"]
        if algorithm.get("ContainerEntrypoint"):
            words = [*algorithm["ContainerEntrypoint"], *algorithm.get("ContainerArguments", [])]
            command = [self._root.translate(word) for word in words]
        else:
            command = [*self._image.command, "train"]
        own = {"TRAINING_JOB_NAME": self._name, "TRAINING_JOB_ARN": self._job.arn}
        environment = container_environment(self._ctx, self._root, self._image, own, self._job.body.get("Environment"))
        try:
            return self._ctx.processes.spawn(command, env=environment, cwd=self._root.path, log=self._folder / "log")
        except OSError as error:
            raise JobFailed(f"AlgorithmError: the container command {command} could not be started: {error}") from error

    def _watch(self, container: Container) -> str:
        """Wait for the container's end: Completed (of its own accord), Stopped or MaxRuntimeExceeded."""
        limit = self._job.body["StoppingCondition"].get("MaxRuntimeInSeconds", DEFAULT_MAX_RUNTIME)
        deadline = self._job.body["TrainingStartTime"] + limit
        while True:
            ended = container.wait(_POLL) is not None
            self._control.check_abandoned()
            if ended and not self._control.cancelled.is_set():
                return "Completed"
            if self._control.cancelled.is_set():
                self._end(container)
                return "Stopped"
            if self._ctx.now() > deadline:
                self._end(container)
                return "MaxRuntimeExceeded"
            self._publish_metrics()

    def _end(self, container: Container) -> None:
        """SIGTERM, the grace in which algorithms save their model, SIGKILL."""
        container.signal(signal.SIGTERM)
        limit = time.monotonic() + self._ctx.config.stop_grace_seconds
        while container.wait(_POLL) is None and time.monotonic() < limit:
            self._control.check_abandoned()
        if container.exit_code() is None:
            container.kill()

    def _upload(self) -> None:
        message = "Uploading generated training model"
        self._save(lambda job: state.enter(job, "Uploading", message, self._ctx.now()))
        output = self._job.body["OutputDataConfig"]
        prefix = s3.join_uri(output["S3OutputPath"], self._name, "output")
        if self._checkpoints is not None:
            self._checkpoints.finish()
        if output.get("CompressionType") == "NONE":
            self._patiently(lambda: s3.upload_tree(self._ctx, s3.join_uri(prefix, "model"), self._root.model))
        else:
            self._send_archive(self._root.model, s3.join_uri(prefix, "model.tar.gz"))
        data = self._root.output / "data"
        if data.is_dir() and any(data.iterdir()):
            self._send_archive(data, s3.join_uri(prefix, "output.tar.gz"))

    def _send_archive(self, folder: Path, uri: str) -> None:
        archive = self._folder / uri.rpartition("/")[2]
        s3.pack(folder, archive)
        self._patiently(lambda: s3.upload(self._ctx, uri, archive))
        archive.unlink()

    def _patiently(self, send: Callable[[], object]) -> None:
        # A stop asked for during the upload does not cut it short: the model is kept, as AWS does.
        send()
        self._control.check_abandoned()

    # --- state ---------------------------------------------------------------------------------------------------

    def _enter(self, change: Callable[[Resource], None]) -> None:
        """Begin a step, unless the job is to end first."""
        self._control.check_abandoned()
        if self._control.cancelled.is_set():
            raise s3.Cancelled
        self._save(change)

    def _save(self, change: Callable[[Resource], None]) -> None:
        job = self._ctx.store.update(state.KIND, self._name, change)
        if job is None:
            raise s3.Cancelled
        self._job = job

    def _publish_metrics(self) -> None:
        self._metrics.publish(self._ctx, self._name)
        final = self._metrics.final()
        if final and final != self._job.body.get("FinalMetricDataList"):
            self._save(lambda job: job.body.update(FinalMetricDataList=final))

    def _finish(self, status: str, secondary: str, message: str) -> None:
        self._control.check_abandoned()
        self._save(lambda job: state.finish(job, status, secondary, message, self._ctx.now()))
        self._root.remove()
        state.announce(self._ctx, self._job)
