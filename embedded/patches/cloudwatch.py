"""CloudWatch in MiniStack: alarms that look at their own metric alone, and that recover."""

from __future__ import annotations

import operator
import time
from typing import Any

from embedded.patches.checks import replaceable

COMPARISONS = {
    "GreaterThanOrEqualToThreshold": operator.ge,
    "GreaterThanThreshold": operator.gt,
    "LessThanThreshold": operator.lt,
    "LessThanOrEqualToThreshold": operator.le,
}


def evaluate_alarms_as_aws_does(cloudwatch: Any) -> None:
    """Evaluate an alarm over the metric with exactly its dimensions; MiniStack joins all metrics of the same name.

    One that treats missing data as fine is OK once its window holds none, which is seen when alarms are described:
    MiniStack only looks when data comes, so an alarm nobody sends good news to would ring for ever.
    """
    replaceable(cloudwatch, "_evaluate_alarm", ("alarm",))
    evaluate_all = replaceable(cloudwatch, "_evaluate_all_alarms", ())
    describe = replaceable(cloudwatch, "_describe_alarms", ("params", "cbor_data", "is_cbor", "is_json"))
    statistics_of = replaceable(cloudwatch, "_calc_stats", ("points",))
    value_of = replaceable(cloudwatch, "_stat_value", ("stats", "stat_name", "points"))
    change = ("alarm", "old_state", "new_state", "reason")
    record = replaceable(cloudwatch, "_record_history", ("alarm_name", *change[1:], "alarm_type", "reason_data"))
    act = replaceable(cloudwatch, "_dispatch_alarm_actions", change)
    tell_parents = replaceable(cloudwatch, "_evaluate_parent_alarms", ("child", "seen"))
    dimensions_of = replaceable(cloudwatch, "_dims_from_list", ("dimensions",))
    key_of = replaceable(cloudwatch, "_dims_key", ("dims",))

    def turn(alarm: dict[str, Any], state: str, reason: str) -> None:
        before = alarm["StateValue"]
        if before == state:
            return
        alarm |= {"StateValue": state, "StateReason": reason, "StateUpdatedTimestamp": int(time.time())}
        record(alarm["AlarmName"], before, state, reason)
        act(alarm, before, state, reason)
        tell_parents(alarm)

    def evaluate_alarm(alarm: dict[str, Any]) -> None:
        since = time.time() - int(alarm.get("Period") or 60) * int(alarm.get("EvaluationPeriods") or 1)
        key = (alarm.get("Namespace"), alarm.get("MetricName"), key_of(dimensions_of(alarm.get("Dimensions") or [])))
        recent = [point for point in cloudwatch._metrics.get(key) or [] if point["Timestamp"] >= since]
        statistic = alarm.get("ExtendedStatistic") or alarm.get("Statistic", "Average")
        value = value_of(statistics_of(recent), statistic, recent) if recent else None
        if value is not None:
            # Others compare with a band of expected values, which needs a model of the metric.
            comparison, threshold = alarm["ComparisonOperator"], alarm.get("Threshold", 0)
            breaching = comparison in COMPARISONS and COMPARISONS[comparison](value, threshold)
            reason = f"Threshold Crossed: {statistic} {value} {comparison} {threshold}"
            turn(alarm, "ALARM" if breaching else "OK", reason)
        # What rang it may be SetAlarmState, which leaves no data: it holds for the length of the window.
        elif (
            alarm["StateValue"] == "ALARM"
            and alarm.get("TreatMissingData") == "notBreaching"
            and alarm.get("StateUpdatedTimestamp", 0) < since
        ):
            turn(alarm, "OK", "No data in the whole window, which the alarm treats as not breaching")

    def describe_alarms(params: Any, cbor_data: Any, is_cbor: bool, is_json: bool = False) -> Any:
        evaluate_all()
        return describe(params, cbor_data, is_cbor, is_json)

    cloudwatch._evaluate_alarm = evaluate_alarm
    cloudwatch._describe_alarms = describe_alarms
