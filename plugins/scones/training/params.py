"""The form of `train_and_deploy`. Flat types only: the form cannot edit nested objects.

A text that may be empty also allows null: without, the form takes it for a required one and cannot be sent.
"""

from __future__ import annotations

from airflow.sdk import Param

from scones.defaults import DEFAULT_CLASSES

INSTANCE_TYPE = r"^ml\.[a-z0-9]+\.[a-z0-9]+$"
DATA, TRAINING, GATE, DEPLOYMENT = "1. Data", "2. Training", "3. Quality gate", "4. Deployment"


def training_params() -> dict[str, Param]:
    """Return the params with their limits, in the order of the form."""
    return {
        "classes": Param(
            DEFAULT_CLASSES,
            type="array",
            items={"type": "string", "minLength": 1},
            minItems=2,
            uniqueItems=True,
            section=DATA,
            title="Classes",
            description="CIFAR-100 class names, one per line. A class's index is its place in this list.",
        ),
        "validation_share": Param(
            0.1,
            type="number",
            exclusiveMinimum=0,
            maximum=0.5,
            section=DATA,
            title="Validation share",
            description="Share of the training images held out for validation. The test images are never touched.",
        ),
        "seed": Param(
            0, type="integer", minimum=0, section=DATA, title="Seed", description="Seed of the validation split."
        ),
        "input_kind": Param(
            "recordio",
            type="string",
            enum=["recordio", "png"],
            section=DATA,
            title="Training input",
            description="RecordIO shards (faster), or the PNGs with their .lst files.",
        ),
        "training_instance_type": Param(
            "ml.g4dn.xlarge",
            type="string",
            pattern=INSTANCE_TYPE,
            section=TRAINING,
            title="Training instance type",
            description="The built-in algorithm needs a GPU type. If AWS answers ResourceLimitExceeded, ask for quota.",
        ),
        "max_runtime_s": Param(
            3600,
            type="integer",
            minimum=60,
            maximum=432000,
            section=TRAINING,
            title="Longest training (s)",
            description="SageMaker stops the job after this many seconds.",
        ),
        "epochs": Param(
            30,
            type="integer",
            minimum=1,
            maximum=1000,
            section=TRAINING,
            title="Epochs",
            description="Passes over the training images, at most; the algorithm stops where it no longer learns.",
        ),
        "mini_batch_size": Param(
            32,
            type="integer",
            minimum=1,
            maximum=4096,
            section=TRAINING,
            title="Mini-batch size",
            description="Must not exceed the number of training images.",
        ),
        "learning_rate": Param(
            0.01,
            type="number",
            exclusiveMinimum=0,
            maximum=1,
            section=TRAINING,
            title="Learning rate",
            description="Initial learning rate of AWS's algorithm. The local one does not use it, and says so.",
        ),
        "num_layers": Param(
            20,
            type="integer",
            enum=[18, 20, 32, 34, 44, 50, 56, 101, 110, 152, 200],
            section=TRAINING,
            title="Layers",
            description="Depth of the network; 20, 32, 44, 56 and 110 are made for small images.",
        ),
        "training_image": Param(
            "",
            type=["null", "string"],
            section=TRAINING,
            title="Training image",
            description="Image URI. Empty: the built-in image-classification algorithm of the connection's region.",
        ),
        "force_retrain": Param(
            False,
            type="boolean",
            section=TRAINING,
            title="Train even if nothing changed",
            description="Otherwise a completed job with the same data, hyperparameters and image is reused.",
        ),
        "minimum_accuracy": Param(
            0.75,
            type="number",
            minimum=0,
            maximum=1,
            section=GATE,
            title="Lowest accepted test accuracy",
            description="A model below it is refused; the live endpoint stays as it is.",
        ),
        "champion_tolerance": Param(
            0.01,
            type="number",
            minimum=0,
            maximum=1,
            section=GATE,
            title="Allowed loss against the champion",
            description="How much lower than the live model's accuracy, on the same images, the new one may be.",
        ),
        "adopt_threshold": Param(
            False,
            type="boolean",
            section=GATE,
            title="Adopt the recommended threshold",
            description="Put the threshold that the evaluation recommends into force for the workflow.",
        ),
        "require_approval": Param(
            False,
            type="boolean",
            section=GATE,
            title="Ask a person",
            description="Wait for Approve or Reject in Airflow before the model is deployed.",
        ),
        "approval_timeout_minutes": Param(
            1440,
            type="integer",
            minimum=1,
            maximum=20160,
            section=GATE,
            title="Longest wait for a person (minutes)",
            description="After so long without an answer the run fails and the model stays PendingManualApproval.",
        ),
        "endpoint_instance_type": Param(
            "ml.m5.large",
            type="string",
            pattern=INSTANCE_TYPE,
            section=DEPLOYMENT,
            title="Endpoint instance type",
            description="Of each instance behind the endpoint; costs from the deployment until `cleanup`, used or not.",
        ),
        "endpoint_instance_count": Param(
            1,
            type="integer",
            minimum=1,
            maximum=100,
            section=DEPLOYMENT,
            title="Endpoint instances",
            description="Instances behind the endpoint at the start.",
        ),
        "capture_percent": Param(
            100,
            type="integer",
            minimum=0,
            maximum=100,
            section=DEPLOYMENT,
            title="Captured requests (%)",
            description="Share of the requests that data capture writes to S3 for monitoring.",
        ),
        "strategy": Param(
            "all_at_once",
            type="string",
            enum=["all_at_once", "canary", "linear"],
            section=DEPLOYMENT,
            title="Shift of traffic",
            description="Canary and linear need at least two instances.",
        ),
        "canary_percent": Param(
            50,
            type="integer",
            minimum=1,
            maximum=50,
            section=DEPLOYMENT,
            title="Canary share (%)",
            description="Share of the capacity that the new model gets first, with the strategy canary.",
        ),
        "bake_time_s": Param(
            0,
            type="integer",
            minimum=0,
            maximum=3600,
            section=DEPLOYMENT,
            title="Bake time (s)",
            description="How long the alarms are watched after each shift of traffic.",
        ),
        "alarms": Param(
            [],
            type=["null", "array"],
            items={"type": "string"},
            section=DEPLOYMENT,
            title="Rollback alarms",
            description="CloudWatch alarms, one per line; one that goes off while baking rolls the deployment back.",
        ),
        "max_capacity": Param(
            0,
            type="integer",
            minimum=0,
            maximum=1000,
            section=DEPLOYMENT,
            title="Scale out to (instances)",
            description="Above the number of instances: puts a target-tracking policy on the endpoint (AWS only).",
        ),
    }
