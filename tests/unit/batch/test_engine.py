"""The batch engine against Step Functions in memory, with the faults it must survive counted."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from typing import Any

import pytest

from scones.batch.engine import BatchEngine, TransportError
from scones.batch.flow import FlowControl
from scones.batch.items import BatchFacts, Ending, Item, Threshold, result_row, workflow_input
from scones.training.served import ServedModel
from tests.support.batch_fakes import FakeStepFunctions, classified, failed, rejected

FACTS = BatchFacts("batch-1", ServedModel("courier", classes=("bicycle", "motorcycle")))
STRANGE_KEYS = [
    "photos/a b.png",
    "photos/a+b.png",
    "photos/Fahrräder/自転車.png",
    "photos/" + "x" * 1000 + ".png",
    'photos/<>{}[]?*"#%\\^|~`$&,;:.png',
    "photos/\u0007bell\u2028line.png",
    "photos/emoji 🚲.jpg",
]


def input_of(item: Item) -> str:
    return workflow_input(item, batch_id="batch-1", bucket="bucket", threshold=Threshold(0.9, 3))


def flow_for(fake: FakeStepFunctions, concurrency: int, starts_per_second: float) -> FlowControl:
    return FlowControl(concurrency, starts_per_second, clock=fake.clock, rng=random.Random(5))


def engine_for(fake: FakeStepFunctions, endings: list[Ending], **options: Any) -> BatchEngine:
    concurrency, rate = options.pop("concurrency", 64), options.pop("starts_per_second", 10_000.0)
    flow = options.pop("flow", None) or flow_for(fake, concurrency, rate)
    options.setdefault("deadline_s", 60.0)
    options.setdefault("input_of", input_of)
    options |= {"clock": fake.clock, "now": fake.clock}
    return BatchEngine(fake, flow, batch_id="batch-1", on_ending=endings.append, **options)


def score(fake: FakeStepFunctions, keys: list[str], **options: Any) -> list[Ending]:
    endings: list[Ending] = []
    fake.clock.run(engine_for(fake, endings, **options).run([Item(key) for key in keys]))
    return endings


def outcomes(endings: list[Ending]) -> Counter[str]:
    return Counter(result_row(ending, FACTS)["outcome"] for ending in endings)


def keys_of(number: int) -> list[str]:
    return [f"photos/{index:05d}.png" for index in range(number)]


def test_every_image_has_one_ending_and_is_described_once() -> None:
    fake = FakeStepFunctions()
    endings = score(fake, keys_of(300))
    assert sorted(ending.item.key for ending in endings) == keys_of(300)
    assert fake.calls["start"] == 300
    # One describe each; the list of what runs stands for all the others. A few may be asked for while they still run.
    assert fake.calls["describe"] < 330
    assert fake.calls["list"] < 60


def test_outcomes_with_cause_and_state() -> None:
    def ending_of(key: str) -> dict[str, str]:
        number = int(key[7:12])
        if number % 10 < 3:
            return rejected(key, [0.4, 0.6])
        return failed("ImageNotFoundError", f"no {key}") if number % 10 == 3 else classified([0.02, 0.98])

    endings = score(FakeStepFunctions(ending_of), keys_of(100))
    assert outcomes(endings) == {"rejected": 30, "failed": 10, "classified": 60}
    rows = {ending.item.key: result_row(ending, FACTS) for ending in endings}
    bad = rows["photos/00003.png"]
    assert (bad["error"], bad["message"], bad["failed_state"]) == (
        "ImageNotFoundError",
        "no photos/00003.png",
        "ClassifyImage",
    )
    assert rows["photos/00001.png"]["confidence"] == 0.6
    assert rows["photos/00001.png"]["threshold_version"] == 3
    assert rows["photos/00009.png"]["predicted_class"] == "motorcycle"


def test_the_window_is_never_exceeded() -> None:
    fake = FakeStepFunctions(seconds=0.05)
    score(fake, keys_of(150), concurrency=7)
    assert fake.most_running <= 7


def test_starts_per_second_is_kept() -> None:
    fake = FakeStepFunctions()
    began = fake.clock()
    score(fake, keys_of(600), starts_per_second=60.0)
    # A quarter of a second's worth may go at once.
    assert 9.7 <= fake.clock() - began <= 10.5


def test_strange_keys() -> None:
    fake = FakeStepFunctions()
    endings = score(fake, STRANGE_KEYS)
    assert {ending.item.key for ending in endings} == set(STRANGE_KEYS)
    names = [arn.rsplit(":", 1)[1] for arn in fake.runs]
    assert len(names) == len(STRANGE_KEYS)
    assert all(len(name) <= 80 and name.replace("-", "").isalnum() and name.isascii() for name in names)


@pytest.mark.parametrize("others", [0.0, 0.3])
def test_starts_throttled_half_of_the_time(others: float) -> None:
    fake = FakeStepFunctions(throttle_start=0.5, throttle=others)
    flow = flow_for(fake, 64, 2000.0)
    endings = score(fake, keys_of(500), flow=flow)
    assert outcomes(endings) == {"classified": 500}
    assert len(fake.runs) == 500
    assert fake.calls["start"] > 750


def test_it_finds_the_rate_the_service_takes() -> None:
    fake = FakeStepFunctions(starts_per_second=100.0)
    flow = flow_for(fake, 64, 2000.0)
    began = fake.clock()
    endings = score(fake, keys_of(3000), flow=flow)
    assert len(endings) == 3000
    assert flow.rate < 300
    # At 100 starts a second they take 30 s.
    assert fake.clock() - began < 45
    assert fake.calls["start"] < 3000 * 1.5


def test_lost_answers_start_nothing_twice() -> None:
    fake = FakeStepFunctions(lost=0.2)
    endings = score(fake, keys_of(200))
    assert outcomes(endings) == {"classified": 200}
    assert len(fake.runs) == 200
    assert fake.most_running_of_one_image == 1


def test_a_list_that_lags_costs_describes_and_nothing_else() -> None:
    fake = FakeStepFunctions(seconds=0.3, list_lag_s=10.0)
    endings = score(fake, keys_of(50))
    assert outcomes(endings) == {"classified": 50}
    assert fake.calls["describe"] < 50 * 8


def test_one_lambda_in_ten_fails() -> None:
    fake = FakeStepFunctions()
    fake.ending_of = lambda key: (
        failed("Lambda.Unknown", "exit 137") if int(key[7:12]) % 10 == 0 else classified([0.97, 0.03])
    )
    assert outcomes(score(fake, keys_of(200))) == {"classified": 180, "failed": 20}


def test_killed_ten_times_at_random_moments() -> None:
    """No image lost, doubled, or started twice while running."""
    fake = FakeStepFunctions(seconds=0.1, throttle_start=0.1, throttle=0.1, lost=0.05)
    chance = random.Random(11)
    items = [Item(key) for key in keys_of(300)]
    kept: dict[str, Ending] = {}

    async def one_life(seconds: float | None) -> None:
        endings: list[Ending] = []
        engine = engine_for(fake, endings, concurrency=32)
        life = asyncio.create_task(engine.run(items))
        if seconds is not None:
            await asyncio.sleep(seconds)
            life.cancel()
        try:
            await life
        except asyncio.CancelledError:
            return
        for ending in endings:
            assert ending.item.key not in kept
            kept[ending.item.key] = ending

    for _ in range(10):
        fake.clock.run(one_life(chance.uniform(0.02, 0.25)))
    fake.clock.run(one_life(None))
    assert sorted(kept) == keys_of(300)
    assert len(fake.runs) == 300
    assert fake.most_running_of_one_image == 1


def test_a_kill_stops_what_runs_and_the_next_run_starts_it_again() -> None:
    fake = FakeStepFunctions(seconds=30.0)
    items = [Item(key) for key in keys_of(10)]

    async def kill() -> int:
        engine = engine_for(fake, [])
        life = asyncio.create_task(engine.run(items))
        while len(fake.runs) < 10:
            await asyncio.sleep(0.01)
        life.cancel()
        with pytest.raises(asyncio.CancelledError):
            await life
        return await engine.stop_unfinished(fake, "killed")

    assert fake.clock.run(kill()) == 10
    assert fake.running_now() == []
    fake.seconds = 0.02
    endings = score(fake, [item.key for item in items])
    assert outcomes(endings) == {"classified": 10}
    assert {ending.attempt for ending in endings} == {2}


def test_nothing_is_started_after_a_kill_and_what_it_stopped_has_no_outcome() -> None:
    """The sync variant is interrupted in the middle: its event loop goes on, and sees what the kill aborted."""
    for images in (5, 50):
        fake = FakeStepFunctions(seconds=5.0)
        endings: list[Ending] = []

        async def kill(fake: FakeStepFunctions, endings: list[Ending], images: int) -> None:
            engine = engine_for(fake, endings, concurrency=5)
            life = asyncio.create_task(engine.run([Item(key) for key in keys_of(images)]))
            while len(fake.runs) < 5:
                await asyncio.sleep(0.01)
            await engine.stop_unfinished(fake, "killed")
            with pytest.raises(TransportError, match="killed"):
                await life

        fake.clock.run(kill(fake, endings, images))
        assert len(fake.runs) == 5
        assert endings == []


def test_an_execution_past_its_deadline_is_stopped_and_timed_out() -> None:
    fake = FakeStepFunctions(seconds=60.0)
    endings = score(fake, keys_of(6), deadline_s=0.3)
    assert outcomes(endings) == {"timed_out": 6}
    assert fake.running_now() == []
    row = result_row(endings[0], FACTS)
    assert row["error"] == "ExecutionDeadlineExceeded"
    assert "0.3 s" in (row["message"] or "")


def test_what_the_service_lost_is_started_again() -> None:
    fake = FakeStepFunctions(seconds=30.0)
    endings: list[Ending] = []
    starts: Counter[str] = Counter()

    async def forget() -> None:
        await asyncio.sleep(5.0)
        for arn in fake.running_now()[:7]:
            starts[arn] += 1
            del fake.runs[arn]

    async def both() -> None:
        await asyncio.gather(engine_for(fake, endings).run([Item(key) for key in keys_of(20)]), forget())

    fake.clock.run(both())
    assert outcomes(endings) == {"classified": 20}
    assert len({ending.item.key for ending in endings}) == 20
    # Under the same names, so that what was only late would have been adopted instead.
    assert {ending.attempt for ending in endings} == {1}
    assert fake.calls["start"] == 27


def test_what_a_restart_of_the_service_ended_gets_another_attempt() -> None:
    fake = FakeStepFunctions(seconds=20.0)
    endings: list[Ending] = []

    async def restart() -> None:
        await asyncio.sleep(5.0)
        for arn in fake.running_now():
            fake.runs[arn].stopped = ("States.ServiceRestart", "Execution was running when service restarted")

    async def both() -> None:
        await asyncio.gather(engine_for(fake, endings).run([Item(key) for key in keys_of(6)]), restart())

    fake.clock.run(both())
    assert outcomes(endings) == {"classified": 6}
    assert {ending.attempt for ending in endings} == {2}
    # Whoever comes later, after the first follower died too, passes over the lost attempt in the same way.
    assert outcomes(score(fake, keys_of(6))) == {"classified": 6}
    assert len(fake.runs) == 12


def test_a_service_that_loses_everything_is_given_up() -> None:
    class Forgetful(FakeStepFunctions):
        async def start(self, name: str, workflow_input: str) -> Any:
            execution = await super().start(name, workflow_input)
            self.runs.clear()
            return execution

    with pytest.raises(TransportError, match=r"\('photos/00000[.]png'\) 6 times"):
        score(Forgetful(), keys_of(1))


def test_a_name_taken_by_another_input_gets_the_next_attempt() -> None:
    fake = FakeStepFunctions()
    score(fake, keys_of(3))

    def other_input(item: Item) -> str:
        return workflow_input(item, batch_id="batch-1", bucket="bucket", threshold=Threshold(0.5, 4))

    endings = score(fake, keys_of(3), input_of=other_input)
    assert {ending.attempt for ending in endings} == {2}
    assert len(fake.runs) == 6


def test_a_call_refused_for_good_ends_the_run_at_once() -> None:
    class Denied(FakeStepFunctions):
        async def describe(self, arn: str) -> Any:
            raise TransportError("AccessDeniedException: states:DescribeExecution")

    fake = Denied()
    flow = flow_for(fake, 64, 1000.0)
    with pytest.raises(TransportError, match="AccessDenied"):
        score(fake, keys_of(20), flow=flow)
    assert flow.in_use == 0


def test_chunks_of_a_batch_share_its_limits() -> None:
    fake = FakeStepFunctions(seconds=0.05)

    async def both() -> list[Ending]:
        endings: list[Ending] = []
        flow = flow_for(fake, 10, 10_000.0)
        halves = [Item(key) for key in keys_of(50)], [Item(f"other/{index:05d}.png") for index in range(50)]
        await asyncio.gather(*(engine_for(fake, endings, flow=flow).run(half) for half in halves))
        return endings

    assert len(fake.clock.run(both())) == 100
    assert fake.most_running <= 10
