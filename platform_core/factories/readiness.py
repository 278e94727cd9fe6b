"""The one rule by which steps and dashboards run: their inputs are fit to be read, and newer than what was seen.

Automation conditions ask it before they request anything, and assets ask it again when they run, since a run started
by hand passes conditions by. It reads the event log only, so that a location knows of another's failed checks.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import dagster as dg

from platform_core.factories import translation
from platform_core.factories.cuts import Still, mixed, none_still
from platform_core.factories.standing import Built, Checked, Standing
from platform_core.specs.table import TableRef

Checks = Callable[[dg.AssetKey], Mapping[str, bool]]
"""Checks that a location itself declares on an asset, by name: whether they are blocking."""


def no_checks(_: dg.AssetKey) -> Mapping[str, bool]:
    """What is known of the checks of another location."""
    return {}


@dataclass(frozen=True, kw_only=True)
class Unfit:
    """Why an asset must not be read now.

    Args:
        reason: continues a sentence that begins with its name.
        failed: something went wrong; False: it was never built, or is being built or checked.
    """

    reason: str
    failed: bool = True


def unfit(
    key: dg.AssetKey, *, standing: Standing, checks: Checks = no_checks, own_run: str | None = None
) -> Unfit | None:
    """Why an asset must not be read now; None where it is fit.

    It is fit if its last attempt built it, the step that did so succeeded, and no blocking check of what was built has
    failed since or is still to come.

    Args:
        key: the asset.
        standing: the event log.
        checks: what the asker itself declares.
        own_run: the run that asks: what it built itself has been judged by Dagster.
    """
    built = standing.built(key)
    if built is not None and built.run_id and built.run_id == own_run:
        return None
    if built is None:
        return Unfit(reason="was never built", failed=False)
    if (building := standing.building(key, but=own_run)) is not None:
        return Unfit(reason=f"is being built by run {_short(building)}", failed=False)
    if (attempt := standing.attempt(key)) is not None:
        return Unfit(reason=f"was not rebuilt by run {_short(attempt)}, which set out to")
    if built.step is None:  # reported by a person
        return None
    return _unfit_step(built, standing) or _unfit_checks(key, built, standing, checks)


def _unfit_step(built: Built, standing: Standing) -> Unfit | None:
    course = standing.course(built.run_id)
    if built.step in course.failed:
        return Unfit(reason=f"was built by a step that failed in run {_short(built.run_id)}")
    # A run that was deleted tells nothing; what it built is still there.
    if built.step in course.begun and built.step not in course.succeeded:
        return Unfit(
            reason=f"is not finished by run {_short(built.run_id)}", failed=not standing.is_active(built.run_id)
        )
    return None


def _unfit_checks(key: dg.AssetKey, built: Built, standing: Standing, checks: Checks) -> Unfit | None:
    declared = checks(key)
    waits: Unfit | None = None
    for latest in standing.checked(key, names=declared):
        checked: Checked | None = latest
        if latest.passed is None:
            before = standing.evaluated(key, latest.name)
            known = declared.get(latest.name)
            blocking = known if known is not None else (before is None or bool(before.blocking))
            if standing.is_active(latest.run_id):
                if blocking:
                    waits = Unfit(reason=f"is being checked by run {_short(latest.run_id)}", failed=False)
                continue
            if latest.run_id == built.run_id:
                if blocking:
                    run = _short(latest.run_id)
                    return Unfit(reason=f"was not checked ('{latest.name}', a blocking check) by run {run}")
                continue
            # A run that was to check it once more ended too early: the result before it stands.
            checked = before
        if checked is None or checked.passed or not checked.blocking:
            continue
        if checked.position is None or checked.position >= built.position:
            return Unfit(reason=f"failed a blocking check ('{checked.name}') in run {_short(checked.run_id)}")
    return waits


def newer(key: dg.AssetKey, source: dg.AssetKey, *, standing: Standing) -> bool:
    """Whether an input was built after the last attempt to build an asset, successful or not, had looked at it."""
    made = standing.built(source)
    return made is not None and made.position > _seen(key, source, made, standing)


def _seen(key: dg.AssetKey, source: dg.AssetKey, made: Built, standing: Standing) -> int:
    """Position in the event log up to which an attempt to build ``key`` has taken in what is new of ``source``."""
    if (attempt := standing.attempt(key)) is not None:
        course = standing.course(attempt)
        step = course.steps.get(key)
        # What was skipped, or refused its inputs, has looked at none: the attempt before it counts.
        if course.looked(step):
            if made.run_id == attempt and step in course.begun:
                return made.position  # within a run, inputs are built before what reads them
            # When it began, SQLite does not tell: what was built since the run was planned is tried once more.
            return standing.planned(key)
    built = standing.built(key)
    if built is None:
        return 0
    if built.step is None:  # reported by a person, who knows what it is made from
        return built.position
    if (made.run_id, made.step) == (built.run_id, built.step):  # models of one dbt build
        return made.position
    return built.seen.get(source, 0)


def due(
    key: dg.AssetKey,
    *,
    inputs: Iterable[dg.AssetKey],
    behind: Iterable[dg.AssetKey] = (),
    every: bool,
    together: bool = False,
    coming: Collection[dg.AssetKey] = (),
    standing: Standing,
    checks: Checks = no_checks,
    still: Still = none_still,
) -> bool:
    """Whether an asset is to be built now.

    Args:
        key: the asset.
        inputs: what it reads.
        behind: what must be fit, too, though it is not read.
        every: all inputs must be newer; else one suffices.
        together: all that the inputs are made from must be in one state for all of them.
        coming: what is asked for at the same time. Where only some of the inputs are, those may be in another state by
            the time that the asset is built.
        standing: the event log.
        checks: what the asker itself declares.
        still: paused assets.
    """
    inputs = tuple(inputs)
    fresh = [newer(key, source, standing=standing) for source in inputs]
    if not fresh or not (all(fresh) if every else any(fresh)) or standing.building(key) is not None:
        return False
    if any(unfit(other, standing=standing, checks=checks) for other in dict.fromkeys((*inputs, *behind))):
        return False
    if together and 0 < sum(source in coming for source in inputs) < len(inputs):
        return False
    return not together or mixed(inputs, standing=standing, still=still) is None


def unfit_tables(
    instance: dg.DagsterInstance,
    refs: Sequence[TableRef],
    *,
    deferring: bool = False,
    checks: Checks = no_checks,
    own_run: str | None = None,
    failed_only: bool = False,
) -> dict[TableRef, str]:
    """The tables that must not be read now, each with the reason.

    Args:
        instance: where events are kept.
        refs: tables that are read or shown, and whatever they are made from.
        deferring: what nobody set out to build here is read from the shared tables, and so is fit.
        checks: what the asker itself declares.
        own_run: the run that asks.
        failed_only: leave out what was never built, or is being built or checked right now.
    """
    standing = Standing(instance)
    keys = [translation.asset_key(ref) for ref in refs]
    standing.read(keys)
    found: dict[TableRef, str] = {}
    for ref, key in zip(refs, keys, strict=True):
        if deferring and standing.built(key) is None and standing.attempt(key) is None:
            continue
        reason = unfit(key, standing=standing, checks=checks, own_run=own_run)
        if reason is not None and (reason.failed or not failed_only):
            found[ref] = reason.reason
    return found


def _short(run_id: str) -> str:
    return run_id[:8]
