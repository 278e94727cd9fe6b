"""``edp publish``: give code locations what is applied."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from platform_core.cli.plan import environment_option, json_option, open_control
from platform_core.errors import PlatformError
from platform_core.settings import read_settings
from platform_core.specs.environment import ManifestOrigin

if TYPE_CHECKING:
    from pathlib import Path

    from platform_core.control.snapshot.publish import Published
    from platform_core.control.store.store import ControlStore
    from platform_core.settings import Settings
    from platform_core.specs.environment import EnvironmentSpec


@click.command("publish")
@environment_option
@json_option
def command(environment: str | None, as_json: bool) -> None:
    """Publish what is applied as snapshots, which code locations load instead of control files.

    Every apply does so by itself where the environment says `control.manifest: snapshot`; this command repairs what
    that could not do, and prepares an environment that still reads files. Quick where all is published already. Code
    servers that run take the new snapshot when they are reloaded.

    \b
    Examples:
      edp publish --env prod
    """
    from platform_core.control.snapshot.publish import publish_snapshot

    settings = read_settings(environment=environment)
    spec, store = open_control(settings)
    published = publish_snapshot(spec, store, state=settings.state)
    if as_json:
        click.echo(json.dumps(published_as_json(published), indent=2, ensure_ascii=False))
        keep_deployed_dbt(settings, spec)
        return
    click.echo("\n".join(published_lines(published, environment=spec.name)))
    keep_deployed_dbt(settings, spec)
    if spec.control.manifest is ManifestOrigin.FILES:
        click.echo(f"note: code locations of {spec.name} read their control files (control.manifest: files)", err=True)


def keep_deployed_dbt(settings: Settings, environment: EnvironmentSpec) -> None:
    """Remember the dbt projects of this checkout as deployed; what hinders it is said, and hinders nothing else."""
    from platform_core.cli.dbt import keep_deployed_manifests

    try:
        lines = keep_deployed_manifests(settings, environment)
    except PlatformError as error:
        lines = [f"note: dbt projects are not remembered as deployed: {error}", "  then: edp dbt deployed"]
    for line in lines:
        click.echo(line, err=True)


def publish_applied(environment: EnvironmentSpec, store: ControlStore, *, state: Path, serial: int) -> Published | None:
    """Publish after an apply; None where code locations of the environment read their control files.

    Args:
        serial: of the apply, which stands whatever happens here.

    Raises:
        PlatformError: it could not be published; the message says that the apply stands, and what repairs it.
    """
    from platform_core.control.snapshot.publish import publish_snapshot

    if environment.control.manifest is ManifestOrigin.FILES or serial == 0:
        return None
    try:
        return publish_snapshot(environment, store, state=state)
    except PlatformError as error:
        raise PlatformError(
            f"serial {serial} is applied, and stands, but it could not be published: code locations go on with what "
            f"was published last\n{error}\n  once the cause is mended: edp publish --env {environment.name}"
        ) from None


def published_lines(published: Published, *, environment: str) -> list[str]:
    """What was published, for people."""
    moved = f"{len(published.moved)} of {len(published.locations)} locations"
    if not published.moved and not published.gone:
        return [f"nothing to publish: serial {published.serial} is published in {published.root}"]
    lines = [f"published to {environment}: serial {published.serial}, {moved}, in {published.root}"]
    lines += [f"no longer published: {location}" for location in published.gone]
    if published.restored is not None:
        lines.append(
            f"the control database was restored from a backup: published was serial {published.restored} before"
        )
    return lines + [f"note: {note}" for note in published.notes]


def published_as_json(published: Published) -> dict[str, object]:
    """What was published, for programs."""
    return {
        "serial": published.serial,
        "locations": list(published.locations),
        "moved": list(published.moved),
        "gone": list(published.gone),
        "restored": published.restored,
        "root": published.root,
        "notes": list(published.notes),
    }
