"""The run folder: used by one supervisor at a time, and nothing in it is lost when a file of it is damaged."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from embedded import run_folder
from embedded.settings import SettingsError

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    run_folder.prepare(tmp_path / "run")
    return tmp_path / "run"


def test_a_file_in_its_place_is_said_with_what_to_do(tmp_path: Path):
    (tmp_path / "run").write_text("mine")
    with pytest.raises(SettingsError, match=r"run folder .*run cannot be used .*set SCONES_RUN_DIR") as caught:
        run_folder.prepare(tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert (tmp_path / "run").read_text() == "mine"


def test_only_one_holds_it_and_those_who_look_do_not_disturb(folder: Path):
    assert not run_folder.is_held(folder)
    looking, stop = [], threading.Event()

    def look() -> None:
        while not stop.is_set():
            looking.append(run_folder.is_held(folder))

    onlooker = threading.Thread(target=look)
    onlooker.start()
    try:
        for _ in range(50):
            with run_folder.held(folder):
                assert run_folder.is_held(folder)
    finally:
        stop.set()
        onlooker.join()
    with run_folder.held(folder), pytest.raises(run_folder.AlreadyRunningError), run_folder.held(folder):
        pass


def test_the_state_counts_while_its_writer_lives(folder: Path):
    code = (
        f"import sys, pathlib; sys.path.insert(0, {str(ROOT)!r})\n"
        "from embedded import run_folder\n"
        f"folder = pathlib.Path({str(folder)!r})\n"
        "with run_folder.held(folder):\n"
        "    run_folder.write_state(folder, {'processes': {}})\n"
        "    print('up', flush=True); sys.stdin.read()\n"
    )
    supervisor = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert supervisor.stdout is not None
    assert supervisor.stdout.readline() == b"up\n"
    assert run_folder.read_state(folder) == {"processes": {}}
    supervisor.kill()
    supervisor.communicate()
    assert run_folder.read_state(folder) is None
    assert run_folder.ended_because(folder) is None, "killed is not ended"
    run_folder.write_state(folder, {"ended": "`make down`"})
    assert run_folder.ended_because(folder) == "`make down`"


@pytest.mark.parametrize("text", ["", "[]", "null", "{", "\x00"])
def test_a_damaged_state_is_none(folder: Path, text: str):
    (folder / run_folder.STATE_FILE).write_text(text)
    with run_folder.held(folder):
        assert run_folder.read_state(folder) is None


def test_secrets_stay_the_same_and_are_for_the_owner_only(folder: Path):
    first, other = run_folder.secret(folder, "jwt"), run_folder.secret(folder, "fernet")
    assert run_folder.secret(folder, "jwt") == first != other
    assert (folder / "secrets.json").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("text", ["", "{", "3"])
def test_damaged_secrets_are_not_replaced_in_silence(folder: Path, text: str):
    (folder / "secrets.json").write_text(text)
    with pytest.raises(SettingsError, match=r"secrets\.json is damaged: put back a copy"):
        run_folder.secret(folder, "jwt")
    assert (folder / "secrets.json").read_text() == text


def _database(path: Path) -> Path:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE runs (id INTEGER, note TEXT)")
        connection.executemany("INSERT INTO runs VALUES (?, ?)", [(number, "x" * 100) for number in range(1000)])
        connection.commit()
    return path


def test_a_sound_database_stays_where_it_is(tmp_path: Path):
    database = _database(tmp_path / "a.db")
    assert run_folder.put_damaged_aside(database) is None
    assert run_folder.put_damaged_aside(tmp_path / "absent.db") is None
    assert database.exists()


@pytest.mark.parametrize("damage", ["not a database", "cut off", "a page overwritten"])
def test_a_damaged_database_is_kept_aside(tmp_path: Path, damage: str):
    database = _database(tmp_path / "a.db")
    content = bytearray(database.read_bytes())
    if damage == "not a database":
        content[:16] = b"\x00" * 16
    elif damage == "cut off":
        del content[len(content) // 2 :]
    else:
        content[4096:8192] = b"\xff" * 4096
    database.write_bytes(content)
    (tmp_path / "a.db-journal").write_bytes(b"")
    aside = run_folder.put_damaged_aside(database)
    assert aside is not None
    assert aside.read_bytes() == bytes(content)
    assert not database.exists()
    assert not (tmp_path / "a.db-journal").exists(), "a journal left behind would be played into the new database"


def test_a_locked_database_is_waited_for(tmp_path: Path):
    database = _database(tmp_path / "a.db")
    with closing(sqlite3.connect(database)) as holder, ThreadPoolExecutor(1) as pool:
        holder.execute("BEGIN EXCLUSIVE")
        found = pool.submit(run_folder.put_damaged_aside, database)
        with pytest.raises(TimeoutError):
            found.result(0.2)
        holder.rollback()
        assert found.result(30) is None
    assert [path.name for path in tmp_path.iterdir()] == ["a.db"]
