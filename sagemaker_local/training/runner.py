"""One training job from its first step to its last: download, train, upload.

Every step writes where the job stands before it begins, so that a service killed at any moment finds out what to do: an
interrupted job starts again from its inputs (with its checkpoints), one that had trained already only uploads.
"""

from __future__ import annotations

from sagemaker_local import s3
from sagemaker_local.artifacts import pack
from sagemaker_local.container import Container
from sagemaker_local.container_run import COMPLETED, MAX_RUNTIME, STOPPED, ContainerRun
from sagemaker_local.context import Context
from sagemaker_local.folder_sync import FolderSync
from sagemaker_local.job_kind import JobKind
from sagemaker_local.jobs import Control
from sagemaker_local.logs import TRAINING_GROUP
from sagemaker_local.metrics import MetricReader
from sagemaker_local.mlroot import container_environment, resource_config
from sagemaker_local.store import Resource
from sagemaker_local.training import state
from sagemaker_local.training.channels import channel_config, download_channels
from sagemaker_local.training.checks import DEFAULT_MAX_RUNTIME

_ENDINGS = {
    COMPLETED: (COMPLETED, COMPLETED, "Training job completed"),
    STOPPED: (STOPPED, STOPPED, "Training job stopped"),
    MAX_RUNTIME: (STOPPED, MAX_RUNTIME, "Training job runtime exceeded MaxRuntimeInSeconds provided"),
}


TRAINING = JobKind(
    "Training",
    missing="Requested resource not found.",
    taken="Training job names must be unique within an AWS account and region, and a training job with this name "
    "already exists ({arn})",
    order="Ascending",
)


class TrainingRun(ContainerRun):
    """Runs one training job."""

    kind = TRAINING.kind
    folder = "training"

    def __init__(self, ctx: Context, name: str, control: Control) -> None:
        super().__init__(ctx, name, control)
        self._algorithm = self.job.body["AlgorithmSpecification"]
        self._image = ctx.images.find(self._algorithm["TrainingImage"])
        self._metrics = MetricReader(self._algorithm.get("MetricDefinitions") or [])

    def steps(self) -> str:
        """Download, train, upload; or what is left of it."""
        if self.job.internal.get("phase") == "uploading":
            outcome = str(self.job.internal["outcome"])
        elif self.job.status == "Stopping":
            # The service was killed while it stopped the job: the model is kept all the same.
            if not (self.root.model.is_dir() and any(self.root.model.iterdir())):
                return STOPPED
            outcome = STOPPED
        else:
            retries = (self.job.body.get("RetryStrategy") or {}).get("MaximumRetryAttempts")
            self.begin_attempt(self._restart, retries)
            self._download()
            outcome = self._train()
            # From here on nothing but S3 can fail, and the upload can be repeated.
            self.save(lambda job: job.internal.update(phase="uploading", outcome=outcome))
        self._upload()
        return outcome

    def finish(self, outcome: str, reason: str) -> None:
        """The final status, its transition and its event."""
        status, secondary, message = _ENDINGS.get(outcome, ("Failed", "Failed", reason))
        TRAINING.change(self.ctx, self.name, lambda job: state.finish(job, status, secondary, message, self.ctx.now()))

    def _restart(self, job: Resource) -> None:
        message = "The training service was interrupted. Restarting the training job"
        state.enter(job, "Restarting", message, self.ctx.now())

    def _download(self) -> None:
        self.root.prepare()
        if "CheckpointConfig" in self.job.body:
            config = self.job.body["CheckpointConfig"]
            folder = self.root.local(config.get("LocalPath", "/opt/ml/checkpoints"), "CheckpointConfig.LocalPath")
            self.syncs = [FolderSync(self.ctx, config["S3Uri"], folder)]

        def begin(row: Resource) -> None:
            self.note_start(row, "Training")
            state.enter(row, "Downloading", "Downloading input data", self.ctx.now())

        self.enter(begin)
        channels = self.job.body.get("InputDataConfig", [])
        download_channels(self.ctx, self.root, channels, self.job.body["RoleArn"], self.control.cancelled)
        for sync in self.syncs:
            sync.restore(self.control.cancelled)
        mode = self._algorithm["TrainingInputMode"]
        self.root.write_config("hyperparameters", self.job.body.get("HyperParameters", {}))
        self.root.write_config("inputdataconfig", channel_config(channels, mode))
        self.root.write_config("resourceconfig", resource_config(self.job.body["ResourceConfig"].get("InstanceType")))

    def _train(self) -> str:
        message = "Training image download completed. Training in progress."
        self.enter(lambda job: state.enter(job, "Training", message, self.ctx.now()))
        limit = self.job.body["StoppingCondition"].get("MaxRuntimeInSeconds", DEFAULT_MAX_RUNTIME)
        try:
            with self.logged(TRAINING_GROUP, self._metrics.observe):
                container = self._start_container()
                for sync in self.syncs:
                    sync.start()
                outcome = self.watch(container, self.job.body["TrainingStartTime"] + limit, self._publish_metrics)
        finally:
            self.control.check_abandoned()
            self._publish_metrics()
        if outcome == COMPLETED:
            self.check_exit(container)
        return outcome

    def _start_container(self) -> Container:
        if entrypoint := self._algorithm.get("ContainerEntrypoint"):
            command = self._image.run(*self._algorithm.get("ContainerArguments", ()), entrypoint=entrypoint)
        else:
            command = self._image.run("train")
        own = {"TRAINING_JOB_NAME": self.name, "TRAINING_JOB_ARN": self.job.arn}
        environment = container_environment(self.ctx, self.root, self._image, own, self.job.body.get("Environment"))
        return self.spawn(command, environment)

    def _upload(self) -> None:
        """Store the artifacts. A stop asked for now does not cut it short: the model is kept, as AWS does."""
        message = "Uploading generated training model"
        self.save(lambda job: state.enter(job, "Uploading", message, self.ctx.now()))
        output = self.job.body["OutputDataConfig"]
        prefix = s3.join_uri(output["S3OutputPath"], self.name, "output")
        for sync in self.syncs:
            sync.finish()
        if output.get("CompressionType") == "NONE":
            s3.upload_tree(self.ctx, s3.join_uri(prefix, "model"), self.root.model)
        else:
            self._send_archive("model", s3.join_uri(prefix, "model.tar.gz"))
        data = self.root.output / "data"
        if data.is_dir() and any(data.iterdir()):
            self._send_archive("output/data", s3.join_uri(prefix, "output.tar.gz"))

    def _send_archive(self, folder: str, uri: str) -> None:
        archive = self.directory / uri.rpartition("/")[2]
        pack(self.root.path / folder, archive)
        s3.upload(self.ctx, uri, archive)
        archive.unlink()

    def _publish_metrics(self) -> None:
        self._metrics.publish(self.ctx, self.name)
        final = self._metrics.final()
        if final and final != self.job.body.get("FinalMetricDataList"):
            summaries, curves = self._metrics.summaries(), self._metrics.curves()

            def note(job: Resource) -> None:
                job.body["FinalMetricDataList"], job.internal["metrics"] = final, summaries
                if job.parent:  # of a tuning job, which compares how its jobs come along
                    job.internal["curves"] = curves

            self.save(note)
