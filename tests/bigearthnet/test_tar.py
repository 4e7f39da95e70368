"""The walk over tar archives, against Python's own reader."""

from __future__ import annotations

import io
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bigearthnet.archive.tar import BLOCK, CutShortError, Member, TarError, TarWalk
from tests.tarballs import make_tar

FORMS = (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)
NAMES = st.text(st.characters(exclude_characters="\0/", exclude_categories=["Cs"]), min_size=1, max_size=60)
PATHS = st.lists(NAMES, min_size=1, max_size=5).map("/".join)


def walk(content: bytes) -> list[tuple[Member, bytes]]:
    tar = TarWalk(io.BytesIO(content))
    return [(member, tar.read_content()) for member in tar]


def make_info(name: str, kind: bytes, **values: object) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = kind
    for key, value in values.items():
        setattr(info, key, value)
    return info


@given(st.lists(st.tuples(PATHS, st.binary(max_size=1_500)), max_size=6), st.sampled_from(FORMS[1:]))
def test_names_and_contents_are_what_python_reads(files: list[tuple[str, bytes]], form: int) -> None:
    content = make_tar(files, form)
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        expected = [(member.name, member.size) for member in archive.getmembers()]
    found = walk(content)
    assert [(member.name.rstrip("/"), member.size) for member, _ in found] == expected
    assert [data for _, data in found] == [data for _, data in files]
    assert [name for name, _ in files] == [member.name for member, _ in found]


@pytest.mark.parametrize("form", FORMS)
def test_long_names_of_every_form_are_put_together(form: int) -> None:
    name = "/".join(["folder" * 10] * 3) + "/file.tif"
    assert [member.name for member, _ in walk(make_tar([(name, b"1"), ("short", b"2")], form))] == [name, "short"]


def test_names_that_are_no_utf_8_are_kept() -> None:
    content = make_tar([("b\udcff\udcfed", b"")], tarfile.GNU_FORMAT)
    assert walk(content)[0][0].name == "b\udcff\udcfed"


def test_members_are_of_the_kind_that_they_are() -> None:
    members = [
        make_info("folder", tarfile.DIRTYPE),
        make_info("soft", tarfile.SYMTYPE, linkname="target"),
        make_info("hard", tarfile.LNKTYPE, linkname="x" * 200),
        make_info("device", tarfile.BLKTYPE),
        make_info("pipe", tarfile.FIFOTYPE),
        make_info("odd", b"Z"),
        make_info("sparse", tarfile.REGTYPE, pax_headers={"GNU.sparse.major": "1"}),
    ]
    found = [member for member, _ in walk(make_tar(members, tarfile.PAX_FORMAT))]
    assert [member.kind for member in found] == ["folder", "link", "link", "device", "device", "unknown", "sparse"]
    assert [member.target for member in found[1:3]] == ["target", "x" * 200]


def test_a_size_in_a_pax_header_or_in_binary_counts() -> None:
    plain = bytearray(make_tar([("file", b"x" * 700)]))
    plain[124:136] = b"\x80" + (700).to_bytes(11)
    assert walk(seal(plain))[0][1] == b"x" * 700
    pax = bytearray(make_tar([make_info("file", tarfile.REGTYPE, pax_headers={"size": "700"})], tarfile.PAX_FORMAT))
    assert walk(bytes(pax[:1536]) + b"x" * 700 + bytes(324) + bytes(1024))[0][1] == b"x" * 700


def seal(content: bytearray) -> bytes:
    """Set the checksum of the first header."""
    content[148:156] = b" " * 8
    content[148:156] = b"%06o\0 " % sum(content[:BLOCK])
    return bytes(content)


def test_any_flipped_bit_of_a_header_is_noticed_or_changes_nothing() -> None:
    content = make_tar([("BigEarthNet/file.tif", b"x" * 700)])
    expected = walk(content)
    n_noticed = 0
    for bit in range(BLOCK * 8):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        try:
            assert walk(bytes(flipped)) == expected
        except TarError:
            n_noticed += 1
    assert n_noticed > BLOCK * 8 - 8  # a space or NUL of the checksum itself may become the other


def test_an_archive_that_is_cut_anywhere_is_noticed() -> None:
    content = make_tar([("one", b"x" * 700), ("two", b"y")])
    end = content.rindex(b"y") // BLOCK * BLOCK + BLOCK
    for n_bytes in [*range(0, end, 100), *range(end, end + 2 * BLOCK)]:
        with pytest.raises(CutShortError):
            walk(content[:n_bytes])
    walk(content[: end + 2 * BLOCK])


@pytest.mark.parametrize(
    ("record", "is_good"),
    [
        (b"12 path=abc\n", True),
        (b"12 path=abcd", False),
        (b"13 path=abc\n", False),
        (b"0 path=abc\n", False),
        (b"-1 path=abc\n", False),
        (b"path=abc\n", False),
        (b"9 pathabc\n", False),
        (b"99999999999999999999 path=abc\n", False),
        (b"14 size=-7000\n", False),
        ("14 size=٣٤\n".encode(), False),
        (b"6 a=b\n" * 100_000, True),
    ],
)
def test_a_pax_header_that_is_not_what_it_must_be_is_refused(record: bytes, is_good: bool) -> None:
    header = bytearray(make_tar([("pax", record)]))
    header[156:157] = b"x"
    content = seal(header)[: BLOCK + -(-len(record) // BLOCK) * BLOCK] + make_tar([("file", b"1")])
    if is_good:
        assert len(walk(content)) == 1
    else:
        with pytest.raises(TarError):
            walk(content)


def test_long_names_have_an_end() -> None:
    header = bytearray(make_tar([("x", bytes(2**20 + 1))]))
    header[156:157] = b"L"
    with pytest.raises(TarError, match="1,048,577 bytes of names"):
        walk(seal(header))


def test_a_header_without_the_member_that_it_belongs_to_is_refused() -> None:
    header = bytearray(make_tar([("x", b"name")]))
    header[156:157] = b"L"
    with pytest.raises(TarError, match="belongs to another one"):
        walk(seal(header))
