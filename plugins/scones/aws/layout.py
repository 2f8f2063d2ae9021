"""Where everything lies in the project's bucket: each key and each prefix, once. A prefix ends in a slash.

::

    config/threshold.json                the threshold in force
    raw/<md5>/cifar-100-python.tar.gz    archives that datasets were made of
    datasets/current.json                the dataset that the next training reads
    datasets/<version>/                  images, lists, label map, baseline; manifest.json is written last
    training/<job>/output/model.tar.gz   what a training job made
    training/fingerprints/<mark>.json    the job that did this work before
    evaluations/<job>/                   evaluation.json, evaluation.html, transform/ (answers to the test images)
    refused/<job>.json                   models the gate refused
    capture/<endpoint>/<variant>/        what the endpoint captured, by hour
    ground-truth/<endpoint>/             what captured images really showed
    reports/<endpoint>/                  index.json, watermark.json and a folder for each report
    batches/<batch>/                     plan, chunks, results, report of a batch
    arrivals/<mark>                      the batch that scores an image which arrived
    traffic/<batch>/                     changed images that a drill sent
    labels/accepted.csv                  labels people gave: extra training images
    labels/taken.csv                     those that a training took, or was asked to take
    labels/history.jsonl                 who decided what on which rejected image, and when
"""

from __future__ import annotations

from collections.abc import Mapping

THRESHOLD = "config/threshold.json"
CURRENT_DATASET = "datasets/current.json"
ACCEPTED_LABELS = "labels/accepted.csv"
TAKEN_LABELS = "labels/taken.csv"
LABEL_HISTORY = "labels/history.jsonl"

# Metadata of an object that was made from another: that one's key.
ORIGIN = "scones-origin"

DATASETS = "datasets/"
TRAINING = "training/"
FINGERPRINTS = "training/fingerprints/"
CAPTURE = "capture/"
REPORTS = "reports/"
BATCHES = "batches/"

# ---- datasets


def archive(md5: str) -> str:
    """The CIFAR-100 archive a dataset was made of."""
    return f"raw/{md5}/cifar-100-python.tar.gz"


def dataset(version: str) -> str:
    """A dataset version's prefix."""
    return f"{DATASETS}{version}/"


def manifest(version: str) -> str:
    """What a dataset holds, image by image. Written last: a dataset with a manifest is whole."""
    return f"{dataset(version)}manifest.json"


def label_map(version: str) -> str:
    """Class names by label."""
    return f"{dataset(version)}label_map.json"


def recordio(version: str, channel: str) -> str:
    """Prefix of a channel's RecordIO file, ``train`` or ``validation``."""
    return f"{dataset(version)}recordio/{channel}/"


def training_images(version: str) -> str:
    """Prefix of the images that train, where they do so as PNGs."""
    return f"{dataset(version)}train/"


def test_images(version: str) -> str:
    """Prefix of the images that no training sees."""
    return f"{dataset(version)}test/"


def test_image_behind(key: str, metadata: Mapping[str, str] | None) -> str:
    """The test image that an object is or was made from; "" when there is none. Such an image never trains.

    ``metadata`` is what was noted on the object: whatever changes a test image writes its key there as `ORIGIN`.
    """
    origin = (metadata or {}).get(ORIGIN, "") or key
    parts = origin.split("/")
    drawn = parts[0] == "traffic" and len(parts) > 2  # a drill sends test images only
    tested = parts[0] == "datasets" and len(parts) > 3 and parts[2] == "test"
    return origin if drawn or tested else ""


def baseline(version: str, name: str) -> str:
    """``statistics`` or ``constraints`` of the training images, in Model Monitor's form."""
    return f"{dataset(version)}baseline/{name}.json"


# ---- training and evaluation


def fingerprint(mark: str) -> str:
    """The job that did this very work before."""
    return f"{FINGERPRINTS}{mark}.json"


def evaluation(job: str, name: str) -> str:
    """A file of a training job's evaluation: ``evaluation.json``, ``evaluation.html``."""
    return f"evaluations/{job}/{name}"


def transform(job: str) -> str:
    """Prefix of the model's answers to the test images."""
    return f"evaluations/{job}/transform/"


def refusal(job: str) -> str:
    """The record of a model that the gate refused."""
    return f"refused/{job}.json"


# ---- endpoints


def capture(endpoint: str, variant: str = "") -> str:
    """Prefix of what an endpoint, or one of its variants, captured."""
    return f"{CAPTURE}{endpoint}/{variant}/" if variant else f"{CAPTURE}{endpoint}/"


def ground_truth(endpoint: str) -> str:
    """Prefix of the ground truth, in Model Monitor's form."""
    return f"ground-truth/{endpoint}/"


def reports(endpoint: str) -> str:
    """Prefix of an endpoint's reports."""
    return f"{REPORTS}{endpoint}/"


def report(endpoint: str, report_id: str, name: str) -> str:
    """A file of a report, e.g. report.html."""
    return f"{reports(endpoint)}{report_id}/{name}"


def report_index(endpoint: str) -> str:
    """The list of an endpoint's reports, newest first."""
    return f"{reports(endpoint)}index.json"


def watermark(endpoint: str) -> str:
    """How far an endpoint's reports have read."""
    return f"{reports(endpoint)}watermark.json"


# ---- batches


def batch(batch_id: str) -> str:
    """A batch's prefix."""
    return f"{BATCHES}{batch_id}/"


def plan(batch_id: str) -> str:
    """The plan: written last, so that a batch with a plan has all its chunks."""
    return f"{batch(batch_id)}plan.json"


def chunk(batch_id: str, number: int) -> str:
    """The images of one chunk."""
    return f"{batch(batch_id)}chunks/{number:05d}.jsonl"


def arrivals(batch_id: str) -> str:
    """What lay in the queue when the batch took it."""
    return f"{batch(batch_id)}arrivals.json"


def claim(mark: str) -> str:
    """The name of the batch whose an image is that arrived; ``mark`` stands for the image."""
    return f"arrivals/{mark}"


def checkpoint(batch_id: str, number: int) -> str:
    """Rows of a chunk that is still being followed; gone when its part is written."""
    return f"{batch(batch_id)}checkpoints/{number:05d}.jsonl"


def progress(batch_id: str, number: int | None = None) -> str:
    """How far a chunk is, noted while it is followed; without a number, the prefix of all."""
    folder = f"{batch(batch_id)}progress/"
    return folder if number is None else f"{folder}{number:05d}.json"


def results(batch_id: str) -> str:
    """Prefix of a batch's results."""
    return f"{batch(batch_id)}results/"


def part(batch_id: str, number: int, kind: str = "jsonl") -> str:
    """One part of the results for each chunk, as ``jsonl`` and as ``parquet``."""
    return f"{results(batch_id)}part-{number:05d}.{kind}"


def summary(batch_id: str) -> str:
    """A batch's figures."""
    return f"{batch(batch_id)}summary.json"


def batch_report(batch_id: str) -> str:
    """A batch's page."""
    return f"{batch(batch_id)}report.html"


def rejected(batch_id: str) -> str:
    """The reject queue: rejected images with the model's guess, to be labelled."""
    return f"{batch(batch_id)}rejected.csv"


def map_items(batch_id: str) -> str:
    """Prefix of what the items of a Distributed Map write."""
    return f"{batch(batch_id)}items/"


def traffic(batch_id: str) -> str:
    """Prefix of the changed images that a drill sent."""
    return f"traffic/{batch_id}/"
