"""Traffic for demonstrations and drills: a batch whose images are drawn, and changed, instead of listed."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from scones.aws import layout
from scones.batch.inputs import BatchInputError
from scones.batch.items import Item
from scones.batch.plan import MACHINES, Plan, find_threshold, write_chunks
from scones.batch.store import BatchStore
from scones.images.transformations import KINDS, transform_png
from scones.training.data import ManifestFile, test_images
from scones.training.served import ServedModel

UPLOADERS = 8
IMAGES_MAX = 1_000_000


@dataclass(frozen=True, slots=True)
class Shot:
    """One request: a file of the dataset, and how it is changed before it is sent ("" for not at all)."""

    file: str
    label: int
    drift: str


def request_count(mode: str, images: int, rate_per_second: float, duration_seconds: float) -> int:
    """Return how many requests are sent: ``images`` in a burst, rate times duration in a stream.

    Raises:
        BatchInputError: none, or more than a million.
    """
    count = images if mode == "burst" else round(rate_per_second * duration_seconds)
    if not 1 <= count <= IMAGES_MAX:
        raise BatchInputError(f"That makes {count} requests: set images, or rate and duration, for 1 to {IMAGES_MAX}.")
    return count


def parse_class_mix(text: str, classes: Sequence[str]) -> dict[str, float]:
    """Read ``bicycle=3, motorcycle=1`` as shares of all requests; empty means every class alike.

    Raises:
        BatchInputError: unknown class, or no number that is not negative.
    """
    if not text.strip():
        return {name: 1 / len(classes) for name in classes}
    weights = dict.fromkeys(classes, 0.0)
    for part in text.split(","):
        name, _, number = (piece.strip() for piece in part.partition("="))
        try:
            weight = float(number)
        except ValueError:
            weight = -1.0
        if name not in weights or not 0 <= weight < float("inf"):
            raise BatchInputError(
                f"class_mix has {part.strip()!r}: write class=weight, as {classes[0]}=3; the classes are"
                f" {', '.join(classes)}."
            )
        weights[name] = weight
    total = sum(weights.values())
    if total <= 0:
        raise BatchInputError("class_mix gives every class the weight 0.")
    return {name: weight / total for name, weight in weights.items()}


def draw_shots(
    files: Sequence[ManifestFile],
    classes: Sequence[str],
    count: int,
    *,
    class_mix: Mapping[str, float],
    drift: str,
    drifted_share: float,
    seed: int,
) -> list[Shot]:
    """Draw ``count`` requests; the same seed draws the same ones.

    Args:
        files: the images to draw from.
        drift: one of the kinds of drift, ``mixed`` for all of them in turn, or ``none``.
        drifted_share: share of requests that are changed so.

    Raises:
        BatchInputError: a class with a share has no image.
    """
    by_class: dict[int, list[str]] = {index: [] for index in range(len(classes))}
    for file in files:
        by_class[file["label"]].append(file["key"])
    shares = [class_mix.get(name, 0.0) for name in classes]
    empty = [name for index, name in enumerate(classes) if shares[index] > 0 and not by_class[index]]
    if empty:
        raise BatchInputError(f"The dataset has no test images of {', '.join(empty)}: change class_mix.")
    kinds = KINDS if drift == "mixed" else (drift,)
    rng = random.Random(seed)  # noqa: S311 a draw, no secret
    shots = []
    for _ in range(count):
        label = rng.choices(range(len(classes)), shares)[0]
        changed = drift != "none" and rng.random() < drifted_share
        shots.append(Shot(rng.choice(by_class[label]), label, rng.choice(kinds) if changed else ""))
    return shots


def make_traffic(
    store: BatchStore, batch_id: str, params: dict[str, Any], resources: Mapping[str, str], model: ServedModel
) -> Plan:
    """Write the changed images, the chunk and the plan of the traffic.

    Raises:
        BatchInputError: the model's dataset is not there, or the params cannot be used.
    """
    dataset = store.manifest(model.dataset_version) if model.dataset_version else None
    if dataset is None:
        raise BatchInputError(
            f"No dataset is known that the model of {model.endpoint_name} was trained on, so there are no test images:"
            " run the DAG train_and_deploy first."
        )
    threshold = find_threshold(store, None)
    classes = list(model.classes) or dataset["classes"]
    count = request_count(params["mode"], params["images"], params["rate_per_second"], params["duration_seconds"])
    shots = draw_shots(
        test_images(dataset),
        classes,
        count,
        class_mix=parse_class_mix(params["class_mix"] or "", classes),
        drift=params["drift"],
        drifted_share=params["drifted_share"],
        seed=params["seed"],
    )
    folder = layout.dataset(model.dataset_version)
    keys = {shot: _shot_key(shot, folder, batch_id) for shot in set(shots)}
    with ThreadPoolExecutor(UPLOADERS) as pool:
        uploads = [
            pool.submit(_upload_changed, store, folder + shot.file, key, shot.drift, params)
            for shot, key in keys.items()
            if shot.drift
        ]
    for upload in uploads:
        upload.result()
    # The same image may be sent more than once: each request is an item of its own.
    items = (
        Item(keys[shot], shot.label, item_id=f"{index}:{keys[shot]}", origin=folder + shot.file)
        for index, shot in enumerate(shots)
    )
    plan = Plan(
        batch_id=batch_id,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        source=f"generated traffic ({params['mode']}, drift {params['drift']})",
        fan_out="executions",
        state_machine_arn=resources[MACHINES["executions"]],
        images=count,
        chunks=write_chunks(store, batch_id, (item.to_json() + "\n" for item in items), count),
        chunk_size=count,
        counts={"requests": count, "drifted": sum(bool(shot.drift) for shot in shots)},
        warnings=[],
        threshold=threshold,
        model=model,
        params=params,
    )
    plan.save(store)
    return plan


def _shot_key(shot: Shot, folder: str, batch_id: str) -> str:
    if not shot.drift:
        return folder + shot.file
    return f"{layout.traffic(batch_id)}{shot.drift}/{shot.file.rsplit('/', 1)[-1]}"


def _upload_changed(store: BatchStore, source: str, target: str, drift: str, params: Mapping[str, Any]) -> None:
    data = store.read(source)
    if data is None:
        raise BatchInputError(f"{store.uri(source)} is gone: stage the dataset again.")
    changed = transform_png(data, drift, params["drift_strength"], params["seed"])
    store.write(target, changed, "image/png", Metadata={layout.ORIGIN: source})
