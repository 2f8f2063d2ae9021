"""Which model answered an image: the endpoint is looked at from time to time, and each row held against what was seen.

InvokeEndpoint does not say which model answers. An endpoint that had one model before an image's execution and the same
one after it, with no deployment under way, had it in between; else the row says that it changed, and names none.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

from scones.batch.items import Row
from scones.training.served import ServedModel

# What ended longer than this after the last look was not looked after; less may be the difference of two clocks.
UNSEEN_S = 60.0


@dataclass(frozen=True, slots=True)
class Sight:
    """What the endpoint served at a moment (seconds since the epoch), and whether another model was on its way."""

    at: float
    model: ServedModel
    deploying: bool = False


@dataclass
class EndpointWatch:
    """Sights of one endpoint in the order of time; the first is the plan's."""

    sights: list[Sight] = field(default_factory=list)

    def note(self, sight: Sight) -> None:
        """Remember one more look; only the last of those that are alike."""
        alike = [s.model.endpoint_config == sight.model.endpoint_config and not s.deploying for s in self.sights[-2:]]
        if len(alike) == 2 and all(alike) and not sight.deploying:
            self.sights.pop()
        self.sights.append(sight)

    def answered(self, started: float | None, ended: float | None) -> ServedModel | None:
        """Return the model that answered between two moments; None when it may have been either of two."""
        if ended is not None and ended > self.sights[-1].at + UNSEEN_S:
            return None
        first = max((i for i, s in enumerate(self.sights) if started is not None and s.at <= started), default=0)
        last = len(self.sights) - 1
        if ended is not None:
            last = min((i for i, s in enumerate(self.sights) if s.at >= ended), default=last)
        seen = self.sights[first : max(first, last) + 1]
        same = len({sight.model.endpoint_config for sight in seen}) == 1
        return seen[0].model if same and not any(sight.deploying for sight in seen) else None

    def attribute(self, rows: Iterable[Row]) -> None:
        """Write into each row which model answered it; where that is not known, the row says so.

        Class names stay where both models have the same.
        """
        classes = {sight.model.classes for sight in self.sights}
        for row in rows:
            model = self.answered(_seconds(row["started_at"]), _seconds(row["ended_at"]))
            row["endpoint_changed"] = model is None
            row["endpoint_config"] = model.endpoint_config if model else None
            row["model_name"] = model.model_name if model else None
            row["model_package"] = model.package_arn if model else None
            row["model_version"] = model.version if model else None
            index = row["predicted_index"]
            if len(classes) > 1 and index is not None:
                row["predicted_class"] = model.class_name(index) if model else None
                known = row["label_class"] is not None and model is not None
                row["correct"] = row["predicted_class"] == row["label_class"] if known else None


def _seconds(moment: str | None) -> float | None:
    return None if moment is None else datetime.fromisoformat(moment).timestamp()
