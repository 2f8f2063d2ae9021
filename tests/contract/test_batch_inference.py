"""Whole batches on real Step Functions and real Lambdas: the three ways to fan out, and what must survive."""

from __future__ import annotations

import asyncio
import io
import os
import random
import re
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import pytest

from embedded import environment
from embedded.settings import EmbeddedSettings
from scones.aws import layout
from scones.batch.engine import TransportError
from scones.batch.follower import ChunkFollower, ChunkReport
from scones.batch.inputs import BatchInputError
from scones.batch.items import COLUMNS, Row
from scones.batch.labels import accept_labels, read_accepted
from scones.batch.operator import BatchChunkOperator
from scones.batch.plan import ChunkReference, ChunkRequest
from scones.batch.progress import read_live
from scones.batch.summary import BatchLimitError, check_limits
from scones.batch.tasks import collect
from scones.batch.traffic import make_traffic
from tests.support.batch_world import MODEL, World, deploy_world, png, stub_sagemaker

_ids = count()


@pytest.fixture(scope="module")
def deployed(
    ministack: str, stub_port: int, platform_settings: EmbeddedSettings, aws: Callable[..., Any]
) -> Iterator[World]:
    with stub_sagemaker(stub_port) as stub:
        yield deploy_world(aws, stub, environment.aws_connection(platform_settings))


@pytest.fixture
def world(deployed: World, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", deployed.airflow_connection)
    deployed.sagemaker.requests.clear()
    deployed.sagemaker.down_until = deployed.sagemaker.delay_s = 0.0
    deployed.sagemaker.config = MODEL.endpoint_config
    return deployed


@pytest.fixture
def batch_id() -> str:
    return f"test-batch-{next(_ids)}"


def follower(world: World, chunk: ChunkReference, concurrency: int = 16) -> ChunkFollower:
    return ChunkFollower(ChunkRequest(world.bucket, chunk["batch_id"], chunk["number"], concurrency, 1000.0))


def run_chunks(world: World, chunks: list[ChunkReference], **options: Any) -> list[ChunkReport]:
    async def all_of_them() -> list[ChunkReport]:
        return list(await asyncio.gather(*(follower(world, chunk, **options).run() for chunk in chunks)))

    return asyncio.run(all_of_them())


def rows_of(world: World, batch_id: str) -> dict[str, Row]:
    parts = world.store.part_numbers(batch_id)
    rows = [row for number in parts for row in world.store.rows(batch_id, number)]
    keyed = {row["key"]: row for row in rows}
    assert len(keyed) == len(rows), "an image has two rows"
    return keyed


def executions_of(world: World, batch_id: str) -> list[dict[str, Any]]:
    pages = world.client("stepfunctions").get_paginator("list_executions")
    found = pages.paginate(stateMachineArn=world.outputs["StateMachineArn"])
    return [e for page in found for e in page["executions"] if e["name"].startswith(f"{batch_id}-")]


def upload(world: World, folder: str, sure: int = 0, unsure: int = 0, corrupt: int = 0) -> None:
    for kind, number in (("sure", sure), ("unsure", unsure), ("corrupt", corrupt)):
        for index in range(number):
            world.put(f"{folder}{kind}-{index:03d}.png", b"no image" if kind == "corrupt" else None)


@pytest.mark.parametrize("fan_out", ["executions", "distributed_map", "express"])
def test_the_same_results_whichever_way_they_fan_out(world: World, batch_id: str, fan_out: str) -> None:
    folder = f"photos/{fan_out}/"
    upload(world, folder, sure=6, unsure=3, corrupt=2)
    world.put(f"{folder}list.lst", b"0\t0\tsure-000.png\n")
    chunks = world.plan(batch_id, prefix=folder.rstrip("/"), fan_out=fan_out, chunk_size=7)
    assert len(chunks) == (1 if fan_out == "distributed_map" else 2)
    reports = run_chunks(world, chunks)
    assert sum(report["classified"] for report in reports) == 6
    # What the page of the run showed at last, before the report took its place.
    live = read_live(world.store, batch_id)
    assert live is not None
    assert (live.done, live.outcomes) == (11, {"classified": 6, "rejected": 3, "failed": 2})
    assert sorted(error for _, error in live.failures) == ["NotAnImageError"] * 2
    rows = rows_of(world, batch_id)
    assert Counter(row["outcome"] for row in rows.values()) == {"classified": 6, "rejected": 3, "failed": 2}
    assert all(list(row) == list(COLUMNS) for row in rows.values())
    sure, unsure, corrupt = (rows[f"{folder}{kind}-000.png"] for kind in ("sure", "unsure", "corrupt"))
    assert (sure["confidence"], sure["predicted_index"], sure["threshold"]) == (0.98, 0, 0.9)
    assert sure["production_variant"] == "AllTraffic"
    assert (sure["endpoint_config"], sure["model_package"]) == ("config-7", "package/7")
    assert (unsure["probabilities"], unsure["error"]) == ([0.6, 0.4], "THRESHOLD_CONFIDENCE_NOT_MET")
    assert corrupt["error"] == "NotAnImageError"
    assert folder + "corrupt-000.png" in (corrupt["message"] or "")
    if fan_out == "executions":
        assert corrupt["failed_state"] == "SerializeImage"
    assert not any("list.lst" in key for key in world.sagemaker.requests)


def test_keys_of_any_kind(world: World, batch_id: str) -> None:
    names = ["a b.png", "a+b%20c.png", "Fahrrad-é-自転車-🚲.png", "quote'\"<>&.png", "deep/er/x.PNG"]
    for name in names:
        world.put(f"strange/{name}")
    run_chunks(world, world.plan(batch_id, prefix="strange/"))
    rows = rows_of(world, batch_id)
    assert set(rows) >= {f"strange/{name}" for name in names}
    assert {row["outcome"] for row in rows.values()} == {"classified"}


def test_keys_are_what_they_are_and_never_another(world: World, batch_id: str) -> None:
    odd = ["odd/ lead.png", "odd/trail .png ", "odd/a%20b.png", "/odd/slash.png", "odd/cr\rlf\n.png"]
    for key in odd:
        world.put(key)
    world.put("odd/b c.png")
    named = [*odd[:2], f"s3://{world.bucket}/{odd[2]}", *odd[3:]]
    run_chunks(world, world.plan(batch_id, keys=named))
    rows = rows_of(world, batch_id)
    assert {key: rows[key]["outcome"] for key in odd} == dict.fromkeys(odd, "classified")
    # A folder that begins with a slash is one of its own.
    assert [chunk["images"] for chunk in world.plan(f"{batch_id}-second", prefix="/odd/")] == [1]
    for wrong in ("odd/b%20c.png", "odd/b+c.png", "/odd/b c.png"):
        with pytest.raises(BatchInputError, match=rf"no object '{re.escape(wrong)}'. Did you mean 'odd/b c.png'"):
            world.plan(f"{batch_id}-third", keys=[wrong])
    with pytest.raises(BatchInputError, match="Did you mean 'odd/'"):
        world.plan(f"{batch_id}-fourth", prefix=" odd/")


def test_each_row_says_which_model_answered(world: World, batch_id: str) -> None:
    upload(world, "photos/changed/", sure=3)
    run_chunks(world, world.plan(batch_id, prefix="photos/changed/"))
    rows = rows_of(world, batch_id).values()
    assert {(row["model_version"], row["endpoint_changed"]) for row in rows} == {(7, False)}
    chunks = world.plan(f"{batch_id}-second", prefix="photos/changed/")
    world.sagemaker.config = "config-8"  # deployed after the plan, before or while these were scored
    run_chunks(world, chunks)
    changed = rows_of(world, f"{batch_id}-second").values()
    assert {(row["model_version"], row["endpoint_config"], row["endpoint_changed"]) for row in changed} == {
        (None, None, True)
    }
    summary = collect(world.store, f"{batch_id}-second")
    assert summary["endpoint_changed"] == 3
    assert (
        "The endpoint changed while 3" in (world.store.read(layout.batch_report(f"{batch_id}-second")) or b"").decode()
    )


def test_30_percent_rejected_is_a_finished_batch_and_its_summary_says_so(world: World, batch_id: str) -> None:
    upload(world, "photos/share/", sure=14, unsure=6)
    run_chunks(world, world.plan(batch_id, prefix="photos/share/"))
    summary = collect(world.store, batch_id)
    assert (summary["images"], summary["classified"], summary["rejected"]) == (20, 14, 6)
    assert summary["rejected_share"] == 0.3
    check_limits(summary, max_failed_share=0.1, max_rejected_share=0.9)
    with pytest.raises(BatchLimitError, match=r"30\.0% of the answers are rejections"):
        check_limits(summary, max_failed_share=0.1, max_rejected_share=0.2)


def test_30_percent_failed_names_the_three_most_frequent_causes(world: World, batch_id: str) -> None:
    upload(world, "photos/failing/", sure=14, corrupt=3)
    for index in range(2):
        world.put(f"photos/failing/modelerror-{index}.png")
    listed = [f"photos/failing/sure-{index:03d}.png" for index in range(14)]
    listed += [f"photos/failing/corrupt-{index:03d}.png" for index in range(3)]
    listed += [f"photos/failing/modelerror-{index}.png" for index in range(2)]
    # A key that vanished after it was listed.
    run_chunks(world, world.plan(batch_id, keys=[*listed, "photos/failing/vanished.png"]))
    summary = collect(world.store, batch_id)
    with pytest.raises(BatchLimitError) as refused:
        check_limits(summary, max_failed_share=0.1, max_rejected_share=0.9)
    message = str(refused.value)
    for cause in ("3 x NotAnImageError", "2 x ModelRefusedImageError", "1 x ImageNotFoundError"):
        assert cause in message
    assert message.index("NotAnImage") < message.index("ModelRefused") < message.index("ImageNotFound")


def test_files_of_a_batch(world: World, batch_id: str) -> None:
    from pyarrow import parquet

    upload(world, "photos/files/", sure=3, unsure=2, corrupt=1)
    world.put("photos/files/unsure-<script>alert(1)<.png")
    run_chunks(world, world.plan(batch_id, prefix="photos/files/", chunk_size=4))
    summary = collect(world.store, batch_id)
    again = collect(world.store, batch_id)
    assert again == summary
    store = world.store
    table = [
        row
        for number in (0, 1)
        for row in parquet.read_table(
            io.BytesIO(store.read(layout.part(batch_id, number, "parquet")) or b"")
        ).to_pylist()
    ]
    assert {row["key"]: row for row in table} == rows_of(world, batch_id)
    page = (store.read(layout.batch_report(batch_id)) or b"").decode()
    assert page.count("data:image/png;base64,") == 3
    assert "<script>" not in page
    assert "http://" not in page
    assert "https://" not in page
    rejected = (store.read(layout.rejected(batch_id)) or b"").splitlines()
    assert len(rejected) == 1 + 3


def test_a_part_that_is_missing_is_no_finished_batch(world: World, batch_id: str) -> None:
    upload(world, "photos/parts/", sure=4)
    chunks = world.plan(batch_id, prefix="photos/parts/", chunk_size=2)
    run_chunks(world, chunks[:1])
    with pytest.raises(FileNotFoundError, match="part-00001"):
        collect(world.store, batch_id)


def test_killed_at_random_moments_and_retried(world: World, batch_id: str) -> None:
    """Ten times over: no image lost, doubled, or started twice."""
    upload(world, "photos/killed/", sure=40, unsure=10)
    [chunk] = world.plan(batch_id, prefix="photos/killed/")
    chance = random.Random(3)

    async def one_life(seconds: float) -> None:
        life = asyncio.create_task(follower(world, chunk, concurrency=8).run())
        await asyncio.sleep(seconds)
        life.cancel()
        await asyncio.gather(life, return_exceptions=True)

    for _ in range(10):
        asyncio.run(one_life(chance.uniform(0.1, 0.8)))
    run_chunks(world, [chunk])
    rows = rows_of(world, batch_id)
    assert Counter(row["outcome"] for row in rows.values()) == {"classified": 40, "rejected": 10}
    assert len(executions_of(world, batch_id)) == 50
    assert set(world.sagemaker.requests.values()) == {1}


def test_a_finished_chunk_is_not_run_again(world: World, batch_id: str) -> None:
    upload(world, "photos/finished/", sure=5)
    chunks = world.plan(batch_id, prefix="photos/finished/")
    first = run_chunks(world, chunks)
    assert run_chunks(world, chunks)[0] == first[0] | {"calls": {}}
    assert len(executions_of(world, batch_id)) == 5


@pytest.mark.parametrize("fan_out", ["executions", "distributed_map"])
def test_a_kill_stops_what_runs_and_clearing_runs_it_again(world: World, batch_id: str, fan_out: str) -> None:
    folder = f"photos/stop-{fan_out}/"
    upload(world, folder, sure=6)
    world.sagemaker.delay_s = 3.0
    [chunk] = world.plan(batch_id, prefix=folder, fan_out=fan_out)
    machine = "StateMachineArn" if fan_out == "executions" else "DistributedMapStateMachineArn"
    states = world.client("stepfunctions")

    def running() -> list[str]:
        found = states.list_executions(stateMachineArn=world.outputs[machine], statusFilter="RUNNING")["executions"]
        return [e["name"] for e in found if e["name"].startswith(f"{batch_id}-")]

    async def kill() -> int:
        chunk_follower = follower(world, chunk)
        life = asyncio.create_task(chunk_follower.run())
        expected = 6 if fan_out == "executions" else 1
        while len(running()) < expected:
            await asyncio.sleep(0.05)
        life.cancel()
        await asyncio.gather(life, return_exceptions=True)
        return await chunk_follower.stop()

    assert asyncio.run(kill()) == (6 if fan_out == "executions" else 1)
    assert running() == []
    world.sagemaker.delay_s = 0.0
    run_chunks(world, [chunk])
    rows = rows_of(world, batch_id)
    assert {row["outcome"] for row in rows.values()} == {"classified"}
    assert {row["attempt"] for row in rows.values()} == {2}


def test_a_sync_task_that_gets_the_kill_signal_stops_what_it_started(
    world: World, batch_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the task process is told: a signal handler calls on_kill while the event loop runs in the same thread."""
    upload(world, "photos/signal/", sure=12)
    world.sagemaker.delay_s = 3.0
    [chunk] = world.plan(batch_id, prefix="photos/signal/")
    operator = BatchChunkOperator(
        task_id="run_chunk", bucket=world.bucket, chunk=chunk, concurrency=6, starts_per_second=1000, deferrable=False
    )
    earlier = signal.signal(signal.SIGUSR1, lambda *_: operator.on_kill())

    def kill_when_started() -> None:
        while not executions_of(world, batch_id):
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGUSR1)

    killer = threading.Thread(target=kill_when_started)
    killer.start()
    try:
        with pytest.raises(TransportError, match="killed"):
            operator.execute({})
    finally:
        killer.join()
        signal.signal(signal.SIGUSR1, earlier)
    assert {execution["status"] for execution in executions_of(world, batch_id)} == {"ABORTED"}
    assert len(executions_of(world, batch_id)) <= 6
    world.sagemaker.delay_s = 0.0
    assert operator.execute({})["classified"] == 12


def test_the_endpoint_restarts_in_mid_batch(world: World, batch_id: str) -> None:
    upload(world, "photos/restart/", sure=30)
    chunks = world.plan(batch_id, prefix="photos/restart/")

    def restart() -> None:
        while sum(world.sagemaker.requests.values()) < 5:
            time.sleep(0.01)
        world.sagemaker.down_until = time.monotonic() + 1.5

    outage = threading.Thread(target=restart)
    outage.start()
    run_chunks(world, chunks)
    outage.join()
    assert Counter(row["outcome"] for row in rows_of(world, batch_id).values()) == {"classified": 30}
    # Some were asked for more than once: the state machine's own retries carried them over.
    assert max(world.sagemaker.requests.values()) > 1


def test_only_new_images(world: World, batch_id: str) -> None:
    upload(world, "photos/new/", sure=4)
    run_chunks(world, world.plan(batch_id, prefix="photos/new/"))
    world.put("photos/new/later.png")
    world.put("photos/new/sure-001.png", png(7))
    second = f"{batch_id}-second"
    run_chunks(world, world.plan(second, prefix="photos/new/", only_new=True))
    assert set(rows_of(world, second)) == {"photos/new/later.png", "photos/new/sure-001.png"}
    third = f"{batch_id}-third"
    assert world.plan(third, prefix="photos/new/", only_new=True) == []
    summary = collect(world.store, third)
    assert (summary["images"], summary["failed_share"]) == (0, None)
    check_limits(summary, max_failed_share=0.0, max_rejected_share=0.0)


def test_the_failed_ones_are_run_again(world: World, batch_id: str) -> None:
    upload(world, "photos/again/", sure=3, unsure=1, corrupt=2)
    run_chunks(world, world.plan(batch_id, prefix="photos/again/"))
    world.put("photos/again/corrupt-000.png")
    second = f"{batch_id}-second"
    run_chunks(world, world.plan(second, rerun_failed_of=batch_id))
    outcomes = {key: row["outcome"] for key, row in rows_of(world, second).items()}
    assert outcomes == {"photos/again/corrupt-000.png": "classified", "photos/again/corrupt-001.png": "failed"}


def test_a_listing_that_changes_while_it_is_read(world: World, batch_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is there all the time is scored once; what comes or goes meanwhile is never doubled."""
    upload(world, "photos/moving/", sure=30)
    store = world.store
    real = store.client.get_paginator

    def small_pages(operation: str) -> Any:
        class Pages:
            def paginate(self, **options: Any) -> Iterator[dict[str, Any]]:
                for number, page in enumerate(real(operation).paginate(**options, PaginationConfig={"PageSize": 10})):
                    if number == 1:
                        world.put("photos/moving/a-came-first.png")
                        world.put("photos/moving/z-came-last.png")
                        store.client.delete_object(Bucket=world.bucket, Key="photos/moving/sure-003.png")
                        store.client.delete_object(Bucket=world.bucket, Key="photos/moving/sure-029.png")
                    yield page

        return Pages()

    monkeypatch.setattr(store.client, "get_paginator", small_pages)
    monkeypatch.setattr(World, "store", property(lambda self: store))
    run_chunks(world, world.plan(batch_id, prefix="photos/moving/"))
    rows = rows_of(world, batch_id)
    stayed = {f"photos/moving/sure-{index:03d}.png" for index in range(30)} - {
        "photos/moving/sure-003.png",
        "photos/moving/sure-029.png",
    }
    assert {key for key, row in rows.items() if row["outcome"] == "classified"} >= stayed
    assert rows["photos/moving/sure-003.png"]["error"] == "ImageNotFoundError"


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"prefix": "nothing/here/"}, ["nothing in s3://", "nothing/here/", "Check the prefix"]),
        ({"prefix": ""}, ["train_and_deploy"]),
        ({"prefix": "lists/"}, ["None of the 1 entries", ".png"]),
        ({"prefix": "s3://elsewhere/photos/"}, ["elsewhere"]),
        ({"manifest": "no/such.csv"}, ["no/such.csv", "manifest"]),
        ({"prefix": "a/", "keys": ["b.png"]}, ["prefix and keys"]),
        ({"rerun_failed_of": "never-was"}, ["never-was"]),
        ({"rerun_failed_of": "../../etc"}, ["not a batch id"]),
    ],
)
def test_input_that_cannot_be_used(world: World, batch_id: str, params: dict[str, Any], words: list[str]) -> None:
    world.put("lists/test.lst", b"0\t0\ta.png\n")
    with pytest.raises(BatchInputError) as refused:
        world.plan(batch_id, **params)
    assert all(word in str(refused.value) for word in words), str(refused.value)


def test_the_whole_batch_is_judged_by_the_threshold_of_its_plan(world: World, batch_id: str) -> None:
    s3, key = world.client("s3"), "config/threshold.json"
    deployed = s3.get_object(Bucket=world.bucket, Key=key)["Body"].read()
    try:
        s3.put_object(Bucket=world.bucket, Key=key, Body=b'{"threshold": 0.5, "version": 41}')
        upload(world, "photos/threshold/", unsure=2)
        chunks = world.plan(batch_id, prefix="photos/threshold/", threshold=None)
        s3.delete_object(Bucket=world.bucket, Key=key)
        run_chunks(world, chunks)
        rows = rows_of(world, batch_id).values()
        assert {(row["outcome"], row["threshold"], row["threshold_version"]) for row in rows} == {
            ("classified", 0.5, 41)
        }
        with pytest.raises(BatchInputError, match=r"threshold\.json is missing"):
            world.plan(f"{batch_id}-second", prefix="photos/threshold/", threshold=None)
    finally:
        s3.put_object(Bucket=world.bucket, Key=key, Body=deployed)


def test_traffic_is_a_batch_of_drawn_and_changed_images(world: World, batch_id: str) -> None:
    names = [f"test/{name}-{n}.png" for name in ("bicycle", "motorcycle") for n in range(3)]
    files = [{"key": name, "split": "test", "label": int(n >= 3)} for n, name in enumerate(names)]
    # As a staged data set has it: files of the split that are no images.
    files.append({"key": "test.lst", "split": "test", "label": -1})
    manifest = {"dataset_version": "ds-1", "classes": ["bicycle", "motorcycle"], "files": files}
    for n, name in enumerate(names):
        world.put(f"datasets/ds-1/{name}", png(n))
    world.store.write_json("datasets/ds-1/manifest.json", manifest)
    # What was staged last is another dataset, with the classes in another order: nothing of it may be taken.
    world.store.write_json("datasets/ds-2/manifest.json", {**manifest, "classes": ["motorcycle", "bicycle"]})
    world.store.write_json(
        "datasets/current.json", {"dataset_version": "ds-2", "manifest_key": "datasets/ds-2/manifest.json"}
    )
    try:
        params = {
            "mode": "stream",
            "images": 1,
            "rate_per_second": 10.0,
            "duration_seconds": 2,
            "class_mix": "bicycle=1",
            "drift": "mixed",
            "drifted_share": 0.5,
            "drift_strength": 0.7,
            "seed": 1,
            "execution_timeout_seconds": 60,
            "max_failed_share": 1.0,
            "max_rejected_share": 1.0,
        }
        plan = make_traffic(world.store, batch_id, params, world.outputs, MODEL)
        run_chunks(world, plan.references())
        summary = collect(world.store, batch_id)
        assert (summary["images"], summary["classified"], summary["accuracy"]) == (20, 20, 1.0)
        changed = next(row for row in world.store.rows(batch_id, 0) if row["key"].startswith("traffic/"))
        assert (changed["origin"] or "").startswith("datasets/ds-1/test/bicycle-")
        assert world.store.metadata(changed["key"]) == {layout.ORIGIN: changed["origin"]}
        assert summary["counts"]["drifted"] == sum(
            count for key, count in world.sagemaker.requests.items() if key.startswith(f"traffic/{batch_id}/")
        )
        # The same folder listed as a batch knows its labels; so does a run without any source.
        second, third = f"{batch_id}-second", f"{batch_id}-third"
        run_chunks(world, world.plan(second, prefix="datasets/ds-1/test"))
        assert sorted(row["label"] or 0 for row in rows_of(world, second).values()) == [0, 0, 0, 1, 1, 1]
        assert world.plan(third, sample_size=4)[0]["images"] == 4
    finally:
        world.client("s3").delete_object(Bucket=world.bucket, Key="datasets/current.json")


def test_labels_accepted_by_two_at_once_are_both_kept(world: World) -> None:
    classes = ["bicycle", "motorcycle"]
    threads = [
        threading.Thread(target=accept_labels, args=({f"photos/{index}.png": "bicycle"}, world.store, classes))
        for index in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    accept_labels({"photos/0.png": "1", "photos/undecided.png": ""}, world.store, classes)
    assert read_accepted(world.store.read("labels/accepted.csv")) == {
        "photos/0.png": "motorcycle",
        **{f"photos/{index}.png": "bicycle" for index in range(1, 6)},
    }
