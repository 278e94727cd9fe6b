"""Who does something to the control tables, and which commit of git it comes from."""

from __future__ import annotations

import getpass
import subprocess
from pathlib import Path

_SECONDS = 20


def default_author(folder: Path) -> str:
    """git's user of a folder (``name <email>``), else the user of the system."""
    name, email = (_git(folder, "config", f"user.{key}") for key in ("name", "email"))
    if name and email:
        return f"{name} <{email}>"
    return name or email or getpass.getuser()


def git_commit(folder: Path) -> str | None:
    """The commit that a folder is at, with ``-dirty`` behind it where its files differ; None outside of git."""
    commit = _git(folder, "rev-parse", "HEAD")
    if not commit:
        return None
    changed = _git(folder, "status", "--porcelain", "--", ".")
    return f"{commit}-dirty" if changed or changed is None else commit


def has_uncommitted_edits(file: Path) -> bool:
    """Whether a file differs from what is committed; never outside of git."""
    return bool(_git(file.parent, "status", "--porcelain", "--", file.name))


def _git(folder: Path, *arguments: str) -> str | None:
    """What git says; None where there is no git, or it refuses."""
    try:
        done = subprocess.run(  # noqa: S603 - fixed words; the folder is one of the project
            # Looking must not stand in the way of somebody who commits at this moment.
            ["git", "--no-optional-locks", *arguments],  # noqa: S607 - whichever git the person uses
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
