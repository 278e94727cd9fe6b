"""Files, names and links that were made to do harm."""

from __future__ import annotations

import gzip
import importlib
import os
import socket
import sys
import threading
import time
from contextlib import closing, suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from platform_core.errors import SourceError
from platform_core.plugins.interfaces import ReadRequest, Secret
from platform_core.plugins.testing import CANARY, no_secrets
from platform_core.sources import remote_folder
from platform_core.sources.decompression import Limits
from platform_core.sources.files import FilesSource
from platform_core.sources.local_folder import LocalFolder
from tests.examples import examples
from tests.sources.placed_files import read
from tests.sources.workbooks import packed


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / "secret.csv").write_text(f"id\n{CANARY}\n")
    (root / "a.csv").write_text("id\n1\n")
    return root


@pytest.fixture
def source(root: Path) -> FilesSource:
    return FilesSource(FilesSource.Options(root=str(root), settle="0 seconds"), secret=no_secrets)


@pytest.mark.parametrize(
    "pattern",
    [
        "../secret.csv",
        "x/../../secret.csv",
        "/etc/passwd",
        "~root/x",
        "\\\\host\\share\\x.csv",
        "..\\secret.csv",
        "file:///etc/passwd",
        "a.csv\0.txt",
        "[.][.]/secret.csv",
        "{..,x}/secret.csv",
        "?./secret.csv",
        "**../secret.csv",
    ],
)
def test_e5_no_pattern_leads_out_of_the_root(source: FilesSource, pattern: str) -> None:
    with pytest.raises(SourceError) as caught:
        read(source, pattern)
    assert CANARY not in str(caught.value)


@given(pattern=st.text(alphabet="a.*?[]!/\\~-{}:\0\n ", max_size=16).map(lambda text: f"{text}secret.csv"))
@settings(max_examples=examples(80), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_e5_no_made_up_pattern_leads_out_of_the_root(source: FilesSource, pattern: str) -> None:
    with pytest.raises(SourceError):
        read(source, pattern)


@pytest.mark.parametrize("target", ["../secret.csv", "..", "/etc/hostname"])
def test_e5_a_link_out_of_the_root_is_refused(source: FilesSource, root: Path, target: str) -> None:
    (root / "link").symlink_to(target)
    pattern = "link/secret.csv" if target == ".." else "link"
    with pytest.raises(SourceError, match="is a link that leads out of"):
        read(source, pattern, options={"format": "csv"})


def test_e5_links_within_the_root_are_followed(source: FilesSource, root: Path) -> None:
    (root / "deep").mkdir()
    (root / "deep" / "b.csv").symlink_to("../a.csv")
    (root / "alias").symlink_to("deep")
    assert read(source, "alias/b.csv").num_rows == 1


def test_e5_a_link_to_itself_and_one_to_nothing_end_the_read(source: FilesSource, root: Path) -> None:
    (root / "loop.csv").symlink_to("loop.csv")
    with pytest.raises(SourceError):
        read(source, "loop.csv")
    (root / "nothing.csv").symlink_to("gone.csv")
    with pytest.raises(SourceError):
        read(source, "noth*.csv")


def test_e5_folders_that_link_in_circles_end_the_search(source: FilesSource, root: Path) -> None:
    for name in ("x", "y"):
        (root / name).symlink_to(".")
    assert read(source, "**/*.csv").num_rows == 1


@pytest.mark.parametrize("kind", ["pipe", "socket"])
def test_e5_only_regular_files_are_opened(source: FilesSource, root: Path, kind: str) -> None:
    place = root / "odd.csv"
    with socket.socket(socket.AF_UNIX) as server:
        if kind == "pipe":
            os.mkfifo(place)
        else:
            server.bind(str(place))
        with pytest.raises(SourceError, match="no regular file"):
            read(source, "*.csv")


def test_e5_a_file_that_is_swapped_for_a_link_is_never_followed(root: Path, tmp_path: Path) -> None:
    folder, stop = LocalFolder(str(root)), threading.Event()
    inside, spare = root / "swap.csv", root / "spare"
    inside.write_text("inside")

    def swap() -> None:
        while not stop.is_set():
            spare.symlink_to(tmp_path / "secret.csv")
            spare.replace(inside)
            spare.write_text("inside")
            spare.replace(inside)

    swapping = threading.Thread(target=swap)
    swapping.start()
    read_in, refused = set(), 0
    try:
        until = time.monotonic() + 1
        while time.monotonic() < until:
            try:
                opened, _ = folder.open("swap.csv")
            except (SourceError, OSError):
                refused += 1
            else:
                with opened:
                    read_in.add(opened.read())
    finally:
        stop.set()
        swapping.join()
    assert read_in <= {b"inside", b""}
    assert refused


def test_a_folder_that_cannot_be_listed_is_not_taken_for_empty(
    source: FilesSource, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "closed").mkdir()
    real = os.scandir

    def scandir(path: int) -> object:
        if "closed" in str(Path(f"/proc/self/fd/{path}").readlink()):
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(SourceError, match=r"cannot list .*: Permission denied"):
        read(source, "**/*.csv")


def test_a_name_that_is_no_text_is_refused(source: FilesSource, root: Path) -> None:
    (Path(os.fsdecode(os.fsencode(root) + b"/\xff.csv"))).write_text("id\n1\n")
    with pytest.raises(SourceError, match="is not UTF-8"):
        read(source, "*.csv")


def test_e10_a_decompression_bomb_is_stopped_early(source: FilesSource, root: Path) -> None:
    line = b"1" * 99 + b"\n"
    with gzip.open(root / "bomb.csv.gz", "wb", compresslevel=1) as out:
        out.write(b"id\n")
        for _ in range(700):
            out.write(line * 10_000)
    # Not tracemalloc: Python 3.11 crashes where it is stopped while Arrow's own threads allocate.
    Path("/proc/self/clear_refs").write_text("5")
    began = _kilobytes("VmRSS")
    with closing(source):
        reader = source.read(ReadRequest(object="bomb.csv.gz", options=FilesSource.ObjectOptions(largest_ratio=50)))
        with pytest.raises(SourceError, match="grows to more than 50 times its size when decompressed"):
            for _ in reader:
                pass
    # Half of what it would grow to; what pyarrow and its threads take for themselves is part of it.
    assert _kilobytes("VmHWM") - began < 350_000


def _kilobytes(figure: str) -> int:
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith(f"{figure}:"))


def test_e10_no_file_grows_beyond_its_limit_however_large_it_is_packed() -> None:
    limits = Limits(largest_bytes=1 << 30, ratio=250)
    limits.check(1 << 30, 1 << 28, where="files")
    with pytest.raises(SourceError, match="holds more than 1 GB when decompressed"):
        limits.check((1 << 30) + 1, 1 << 29, where="files")


def test_e10_a_parquet_file_that_says_it_grows_is_refused_unread(source: FilesSource, root: Path) -> None:
    pyarrow.parquet.write_table(
        pa.table({"v": pa.repeat(pa.scalar("x" * 1000), 1_000_000)}),
        root / "bomb.parquet",
        use_dictionary=False,
        compression="zstd",
    )
    with pytest.raises(SourceError, match="grows to more than 250 times its size"):
        read(source, "bomb.parquet")


def test_e10_a_parquet_file_with_text_that_is_none_is_refused(source: FilesSource, root: Path) -> None:
    broken = pa.Array.from_buffers(pa.string(), 1, [None, pa.py_buffer(b"\0\0\0\0\2\0\0\0"), pa.py_buffer(b"\xff\xfe")])
    pyarrow.parquet.write_table(pa.table({"v": broken}), root / "odd.parquet")
    with pytest.raises(SourceError, match=r"file 'odd\.parquet': is not a Parquet file, is damaged"):
        read(source, "odd.parquet")


def test_e10_a_parquet_file_that_repeats_one_huge_value_stays_within_memory(source: FilesSource, root: Path) -> None:
    pyarrow.parquet.write_table(
        pa.table({"v": pa.DictionaryArray.from_arrays(pa.array([0] * 100_000, pa.int32()), ["x" * 1_000_000])}),
        root / "wide.parquet",
        store_schema=False,
        dictionary_pagesize_limit=1 << 24,
    )
    began, largest = pa.total_allocated_bytes(), 0
    with closing(source), suppress(SourceError):
        for number, batch in enumerate(source.read(ReadRequest(object="wide.parquet"))):
            largest = max(largest, pa.total_allocated_bytes() - began)
            assert batch.num_rows
            if number == 20:
                break
    assert 0 < largest < 500_000_000


@pytest.mark.parametrize("name", ["a.xlsx", "a.parquet", "a.csv.gz", "a.csv.zst", "a.csv.xz", "a.json"])
@pytest.mark.parametrize(
    "content", [b"\0" * 1000, b"PAR1" + b"\xff" * 1000 + b"PAR1", b"PK\x03\x04" + b"\xff" * 500, packed({"x": b""})]
)
def test_e10_nonsense_is_an_error_of_the_source(source: FilesSource, root: Path, name: str, content: bytes) -> None:
    (root / name).write_bytes(content)
    with pytest.raises(SourceError, match=f"file '{name}'"):
        read(source, name)


@pytest.mark.parametrize(
    ("url", "missing", "extra"),
    [("s3://b/x", "s3fs", "s3"), ("abfss://c@a/x", "adlfs", "azure"), ("sftp://h/x", "sshfs", "sftp")],
)
def test_a_missing_package_is_named_with_what_installs_it(
    monkeypatch: pytest.MonkeyPatch, url: str, missing: str, extra: str
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    # A class that another test has loaded is remembered there.
    monkeypatch.delitem(importlib.import_module("fsspec.registry")._registry, url.partition(":")[0], raising=False)
    source = FilesSource(FilesSource.Options(root=url), secret=no_secrets)
    with pytest.raises(SourceError, match=rf"pip install 'edp-platform-core\[{extra}\]'"):
        read(source, "*.csv")


def test_an_sftp_server_is_never_trusted_unseen() -> None:
    source = FilesSource(
        FilesSource.Options(root="sftp://user@127.0.0.1:1/x", storage_options={"known_hosts": None}), secret=no_secrets
    )
    with pytest.raises(SourceError, match="would send the password to whoever answers"):
        read(source, "*.csv")


@pytest.mark.parametrize("option", ["known_hosts", "client_keys"])
def test_a_key_that_cannot_be_read_is_not_shown(option: str) -> None:
    text = f"-----BEGIN {CANARY} x"
    source = FilesSource(
        FilesSource.Options(root="sftp://user@127.0.0.1:1/x", storage_options={option: {"secret": "crm/key"}}),
        secret=lambda name: Secret(name, text.encode()),
    )
    with pytest.raises(SourceError) as caught:
        read(source, "*.csv")
    assert CANARY not in str(caught.value)


def test_secrets_are_found_at_any_depth_of_the_options() -> None:
    asked: list[str] = []

    def secret(name: str) -> Secret:
        asked.append(name)
        return Secret(name, b"x")

    revealed = remote_folder._revealed({"keys": [{"secret": "a"}], "deep": {"more": {"secret": "b"}}}, secret)
    assert (revealed, asked) == ({"keys": ["x"], "deep": {"more": "x"}}, ["a", "b"])
