"""What a batch costs on AWS, from what it did and from list prices: good enough to compare, never a bill.

Prices are USD in us-east-1 without taxes, discounts or the free tier, as listed in 2025. Functions and express
workflows are paid for by time: that of the executions, measured where the batch ran, stands in for it and is an upper
bound, as it holds the waiting between functions too. What failed and was tried again inside an execution is left out.
"""

from __future__ import annotations

from typing import NamedTuple, TypedDict

STATE_TRANSITION = 0.025 / 1000
EXPRESS_REQUEST, EXPRESS_GB_SECOND = 1.00 / 1e6, 0.00001667
FUNCTION_REQUEST, FUNCTION_GB_SECOND = 0.20 / 1e6, 0.0000166667
S3_READ, S3_WRITE = 0.0004 / 1000, 0.005 / 1000
# MemorySize of the functions in infrastructure/template.yaml, and what an express execution is billed for at least.
FUNCTION_GB, EXPRESS_GB = 256 / 1024, 64 / 1024


class _PerImage(NamedTuple):
    transitions: int
    functions: int
    reads: int
    writes: int


# Standard executions pass one transition more than they have states; a map's items record their outcome as well.
_PER_IMAGE = {
    "executions": _PerImage(4, 3, 1, 0),
    "distributed_map": _PerImage(7, 4, 1, 2),
    "express": _PerImage(0, 3, 1, 0),
}


class BatchCost(TypedDict):
    """USD at list price, by what it is paid for; None where nobody knows the price or the time.

    Members:
        endpoint: its share, the price of its instances for as long as the batch took.
        step_functions, functions, s3: by image, and by time where that is what is paid for.
        total: of what is known.
        on_aws: whether it was AWS that ran the batch; else it is what AWS would charge.
    """

    endpoint: float | None
    step_functions: float | None
    functions: float | None
    s3: float | None
    total: float
    on_aws: bool


def batch_cost(
    fan_out: str,
    images: int,
    execution_seconds: float | None,
    seconds: float | None,
    hourly: float | None,
    *,
    on_aws: bool,
) -> BatchCost:
    """Work out what a batch costs.

    Args:
        execution_seconds: of all executions together; None when none was timed, as in a Distributed Map.
        seconds: from the first start to the last end; None likewise.
        hourly: list price of the endpoint for an hour, USD; None when nobody knows.
    """
    each = _PER_IMAGE[fan_out]

    def by_time(requests: float, gb_second: float) -> float | None:
        return None if execution_seconds is None else images * requests + execution_seconds * gb_second

    workflow: float | None = images * each.transitions * STATE_TRANSITION
    if fan_out == "express":
        workflow = by_time(EXPRESS_REQUEST, EXPRESS_GB * EXPRESS_GB_SECOND)
    functions = by_time(each.functions * FUNCTION_REQUEST, FUNCTION_GB * FUNCTION_GB_SECOND)
    s3 = images * (each.reads * S3_READ + each.writes * S3_WRITE)
    endpoint = None if hourly is None or seconds is None else hourly * seconds / 3600
    return {
        "endpoint": endpoint,
        "step_functions": workflow,
        "functions": functions,
        "s3": s3,
        "total": sum(usd for usd in (endpoint, workflow, functions, s3) if usd is not None),
        "on_aws": on_aws,
    }
