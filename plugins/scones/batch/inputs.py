"""What people and spreadsheets write: prefixes, keys, dates, manifests and label files. Read right or refused.

Keys are taken as they are, blanks and slashes included; nothing is dropped without a word.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import chain
from typing import IO, Any

from scones.batch.items import Entry, Item

KEY_BYTES_MAX = 1024
LINE_CHARACTERS_MAX = 1_000_000
DELIMITERS = ",;\t"
SHOWN = 80
_URI = re.compile(r"(?:s3://|arn:aws[a-z-]*:s3:::)([^/]*)/?(.*)", re.DOTALL)
_WHOLE = re.compile(r"[+-]?\d{1,9}(?:\.0*)?")


class BatchInputError(ValueError):
    """The input of a batch cannot be used; the message says what to do."""


# ---- single values of the form


def object_key(text: str, bucket: str, where: str) -> str:
    """Return the key that ``text`` is, or that its ``s3://bucket/key`` or ARN names.

    Raises:
        BatchInputError: it is empty, too long, a web address, or in another bucket.
    """
    found = _URI.fullmatch(text)
    if found and found[1] != bucket:
        raise BatchInputError(
            f"{where} is in bucket {found[1]!r}; the workflow reads only {bucket!r}: copy it there first."
        )
    if text.startswith(("http://", "https://")):
        raise BatchInputError(f"{where} is a web address: give the object's key in {bucket!r}, not {text[:SHOWN]!r}.")
    key = found[2] if found else text
    if not key:
        raise BatchInputError(f"{where} has no key: {text[:SHOWN]!r}")
    if len(key.encode("utf-8", "surrogatepass")) > KEY_BYTES_MAX:
        raise BatchInputError(f"{where}: the key is longer than the {KEY_BYTES_MAX} bytes S3 allows: {key[:60]!r}...")
    return key


def folder_prefix(prefix: str, bucket: str) -> str:
    """Return ``prefix`` as a folder of the bucket: as it is, with a slash at the end.

    Without the end, ``test`` would also list ``test.lst`` and ``test-old/``. ``s3://<bucket>/...`` is taken too.

    Raises:
        BatchInputError: the URI names another bucket, or the prefix is the whole bucket.
    """
    uri = _URI.fullmatch(prefix)
    if prefix == "/" or (uri and uri[1] == bucket and not uri[2]):
        raise BatchInputError(
            "The prefix is the whole bucket. Name the folder with the images, as `photos/2026-11-20/`."
        )
    key = object_key(prefix, bucket, "The prefix")
    return key if key.endswith("/") else key + "/"


def parse_date(text: str | None, name: str) -> datetime | None:
    """Read an ISO date or time; empty is None, no zone is UTC.

    Raises:
        BatchInputError: it is no date.
    """
    if not text or not text.strip():
        return None
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        raise BatchInputError(
            f"{name} is {text[:SHOWN]!r}: give an ISO date or time, as 2026-11-20 or 2026-11-20T08:00+01:00."
        ) from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def parse_label(value: Any, where: str, classes: Sequence[str]) -> int | None:
    """Return a class index given as one (also as a spreadsheet's ``1.0``) or as a class name; empty is no label.

    Raises:
        BatchInputError: it is neither.
    """
    text = "" if value is None else str(value).strip()
    if not text:
        return None
    if text in classes:
        return classes.index(text)
    known = f"the classes are {', '.join(classes)}" if classes else "no class names are known"
    if isinstance(value, bool) or not _WHOLE.fullmatch(text):
        raise BatchInputError(f"{where}: label {text[:SHOWN]!r} is neither a class index nor a class; {known}.")
    index = int(float(text))
    if index < 0 or (classes and index >= len(classes)):
        raise BatchInputError(f"{where}: label {index} is not an index of the {len(classes)} classes; {known}.")
    return index


# ---- files


def open_text(file: IO[bytes], name: str) -> IO[str]:
    """Return the text of a file in UTF-8, with or without a byte order mark, UTF-16 with one, or gzip of these."""
    raw: io.BufferedReader[Any] = io.BufferedReader(file, 1 << 16)
    if raw.peek(2)[:2] == b"\x1f\x8b":
        raw = io.BufferedReader(gzip.GzipFile(fileobj=raw), 1 << 16)
    try:
        head = raw.peek(4)[:4]
    except (OSError, EOFError, zlib.error) as error:
        raise BatchInputError(f"{name} begins like a gzip file and is none: {error}.") from error
    encoding = "utf-16" if head[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    return io.TextIOWrapper(raw, encoding=encoding, newline="")


def text_lines(text: IO[str], name: str) -> Iterator[str]:
    """Yield a file's lines with their ends.

    Raises:
        BatchInputError: the file is damaged or in another encoding; names the line.
    """
    number = 0
    while True:
        number += 1
        try:
            line = text.readline(LINE_CHARACTERS_MAX)
        except UnicodeError as error:
            raise BatchInputError(
                f"{name} is neither UTF-8 nor UTF-16 near line {number} ({error}): save it as `CSV UTF-8`, or convert"
                " it with `iconv -f WINDOWS-1252 -t UTF-8`."
            ) from error
        except (OSError, EOFError, zlib.error) as error:
            raise BatchInputError(f"{name} is a damaged gzip file near line {number}: {error}.") from error
        if not line:
            return
        if len(line) == LINE_CHARACTERS_MAX:
            raise BatchInputError(f"{name} line {number} has over {LINE_CHARACTERS_MAX:,} characters: it is no list.")
        yield line


def read_table(
    lines: Iterator[str], name: str, needed: Sequence[str], left_out: list[str] | None = None
) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield ``(where, {column: cell})`` of a CSV file as spreadsheets write it: ``,`` or ``;`` or tab, ``sep=;``.

    Column names are taken without blanks and in any case; cells as they are.

    Args:
        left_out: takes what is wrong with a line that has too many cells, which is then passed over.

    Raises:
        BatchInputError: a column is missing or twice there, or a line cannot be read; names the line.
    """
    first = next(lines, "")
    delimiter = ""
    if first.strip().lower().startswith("sep=") and len(first.strip()) <= 5:
        delimiter, first = first.rstrip("\r\n")[4:5] or "\t", next(lines, "")
    if not delimiter:
        delimiter = max(DELIMITERS, key=first.count)
    reader = csv.reader(chain([first], lines), delimiter=delimiter)
    try:
        header = [cell.strip().lower() for cell in next(reader, [])]
        missing = [column for column in needed if header.count(column) != 1]
        if missing:
            raise BatchInputError(
                f"{name} needs one column named {' and one named '.join(missing)}; its header is {first.strip()!r:.99}."
            )
        for row in reader:
            if any(row):
                where = f"{name} line {reader.line_num}"
                if not any(row[len(header) :]):
                    yield where, {column: unescaped(cell) for column, cell in zip(header, row, strict=False)}
                    continue
                problem = f"{where} has {len(row)} cells for {len(header)} columns: quote its text."
                if left_out is None:
                    raise BatchInputError(problem)
                left_out.append(problem)
    except csv.Error as error:
        raise BatchInputError(f"{name} line {reader.line_num} is not CSV: {error}.") from error


def parse_manifest(lines: Iterator[str], name: str, bucket: str, classes: Sequence[str] = ()) -> Iterator[Entry]:
    """Read a manifest of keys: JSONL (objects with ``key``, or plain strings) or CSV with a header that has ``key``.

    Optional fields: ``label`` (class index or name), ``etag``, ``last_modified`` (ISO).

    Raises:
        BatchInputError: a line cannot be read; names the manifest and the line.
    """
    first = next(lines, "")
    everything = chain([first], lines)
    bare = name.lower().removesuffix(".gz")
    begins = first.lstrip()[:1]
    if bare.endswith((".jsonl", ".json", ".ndjson")) or begins == "{" or (begins == '"' and not bare.endswith(".csv")):
        records = _json_records(everything, name)
    else:
        records = read_table(everything, name, ["key"])
    for where, record in records:
        yield entry_of(record, where, bucket, classes)


def _json_records(lines: Iterator[str], name: str) -> Iterator[tuple[str, Any]]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            raise BatchInputError(f"{name} line {number} is not JSON: {line.strip()[:SHOWN]!r}") from None
        yield f"{name} line {number}", {"key": record} if isinstance(record, str) else record


def entry_of(record: Any, where: str, bucket: str, classes: Sequence[str]) -> Entry:
    """Return what one line of a manifest names.

    Raises:
        BatchInputError: it has no key, or a field cannot be read.
    """
    key = record.get("key") if isinstance(record, Mapping) else None
    if not isinstance(key, str) or not key:
        raise BatchInputError(f"{where} has no key: {str(record)[:SHOWN]}")
    modified = parse_date(str(record.get("last_modified") or ""), f"{where}: last_modified")
    label = parse_label(record.get("label"), where, classes)
    etag = str(record.get("etag") or "").strip().strip('"') or None
    return Entry(Item(object_key(key, bucket, where), label, etag), modified)


# ---- CSV that a spreadsheet may open: no cell is a formula, and whatever a key holds can be read back

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "'")


def escaped(cell: str) -> str:
    """Return the cell with an apostrophe before what a spreadsheet would run, or take the apostrophe from."""
    danger = cell.startswith(_FORMULA[:-1]) or (cell.startswith("'") and cell[1:].startswith(_FORMULA))
    return f"'{cell}" if danger else cell


def unescaped(cell: str) -> str:
    """Return the cell that :func:`escaped` got."""
    return cell[1:] if cell.startswith("'") and cell[1:].startswith(_FORMULA) else cell


def csv_line(cells: Sequence[Any]) -> str:
    """Return one line of CSV, every cell quoted: a line end, comma or semicolon in a key stays in its cell."""
    file = io.StringIO()
    texts = ("" if cell is None else escaped(cell) if isinstance(cell, str) else cell for cell in cells)
    csv.writer(file, quoting=csv.QUOTE_ALL, lineterminator="\n").writerow(texts)
    return file.getvalue()
