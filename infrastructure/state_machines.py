"""The workflow for many images, made of the one for one image: the same functions, retries and deadlines.

One Distributed Map reads a listing, another a manifest: a map has one reader, and all names in a machine differ.
"""

from __future__ import annotations

from typing import Any

Definition = dict[str, Any]

_COMMENT = (
    "Classifies every photograph under an S3 prefix, or every one named in a JSONL manifest, as a child execution of "
    "one Distributed Map. Each item writes its own outcome to S3, so nothing depends on the size of the map's result. "
    "A rejection is a success of its item; a failure counts towards tolerated_failure_percentage."
)
_LISTING = {
    "Resource": "arn:aws:states:::s3:listObjectsV2",
    "Parameters": {"Bucket.$": "$.bucket", "Prefix.$": "$.prefix"},
}
_MANIFEST = {
    "Resource": "arn:aws:states:::s3:getObject",
    "ReaderConfig": {"InputType": "JSONL"},
    "Parameters": {"Bucket.$": "$.bucket", "Key.$": "$.keys_manifest_key"},
}


def distributed_map(workflow: Definition) -> Definition:
    """Return the workflow for many images in Amazon States Language; infrastructure/README.md has its contract.

    Args:
        workflow: stepfunction.json, three tasks in a row.
    """
    return {
        "Comment": _COMMENT,
        "StartAt": "ManifestOrPrefix",
        "States": {
            "ManifestOrPrefix": {
                "Type": "Choice",
                "Choices": [
                    _when_text("$.keys_manifest_key", "EachKeyOfManifest"),
                    _when_text("$.prefix", "EachObjectUnderPrefix"),
                ],
                "Default": "NothingToRead",
            },
            "EachObjectUnderPrefix": _map("EachObject", _LISTING, "$$.Map.Item.Value.Key", _items(workflow, "")),
            "EachKeyOfManifest": _map("EachKey", _MANIFEST, "$$.Map.Item.Value.s3_key", _items(workflow, "OfManifest")),
            "NothingToRead": {
                "Type": "Fail",
                "Error": "MissingPrefixError",
                "Cause": "The input needs 'prefix' or 'keys_manifest_key' as text.",
            },
        },
    }


def _when_text(variable: str, state: str) -> Definition:
    return {
        "And": [{"Variable": variable, "IsPresent": True}, {"Variable": variable, "IsString": True}],
        "Next": state,
    }


def _map(label: str, reader: Definition, key_path: str, items: Definition) -> Definition:
    """A Distributed Map whose result is dropped, as it is limited to 256 KiB."""
    return {
        "Type": "Map",
        "Label": label,
        "ItemReader": reader,
        "ItemSelector": {
            "image_data": "",
            "s3_bucket.$": "$.bucket",
            "s3_key.$": key_path,
            "batch_id.$": "$.batch_id",
            "threshold.$": "$.threshold",
            "threshold_version.$": "$.threshold_version",
        },
        "MaxConcurrencyPath": "$.max_concurrency",
        "ToleratedFailurePercentagePath": "$.tolerated_failure_percentage",
        "ItemProcessor": {"ProcessorConfig": {"Mode": "DISTRIBUTED", "ExecutionType": "STANDARD"}, **items},
        "ResultWriter": {
            "Resource": "arn:aws:states:::s3:putObject",
            "Parameters": {
                "Bucket.$": "$.bucket",
                "Prefix.$": "States.Format('batches/{}/map-run', $.batch_id)",
            },
        },
        "ResultPath": None,
        "End": True,
    }


def _items(workflow: Definition, suffix: str) -> Definition:
    """What happens to one item: the workflow's tasks, each caught, then a record of the outcome, then the outcome."""
    record, choice, failed, done = (
        name.format(suffix) for name in ("RecordResult{}", "Failed{}?", "ItemFailed{}", "ItemDone{}")
    )
    states: Definition = {}
    for name, task in workflow["States"].items():
        first = name == workflow["StartAt"]
        states[name + suffix] = {
            "Type": "Task",
            "Resource": task["Resource"],
            "Parameters": task["Parameters"] | {"Payload.$": "$" if first else "$.answer.body"},
            # Beside what the item is, for the record.
            "ResultSelector": {"body.$": "$.Payload.body"},
            "ResultPath": "$.answer",
            "TimeoutSeconds": task["TimeoutSeconds"],
            "Retry": task["Retry"],
            "Catch": [{"ErrorEquals": ["States.ALL"], "ResultPath": "$.failure", "Next": record}],
            "Next": task["Next"] + suffix if "Next" in task else record,
        }
    reads_s3 = workflow["States"][workflow["StartAt"]]
    states[record] = {
        "Type": "Task",
        "Resource": reads_s3["Resource"],
        "Parameters": {
            "FunctionName": "${RecordFunctionArn}",
            "Payload": {"execution_arn.$": "$$.Execution.Id", "item.$": "$"},
        },
        "OutputPath": "$.Payload.body",
        "TimeoutSeconds": reads_s3["TimeoutSeconds"],
        "Retry": reads_s3["Retry"],
        "Next": choice,
    }
    states[choice] = {
        "Type": "Choice",
        "Choices": [{"Variable": "$.outcome", "StringEquals": "failed", "Next": failed}],
        "Default": done,
    }
    states[failed] = {"Type": "Fail", "ErrorPath": "$.error", "CausePath": "$.cause"}
    states[done] = {"Type": "Pass", "Parameters": {}, "End": True}
    return {"StartAt": workflow["StartAt"] + suffix, "States": states}
