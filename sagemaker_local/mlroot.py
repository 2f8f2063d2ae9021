"""The directory that stands for a container's `/opt/ml`, and the environment its command is started with."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sagemaker_local.container import OPT_ML
from sagemaker_local.context import Context
from sagemaker_local.errors import ValidationException
from sagemaker_local.images import Command, Image

HOST = "algo-1"


@dataclass(frozen=True)
class MlRoot:
    """One container's `/opt/ml`, on this machine at `path` (its command reads it from SM_ML_ROOT)."""

    path: Path

    @property
    def model(self) -> Path:
        """`/opt/ml/model`."""
        return self.path / "model"

    @property
    def output(self) -> Path:
        """`/opt/ml/output`, where `data/` and `failure` are."""
        return self.path / "output"

    @property
    def checkpoints(self) -> Path:
        """`/opt/ml/checkpoints`."""
        return self.path / "checkpoints"

    def channel(self, name: str) -> Path:
        """`/opt/ml/input/data/<channel>`."""
        return self.path / "input" / "data" / name

    def prepare(self, *, keep_checkpoints: bool = True) -> None:
        """Empty directories for a new run; what an interrupted run left is removed, its checkpoints are kept."""
        for child in self.path.iterdir() if self.path.exists() else ():
            if keep_checkpoints and child == self.checkpoints:
                continue
            shutil.rmtree(child) if child.is_dir() else child.unlink()
        for folder in (self.path / "input" / "config", self.path / "input" / "data", self.model, self.output / "data"):
            folder.mkdir(parents=True, exist_ok=True)

    def write_config(self, name: str, content: Any) -> None:
        """`/opt/ml/input/config/<name>.json`."""
        folder = self.path / "input" / "config"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.json").write_text(json.dumps(content))

    def failure(self) -> str:
        """What the container wrote to `/opt/ml/output/failure`, or nothing."""
        try:
            return (self.output / "failure").read_text(errors="replace").strip()
        except OSError:
            return ""

    def local(self, container_path: str, member: str) -> Path:
        """Where a path inside the container is here.

        Raises:
            ValidationException: it is not below `/opt/ml`, or has `..` in it; the message names `member`.
        """
        inside = Path(container_path)
        if ".." in inside.parts or not inside.is_relative_to(OPT_ML) or inside == Path(OPT_ML):
            raise ValidationException(
                f"sagemaker_local maps only paths below {OPT_ML} into a container, and {member} is {container_path}"
            )
        return self.path / inside.relative_to(OPT_ML)

    def translate(self, command: Command) -> Command:
        """A command of this machine with `/opt/ml` pointing here; an image's, where it is there, as it is."""
        if command.image:
            return command
        return replace(command, words=tuple(word.replace(OPT_ML, str(self.path)) for word in command.words))

    def remove(self) -> None:
        """Delete everything."""
        shutil.rmtree(self.path, ignore_errors=True)


def container_environment(
    ctx: Context, root: MlRoot, image: Image, own: Mapping[str, str], given: Mapping[str, str] | None = None
) -> dict[str, str]:
    """The variables a container gets on top of the service's own: the image's, the request's, the platform's."""
    return {
        **image.environment,
        **(given or {}),
        "AWS_REGION": ctx.config.region,
        "AWS_DEFAULT_REGION": ctx.config.region,
        **own,
        "SM_ML_ROOT": str(root.path),
    }


def resource_config(instance_type: str | None) -> dict[str, Any]:
    """`resourceconfig.json` of a single-machine job."""
    group = "homogeneousCluster"
    return {
        "current_host": HOST,
        "current_instance_type": instance_type,
        "current_group_name": group,
        "hosts": [HOST],
        "instance_groups": [{"instance_group_name": group, "instance_type": instance_type, "hosts": [HOST]}],
        "network_interface_name": "eth0",
    }
