"""One processing job: inputs from S3, the command, outputs to S3."""

from __future__ import annotations

import json
from typing import Any

from sagemaker_local import s3
from sagemaker_local.container import Container
from sagemaker_local.container_run import COMPLETED, MAX_RUNTIME, ContainerRun
from sagemaker_local.context import Context
from sagemaker_local.folder_sync import FolderSync
from sagemaker_local.input_files import find_files
from sagemaker_local.job_kind import JobKind
from sagemaker_local.jobs import Control
from sagemaker_local.logs import PROCESSING_GROUP
from sagemaker_local.mlroot import container_environment, resource_config

PROCESSING = JobKind("Processing", order="Ascending")
DEFAULT_MAX_RUNTIME = 86_400


class ProcessingRun(ContainerRun):
    """Runs one processing job."""

    kind = PROCESSING.kind
    folder = "processing"

    def __init__(self, ctx: Context, name: str, control: Control) -> None:
        super().__init__(ctx, name, control)
        self._message = ""
        outputs: list[dict[str, Any]] = (self.job.body.get("ProcessingOutputConfig") or {}).get("Outputs", [])
        self._outputs = [output["S3Output"] for output in outputs]

    def steps(self) -> str:
        """Fetch, run, store."""
        if self.job.status == "Stopping":
            raise s3.Cancelled
        self.begin_attempt()
        self.enter(lambda job: self.note_start(job, "Processing"))
        self.root.prepare(keep_checkpoints=False)
        self._fetch_inputs()
        self._write_config()
        outcome = self._run_container()
        for sync in self.syncs:
            sync.finish()
        if outcome == COMPLETED:
            for output in self._outputs:
                if output["S3UploadMode"] == "EndOfJob":
                    folder = self.root.local(output["LocalPath"], "LocalPath")
                    s3.upload_tree(self.ctx, output["S3Uri"], folder, self.control.cancelled)
        return outcome

    def finish(self, outcome: str, reason: str) -> None:
        """The final status with the container's exit message."""
        if outcome == MAX_RUNTIME:
            limit = self.job.body["StoppingCondition"]["MaxRuntimeInSeconds"]
            outcome, reason = "Stopped", f"MaxRuntimeExceeded: the job ran longer than {limit} s"
        message = {"ExitMessage": self._message} if self._message else {}
        PROCESSING.finish(self.ctx, self.name, outcome, reason, **message)

    def _fetch_inputs(self) -> None:
        role = self.job.body["RoleArn"]
        cancelled = self.control.cancelled
        for item in self.job.body.get("ProcessingInputs", ()):
            source = item["S3Input"]
            bucket, files = find_files(self.ctx, source["S3DataType"], source["S3Uri"], role, cancelled)
            folder = self.root.local(source["LocalPath"], f"LocalPath of {item['InputName']}")
            s3.download(self.ctx, bucket, files, folder, cancelled)

    def _write_config(self) -> None:
        cluster = self.job.body["ProcessingResources"]["ClusterConfig"]
        config = self.root.path / "config"
        config.mkdir(parents=True)
        (config / "resourceconfig.json").write_text(json.dumps(resource_config(cluster["InstanceType"])))
        described = {**self.job.body, "ProcessingJobArn": self.job.arn}
        (config / "processingjobconfig.json").write_text(json.dumps(described))

    def _run_container(self) -> str:
        limit = self.job.body["StoppingCondition"]["MaxRuntimeInSeconds"]
        with self.logged(PROCESSING_GROUP):
            container = self._start_container()
            outcome = self.watch(container, self.job.body["ProcessingStartTime"] + limit)
        self._message = self._exit_message()
        if outcome == COMPLETED:
            self.check_exit(container)
        return outcome

    def _start_container(self) -> Container:
        app = self.job.body["AppSpecification"]
        image = self.ctx.images.find(app["ImageUri"])
        command = image.run(*app.get("ContainerArguments", ()), entrypoint=app.get("ContainerEntrypoint") or ())
        for output in self._outputs:
            folder = self.root.local(output["LocalPath"], "LocalPath")
            folder.mkdir(parents=True, exist_ok=True)
            if output["S3UploadMode"] == "Continuous":
                self.syncs.append(FolderSync(self.ctx, output["S3Uri"], folder))
        own = {"PROCESSING_JOB_NAME": self.name, "PROCESSING_JOB_ARN": self.job.arn}
        environment = container_environment(self.ctx, self.root, image, own, self.job.body.get("Environment"))
        container = self.spawn(command, environment)
        for sync in self.syncs:
            sync.start()
        return container

    def _exit_message(self) -> str:
        try:
            return (self.root.output / "message").read_text(errors="replace").strip()[:1024]
        except OSError:
            return ""
