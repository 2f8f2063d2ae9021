"""The form of `train_and_deploy`, as data. Flat types only: the form cannot edit nested objects.

A text that may be empty also allows null: without, the form takes it for a required one and cannot be sent.
"""

from __future__ import annotations

from typing import Any

from scones.defaults import OPEN_SECTION, Form

INSTANCE = {"type": "string", "pattern": r"^ml\.[a-z0-9]+\.[a-z0-9]+$"}
CLASS_LIST = {"type": "array", "items": {"type": "string", "minLength": 1}, "minItems": 2, "uniqueItems": True}
SHARE = {"type": "number", "minimum": 0, "maximum": 1}
SWITCH = {"type": "boolean"}
# Those of the form's fields that are the algorithm's, by its names.
HYPERPARAMETERS = ("use_pretrained_model", "num_layers", "epochs", "mini_batch_size", "learning_rate")
LAYERS = [18, 20, 32, 34, 44, 50, 56, 101, 110, 152, 200]


def whole(minimum: int, maximum: int) -> dict[str, Any]:
    """A whole number's schema."""
    return {"type": "integer", "minimum": minimum, "maximum": maximum}


def one_of(*values: str) -> dict[str, Any]:
    """The schema of a choice."""
    return {"type": "string", "enum": list(values)}


# fmt: off
TRAINING_FORM: Form = {
    OPEN_SECTION: [
        ("classes", ["bicycle", "motorcycle"], CLASS_LIST, "Classes",
         "CIFAR-100 class names, one per line. A class's index is its place in this list. A scheduled run, or one that "
         "drift started, trains the classes of the live model instead."),
        ("use_pretrained_model", True, SWITCH, "Start from a pretrained network",
         "Knows photographs before it sees yours: the local algorithm by a network trained on ImageNet, AWS's by one "
         "of that many layers. Off: it learns from your images alone."),
        ("epochs", 30, whole(1, 1000), "Epochs",
         "Passes over the training images; AWS's algorithm makes all of them."),
        ("minimum_accuracy", 0.75, SHARE, "Lowest accepted test accuracy",
         "A model below it is refused; the live endpoint stays as it is."),
        ("replace_classes", False, SWITCH, "Let other classes follow",
         "A model that knows other classes than the live one cannot be compared with it, and is refused unless this is "
         "on or a person allows it."),
        ("require_approval", False, SWITCH, "Ask a person",
         "Wait for Approve or Reject in Airflow before the model is deployed."),
        ("force_retrain", False, SWITCH, "Train even if nothing changed",
         "Otherwise a completed job with the same data, hyperparameters and image is reused."),
    ],
    "Data": [
        ("validation_share", 0.1, {"type": "number", "exclusiveMinimum": 0, "maximum": 0.5}, "Validation share",
         "Share of the training images held out for validation. The test images are never touched."),
        ("seed", 0, whole(0, 2**31 - 1), "Seed", "Seed of the validation split."),
        ("input_kind", "recordio", one_of("recordio", "png"), "Training input",
         "RecordIO shards (faster), or the PNGs with their .lst files."),
    ],
    "Training": [
        ("training_instance_type", "ml.g4dn.xlarge", INSTANCE, "Training instance type",
         "The built-in algorithm needs a GPU type. If AWS answers ResourceLimitExceeded, ask for quota."),
        ("max_runtime_s", 3600, whole(60, 432_000), "Longest training (s)",
         "SageMaker stops the job after this many seconds."),
        ("spot_wait_s", 0, whole(0, 432_000), "Wait for spot machines (s)",
         "Managed spot training: how long cheaper machines may be waited for, on top of the longest training; an "
         "interrupted job starts over. 0: machines on demand."),
        ("mini_batch_size", 32, whole(1, 4096), "Mini-batch size", "Must not exceed the number of training images."),
        ("learning_rate", 0.01, {"type": "number", "exclusiveMinimum": 0, "maximum": 1}, "Learning rate",
         "Initial learning rate of AWS's algorithm. The local one does not use it, and says so."),
        ("num_layers", 18, {"type": "integer", "enum": LAYERS}, "Layers",
         "Depth of AWS's network. Pretrained ones have 18, 34, 50, 101, 152 or 200; 20, 32, 44, 56 and 110 are made "
         "for small images and start from nothing."),
        ("tuning_jobs", 0, whole(0, 100), "Tune with (training jobs)",
         "0: one training job, with the values above. Otherwise so many look for the best learning rate, weight decay, "
         "mini-batch size and optimizer, two at once, and the run goes on with the best of them; each is paid for."),
        ("training_image", "", {"type": ["null", "string"]}, "Training image",
         "Image URI. Empty: the built-in image-classification algorithm of the connection's region."),
    ],
    "Quality gate": [
        ("champion_tolerance", 0.01, SHARE, "Allowed loss against the champion",
         "How much lower than the live model's accuracy, on the same images, the new one may be."),
        ("adopt_threshold", False, SWITCH, "Adopt the recommended threshold",
         "Put the threshold that the evaluation recommends into force for the workflow."),
        ("approval_timeout_minutes", 1440, whole(1, 20_160), "Longest wait for a person (minutes)",
         "After so long without an answer the run fails and the model stays PendingManualApproval."),
    ],
    "Deployment": [
        ("endpoint_instance_type", "ml.m5.large", INSTANCE, "Endpoint instance type",
         "Of each instance behind the endpoint; costs from the deployment until `cleanup`, used or not."),
        ("endpoint_instance_count", 1, whole(1, 100), "Endpoint instances",
         "Instances behind the endpoint at the start."),
        ("capture_percent", 100, whole(0, 100), "Captured requests (%)",
         "Share of the requests that data capture writes to S3 for monitoring."),
        ("strategy", "all_at_once", one_of("all_at_once", "canary", "linear"), "Shift of traffic",
         "Canary and linear need at least two instances."),
        ("canary_percent", 50, whole(1, 50), "Canary share (%)",
         "Share of the capacity that the new model gets first, with the strategy canary."),
        ("bake_time_s", 0, whole(0, 3600), "Bake time (s)",
         "How long the alarms are watched after each shift of traffic."),
        ("alarms", [], {"type": ["null", "array"], "items": {"type": "string"}, "maxItems": 10}, "Rollback alarms",
         "CloudWatch alarms, one per line, ten at most; one that goes off while baking rolls the deployment back."),
        ("max_capacity", 0, whole(0, 1000), "Scale out to (instances)",
         "Above the number of instances: the endpoint scales by its invocations. Otherwise autoscaling is off."),
    ],
}
# The same questions on the way back.
ROLLBACK_FORM: Form = {
    OPEN_SECTION: [
        ("version", 0, whole(0, 2**31 - 1), "Model version",
         "Version number in the group; 0: the newest approved one before the live one."),
    ],
    "Endpoint": [
        row for row in TRAINING_FORM["Deployment"]
        if row[0] in ("endpoint_instance_type", "endpoint_instance_count", "capture_percent")
    ],
}
# fmt: on
