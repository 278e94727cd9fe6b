"""Gives a plug-in the secrets of one piece of work, and looks whether they were replaced where it fails."""

from __future__ import annotations

import datetime as dt
import hmac
import logging
import re
import threading
import time

from platform_core.errors import SecretError
from platform_core.operations.platform import Platform
from platform_core.plugins.interfaces import Secret

_SILENCE_SECONDS = 3600.0
_PAUSES = (0.5, 1.0, 1.5, 2.0, 2.5, 2.5)
"""Seconds between looks for a password that is on its way into the store."""

_NO_MORE_SECONDS = 120.0
_CREDENTIALS = re.compile(
    r"authentication failed|access denied|login failed|credentials|invalid_client|status 401"
    r"|\b(1045|18456|28P01|28000|ORA-01017)\b",
    re.IGNORECASE,
)
"""What sources and services say where they refuse a password: PostgreSQL, MySQL, SQL Server, Oracle, REST, Entra."""

_in_vain: dict[str, float] = {}
"""Until when this process does not wait for another value of a secret."""

_warned: dict[str, float] = {}
"""When this process last warned of a secret: a run of many tables says it once."""


class SecretUse:
    """The secrets of one load or refresh; call it with a name.

    It gives the same value from beginning to end, so that a rotation meanwhile does not mix old and new. Whoever
    uses it asks :meth:`renewed` after a failure, and tries once more where that is true: what failed may be an old
    password that the store had remembered.
    """

    def __init__(self, platform: Platform) -> None:
        """Keep the platform; the store is asked when the first secret is.

        Args:
            platform: its store, its log, and how long before the end of a secret it warns.
        """
        self._store = platform.secrets
        self._log = platform.log
        self._cancelled = platform.cancelled
        self._warning = platform.environment.secret_warning
        self._lock = threading.Lock()
        self._given: dict[str, Secret] = {}

    def __call__(self, name: str) -> Secret:
        """The named secret.

        Raises:
            SecretError: it is missing, or the store cannot be read.
        """
        with self._lock:
            secret = self._given.get(name)
        if secret is None:
            secret = self._store.get(name)
            warn_of_end(secret, before=self._warning, log=self._log)
            with self._lock:
                secret = self._given.setdefault(name, secret)
        return secret

    def renewed(self, failure: BaseException) -> bool:
        """Ask the store anew for all that was given; whether any value is another one, which is given from now on.

        A password changes at its server and in the store one after the other. So where the failure speaks of refused
        credentials, the new one is waited for a few seconds; once in a while only, or many tables with a wrong
        password would wait one after the other. A store that fails now has the failure stand as it is.

        Args:
            failure: what happened to whom the secrets were given.
        """
        if (replaced := self._replaced()) is not False:
            return replaced is True
        with self._lock:
            names = sorted(self._given)
        now = time.monotonic()
        if not _CREDENTIALS.search(str(failure)) or any(now < _in_vain.get(name, 0.0) for name in names):
            return False
        for pause in _PAUSES if names else ():
            if self._cancelled():
                return False
            time.sleep(pause)
            if (replaced := self._replaced()) is not False:
                return replaced is True
        _in_vain.update(dict.fromkeys(names, time.monotonic() + _NO_MORE_SECONDS))
        return False

    def _replaced(self) -> bool | None:
        """Whether any value is another one now; None where the store cannot tell."""
        with self._lock:
            given = dict(self._given)
        changed = False
        for name, old in given.items():
            try:
                new = self._store.fresh(name)
            except SecretError as error:
                self._log.warning("secret '%s' was asked for anew after a failure\n%s", name, error)
                return None
            if not hmac.compare_digest(old.reveal(), new.reveal()):
                changed = True
                with self._lock:
                    self._given[name] = new
        return changed


def warn_of_end(secret: Secret, *, before: dt.timedelta, log: logging.Logger) -> None:
    """Write a warning about a secret that ends soon, or has; once an hour in each process.

    Args:
        before: how long before its end it is warned of.
    """
    if secret.expires_at is None:
        return
    left = secret.expires_at - dt.datetime.now(dt.UTC)
    now = time.monotonic()
    if left > before or now - _warned.get(secret.name, -_SILENCE_SECONDS) < _SILENCE_SECONDS:
        return
    _warned[secret.name] = now
    log.warning(
        "secret '%s' %s\n  set a new one: edp secrets set %s", secret.name, end_in_words(secret.expires_at), secret.name
    )


def end_in_words(expires_at: dt.datetime, *, now: dt.datetime | None = None) -> str:
    """When a secret ends, or ended, for a person."""
    left = expires_at - (now or dt.datetime.now(dt.UTC))
    day = f"{expires_at:%Y-%m-%d}"
    if left <= dt.timedelta(0):
        return f"expired on {day}"
    if left.days < 1:
        return f"expires within a day, on {day}"
    return f"expires in {left.days} {'day' if left.days == 1 else 'days'}, on {day}"
