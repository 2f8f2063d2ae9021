"""The pickles of the archive: honest ones of every writer are read, hostile ones are refused by name and run
nothing.
"""

from __future__ import annotations

import collections
import io
import os
import pickle
import pickletools
import struct
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scones.dataset import safe_pickle
from scones.dataset.errors import BadInputError, CorruptArchiveError, UnsafePickleError
from tests.support.pickles import pickle_python2

PIXELS = np.arange(4 * 3072, dtype=np.uint32).astype(np.uint8).reshape(4, 3072)
CONTENT: dict[str, Any] = {
    "data": PIXELS,
    "batch_label": "batch",
    "fine_labels": [1, 2, 3, 99],
    "coarse_labels": [0, 0, 0, 19],
    "filenames": ["a.png", "b.png", "c.png", "d.png"],
}


def as_bytes_keys(content: dict[str, Any]) -> dict[bytes, Any]:
    return {
        key.encode(): [item.encode() if isinstance(item, str) else item for item in value]
        if isinstance(value, list)
        else value
        for key, value in content.items()
    }


def check(read: dict[str, Any]) -> None:
    np.testing.assert_array_equal(read["data"], PIXELS)
    assert read["fine_labels"] == CONTENT["fine_labels"]
    assert [bytes(name).decode() for name in read["filenames"]] == CONTENT["filenames"]


class TestHonest:
    @pytest.mark.parametrize("protocol", range(1, 6))
    def test_reads_what_this_numpy_writes(self, protocol: int) -> None:
        check(safe_pickle.loads(pickle.dumps(as_bytes_keys(CONTENT), protocol=protocol)))

    def test_reads_what_numpy_1_wrote(self) -> None:
        dumped = pickle.dumps(as_bytes_keys(CONTENT), protocol=2)
        older = dumped.replace(b"numpy._core.multiarray\n", b"numpy.core.multiarray\n")
        assert older != dumped
        check(safe_pickle.loads(older))

    def test_reads_what_python_2_wrote_as_python_does(self) -> None:
        dumped = pickle_python2(CONTENT)
        theirs = pickle.loads(dumped, encoding="bytes")
        ours = safe_pickle.loads(dumped)
        np.testing.assert_array_equal(theirs[b"data"], ours["data"])
        assert theirs[b"fine_labels"] == ours["fine_labels"]
        assert theirs[b"filenames"] == ours["filenames"]

    def test_reads_the_real_members_as_python_does(self, shared_data: Path) -> None:
        with tarfile.open(shared_data / "cifar-100-python.tar.gz") as archive:
            for name in ("train", "test", "meta"):
                member = archive.extractfile(f"cifar-100-python/{name}")
                assert member is not None
                raw = member.read()
                theirs, ours = pickle.loads(raw, encoding="bytes"), safe_pickle.loads(raw)
                assert {key.decode() for key in theirs} == set(ours)
                for key, value in theirs.items():
                    np.testing.assert_array_equal(value, ours[key.decode()])

    @pytest.mark.parametrize("dump", [pickle_python2, pickle.dumps])
    def test_pixels_are_not_copied(self, dump: Any) -> None:
        raw = dump({"data": np.zeros((64, 3072), dtype=np.uint8)})
        array = safe_pickle.loads(raw)["data"]
        assert np.shares_memory(array, np.frombuffer(raw, dtype=np.uint8))
        assert not array.flags.writeable

    def test_reads_column_order_arrays(self) -> None:
        column = np.asfortranarray(PIXELS)
        np.testing.assert_array_equal(safe_pickle.loads(pickle.dumps({"data": column}, protocol=2))["data"], PIXELS)


class _Calls:
    def __init__(self, function: Any, *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.function, self.arguments


class TestHostile:
    @pytest.mark.parametrize("protocol", range(6))
    @pytest.mark.parametrize(
        ("function", "arguments", "name"),
        [
            (os.system, ("touch {marker}",), "system"),
            (eval, ("__import__('os').system('touch {marker}')",), "eval"),
            (exec, ("open('{marker}', 'w')",), "exec"),
            (getattr, (os, "system"), "getattr"),
            (np.fromfile, ("{marker}",), "fromfile"),
            (np.load, ("{marker}",), "load"),
            (bytearray, (10**12,), "bytearray"),
        ],
    )
    def test_a_call_is_refused_by_name_and_not_made(
        self, function: Any, arguments: tuple[Any, ...], name: str, protocol: int, tmp_path: Path
    ) -> None:
        marker = tmp_path / "was-run"
        filled = tuple(item.format(marker=marker) if isinstance(item, str) else item for item in arguments)
        if function is getattr:
            dumped = b"c__builtin__\ngetattr\n(S'os'\nS'system'\ntR."
        else:
            dumped = pickle.dumps({"data": _Calls(function, *filled)}, protocol=protocol)
        with pytest.raises(UnsafePickleError, match=name):
            safe_pickle.loads(dumped, "train")
        assert not marker.exists()

    @pytest.mark.parametrize(
        "dumped",
        [
            b"cos\nsystem\n(S'true'\ntR.",
            b"(S'true'\nios\nsystem\n.",
            b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x04true\x85R.",
            b"cbuiltins\neval\n(Vprint(1)\ntR.",
            b"cnumpy.core.multiarray\nos.system\n.",
            b"\x80\x04\x8c\x05numpy\x8c\x11ndarray.__class__\x93.",
        ],
    )
    def test_handwritten_globals_are_refused(self, dumped: bytes) -> None:
        with pytest.raises(UnsafePickleError, match=r"asks for|INST"):
            safe_pickle.loads(dumped)

    def test_a_nested_reduce_is_refused(self) -> None:
        inner = _Calls(os.system, "true")
        with pytest.raises(UnsafePickleError, match="system"):
            safe_pickle.loads(pickle.dumps({"data": [(1, [inner])]}))

    def test_an_allowed_name_cannot_be_called_otherwise(self) -> None:
        # numpy.ndarray(shape) would reserve a terabyte; numpy.dtype('O') would hold Python objects.
        for call in (b"cnumpy\nndarray\n(J\xff\xff\xff\x7ftR.", b"cnumpy\ndtype\n(S'O'\nK\x00K\x01tR."):
            with pytest.raises(UnsafePickleError, match=r"calls numpy's ndarray|not uint8"):
                safe_pickle.loads(call)

    def test_an_array_of_other_numbers_is_refused(self) -> None:
        for other in (PIXELS.astype(np.float64), PIXELS.astype(object), PIXELS.astype(np.int8)):
            with pytest.raises(UnsafePickleError, match="not uint8"):
                safe_pickle.loads(pickle.dumps({"data": other}, protocol=2))

    def test_the_memo_cannot_swap_a_marker_for_a_result(self) -> None:
        # Stores _reconstruct, fetches it back as the dictionary that is returned.
        swapped = b"\x80\x02cnumpy.core.multiarray\n_reconstruct\nq\x01h\x01."
        with pytest.raises(CorruptArchiveError, match="instead of a dictionary"):
            safe_pickle.loads(swapped)

    @pytest.mark.parametrize("put", [b"r\xff\xff\xff\x7f", b"p2147483647\n", b"p+214748364\n", b"p2_147_483_647\n"])
    def test_a_huge_memo_index_reserves_nothing(self, put: bytes) -> None:
        with pytest.raises(UnsafePickleError, match="places beyond"):
            safe_pickle.loads(b"\x80\x02}" + put + b".")

    def test_a_deep_key_ends_nothing(self) -> None:
        # Python hashes a nested tuple by recursion: 100,000 deep would end the process.
        with pytest.raises(UnsafePickleError, match="tuples"):
            safe_pickle.loads(b"\x80\x02})" + b"\x85" * 100_000 + b"K\x01s.")

    def test_a_stand_in_cannot_be_changed(self) -> None:
        for state in (b"}U\x04nameU\x01xs", b"N}U\x04nameU\x01xs\x86"):
            with pytest.raises(BadInputError):
                safe_pickle.loads(b"\x80\x02cnumpy\ndtype\n" + state + b"b.")
        check(safe_pickle.loads(pickle_python2(CONTENT)))

    def test_a_shape_larger_than_its_bytes_is_refused(self) -> None:
        raw = pickle_python2({"data": PIXELS}).replace(
            struct.pack("<i", 4) + b"M", struct.pack("<i", 2**31 - 1) + b"M", 1
        )
        with pytest.raises(CorruptArchiveError, match="holds 12288 bytes"):
            safe_pickle.loads(raw)

    def test_claimed_lengths_reserve_nothing(self) -> None:
        for claim in (b"\x80\x04\x96" + struct.pack("<Q", 2**62), b"\x80\x02T" + struct.pack("<i", 2**30)):
            with pytest.raises(CorruptArchiveError, match="ends in the middle"):
                safe_pickle.loads(claim + b"x.")

    def test_a_million_objects_too_many_are_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(safe_pickle, "MAX_OPERATIONS", 10_000)
        with pytest.raises(UnsafePickleError, match="more than 10,000 operations"):
            safe_pickle.loads(b"]" * 20_000 + b".")

    @pytest.mark.parametrize(
        "use",
        [
            b"h\x28h\x28\x93.",  # as the name of code
            b"cnumpy\ndtype\nh\x28K\x00K\x01\x87R.",  # as a type
            b"cnumpy._core.numeric\n_frombuffer\n(U\x01xcnumpy\ndtype\n(U\x02u1K\x00K\x01tRh\x28\x85U\x01CtR.",
            b"h\x28\x85R.",  # as a function
            b"h\x28K\x01b.",  # as a state
            b".",  # as the result
        ],
    )
    def test_a_billion_laughs_are_never_printed(self, use: bytes) -> None:
        # 40 lists, each holding the one before twice: small in memory, 2**40 items when written out.
        doubling = b"".join(b"](h" + bytes([n - 1]) + b"h" + bytes([n - 1]) + b"eq" + bytes([n]) for n in range(1, 41))
        with pytest.raises(BadInputError):
            safe_pickle.loads(b"\x80\x02]q\x00" + doubling + use)

    def test_deep_nesting_is_only_refused(self) -> None:
        with pytest.raises(BadInputError):
            safe_pickle.loads(b"\x80\x02" + b"(" * 200_000 + b"l" * 200_000 + b"\x85\x85\x93.")

    def test_a_million_digits_are_refused(self) -> None:
        with pytest.raises(BadInputError):
            safe_pickle.loads(b"I" + b"9" * 900 + b"\n.")

    @pytest.mark.parametrize("thing", [collections.OrderedDict(a=1), {1, 2}, complex(1, 2), range(3), Path("x")])
    def test_other_types_are_refused(self, thing: Any) -> None:
        with pytest.raises(UnsafePickleError):
            safe_pickle.loads(pickle.dumps({"data": thing}, protocol=4))


class TestBroken:
    def test_every_truncation_is_an_error(self) -> None:
        whole = pickle_python2({**CONTENT, "data": PIXELS[:1]})
        for end in [*range(0, 200), *range(len(whole) - 200, len(whole))]:
            with pytest.raises(BadInputError):
                safe_pickle.loads(whole[:end])

    @settings(max_examples=300, deadline=None)
    @given(st.binary(max_size=200))
    def test_noise_never_does_anything_else_than_raise(self, noise: bytes) -> None:
        try:
            result = safe_pickle.loads(noise)
        except BadInputError:
            return
        assert type(result) is dict

    @settings(max_examples=300, deadline=None)
    @given(st.integers(0, 400), st.integers(0, 255))
    def test_one_changed_byte_never_does_anything_else_than_raise_or_read(self, place: int, value: int) -> None:
        raw = bytearray(pickle_python2({**CONTENT, "data": PIXELS[:1]}))
        raw[min(place, len(raw) - 1)] = value
        try:
            safe_pickle.loads(bytes(raw))
        except BadInputError:
            return

    @settings(max_examples=50, deadline=None)
    @given(
        st.dictionaries(st.text(max_size=5), st.lists(st.integers(0, 2**31 - 1) | st.binary(max_size=300), max_size=5))
    )
    def test_reads_what_python_reads(self, content: dict[str, Any]) -> None:
        dumped = pickle.dumps(content, protocol=4)
        pickletools.dis(dumped, out=io.StringIO())
        assert safe_pickle.loads(dumped) == content
