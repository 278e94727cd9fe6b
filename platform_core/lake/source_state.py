"""What a source remembers between loads: one small file for each batch, of which that of bronze's batch counts."""

from __future__ import annotations

from collections.abc import Mapping

from platform_core.errors import StorageError, redacted
from platform_core.faults import FaultPoint, reach
from platform_core.lake.storage import filesystem, local_path, persist


def read_state(folder: str, batch_id: int, *, storage_options: Mapping[str, str]) -> bytes | None:
    """What was kept with a batch; None where nothing was.

    Args:
        folder: of the table's states.

    Raises:
        StorageError: the file cannot be read.
    """
    try:
        with filesystem(folder, storage_options).open_input_stream(_name(batch_id)) as stream:
            content: bytes = stream.read()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StorageError(f"{folder}/{_name(batch_id)}: cannot be read\n  {redacted(error)}") from None
    return content


def write_state(folder: str, batch_id: int, state: bytes, *, storage_options: Mapping[str, str]) -> None:
    """Keep what the source remembers with a batch, whole and durably, before that batch is committed.

    Raises:
        StorageError: the disk or store refused.
    """
    name = _name(batch_id)
    try:
        reach(FaultPoint.STATE_WRITE)
        if (local := local_path(folder)) is None:
            with filesystem(folder, storage_options).open_output_stream(name) as stream:
                stream.write(state)
            return
        local.mkdir(parents=True, exist_ok=True)
        # A suffix keeps a torn file from being taken for a state.
        written = local / f"{name}.tmp"
        written.write_bytes(state)
        persist(written)
        written.rename(local / name)
        persist(local)
    except OSError as error:
        raise StorageError(f"{folder}/{name}: cannot be written\n  {redacted(error)}") from None


def remove_states(folder: str, *, but: int, storage_options: Mapping[str, str]) -> None:
    """Remove every state that is older than that of one batch.

    A newer one is another load's: this one may have been paused right after its commit.

    Raises:
        StorageError: the disk or store refused.
    """
    import pyarrow.fs

    try:
        store = filesystem(folder, storage_options)
        for info in store.get_file_info(pyarrow.fs.FileSelector("", allow_not_found=True)):
            if info.base_name < _name(but):
                store.delete_file(info.path)
    except OSError as error:
        raise StorageError(f"{folder}: old states cannot be removed\n  {redacted(error)}") from None


def remove_state(folder: str, batch_id: int, *, storage_options: Mapping[str, str]) -> None:
    """Remove the state of a batch that will not be committed; nothing happens where there is none.

    Raises:
        StorageError: the disk or store refused.
    """
    try:
        filesystem(folder, storage_options).delete_file(_name(batch_id))
    except FileNotFoundError:
        return
    except OSError as error:
        raise StorageError(f"{folder}/{_name(batch_id)}: cannot be removed\n  {redacted(error)}") from None


def _name(batch_id: int) -> str:
    return f"{batch_id:012d}"
