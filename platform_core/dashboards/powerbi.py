"""The dashboard `powerbi`: asks for an enhanced refresh of a dataset and follows that very request to its end."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import Any, ClassVar

from platform_core.dashboards.powerbi_options import PowerBIConnection, PowerBIOptions
from platform_core.dashboards.powerbi_service import (
    COMPLETED,
    Answer,
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

_LOOKS = 3
"""How often the history is read for a request whose outcome is unknown, before it counts as lost."""

_MOST_UNSEEN = 5
"""How often in a row the service may not know our request before it counts as dropped."""

_CLOCK_TOLERANCE = dt.timedelta(seconds=5)
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
    ) -> None:
        """Keep the options.

        Args:
            options: an instance of :attr:`Options`.
            connection: an instance of :attr:`ConnectionOptions`.
            secret: gives the value of a named secret.
            root: not used.
            clock: tells the time and waits; None: the machine's.
            answer_within: seconds that the service may take for each answer.
        """
        super().__init__(options, connection=connection, secret=secret, root=root)
        self._clock = clock or SystemClock()
        self._answer_within = answer_within

    def refresh(self, request: RefreshRequest) -> RefreshResult:
        """Refresh the dataset and wait for the end.

        Raises:
            RefreshError: the refresh failed, was refused, did not end in time, or the run is being cancelled.
        """
        if self.connection is None:
            raise RefreshError(f"{request.name}: a powerbi dashboard needs 'connection', of type powerbi")
        options = self.options
        waiting = Waiting(self._clock, timeout=options.timeout, cancelled=request.cancelled)
        with PowerBIService(
            self.connection, options, secret=self.secret, waiting=waiting, answer_within=self._answer_within
        ) as service:
            attempt = _Attempt(service, options, waiting=waiting, log=request.log)
            try:
                refresh = attempt.run()
            except WaitCancelledError:
                raise RefreshError(f"{request.name}: cancelled; {attempt.withdraw()}") from None
            except OutOfTimeError:
                raise RefreshError(
                    f"{request.name}: not refreshed within {options.timeout}; {attempt.standing()}"
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
        with PowerBIService(
            self.connection, self.options, secret=self.secret, waiting=waiting, answer_within=self._answer_within
        ) as service:
            try:
                service.history()
            except OutOfTimeError:
                raise RefreshError(f"no answer within {_PROBE}; is the service reached from here?") from None
        return True


class _Attempt:
    """One refresh of ours, from the first request to its end."""

    def __init__(
        self, service: PowerBIService, options: PowerBIOptions, *, waiting: Waiting, log: Callable[[str], None]
    ) -> None:
        self._service = service
        self._options = options
        self._waiting = waiting
        self._log = log
        self._request_id = ""
        self._state = ""
        self._asked = 0
        self._lost = 0
        self._refused = 0
        self._waited_for: set[str] = set()

    def run(self) -> Refresh:
        """Ask, follow, and return the completed refresh."""
        self._request_id = self._ask()
        self._log(f"refresh {self._request_id} accepted")
        refresh = self._follow()
        if refresh.state != COMPLETED:
            codes = f" ({', '.join(refresh.codes)})" if refresh.codes else ""
            raise RefreshError(
                f"refresh {refresh.id} ended as {refresh.state}{codes}"
                "\n  the dataset's refresh history in Power BI has the details"
            )
        return refresh

    def standing(self) -> str:
        """Where the attempt stands, for a person."""
        if self._request_id:
            return f"refresh {self._request_id} was last seen as {self._state or 'accepted'}"
        if self._lost:
            return "a refresh was asked for without an answer, and may be running"
        if self._waited_for:
            return "another refresh of the dataset was running, and none of ours was accepted"
        return "no refresh was accepted"

    def withdraw(self) -> str:
        """Cancel what was asked for; returns what became of it, for a person."""
        if not self._request_id:
            return self.standing()
        if self._service.cancel(self._request_id):
            return f"refresh {self._request_id} was cancelled at Power BI"
        return f"Power BI did not confirm that refresh {self._request_id} is cancelled: it may be running"

    def figures(self, refresh: Refresh) -> dict[str, int | float | str]:
        """What is worth keeping about the refresh."""
        figures: dict[str, int | float | str] = {
            "request_id": refresh.id,
            "state": refresh.state,
            "requests": self._asked,
            "waited_for": len(self._waited_for),
        }
        if refresh.started and refresh.ended:
            figures["refresh_seconds"] = round((refresh.ended - refresh.started).total_seconds(), 3)
        return figures

    def _ask(self) -> str:
        """The id of a refresh that started after now: ours."""
        before = {refresh.id for refresh in self._service.history()}
        since = self._service.now()
        while True:
            self._waiting.check()
            self._asked += 1
            answer = self._answer()
            if answer is not None and answer.status == HTTPStatus.ACCEPTED:
                return _request_id(answer)
            if self._lost and (found := self._adopted(before, since)):
                return found
            if answer is not None:
                if answer.status not in (HTTPStatus.BAD_REQUEST, HTTPStatus.CONFLICT):
                    raise refusal(answer)
                self._wait_for_others(answer)
            elif self._lost >= _MOST_LOST:
                raise RefreshError(f"Power BI left {self._lost} requests without an answer; {self.standing()}")

    def _answer(self) -> Answer | None:
        """The answer to one request for a refresh; None where it is not known what became of it."""
        try:
            answer = self._service.ask(self._body())
        except OutcomeUnknownError as error:
            why = str(error)
        else:
            if answer.status != HTTPStatus.ACCEPTED or _request_id(answer):
                return answer
            why = "accepted without a request id"
        self._lost += 1
        self._log(f"no answer to the request for a refresh ({why}); looking whether it was accepted")
        return None

    def _body(self) -> dict[str, Any]:
        # An enhanced refresh needs at least one parameter; the mode keeps the old data where a refresh fails.
        body: dict[str, Any] = {"type": self._options.refresh_type, "commitMode": "transactional"}
        if self._options.tables:
            body["objects"] = [table.model_dump(exclude_none=True) for table in self._options.tables]
        return body

    def _adopted(self, before: set[str], since: dt.datetime) -> str:
        """A refresh that our unanswered request may have started, and that shows what ours would; empty if none."""
        for look in range(_LOOKS):
            if look:
                self._waiting.pause(_FIRST_LOOK * 2**look)
            fresh = [
                refresh
                for refresh in self._service.history()
                if _REQUEST_ID.fullmatch(refresh.id)
                and refresh.id not in before
                and refresh.enhanced
                and refresh.started is not None
                and refresh.started >= since - _CLOCK_TOLERANCE
            ]
            for refresh in sorted(fresh, key=lambda refresh: refresh.started or since):
                details = self._service.details(refresh.id)
                if details is not None and self._covers(details):
                    self._log(f"refresh {refresh.id} was accepted after all")
                    return refresh.id
        return ""

    def _covers(self, refresh: Refresh) -> bool:
        wanted = {table.table for table in self._options.tables}
        same_type = not refresh.type or refresh.type == self._options.refresh_type.lower()
        return same_type and (not refresh.tables or wanted <= refresh.tables)

    def _wait_for_others(self, answer: Answer) -> None:
        """Wait while another refresh runs. It may have read older data, so that ours is asked for after it."""
        running = self._running()
        if not running and not answer.says_busy():
            raise refusal(answer)
        if new := running - self._waited_for:
            self._log(f"another refresh is running ({', '.join(sorted(new))}); waiting for its end")
        self._waited_for |= running
        # Longer with every refusal: the history may not show what the service refuses for.
        pause = min(_FIRST_LOOK * 2.0**self._refused, self._options.poll_interval.total_seconds())
        self._refused += 1
        while True:
            self._waiting.pause(pause)
            # Any change is worth a new request: an entry may stay 'Unknown' for ever, and the service knows best.
            if not running or self._running() != running:
                return
            pause = self._longer(pause)

    def _running(self) -> set[str]:
        return {refresh.id for refresh in self._service.history() if not refresh.over and refresh.ended is None}

    def _follow(self) -> Refresh:
        unseen = 0
        pause = _FIRST_LOOK
        while True:
            refresh = self._service.details(self._request_id) or self._listed()
            if refresh is None:
                unseen += 1
                if unseen >= _MOST_UNSEEN:
                    raise RefreshError(
                        f"Power BI does not know refresh {self._request_id}, which it had accepted"
                        "\n  it drops requests when there are too many in a short time; try again later"
                    )
            else:
                unseen = 0
                if refresh.state != self._state:
                    self._state = refresh.state
                    self._log(f"refresh {self._request_id}: {refresh.state}")
                if refresh.over:
                    return refresh
            self._waiting.pause(pause)
            pause = self._longer(pause)

    def _listed(self) -> Refresh | None:
        return next((refresh for refresh in self._service.history() if refresh.id == self._request_id), None)

    def _longer(self, pause: float) -> float:
        return min(pause * 1.5, self._options.poll_interval.total_seconds())


def _request_id(answer: Answer) -> str:
    """The id in Location; the header x-ms-request-id holds the same, where a proxy has taken Location away."""
    location = answer.headers.get("location", "").split("?")[0].rstrip("/").rpartition("/")[2]
    for found in (location, answer.headers.get("x-ms-request-id", "")):
        if _REQUEST_ID.fullmatch(found):
            return found
    return ""
