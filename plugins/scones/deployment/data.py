"""What a deployment hands on, as JSON."""

from __future__ import annotations

from typing import Any, Literal, TypedDict


class Deployment(TypedDict):
    """An endpoint that serves what was asked.

    Members:
        endpoint_name, endpoint_arn, endpoint_status: the endpoint.
        endpoint_config_name, previous_endpoint_config_name: what it serves, and served before ("": nothing).
        action, seconds: what it took.
        model_name, model_data_url, image: the model behind it.
    """

    endpoint_name: str
    endpoint_arn: str
    endpoint_status: str
    endpoint_config_name: str
    previous_endpoint_config_name: str
    action: Literal["created", "updated", "recreated", "unchanged"]
    seconds: float
    model_name: str
    model_data_url: str
    image: str


class GoldenCheck(TypedDict):
    """What came of asking an endpoint about the golden images.

    Members:
        images: how many were asked.
        compared: whether the answers of the evaluated model were there to compare with.
        largest_difference: of one probability.
        inference_ids, asked_at: as sent, and when (ISO), for the capture.
        problems: empty when all is well.
    """

    images: int
    compared: bool
    largest_difference: float
    inference_ids: list[str]
    asked_at: str
    problems: list[str]


class CleanupTotals(TypedDict):
    """How much a cleanup would do.

    Members:
        delete, keep: how many items go and stay.
        monthly_usd_freed, monthly_usd_kept: what they cost a month at list price; unknown prices count as nothing.
    """

    delete: int
    keep: int
    monthly_usd_freed: float
    monthly_usd_kept: float


class CleanupPlan(CleanupTotals):
    """What a cleanup would do: the rows of its table, as `cleanup_plan.Item` has them."""

    items: list[dict[str, Any]]


class Cleaned(TypedDict):
    """What was deleted and what was kept of what might go, each as "kind name"."""

    deleted: list[str]
    kept: list[str]


class Version(TypedDict):
    """The registered version that is gone back to, as a model that can be deployed."""

    version: int
    model_package_arn: str
    model_name: str
    image: str
    model_data_url: str
    job_name: str
    dataset_version: str
    classes: list[str]
    recommended_threshold: float | None
