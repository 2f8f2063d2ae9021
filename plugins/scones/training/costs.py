"""What things cost: AWS list prices, good enough to compare and to warn, never a bill.

Prices are USD in us-east-1 without taxes, discounts or the free tier, as listed in 2025; other regions differ by up
to a third. An instance type that is not in the table has no estimate (``None``) rather than a wrong one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from scones.training.data import TrainingResult

HOURS_PER_MONTH = 730
S3_STANDARD_PER_GB_MONTH = 0.023
BYTES_PER_GB = 1024**3

# SageMaker charges the same for training, transform and real-time hosting on most types.
PER_INSTANCE_HOUR: dict[str, float] = {
    "ml.t2.medium": 0.056,
    "ml.t2.large": 0.111,
    "ml.m5.large": 0.115,
    "ml.m5.xlarge": 0.23,
    "ml.m5.2xlarge": 0.461,
    "ml.m5.4xlarge": 0.922,
    "ml.c5.large": 0.102,
    "ml.c5.xlarge": 0.204,
    "ml.c5.2xlarge": 0.408,
    "ml.g4dn.xlarge": 0.736,
    "ml.g4dn.2xlarge": 0.94,
    "ml.g4dn.4xlarge": 1.505,
    "ml.g5.xlarge": 1.408,
    "ml.g5.2xlarge": 1.515,
    "ml.p2.xlarge": 1.125,
    "ml.p3.2xlarge": 3.825,
    "ml.p3.8xlarge": 14.688,
    "ml.p3.16xlarge": 28.152,
}


def job_cost(instance_type: str, billable_seconds: float) -> float | None:
    """Return the list price in USD of ``billable_seconds`` (summed over the instances), or None if unknown.

    What managed spot training saves is left out of SageMaker's billable seconds already.
    """
    hourly = PER_INSTANCE_HOUR.get(instance_type)
    if hourly is None:
        return None
    return round(hourly * billable_seconds / 3600, 6)


def endpoint_monthly_cost(instance_type: str, instance_count: int) -> float | None:
    """Return the list price in USD of an endpoint that runs a whole month, or None if the type is unknown."""
    hourly = PER_INSTANCE_HOUR.get(instance_type)
    return None if hourly is None else round(hourly * instance_count * HOURS_PER_MONTH, 2)


def monthly_cost(endpoint: Mapping[str, Any], config: Mapping[str, Any]) -> float | None:
    """Return the list price in USD of a month of an endpoint as it is now, or None if one of its types is unknown.

    Args:
        endpoint: what DescribeEndpoint answered; the instances it has now count.
        config: what DescribeEndpointConfig answered.
    """
    counts = {one["VariantName"]: one.get("CurrentInstanceCount") for one in endpoint.get("ProductionVariants", [])}
    costs = [
        endpoint_monthly_cost(
            variant.get("InstanceType", ""),
            counts.get(variant["VariantName"]) or variant.get("InitialInstanceCount") or 1,
        )
        for variant in config.get("ProductionVariants", [])
    ]
    known = [cost for cost in costs if cost is not None]
    return sum(known) if len(known) == len(costs) else None


def storage_monthly_cost(size_bytes: int) -> float:
    """Return the list price in USD of keeping ``size_bytes`` in S3 Standard for a month."""
    return round(size_bytes / BYTES_PER_GB * S3_STANDARD_PER_GB_MONTH, 6)


def cost_line(training: TrainingResult, *, on_aws: bool) -> str:
    """Return one readable line for a task log about what a job cost, or would cost where nobody is billed."""
    cost = job_cost(training["instance_type"], training["billable_seconds"])
    estimate = f"about {cost:.4f} USD at list price (us-east-1)" if cost is not None else "no list price known"
    machines = f"{training['instance_count']} x {training['instance_type']}"
    jobs = f" in {training['tuned_jobs']} training jobs" if "tuned_jobs" in training else ""
    return (
        f"{'Cost' if on_aws else 'This would cost on AWS'}: {training['training_seconds']:.0f} s of work{jobs}, "
        f"{training['billable_seconds']:.0f} billable seconds on {machines}, {estimate}"
    )
