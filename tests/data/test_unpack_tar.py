"""Tar archives as they come, damaged, and hostile."""

from __future__ import annotations

import gzip
import io
import tarfile
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from recllm_bench.data.download import unpack
from recllm_bench.errors import BenchError

NOISE = np.random.default_rng(0).bytes(700_000)
LINES = b"".join(b"%d\n" % number for number in range(100_000))


def tar(path: Path, members: dict[str, bytes | tarfile.TarInfo], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as file:
        for name, content in members.items():
            entry = content if isinstance(content, tarfile.TarInfo) else tarfile.TarInfo(name)
            entry.name = name
            if isinstance(content, bytes):
                entry.size = len(content)
            file.addfile(entry, io.BytesIO(content) if isinstance(content, bytes) else None)
    return path


def of_type(kind: bytes, target: str = "") -> tarfile.TarInfo:
    entry = tarfile.TarInfo()
    entry.type, entry.linkname = kind, target
    return entry


@pytest.mark.parametrize("packed", ["", "gz", "bz2", "xz"])
def test_every_packing(tmp_path, packed):
    members = {"./reviews.json": LINES, "d/noise": NOISE, "empty": b""}
    archive = tar(tmp_path / "yelp_dataset.tar", members, f"w:{packed}")
    unpack(archive, tmp_path / "some", ["reviews.json"])
    assert [path.name for path in (tmp_path / "some").iterdir()] == ["reviews.json"]
    assert (tmp_path / "some/reviews.json").read_bytes() == LINES
    unpack(archive, tmp_path / "all")
    assert (tmp_path / "all/d/noise").read_bytes() == NOISE
    assert (tmp_path / "all/empty").read_bytes() == b""
    with pytest.raises(BenchError, match=r"yelp_dataset\.tar: has no member none; this is another archive"):
        unpack(archive, tmp_path / "some", ["none"])


@pytest.mark.parametrize("name", ["../evil", "/evil", "d/../../evil", "..\\evil", "C:/evil", ".//evil", "./../evil"])
@pytest.mark.parametrize("packed", ["", "gz"])
def test_members_stay_inside(tmp_path, name, packed):
    archive = tar(tmp_path / "a.tar", {"fine": b"x", name: b"evil"}, f"w:{packed}")
    with pytest.raises(BenchError, match="outside its folder"):
        unpack(archive, tmp_path / "out", ["fine"])
    assert not list(tmp_path.rglob("evil"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.CONTTYPE]
)
def test_only_files_and_folders(tmp_path, kind):
    archive = tar(tmp_path / "a.tar", {"fine": b"x", "link": of_type(kind, "/etc/passwd")})
    if kind == tarfile.CONTTYPE:  # an old spelling of a plain file
        unpack(archive, tmp_path / "out")
        assert (tmp_path / "out/link").read_bytes() == b""
        return
    with pytest.raises(BenchError, match="the member 'link' is a link"):
        unpack(archive, tmp_path / "out", ["fine"])


def test_a_file_does_not_hide_a_link_of_the_same_name(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as file:
        link, plain = of_type(tarfile.SYMTYPE, str(tmp_path / "outside")), tarfile.TarInfo("x")
        link.name, plain.size = "x", 4
        file.addfile(link)
        file.addfile(plain, io.BytesIO(b"evil"))
    with pytest.raises(BenchError, match="is a link"):
        unpack(tmp_path / "a.tar", tmp_path / "out")
    assert not (tmp_path / "outside").exists()


def test_a_bomb_of_zeros(tmp_path):
    archive = tar(tmp_path / "a.tar", {"zeros": bytes(80 << 20)}, "w:gz")
    with pytest.raises(BenchError, match="refused as unsafe"):
        unpack(archive, tmp_path / "out")
    assert not (tmp_path / "out" / "zeros").exists()


def test_a_bomb_of_many_members(tmp_path):
    # Each is small, and the last one alone is asked for.
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz", compresslevel=9) as file:
        for number in range(90):
            entry = tarfile.TarInfo(f"f{number}")
            entry.size = 1 << 20
            file.addfile(entry, io.BytesIO(bytes(1 << 20)))
    with pytest.raises(BenchError, match="refused as unsafe"):
        unpack(tmp_path / "a.tar.gz", tmp_path / "out", ["f89"])


def test_a_sparse_member_that_claims_a_terabyte(tmp_path):
    entry = tarfile.TarInfo("sparse")
    entry.type, entry.size = tarfile.GNUTYPE_SPARSE, 0
    header = bytearray(entry.tobuf(tarfile.GNU_FORMAT))
    header[483:495] = b"%011o\0" % (1 << 32)  # real size
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header[:512])
    (tmp_path / "a.tar").write_bytes(bytes(header) + bytes(1024))
    with pytest.raises(BenchError, match="refused as unsafe"):
        unpack(tmp_path / "a.tar", tmp_path / "out")


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.XGLTYPE])
def test_a_bomb_in_a_header(tmp_path, kind):
    entry = tarfile.TarInfo("././@LongLink")
    entry.type, entry.size = kind, 256 << 20
    archive = tmp_path / "a.tar.gz"
    with gzip.open(archive, "wb", compresslevel=1) as file:
        file.write(entry.tobuf(tarfile.GNU_FORMAT))
        for _ in range(256):
            file.write(bytes(1 << 20))
    tracemalloc.start()
    try:
        with pytest.raises(BenchError, match=r"a header of [\d,]+ bytes; refused as unsafe"):
            unpack(archive, tmp_path / "out")
        assert tracemalloc.get_traced_memory()[1] < 32 << 20
    finally:
        tracemalloc.stop()


def test_growth_behind_the_last_member(tmp_path):
    inside = io.BytesIO()
    with tarfile.open(fileobj=inside, mode="w") as file:
        file.addfile(tarfile.TarInfo("x"), io.BytesIO())
    archive = tmp_path / "a.tar.gz"
    with gzip.open(archive, "wb", compresslevel=1) as file:
        file.write(inside.getvalue())
        for _ in range(80):
            file.write(bytes(1 << 20))
    with pytest.raises(BenchError, match="refused as unsafe"):
        unpack(archive, tmp_path / "out")


@pytest.mark.parametrize("packed", ["gz", "bz2", "xz"])
@pytest.mark.parametrize("place", [0.3, 0.6, 0.9])
def test_one_wrong_byte(tmp_path, packed, place):
    archive = tar(tmp_path / "a.tar", {"x": NOISE, "y": NOISE[::-1]}, f"w:{packed}")
    data = bytearray(archive.read_bytes())
    data[int(len(data) * place)] ^= 255
    archive.write_bytes(bytes(data))
    with pytest.raises(BenchError, match=r"a\.tar: not a whole archive"):
        unpack(archive, tmp_path / "out")


@pytest.mark.parametrize("packed", ["", "gz", "bz2", "xz"])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.99])
def test_truncated(tmp_path, packed, share):
    archive = tar(tmp_path / "a.tar", {"x": NOISE, "y": LINES}, f"w:{packed}")
    data = archive.read_bytes()
    archive.write_bytes(data[: int(min(len(data), 1_300_000) * share)])
    with pytest.raises(BenchError, match=r"a\.tar: (not a whole archive|has no member y)") as caught:
        unpack(archive, tmp_path / "out", ["x", "y"])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"no archive at all\n" * 100, b"PK\x03\x04 nor this", bytes(5000)])
def test_no_archive(tmp_path, content):
    path = tmp_path / "yelp_dataset.tar"
    path.write_bytes(content)
    with pytest.raises(BenchError, match=r"yelp_dataset\.tar: (not a whole archive|has no member)"):
        unpack(path, tmp_path / "out", ["x"])


def test_absent(tmp_path):
    with pytest.raises(BenchError, match="cannot unpack"):
        unpack(tmp_path / "none.tar", tmp_path / "out")


def test_a_tar_that_holds_a_zip_is_a_tar(tmp_path):
    import zipfile

    with zipfile.ZipFile(tmp_path / "inner.zip", "w") as file:
        file.writestr("z", b"z")
    archive = tar(tmp_path / "a.tar", {"inner.zip": (tmp_path / "inner.zip").read_bytes()})
    unpack(archive, tmp_path / "out")
    assert (tmp_path / "out/inner.zip").read_bytes() == (tmp_path / "inner.zip").read_bytes()
