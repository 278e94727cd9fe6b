"""The source files on real servers: S3, SFTP and Azure's blob storage."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from platform_core.errors import SourceError
from platform_core.plugins.interfaces import ReadRequest, Secret
from platform_core.plugins.testing import CANARY, no_secrets
from platform_core.sources.files import FilesSource
from platform_core.specs.ingestion import LoadMode
from tests.services.azurite import AzuriteServer
from tests.services.object_store import ObjectStore, running_object_store
from tests.services.sftp_server import SftpServer, running_sftp_server
from tests.sources.placed_files import CsvSuite, ParquetSuite, Put, read

pytestmark = pytest.mark.services


@pytest.fixture(scope="module")
def object_store() -> Iterator[ObjectStore]:
    with running_object_store() as server:
        yield server


@pytest.fixture(scope="module")
def s3_client(object_store: ObjectStore) -> Iterator[Any]:
    client = object_store.client()
    yield client
    client.close()


@pytest.fixture(scope="module")
def sftp_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SftpServer]:
    with running_sftp_server(tmp_path_factory.mktemp("sftp")) as server:
        yield server


class OnS3:
    @pytest.fixture
    def bucket(self, object_store: ObjectStore) -> str:
        return object_store.create_bucket()

    @pytest.fixture
    def put(self, s3_client: Any, bucket: str) -> Put:
        return lambda name, content: s3_client.put_object(Bucket=bucket, Key=f"in/{name}", Body=content)

    @pytest.fixture
    def source(self, object_store: ObjectStore, bucket: str) -> Iterator[FilesSource]:
        options = FilesSource.Options(root=f"s3://{bucket}/in", storage_options=object_store.storage_options)
        with closing(FilesSource(options, secret=no_secrets)) as source:
            yield source


class OnSftp:
    @pytest.fixture
    def folder(self, sftp_server: SftpServer, request: pytest.FixtureRequest) -> Path:
        folder = sftp_server.folder / f"{len([*sftp_server.folder.iterdir()])}"
        folder.mkdir()
        return folder

    @pytest.fixture
    def put(self, folder: Path) -> Put:
        def put(name: str, content: bytes) -> None:
            (folder / name).write_bytes(content)

        return put

    @pytest.fixture
    def source(self, sftp_server: SftpServer, folder: Path) -> Iterator[FilesSource]:
        options = FilesSource.Options(
            root=f"{sftp_server.root}{folder.name}", storage_options=sftp_server.storage_options, settle="0 seconds"
        )
        with closing(FilesSource(options, secret=no_secrets)) as source:
            yield source


class OnAzure:
    @pytest.fixture
    def container(self, azurite: AzuriteServer) -> str:
        return azurite.create_container()

    @pytest.fixture
    def put(self, azurite: AzuriteServer, container: str) -> Iterator[Put]:
        from azure.storage.blob import BlobServiceClient

        with BlobServiceClient.from_connection_string(azurite.connection_string) as client:
            yield lambda name, content: client.get_blob_client(container, f"in/{name}").upload_blob(
                content, overwrite=True
            )

    @pytest.fixture
    def source(self, azurite: AzuriteServer, container: str) -> Iterator[FilesSource]:
        options = FilesSource.Options(
            root=f"az://{container}/in", storage_options={"connection_string": azurite.connection_string}
        )
        with closing(FilesSource(options, secret=no_secrets)) as source:
            yield source


class Deliveries:
    """What holds for the deliveries of files, wherever they come."""

    def test_b14_a_file_is_loaded_once_and_a_replaced_one_again(self, source: FilesSource, put: Put) -> None:
        put("a.csv", b"id,v\n1,x\n")
        put("b.csv", b"id,v\n2,y\n")
        request = ReadRequest(
            object="*.csv", mode=LoadMode.INCREMENTAL, options=FilesSource.ObjectOptions(file_column="file")
        )
        assert source.read(request).read_all().num_rows == 2
        request = dataclasses.replace(request, state=source.state())
        assert source.read(request).read_all().num_rows == 0
        put("c.csv", b"id,v\n1,x\n")
        put("b.csv", b"id,v\n3,z\n")
        assert source.read(request).read_all().to_pylist() == [{"id": "3", "v": "z", "file": "b.csv"}]

    def test_folders_are_searched_and_nothing_above_the_root_is(self, source: FilesSource, put: Put) -> None:
        put("a.csv", b"id\n1\n")
        assert read(source, "**/*.csv").num_rows == 1

    def test_no_file_is_an_error(self, source: FilesSource, put: Put) -> None:
        put("a.txt", b"x")
        with pytest.raises(SourceError, match=r"no file in .* matches\n  the root holds: a.txt\n"):
            read(source, "*.csv")


def keyring(**values: str) -> Callable[[str], Secret]:
    return lambda name: Secret(name, values[name.rpartition("/")[2]].encode())


def test_the_key_of_s3_comes_from_the_secret_store_and_a_wrong_one_is_not_shown(object_store: ObjectStore) -> None:
    bucket = object_store.create_bucket()
    options = {**object_store.storage_options, "secret": {"secret": "crm/key"}}
    good = FilesSource(
        FilesSource.Options(root=f"s3://{bucket}", storage_options=options), secret=keyring(key=object_store.key)
    )
    with pytest.raises(SourceError, match="no file in"):
        read(good, "*.csv")
    gone = FilesSource(
        FilesSource.Options(root="s3://no-such-bucket-here", storage_options=options), secret=keyring(key=CANARY)
    )
    with pytest.raises(SourceError, match="there is no such root") as caught:
        read(gone, "*.csv")
    assert CANARY not in str(caught.value)


def test_b14_a_file_of_s3_that_is_replaced_while_it_is_read_is_an_error(
    object_store: ObjectStore, s3_client: Any
) -> None:
    bucket = object_store.create_bucket()
    body = b"id,v\n" + b"1,xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\n" * 500_000
    s3_client.put_object(Bucket=bucket, Key="a.csv", Body=body)
    options = FilesSource.Options(root=f"s3://{bucket}", storage_options=object_store.storage_options)
    with closing(FilesSource(options, secret=no_secrets)) as source:
        reader = source.read(ReadRequest(object="a.csv", mode=LoadMode.INCREMENTAL, batch_rows=1000))
        reader.read_next_batch()
        s3_client.put_object(Bucket=bucket, Key="a.csv", Body=body.replace(b"1,x", b"2,x"))
        with pytest.raises(SourceError, match=r"file 'a\.csv'"):
            reader.read_all()
        assert source.state() is None


def test_an_sftp_server_is_known_by_its_key_and_a_stranger_is_refused(sftp_server: SftpServer) -> None:
    import asyncssh

    other = asyncssh.generate_private_key("ssh-ed25519").export_public_key().decode().strip()
    for host in ("[127.0.0.1]:1", f"[127.0.0.1]:{sftp_server.port}"):
        options = {**sftp_server.storage_options, "known_hosts": f"{host} {other}\n"}
        source = FilesSource(FilesSource.Options(root=sftp_server.root, storage_options=options), secret=no_secrets)
        with pytest.raises(SourceError, match=r"cannot open root sftp://127\.0\.0\.1:.*HostKeyNotVerifiable"):
            read(source, "*.csv")


def test_an_sftp_server_takes_a_password_or_a_key_from_the_secret_store(sftp_server: SftpServer) -> None:
    (sftp_server.folder / "login").mkdir()
    (sftp_server.folder / "login" / "a.csv").write_text("id\n1\n")
    options = {**sftp_server.storage_options}
    del options["password"]
    for login in ({"password": {"secret": "crm/password"}}, {"client_keys": [{"secret": "crm/private_key"}]}):
        source = FilesSource(
            FilesSource.Options(root=f"{sftp_server.root}login", storage_options=options | login, settle="0 seconds"),
            secret=keyring(password=sftp_server.password, private_key=sftp_server.client_key),
        )
        assert read(source, "*.csv").num_rows == 1


def test_a_wrong_password_of_sftp_is_not_shown(sftp_server: SftpServer) -> None:
    options = {**sftp_server.storage_options, "password": {"secret": "crm/password"}}
    source = FilesSource(
        FilesSource.Options(root=sftp_server.root, storage_options=options), secret=keyring(password=CANARY)
    )
    with pytest.raises(SourceError, match=r"cannot open root .*Permission") as caught:
        read(source, "*.csv")
    assert CANARY not in str(caught.value)


def test_e5_links_on_an_sftp_server_are_not_followed(sftp_server: SftpServer) -> None:
    folder = sftp_server.folder / "links"
    folder.mkdir()
    (folder / "a.csv").symlink_to("/etc/hostname")
    for pattern in ("*.csv", "a.csv"):
        source = FilesSource(
            FilesSource.Options(root=f"{sftp_server.root}links", storage_options=sftp_server.storage_options),
            secret=no_secrets,
        )
        with (
            closing(source),
            pytest.raises(SourceError, match=r"'a\.csv' is a link, which this storage does not resolve"),
        ):
            read(source, pattern)


def test_b14_a_file_that_arrives_by_sftp_slowly_is_left_for_the_next_load(sftp_server: SftpServer) -> None:
    folder = sftp_server.folder / "slow"
    folder.mkdir()
    (folder / "a.csv").write_text("id\n1\n")
    options = FilesSource.Options(
        root=f"{sftp_server.root}slow", storage_options=sftp_server.storage_options, settle="2 seconds"
    )
    request = ReadRequest(object="*.csv", mode=LoadMode.INCREMENTAL)
    with closing(FilesSource(options, secret=no_secrets)) as source:
        assert source.read(request).read_all().num_rows == 1
        state = source.state()
    (folder / "b.csv").write_text("id\n2\n")

    def grow() -> None:
        time.sleep(1)
        with (folder / "b.csv").open("a") as out:
            out.write("3\n")

    writer = threading.Thread(target=grow)
    writer.start()
    request = dataclasses.replace(request, state=state)
    with closing(FilesSource(options, secret=no_secrets)) as source:
        assert source.read(request).read_all().num_rows == 0
        assert source.notes() == ("files left for the next load, for they are still being written: 1",)
    writer.join()
    with closing(FilesSource(options, secret=no_secrets)) as source:
        assert source.read(request).read_all().num_rows == 2


class TestCsvOnS3(OnS3, CsvSuite):
    pass


class TestParquetOnS3(OnS3, ParquetSuite):
    pass


class TestDeliveriesOnS3(OnS3, Deliveries):
    pass


class TestCsvOnSftp(OnSftp, CsvSuite):
    pass


class TestParquetOnSftp(OnSftp, ParquetSuite):
    pass


class TestDeliveriesOnSftp(OnSftp, Deliveries):
    pass


class TestCsvOnAzure(OnAzure, CsvSuite):
    pass


class TestParquetOnAzure(OnAzure, ParquetSuite):
    pass


class TestDeliveriesOnAzure(OnAzure, Deliveries):
    pass
