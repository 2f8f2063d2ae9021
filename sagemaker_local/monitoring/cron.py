"""Schedule expressions of monitoring schedules: the three forms of cron that SageMaker takes, and NOW."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

HOUR = 3600
_CRON = re.compile(r"cron\(0 (?P<hour>\*|\d{1,2})(?:/(?P<step>\d{1,2}))? \? \* \* \*\)")
_OFFSET = re.compile(r"(?P<sign>-?)P(?:(?P<days>\d{1,4})D)?(?:T(?:(?P<hours>\d{1,5})H)?(?:(?P<minutes>\d{1,7})M)?)?")


@dataclass(frozen=True)
class Schedule:
    """Due at `first_hour` (UTC) and every `step` hours after it, counted anew each day."""

    first_hour: int
    step: int

    def following(self, moment: float) -> float:
        """The first time after `moment` at which it is due; both in seconds since the epoch."""
        candidate = datetime.fromtimestamp(moment, UTC).replace(minute=0, second=0, microsecond=0) + timedelta(hours=1)
        while candidate.hour < self.first_hour or (candidate.hour - self.first_hour) % self.step:
            candidate += timedelta(hours=1)
        return candidate.timestamp()

    @property
    def window(self) -> float:
        """How many seconds of data one execution looks at: those since the one before it."""
        return float(self.step * HOUR)


def parse_schedule(expression: str) -> Schedule | None:
    """The schedule of an expression; None for NOW.

    Raises:
        ValueError: it is of no form that SageMaker takes, or out of range; the message names what is taken.
    """
    if expression == "NOW":
        return None
    found = _CRON.fullmatch(expression)
    if not found or (found["hour"] == "*" and found["step"]):
        raise ValueError(
            f"Schedule expression {expression!r} must be NOW, hourly cron(0 * ? * * *), daily cron(0 [00-23] ? * * *) "
            "or every so many hours cron(0 [00-23]/[01-24] ? * * *)"
        )
    if found["hour"] == "*":
        return Schedule(0, 1)
    hour, step = int(found["hour"]), int(found["step"] or 24)
    if hour > 23 or not 1 <= step <= 24:
        raise ValueError(f"Schedule expression {expression!r}: the hour is 00 to 23, the step 01 to 24")
    return Schedule(hour, step)


def parse_offset(text: str) -> float:
    """An ISO 8601 duration such as -PT1H, in seconds.

    Raises:
        ValueError: `text` is no such duration.
    """
    found = _OFFSET.fullmatch(text)
    if not found or text.rstrip("T") in ("P", "-P"):
        raise ValueError(f"{text!r} is not an ISO 8601 duration such as -PT1H")
    seconds = timedelta(
        days=int(found["days"] or 0), hours=int(found["hours"] or 0), minutes=int(found["minutes"] or 0)
    ).total_seconds()
    return -seconds if found["sign"] else seconds
