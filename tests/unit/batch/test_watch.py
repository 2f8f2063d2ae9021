"""Which model answered an image of a batch during which the endpoint changed."""

from __future__ import annotations

import json
from typing import Any

from scones.batch.items import BatchFacts, Ending, Execution, Item, Row, result_row
from scones.batch.watch import EndpointWatch, Sight
from scones.training.served import ServedModel

OLD = ServedModel("courier", endpoint_config="old", version=3, package_arn="p/3", classes=("bicycle", "motorcycle"))
NEW = ServedModel("courier", endpoint_config="new", version=4, package_arn="p/4", classes=("motorcycle", "bicycle"))
ALIKE = ServedModel("courier", endpoint_config="new", version=4, package_arn="p/4", classes=OLD.classes)


def row(started: float, ended: float, label: int | None = 0) -> Row:
    """A row as the engine makes it: index 0 answered, named by the plan's model."""
    execution = Execution("arn", "SUCCEEDED", output=json.dumps({"inferences": [0.9, 0.1]}))
    execution = Execution("arn", "SUCCEEDED", None, execution.output, started_at=started, stopped_at=ended)
    return result_row(Ending(Item("a.png", label), 1, execution), BatchFacts("b", OLD))


def attributed(sights: list[Sight], *rows: Row) -> list[tuple[Any, ...]]:
    watch = EndpointWatch()
    for sight in sights:
        watch.note(sight)
    watch.attribute(rows)
    return [(r["model_version"], r["endpoint_changed"], r["predicted_class"], r["correct"]) for r in rows]


def test_an_endpoint_that_stayed_the_same_answered_everything() -> None:
    sights = [Sight(t, OLD) for t in (100.0, 110.0, 120.0)]
    assert attributed(sights, row(101, 102), row(109, 119)) == [(3, False, "bicycle", True)] * 2


def test_each_row_names_the_model_that_was_there_before_and_after_it() -> None:
    sights = [Sight(100.0, OLD), Sight(110.0, OLD), Sight(120.0, NEW), Sight(130.0, NEW)]
    before, between, after = attributed(sights, row(101, 102), row(111, 119), row(121, 122))
    assert before == (3, False, "bicycle", True)
    assert between == (None, True, None, None)
    # Index 0 is a motorcycle by the model that answered; the label was a bicycle.
    assert after == (4, False, "motorcycle", False)


def test_class_names_stay_where_both_models_have_the_same() -> None:
    sights = [Sight(100.0, OLD), Sight(120.0, ALIKE)]
    assert attributed(sights, row(101, 119)) == [(None, True, "bicycle", True)]


def test_a_deployment_under_way_leaves_it_open_until_it_ended_as_it_began() -> None:
    moving = [Sight(100.0, OLD), Sight(110.0, OLD, deploying=True)]
    assert attributed(moving, row(101, 109)) == [(None, True, "bicycle", True)]
    rolled_back = [*moving, Sight(120.0, OLD)]
    assert attributed(rolled_back, row(111, 119), row(121, 121.5))[1] == (3, False, "bicycle", True)


def test_a_row_of_a_distributed_map_has_no_start() -> None:
    execution = Execution("arn", "SUCCEEDED", output='{"inferences": [0.9, 0.1]}', stopped_at=119.0)
    late = result_row(Ending(Item("a.png"), 1, execution), BatchFacts("b", OLD))
    assert attributed([Sight(100.0, OLD), Sight(120.0, NEW)], late)[0][:2] == (None, True)


def test_what_nobody_looked_after_is_not_claimed() -> None:
    assert attributed([Sight(100.0, OLD)], row(101, 102), row(300, 301)) == [
        (3, False, "bicycle", True),
        (None, True, "bicycle", True),
    ]


def test_looks_that_tell_nothing_new_are_not_kept() -> None:
    watch = EndpointWatch()
    for moment in range(1000):
        watch.note(Sight(float(moment), OLD))
    assert len(watch.sights) == 2
