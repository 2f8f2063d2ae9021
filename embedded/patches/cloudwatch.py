"""CloudWatch in MiniStack: alarms that look at their own metric, and that recover."""

from __future__ import annotations

import time
from types import FunctionType
from typing import Any

from embedded.patches.checks import replaceable, require


def tell_alarms_apart(cloudwatch: Any) -> None:
    """Evaluate an alarm over the metric with exactly its dimensions. MiniStack joins all metrics of the same name."""
    evaluate = replaceable(cloudwatch, "_evaluate_alarm", ("alarm",))
    dimensions_of = replaceable(cloudwatch, "_dims_from_list", ("dimensions",))
    key_of = replaceable(cloudwatch, "_dims_key", ("dims",))
    assert isinstance(evaluate, FunctionType)
    code = evaluate.__code__
    require("_metrics" in code.co_names, "CloudWatch's alarms find their metrics elsewhere")

    def evaluate_alarm(alarm: dict[str, Any]) -> None:
        dimensions = key_of(dimensions_of(alarm.get("Dimensions") or []))
        key = (alarm.get("Namespace"), alarm.get("MetricName"), dimensions)
        points = cloudwatch._metrics.get(key)
        # The same code, seeing no other metric. Swapping the module's own would race with other requests.
        FunctionType(code, {**vars(cloudwatch), "_metrics": {key: points} if points else {}})(alarm)

    cloudwatch._evaluate_alarm = evaluate_alarm


def let_alarms_recover(cloudwatch: Any) -> None:
    """Look at alarms again when they are described: one that treats missing data as fine is OK once no data is recent.

    MiniStack only looks when data comes, so that an alarm nobody sends good news to would ring for ever.
    """
    evaluate_all = replaceable(cloudwatch, "_evaluate_all_alarms", ())
    describe = replaceable(cloudwatch, "_describe_alarms", ("params", "cbor_data", "is_cbor", "is_json"))
    changes = ("alarm", "old_state", "new_state", "reason")
    record = replaceable(cloudwatch, "_record_history", ("alarm_name", *changes[1:], "alarm_type", "reason_data"))
    act = replaceable(cloudwatch, "_dispatch_alarm_actions", changes)
    tell_parents = replaceable(cloudwatch, "_evaluate_parent_alarms", ("child", "seen"))
    dimensions_of = replaceable(cloudwatch, "_dims_from_list", ("dimensions",))
    key_of = replaceable(cloudwatch, "_dims_key", ("dims",))

    def is_silent(alarm: dict[str, Any]) -> bool:
        """Whether its window holds no data, and whatever rang it (data or SetAlarmState) is older than that."""
        since = time.time() - int(alarm.get("Period") or 60) * int(alarm.get("EvaluationPeriods") or 1)
        key = (alarm.get("Namespace"), alarm.get("MetricName"), key_of(dimensions_of(alarm.get("Dimensions") or [])))
        points = cloudwatch._metrics.get(key) or []
        return alarm.get("StateUpdatedTimestamp", 0) < since and all(point["Timestamp"] < since for point in points)

    def describe_alarms(params: Any, cbor_data: Any, is_cbor: bool, is_json: bool = False) -> Any:
        evaluate_all()
        for alarm in list(cloudwatch._alarms.values()):
            if alarm["StateValue"] == "ALARM" and alarm.get("TreatMissingData") == "notBreaching" and is_silent(alarm):
                reason = "No data in the whole window, which the alarm treats as not breaching"
                alarm |= {"StateValue": "OK", "StateReason": reason, "StateUpdatedTimestamp": int(time.time())}
                record(alarm["AlarmName"], "ALARM", "OK", reason)
                act(alarm, "ALARM", "OK", reason)
                tell_parents(alarm)
        return describe(params, cbor_data, is_cbor, is_json)

    cloudwatch._describe_alarms = describe_alarms
