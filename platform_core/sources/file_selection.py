"""Chooses the files of one read: those that are complete and, where files are loaded once, not loaded yet."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable
from dataclasses import dataclass

from platform_core.errors import SourceError
from platform_core.sources.file_content import FileContent
from platform_core.sources.file_ledger import Ledger
from platform_core.sources.file_options import FileOptions
from platform_core.sources.storage import StoredFile

# Clocks of servers are wrong by hours at worst; a file older than this has not been written just now.
_SURELY_OLD = dt.timedelta(days=1)


def settled(
    files: list[StoredFile],
    *,
    settle: dt.timedelta,
    same_clock: bool,
    look_again: Callable[[], list[StoredFile]],
) -> tuple[list[StoredFile], list[StoredFile]]:
    """The files that nobody is writing, and those that somebody is.

    A file that has not been touched for the time is complete. If any was, all such are looked at once more after the
    time has passed; files that have gone by then are left out.

    Args:
        settle: how long a file must stay as it is.
        same_clock: whether times of files are of this machine's clock; if not, files of the last day are looked at.
        look_again: lists the files anew.
    """
    now = dt.datetime.now(dt.UTC)
    old = settle if same_clock else max(settle, _SURELY_OLD)
    fresh = {file for file in files if file.modified is None or now - file.modified < old}
    if not settle or not fresh:
        return files, []
    time.sleep(settle.total_seconds())
    again = {file.name: file for file in look_again()}
    there = [file for file in files if file not in fresh or file.name in again]
    writing = [file for file in there if file in fresh and again[file.name] != file]
    return [file for file in there if file not in writing], writing


@dataclass
class Choice:
    """Decides, file by file, whether its rows are to be read, and says what was left out.

    Args:
        reload: whether a file that was loaded and holds something else by now is read again.
        everything: no file is left out, and the ledger only learns.
    """

    ledger: Ledger
    options: FileOptions
    reload: bool
    everything: bool = False
    duplicates: int = 0
    replaced: int = 0

    def wants(self, content: FileContent, *, fresh: Callable[[], FileContent]) -> bool:
        """Whether the rows of a file are to be read.

        Args:
            content: the file; read to its end where only its content tells.
            fresh: opens the file anew, for a look before it is read.

        Raises:
            SourceError: the file was loaded, holds something else by now, and must not.
        """
        if self.everything:
            return True
        file, known = content.file, self.ledger.entry(content.file)
        if known is not None:
            if known.size == file.size and self._digest(fresh) == known.digest:
                self.ledger.add(file, known.digest)
                return False
            if not self.reload:
                raise SourceError(
                    f"{content.where}: was loaded at {known.loaded_at} and holds something else now\n"
                    "  its old rows cannot be taken back: deliver new content under a new name, or use mode incremental"
                    " with a key; 'replaced: reload' in the table's options loads its rows as further ones"
                )
            self.replaced += 1
            return True
        if self.options.duplicates == "skip" and self.ledger.may_be_known(file):
            digest = self._digest(fresh)
            if self.ledger.is_known(digest):
                self.ledger.add(file, digest)
                self.duplicates += 1
                return False
        return True

    def notes(self) -> list[str]:
        """What was left out or read again, for people."""
        notes = []
        if self.duplicates:
            notes.append(f"files left out, for they hold exactly what a loaded one did: {self.duplicates:,}")
        if self.replaced:
            notes.append(
                f"files read again, for they hold something else than when they were loaded: {self.replaced:,}"
            )
        return notes

    @staticmethod
    def _digest(fresh: Callable[[], FileContent]) -> str:
        content = fresh()
        try:
            digest = content.digest()
            content.check_unchanged()
        finally:
            content.close()
        return digest
