"""The jobs and endpoints that are waited for: how each is described, which states end it, how it is stopped.

States are those of the service model (DescribeTrainingJob and so on). Every state that
is not listed as ending is waited on; a test compares the lists with botocore's enums, so that none is forgotten.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Waited:
    """One kind of thing that is waited for.

    Attributes:
        describe: client method that describes it.
        argument: that method's name argument.
        status: member of the answer that holds the state.
        succeeded: states that end the wait well.
        failed: states that end the wait badly.
        stop: client method that stops it on a kill; empty when it cannot or must not be stopped.
    """

    describe: str
    argument: str
    status: str
    succeeded: frozenset[str]
    failed: frozenset[str]
    stop: str = ""

    @property
    def ended(self) -> frozenset[str]:
        """All states that end the wait."""
        return self.succeeded | self.failed


TRAINING = Waited(
    describe="describe_training_job",
    argument="TrainingJobName",
    status="TrainingJobStatus",
    succeeded=frozenset({"Completed"}),
    # Stopped is a failure: there may be an artifact, but not of a finished training.
    failed=frozenset({"Failed", "Stopped", "Deleting"}),
    stop="stop_training_job",
)
TUNING = Waited(
    describe="describe_hyper_parameter_tuning_job",
    argument="HyperParameterTuningJobName",
    status="HyperParameterTuningJobStatus",
    succeeded=frozenset({"Completed"}),
    failed=frozenset({"Failed", "Stopped", "Deleting", "DeleteFailed"}),
    stop="stop_hyper_parameter_tuning_job",
)
TRANSFORM = Waited(
    describe="describe_transform_job",
    argument="TransformJobName",
    status="TransformJobStatus",
    succeeded=frozenset({"Completed"}),
    failed=frozenset({"Failed", "Stopped"}),
    stop="stop_transform_job",
)
ENDPOINT = Waited(
    describe="describe_endpoint",
    argument="EndpointName",
    status="EndpointStatus",
    succeeded=frozenset({"InService"}),
    failed=frozenset({"Failed", "OutOfService", "UpdateRollbackFailed"}),
)
KINDS: dict[str, Waited] = {"training": TRAINING, "tuning": TUNING, "transform": TRANSFORM, "endpoint": ENDPOINT}

# One scheme for a laptop and for AWS: look soon at first, and ever less often while the work goes on.
FIRST_POLL_S = 1.0
POLL_GROWTH = 1.1
SLOWEST_POLL_S = 30.0


def poll_delay(polls: int) -> float:
    """Return the seconds to wait after the ``polls``-th look (0 for the first): 1 s at first, 30 s after five
    minutes."""
    return min(SLOWEST_POLL_S, FIRST_POLL_S * POLL_GROWTH ** min(polls, 64))
