"""The CloudWatch alarms that end a deployment."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

log = logging.getLogger(__name__)
_UNREACHABLE_LOOKS = 5


class AlarmWatch:
    """Looks at alarms by name. A deployment that nobody can watch is not safe: a silent CloudWatch ends it too."""

    def __init__(self, cloudwatch: Any, names: Sequence[str]) -> None:
        self._cloudwatch = cloudwatch
        self._names = list(names)
        self._silent = 0

    async def reason(self) -> str | None:
        """Why the deployment must be rolled back, or None."""
        try:
            states = await asyncio.to_thread(self._states)
        except (BotoCoreError, ClientError) as error:
            self._silent += 1
            log.warning("CloudWatch did not tell the alarms' state: %s", error)
            if self._silent < _UNREACHABLE_LOOKS:
                return None
            return f"The alarms of AutoRollbackConfiguration could not be read: {error}."
        self._silent = 0
        missing = [name for name in self._names if name not in states]
        if missing:
            return f"The alarms of AutoRollbackConfiguration do not exist: {', '.join(missing)}."
        ringing = [name for name in self._names if states[name] == "ALARM"]
        if ringing:
            return f"Deployment was rolled back because alarms are in state ALARM: {', '.join(ringing)}."
        return None

    def _states(self) -> dict[str, str]:
        answer = self._cloudwatch.describe_alarms(
            AlarmNames=self._names, AlarmTypes=["MetricAlarm", "CompositeAlarm"], MaxRecords=100
        )
        alarms = [*answer.get("MetricAlarms", ()), *answer.get("CompositeAlarms", ())]
        return {alarm["AlarmName"]: alarm["StateValue"] for alarm in alarms}
