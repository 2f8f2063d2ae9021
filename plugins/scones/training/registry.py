"""The model registry: one group, a package per trained model, approval."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

from scones.aws.lineage import legal_value, tags
from scones.aws.sagemaker import SageMakerResourcesHook
from scones.training.model_package import APPROVED, APPROVED_BY, artifact_of

# How many of the newest packages are looked at when a model is looked up by its artifact.
LOOK_BACK = 100


class ModelRegistryHook(SageMakerResourcesHook):
    """Model package groups and packages, idempotent."""

    def ensure_group(self, group: str) -> bool:
        """Create the model package group unless it exists. Return whether it was created."""
        if self.describe("describe_model_package_group", ModelPackageGroupName=group) is not None:
            return False
        return self._create(
            "create_model_package_group",
            {
                "ModelPackageGroupName": group,
                "ModelPackageGroupDescription": "Image classifiers of the Scones courier fleet",
                "Tags": tags({}),
            },
        )

    def packages(self, group: str) -> Iterator[dict[str, Any]]:
        """Yield the described packages of a group, newest first; nothing when there is no such group."""
        if self.describe("describe_model_package_group", ModelPackageGroupName=group) is None:
            return
        for summary in self.pages(
            "list_model_packages",
            "ModelPackageSummaryList",
            ModelPackageGroupName=group,
            SortBy="CreationTime",
            SortOrder="Descending",
        ):
            package = self.describe("describe_model_package", ModelPackageName=summary["ModelPackageArn"])
            if package is not None:
                yield package

    def find(self, group: str, model_data_url: str) -> dict[str, Any] | None:
        """Return the package of an artifact among the newest hundred, or None."""
        for package in islice(self.packages(group), LOOK_BACK):
            if artifact_of(package)[1] == model_data_url:
                return package
        return None

    def register(self, request: dict[str, Any]) -> tuple[dict[str, Any], bool]:
        """Register a package unless its artifact is registered. Return the package and whether it is new."""
        group = request["ModelPackageGroupName"]
        self.ensure_group(group)
        found = self.find(group, request["InferenceSpecification"]["Containers"][0]["ModelDataUrl"])
        if found is not None:
            return found, False
        arn = self.conn.create_model_package(**request)["ModelPackageArn"]
        return self.conn.describe_model_package(ModelPackageName=arn), True

    def tags_of(self, arn: str | None) -> dict[str, str]:
        """Return a resource's tags; none for no resource."""
        answer = self.describe("list_tags", ResourceArn=arn) if arn else None
        return {tag["Key"]: tag["Value"] for tag in (answer or {}).get("Tags", [])}

    def set_approval(self, package_arn: str, status: str, why: str, person: str = "") -> None:
        """Set ModelApprovalStatus with its reason, and note the person who said so."""
        noted = (
            {"CustomerMetadataProperties": {APPROVED_BY: legal_value(person)}} if person and status == APPROVED else {}
        )
        self.conn.update_model_package(
            ModelPackageArn=package_arn, ModelApprovalStatus=status, ApprovalDescription=why[:1024], **noted
        )
