"""The dashboard `powerbi`: asks for an enhanced refresh of a dataset and follows that very request to its end."""

from __future__ import annotations

import datetime as dt
import math
import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from http import HTTPStatus
from pathlib import Path
from typing import ClassVar

from platform_core.dashboards.powerbi_memory import Memory, request_body
from platform_core.dashboards.powerbi_options import PowerBIConnection, PowerBIOptions
from platform_core.dashboards.powerbi_service import (
    COMPLETED,
    Answer,
    Exchange,
    OutcomeUnknownError,
    PowerBIService,
    Refresh,
    refusal,
)
from platform_core.dashboards.waiting import Clock, OutOfTimeError, SystemClock, WaitCancelledError, Waiting
from platform_core.errors import RefreshError
from platform_core.plugins.interfaces import Dashboard, RefreshRequest, RefreshResult, Secret
from platform_core.specs.base import Model

_MOST_LOST = 3
"""Most requests whose outcome stays unknown before the refresh is given up."""

_LOOKS = 5
"""How often the history is read for a request whose outcome is unknown, before it counts as lost: for 30 seconds."""

_MOST_UNSEEN = 5
"""How often in a row the service may not know our request before it counts as dropped."""

_AFTER_COMMIT = dt.timedelta(seconds=2)
"""How long after a table's commit a refresh must have begun to have read it: a commit is seen after it is dated."""

_SETTLED = 8.0
"""Seconds from the newest commit to our request, so many that the inexact time of the service does not matter."""

_COUNTED = ("full", "dataOnly", "automatic")
"""Kinds of refresh in whose place another may count; the others read no data."""

_DOUBTED_AFTER = 900.0
"""Seconds for which a refresh of somebody else is followed before the service is asked whether it really goes on."""

_CLOCK_TOLERANCE = dt.timedelta(seconds=5)
_LONGEST = dt.timedelta(hours=2)
"""The time for all of it, waiting for other refreshes included, where the dashboard declares none."""

_FIRST_LOOK = 1.0
_PROBE = dt.timedelta(seconds=30)
_REQUEST_ID = re.compile(r"[0-9A-Za-z-]{8,64}")


class PowerBIDashboard(Dashboard):
    """A Power BI dataset. No two refreshes of it are asked for at a time, and none in place of one that counts."""

    Options: ClassVar[type[Model]] = PowerBIOptions
    ConnectionOptions: ClassVar[type[Model] | None] = PowerBIConnection
    options: PowerBIOptions
    connection: PowerBIConnection | None

    def __init__(
        self,
        options: PowerBIOptions,
        *,
        connection: PowerBIConnection | None,
        secret: Callable[[str], Secret],
        root: Path,
        clock: Clock | None = None,
        answer_within: float = 30.0,
        exchange: Exchange | None = None,
    ) -> None:
        """Keep the options.

        Args:
            options: an instance of :attr:`Options`.
            connection: an instance of :attr:`ConnectionOptions`.
            secret: gives the value of a named secret.
            root: not used.
            clock: tells the time and waits; None: the machine's.
            answer_within: seconds that the service may take for each answer.
            exchange: carries the requests; None: HTTP.
        """
        super().__init__(options, connection=connection, secret=secret, root=root)
        self._clock = clock or SystemClock()
        self._answer_within = answer_within
        self._exchange = exchange

    def refresh(self, request: RefreshRequest) -> RefreshResult:
        """Refresh the dataset and wait for the end.

        Raises:
            RefreshError: the refresh failed, was refused, did not end in time, or the run is being cancelled.
        """
        if self.connection is None:
            raise RefreshError(f"{request.name}: a powerbi dashboard needs 'connection', of type powerbi")
        options = self.options
        timeout = request.timeout or _LONGEST
        waiting = Waiting(self._clock, timeout=timeout, cancelled=request.cancelled)
        with self._service(self.connection, waiting) as service:
            memory = Memory.read(request, options=options)
            attempt = _Attempt(service, options, as_of=request.as_of, memory=memory, waiting=waiting, log=request.log)
            try:
                refresh = attempt.run()
            except WaitCancelledError:
                raise RefreshError(f"{request.name}: cancelled; {attempt.withdraw()}") from None
            except OutOfTimeError:
                raise RefreshError(
                    f"{request.name}: not refreshed within {timeout}; {attempt.standing()}"
                    "\n  look at the dataset's refresh history, or raise 'timeout'"
                ) from None
            except RefreshError as error:
                raise RefreshError(f"{request.name}: {error}") from None
        page = f"https://app.powerbi.com/groups/{options.workspace}/datasets/{options.dataset}/details"
        return RefreshResult(url=options.url or page, figures=attempt.figures(refresh))

    def probe(self) -> bool:
        """Ask for the dataset's history, which needs a token and access to the workspace."""
        if self.connection is None:
            raise RefreshError("a powerbi dashboard needs 'connection', of type powerbi")
        waiting = Waiting(self._clock, timeout=_PROBE, cancelled=lambda: False)
        with self._service(self.connection, waiting) as service:
            try:
                service.history()
            except OutOfTimeError:
                raise RefreshError(f"no answer within {_PROBE}; is the service reached from here?") from None
        return True

    def _service(self, connection: PowerBIConnection, waiting: Waiting) -> PowerBIService:
        return PowerBIService(
            connection,
            self.options,
            secret=self.secret,
            waiting=waiting,
            answer_within=self._answer_within,
            exchange=self._exchange,
        )


class _Attempt:
    """One refresh: ours from the first request to its end, or another that shows what ours would."""

    def __init__(
        self,
        service: PowerBIService,
        options: PowerBIOptions,
        *,
        as_of: dt.datetime,
        memory: Memory,
        waiting: Waiting,
        log: Callable[[str], None],
    ) -> None:
        self._service = service
        self._options = options
        self._as_of = as_of
        self._memory = memory
        self._waiting = waiting
        self._log = log
        self._own = ""
        self._followed = ""
        self._state = ""
        self._asked = 0
        self._lost = 0
        self._refused = 0
        self._before: set[str] = set()
        self._since = as_of
        self._ended_badly: set[str] = set()
        self._doubted: set[str] = set()
        self._waited_for: set[str] = set()

    def run(self) -> Refresh:
        """Return a completed refresh that read the tables as they are now."""
        self._settle()
        history = self._history()
        self._before = {refresh.id for refresh in history}
        self._since = self._service.now()
        while (shown := self._counting(history, over=True)) is None:
            if (going := self._counting(history, over=False)) is not None and going.id not in self._doubted:
                refresh = self._attached(going.id, why="is running, and began after the newest table was made")
            else:
                refresh = self._next()
            if refresh is not None:
                return refresh
            history = self._history()
        self._log(f"refresh {shown.id} began after the newest table was made: no further one is needed")
        return shown

    def standing(self) -> str:
        """Where the attempt stands, for a person."""
        if self._own:
            return f"refresh {self._own} was last seen as {self._state or 'accepted'}"
        if self._lost:
            return "a refresh was asked for without an answer, and may be running"
        if self._followed:
            return f"refresh {self._followed}, which somebody else asked for, was last seen as {self._state}"
        if self._waited_for:
            return "another refresh of the dataset was running, and none of ours was accepted"
        return "no refresh was accepted"

    def withdraw(self) -> str:
        """Cancel what was asked for, and nothing that may be another's; what became of it, for a person."""
        if not self._own:
            return self.standing()
        if self._service.cancel(self._own):
            return f"refresh {self._own} was cancelled at Power BI"
        return f"Power BI did not confirm that refresh {self._own} is cancelled: it may be running"

    def figures(self, refresh: Refresh) -> dict[str, int | float | str]:
        """What is worth keeping about the refresh."""
        figures: dict[str, int | float | str] = {
            "request_id": refresh.id,
            "state": refresh.state,
            "requests": self._asked,
            "waited_for": len(self._waited_for),
            "asked_by": "us" if refresh.id == self._own else "another, or an earlier try",
        }
        if refresh.started and refresh.ended:
            figures["refresh_seconds"] = round((refresh.ended - refresh.started).total_seconds(), 3)
        return figures

    def _history(self) -> list[Refresh]:
        """The latest refreshes; also our own last one where the list does not show it yet."""
        history = self._service.history()
        if self._memory.ids and all(refresh.id != self._memory.ids[-1] for refresh in history):
            own = self._service.details(self._memory.ids[-1])
            return history if own is None else [*history, replace(own, enhanced=True)]
        return history

    def _settle(self) -> None:
        """Let a moment pass after the newest commit, so that whoever looks later knows that ours has read it."""
        passed = (self._waiting.clock.now() - self._as_of).total_seconds()
        if passed < _SETTLED:
            self._waiting.pause(min(_SETTLED, _SETTLED - passed))

    def _next(self) -> Refresh | None:
        """Ask once; the completed refresh that came of it, None where it is to be asked again."""
        self._waiting.check()
        self._asked += 1
        answer = self._answer()
        if answer is not None and answer.status == HTTPStatus.ACCEPTED:
            return self._followed_own(_request_id(answer))
        if self._lost and (found := self._adopted()):
            return self._attached(found, why="was accepted after all")
        if answer is None:
            if self._lost >= _MOST_LOST:
                raise RefreshError(f"Power BI left {self._lost} requests without an answer; {self.standing()}")
            return None
        if answer.status not in (HTTPStatus.BAD_REQUEST, HTTPStatus.CONFLICT):
            raise refusal(answer)
        running = self._running()
        if (attached := self._counting(running, over=False)) is not None:
            return self._attached(attached.id, why="is running, and began after the newest table was made")
        self._wait_for_others(answer, {refresh.id for refresh in running})
        return None

    def _followed_own(self, request_id: str) -> Refresh:
        self._own = request_id
        self._memory.note_request(request_id)
        self._log(f"refresh {request_id} accepted")
        refresh = self._follow(request_id)
        if refresh is None:
            raise RefreshError(
                f"Power BI does not know refresh {request_id}, which it had accepted"
                "\n  it drops requests when there are too many in a short time; try again later"
            )
        if refresh.state != COMPLETED:
            codes = f" ({', '.join(refresh.codes)})" if refresh.codes else ""
            raise RefreshError(
                f"refresh {refresh.id} ended as {refresh.state}{codes}"
                "\n  the dataset's refresh history in Power BI has the details"
            )
        self._memory.note_parts(refresh.parts)
        return refresh

    def _attached(self, request_id: str, *, why: str) -> Refresh | None:
        """Follow a refresh that shows what ours would; None where ours is to be asked for."""
        self._followed, self._state = request_id, ""
        self._log(f"refresh {request_id} {why}; waiting for its end")
        refresh = self._follow(request_id, at_most=_DOUBTED_AFTER)
        if refresh is not None and refresh.state == COMPLETED:
            return refresh
        if refresh is not None and not refresh.over:
            # An entry may stay 'Unknown' for ever: the service refuses our request if this one really goes on.
            self._doubted.add(request_id)
            return None
        self._ended_badly.add(request_id)
        self._followed = ""
        self._log(f"refresh {request_id} ended as {refresh.state if refresh else 'unknown'}; asking for ours")
        return None

    def _counting(self, refreshes: Iterable[Refresh], *, over: bool) -> Refresh | None:
        """The newest refresh that began after the newest table was made, and reads what ours would; None if none.

        Args:
            refreshes: to choose from.
            over: only completed ones; else only those that go on.
        """
        needed = self._service.time_there(self._as_of) + _AFTER_COMMIT
        late = [each for each in refreshes if each.started and each.started >= needed and each.id]
        for refresh in sorted(late, key=lambda each: each.started or needed, reverse=True):
            if refresh.id in self._ended_badly or (refresh.state != COMPLETED if over else refresh.over):
                continue
            if not refresh.enhanced or not _REQUEST_ID.fullmatch(refresh.id):
                # Whatever is not enhanced processes the whole dataset.
                if self._options.refresh_type in _COUNTED:
                    return refresh
                continue
            details = self._service.details(refresh.id)
            if details is not None and self._shows_ours(details):
                return refresh
        return None

    def _answer(self) -> Answer | None:
        """The answer to one request for a refresh; None where it is not known what became of it."""
        try:
            answer = self._service.ask(request_body(self._options))
        except OutcomeUnknownError as error:
            why = str(error)
        else:
            if answer.status != HTTPStatus.ACCEPTED or _request_id(answer):
                return answer
            why = "accepted without a request id"
        self._lost += 1
        self._log(f"no answer to the request for a refresh ({why}); looking whether it was accepted")
        return None

    def _adopted(self) -> str:
        """A refresh that our unanswered request may have started, and that shows what ours would; empty if none."""
        for look in range(_LOOKS):
            if look:
                self._waiting.pause(_FIRST_LOOK * 2**look)
            fresh = [
                refresh
                for refresh in self._service.history()
                if _REQUEST_ID.fullmatch(refresh.id)
                and refresh.id not in self._before
                and refresh.id not in self._ended_badly
                and refresh.enhanced
                and refresh.started is not None
                and refresh.started >= self._since - _CLOCK_TOLERANCE
            ]
            for refresh in sorted(fresh, key=lambda refresh: refresh.started or self._since):
                details = self._service.details(refresh.id)
                if details is not None and self._shows_ours(details):
                    return refresh.id
        return ""

    def _shows_ours(self, refresh: Refresh) -> bool:
        """Whether a refresh processes all that ours would; where ours was never seen, none is known to."""
        wanted = self._options.refresh_type
        if refresh.id in self._memory.ids:
            return True
        if wanted not in _COUNTED or refresh.type not in (wanted.lower(), "full"):
            return False
        return bool(self._memory.parts) and self._memory.parts <= refresh.parts

    def _wait_for_others(self, answer: Answer, running: set[str]) -> None:
        """Wait while another refresh runs, which may have read older data."""
        if not running and not answer.says_busy():
            raise refusal(answer)
        if new := running - self._waited_for:
            self._log(f"another refresh is running ({', '.join(sorted(new))}); waiting for its end")
        self._waited_for |= running
        # Longer with every refusal: the history may not show what the service refuses for.
        pause = min(_FIRST_LOOK * 2.0 ** min(self._refused, 10), self._options.poll_interval.total_seconds())
        self._refused += 1
        while True:
            self._waiting.pause(pause)
            # Any change is worth a new request: an entry may stay 'Unknown' for ever, and the service knows best.
            if not running or {refresh.id for refresh in self._running()} != running:
                return
            pause = self._longer(pause)

    def _running(self) -> list[Refresh]:
        return [refresh for refresh in self._service.history() if not refresh.over and refresh.ended is None]

    def _follow(self, request_id: str, *, at_most: float = math.inf) -> Refresh | None:
        """One refresh at its end, or after so many seconds; None where the service does not know it any more."""
        unseen = 0
        pause = _FIRST_LOOK
        until = self._waiting.clock.monotonic() + at_most
        while True:
            refresh = self._service.details(request_id) or self._listed(request_id)
            if refresh is None:
                unseen += 1
                if unseen >= _MOST_UNSEEN:
                    return None
            else:
                unseen = 0
                if refresh.state != self._state:
                    self._state = refresh.state
                    self._log(f"refresh {request_id}: {refresh.state}")
                if refresh.over or self._waiting.clock.monotonic() >= until:
                    return refresh
            self._waiting.pause(pause)
            pause = self._longer(pause)

    def _listed(self, request_id: str) -> Refresh | None:
        return next((refresh for refresh in self._service.history() if refresh.id == request_id), None)

    def _longer(self, pause: float) -> float:
        return min(pause * 1.5, self._options.poll_interval.total_seconds())


def _request_id(answer: Answer) -> str:
    """The id in Location; the header x-ms-request-id holds the same, where a proxy has taken Location away."""
    location = answer.headers.get("location", "").split("?")[0].rstrip("/").rpartition("/")[2]
    for found in (location, answer.headers.get("x-ms-request-id", "")):
        if _REQUEST_ID.fullmatch(found):
            return found
    return ""
