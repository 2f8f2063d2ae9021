"""The serving side's settings: AWS's limits as defaults, each changed by an environment variable."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields

PREFIX = "SAGEMAKER_LOCAL_"
MAX_PAYLOAD_BYTES = 6 * 1024 * 1024
MAX_SERVERLESS_PAYLOAD_BYTES = 4 * 1024 * 1024
MAX_ASYNC_PAYLOAD_BYTES = 1 << 30


@dataclass(frozen=True)
class ServingSettings:
    """Times are in seconds, sizes in bytes. `invocation_timeout` is SAGEMAKER_LOCAL_INVOCATION_TIMEOUT, and so on.

    Attributes:
        invocation_timeout: how long a model server may take for one answer; SageMaker gives it 60 s.
        startup_timeout: how long a model server may take to answer /ping, for variants that set no
            ContainerStartupHealthCheckTimeoutInSeconds.
        startup_attempts: how often a model server may exit before it was ever healthy.
        revival_attempts: the same where an endpoint that was InService comes back after a restart of the service.
        ping_interval: time between health checks of a running model server.
        ping_timeout: how long one health check may take.
        stop_grace: time between SIGTERM and SIGKILL for a model server.
        drain_timeout: how long a fleet that ends waits for its invocations under way.
        connections_per_instance: invocations sent to one model server at once; more wait their turn.
        capture_flush_age: a capture file is delivered when it is this old,
        capture_flush_bytes: or this large.
        metrics_period: time between deliveries to CloudWatch.
        alarm_poll: time between looks at the alarms of a deployment.
        max_instances: model servers that one endpoint may have.
        scaling_period: time between looks at the scaling policies.
    """

    invocation_timeout: float = 60.0
    startup_timeout: float = 600.0
    startup_attempts: int = 3
    revival_attempts: int = 8
    ping_interval: float = 5.0
    ping_timeout: float = 5.0
    stop_grace: float = 5.0
    drain_timeout: float = 60.0
    connections_per_instance: int = 32
    capture_flush_age: float = 1.0
    capture_flush_bytes: int = 4 * 1024 * 1024
    metrics_period: float = 10.0
    alarm_poll: float = 2.0
    max_instances: int = 40
    scaling_period: float = 60.0

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> ServingSettings:
        """Read SAGEMAKER_LOCAL_<NAME> variables.

        Raises:
            ValueError: a variable is no positive number; the message names it.
        """
        environment = os.environ if environment is None else environment
        chosen: dict[str, float] = {}
        for item in fields(cls):
            name = PREFIX + item.name.upper()
            if name not in environment:
                continue
            convert = int if isinstance(item.default, int) else float
            try:
                chosen[item.name] = convert(environment[name])
            except ValueError:
                raise ValueError(f"{name}={environment[name]!r} is not a number") from None
            if not 0 < chosen[item.name] < math.inf:
                raise ValueError(f"{name} must be above zero and finite, not {environment[name]}")
        return cls(**chosen)  # type: ignore[arg-type]
