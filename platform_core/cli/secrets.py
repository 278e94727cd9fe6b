"""``edp secrets``: set, list, check and remove secrets. No command ever shows a value, or takes one as an argument."""

from __future__ import annotations

import datetime as dt
import json
import logging
import resource
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

import click

from platform_core.control.secret_references import PLATFORM, Dependents, secret_dependents
from platform_core.errors import SecretError
from platform_core.secrets.masking_keys import MASKING_KEY
from platform_core.secrets.names import LARGEST, is_secret_name
from platform_core.settings import read_settings

if TYPE_CHECKING:
    from platform_core.control.workspace import WorkspaceCheck
    from platform_core.operations.secret_checks import ConnectionTest, SecretStanding
    from platform_core.plugins.interfaces import SecretStore
    from platform_core.settings import Settings
    from platform_core.specs.environment import EnvironmentSpec

_NEVER_HERE = (
    "a value is never given as an argument: other users see it while the command runs, and the shell keeps it\n"
    "  write: edp secrets set <workstream>/<name> [--env ENV] [--owner OWNER] [--expires YYYY-MM-DD]\n"
    "  and type the value when asked, or give it on standard input\n"
    "  what you wrote is not repeated here; if it was the value, take it out of the shell's history and change it"
)
_MOST_NAMED = 3

_environment = click.option("--env", "environment", help="Environment; default: EDP_ENVIRONMENT, else dev.")
_as_json = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")


class _Discreet(click.Command):
    """A command that may be given a value by mistake: none of its errors repeats what was written."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.UsageError:
            raise click.UsageError(_NEVER_HERE) from None


@click.group("secrets")
def command() -> None:
    """Set, list, check and remove secrets. A value goes in, and no command ever shows it.

    \b
    Examples:
      edp secrets set crm/erp_password --env prod --owner team:crm --expires 2027-01-31
      edp secrets list --env prod
      edp secrets check --env prod
    """
    # A core dump of this process could hold a value.
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, hard))


@command.command("set", cls=_Discreet)
@click.argument("name", metavar="WORKSTREAM/NAME")
@click.option("--owner", help="Who answers for it: an e-mail address or team:<name>; default: as before.")
@click.option("--expires", metavar="YYYY-MM-DD", help="First day (UTC) on which it counts no more; default: never.")
@_environment
def set_command(name: str, owner: str | None, expires: str | None, environment: str | None) -> None:
    """Set a secret, or replace its value; loads under way end with the old one.

    The value is asked for twice and not shown, or read from standard input, of which one line break at the end is
    left out. It is never an argument.

    \b
    Examples:
      edp secrets set crm/erp_password --env prod --owner team:crm --expires 2027-01-31
      generate-password | edp secrets set crm/erp_password --env prod
    """
    project = _open(environment)
    _check_name(name, project)
    ends = _day(expires)
    owner = _owner(owner)
    value = _value(name)
    entry = project.store.set(name, value, owner=owner, expires_at=ends)
    more = [f"owner {entry.owner}" if entry.owner else "", f"expires on {expires}" if expires else ""]
    click.echo(", ".join([f"{name} is set in {project.environment.name}", *filter(None, more)]))
    if value != value.strip():
        click.echo("  it begins or ends with white space, which was kept", err=True)
    if project.found.report:
        click.echo("  what depends on it is not known: control files have faults, see `edp check`", err=True)
    elif used := project.dependents().get(name):
        click.echo(f"  used by {_used_by(used)}")
    else:
        close = get_close_matches(name, project.dependents(), n=1)
        hint = f"; did you mean '{close[0]}'?" if close else ""
        click.echo(f"  nothing refers to it yet{hint}", err=True)


@command.command("list")
@_environment
@_as_json
def list_command(environment: str | None, as_json: bool) -> None:
    """List secrets with owner, age, expiry and what depends on them; never a value.

    \b
    Examples:
      edp secrets list
      edp secrets list --env prod --json
    """
    from platform_core.operations.secret_checks import secret_standings

    project = _open(environment)
    project.found.report.raise_if_any()
    now = dt.datetime.now(dt.UTC)
    found = secret_standings(
        project.store,
        dependents=project.dependents(),
        owners=project.owners(),
        warning=project.environment.secret_warning,
        now=now,
        environment=environment,
    )
    if as_json:
        click.echo(json.dumps([_standing_as_json(each, now) for each in found], indent=2))
        return
    if not found:
        click.echo("there are no secrets, and nothing refers to one")
        return
    headings = ("NAME", "OWNER", "AGE", "EXPIRES", "STANDING", "USED BY")
    click.echo(_aligned(headings, [_row(each, now) for each in found]))
    for each in found:
        if each.told:
            click.echo(f"\n{each.name}: {each.standing}\n  " + each.told.replace("\n", "\n  "))


@command.command("check")
@click.option("--location", "locations", multiple=True, help="Only this location; may be given several times.")
@click.option("--no-connect", is_flag=True, help="Read the secrets, and open no connection with them.")
@_environment
@_as_json
def check_command(locations: tuple[str, ...], no_connect: bool, environment: str | None, as_json: bool) -> None:
    """Prove that every secret that control files refer to can be read, and that every connection lets us in.

    A source is asked for the columns of one declared table, a dashboard's service for its history; nothing is written
    or changed. Exit code 1 if a secret is missing or has expired, or a connection fails.

    \b
    Examples:
      edp secrets check --env prod
      edp secrets check --env prod --location crm --no-connect
    """
    from platform_core.operations.platform import open_platform
    from platform_core.operations.secret_checks import check_connections, check_secrets, problems

    project = _open(environment, locations=locations)
    project.found.report.raise_if_any()
    now = dt.datetime.now(dt.UTC)
    standings = check_secrets(
        project.store,
        dependents=project.dependents(),
        owners=project.owners(),
        warning=project.environment.secret_warning,
        now=now,
        environment=environment,
    )
    tests: list[ConnectionTest] = []
    needed = [each.name for each in standings if each.dependents.environment and not each.standing.is_good]
    if not no_connect and not needed:
        platform = open_platform(project.environment, state=project.settings.state)
        quiet = logging.getLogger("platform_core.cli.secrets")
        quiet.disabled = True  # what a load would warn of stands in the result
        platform = replace(platform, secrets=project.store).for_step(quiet, platform.cancelled)
        tests = check_connections(project.found.manifests, platform=platform)
    bad = list(problems(standings, tests))
    if as_json:
        document = {
            "environment": project.environment.name,
            "secrets": [_standing_as_json(each, now) for each in standings],
            "connections": [_test_as_json(each) for each in tests],
            "not_looked_at": list(project.found.unchecked),
            "good": not bad,
        }
        click.echo(json.dumps(document, indent=2))
    else:
        _tell_check(standings, tests)
        if needed and not no_connect:
            click.echo(f"connections were not tested: the environment itself needs {', '.join(needed)}")
        for name in project.found.unchecked:
            click.echo(f"location '{name}' was not looked at: its control files are not on this machine")
        told = "is not as it must be" if len(bad) == 1 else "are not as they must be"
        click.echo(f"{len(bad)} of {len(standings) + len(tests)} {told}" if bad else "all is well")
    if bad:
        raise SystemExit(1)


@command.command("remove", cls=_Discreet)
@click.argument("name", metavar="WORKSTREAM/NAME")
@click.option("--force", is_flag=True, help="Remove it although something depends on it.")
@_environment
def remove_command(name: str, force: bool, environment: str | None) -> None:
    """Remove a secret; refused while something depends on it.

    \b
    Example:
      edp secrets remove crm/old_password --env prod
    """
    project = _open(environment)
    if not is_secret_name(name):
        raise click.UsageError("that is no name of a secret, which reads <workstream>/<name>")
    if not force:
        project.found.report.raise_if_any()
        if used := project.dependents().get(name):
            raise SecretError(
                f"secret '{name}' is used by {_used_by(used)}; nothing was removed\n"
                "  take the references out of the control files first, or add --force"
            )
    if not project.store.remove(name):
        raise SecretError(f"secret '{name}' is not there; nothing was removed\n  see: edp secrets list")
    click.echo(f"{name} is removed from {project.environment.name}")


@command.command("accept-restored")
@click.argument("generation", type=click.IntRange(1))
@_environment
def accept_restored_command(generation: int, environment: str | None) -> None:
    """Take the vault for the newest one after it was restored from a backup; what was set since is not in it.

    GENERATION is that of the restored vault, as the message about it says.

    \b
    Example:
      edp secrets accept-restored 12
    """
    from platform_core.secrets.vault import VaultSecrets

    project = _open(environment)
    if not isinstance(project.store, VaultSecrets):
        raise SecretError(
            f"secret store '{project.environment.secrets.type}' has no generations; only a vault is restored like this"
        )
    after = project.store.accept_restored(generation)
    click.echo(f"the vault counts as the newest, at generation {after}; now run: edp secrets check")


@dataclass(frozen=True)
class _Project:
    """What the commands look at."""

    settings: Settings
    environment: EnvironmentSpec
    store: SecretStore
    found: WorkspaceCheck

    def dependents(self) -> dict[str, Dependents]:
        """What depends on each secret, as far as control files could be read."""
        return secret_dependents(self.found.asked, environment=self.environment, masking_key=MASKING_KEY)

    def owners(self) -> Mapping[str, Sequence[str]]:
        """Owners by workstream."""
        return {spec.name: spec.owners for manifest in self.found.manifests for spec in manifest.location.workstreams}


def _open(environment: str | None, *, locations: Sequence[str] = ()) -> _Project:
    from platform_core.control.environment import load_environment
    from platform_core.control.workspace import examine
    from platform_core.operations.platform import open_secrets

    settings = read_settings(environment=environment)
    spec = load_environment(settings)
    return _Project(settings, spec, open_secrets(spec.secrets), examine(settings, only=locations))


def _check_name(name: str, project: _Project) -> None:
    """Refuse what is no name of a secret here; it may be a value, so it is not repeated."""
    if not is_secret_name(name):
        raise click.UsageError(_NEVER_HERE)
    # Workstreams are known where other control files have faults, too.
    workstreams = {entry.spec.name for tables in project.found.read for entry in tables.reading.workstreams}
    if not workstreams:
        return
    known = {PLATFORM, *workstreams}
    if name.partition("/")[0] not in known:
        raise click.UsageError(
            "the name does not begin with a workstream of this project, and is not repeated in case it is a value\n"
            f"  it begins with one of: {', '.join(sorted(known))}"
        )


def _day(text: str | None) -> dt.datetime | None:
    if text is None:
        return None
    try:
        day = dt.datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=dt.UTC)
    except ValueError:
        raise click.UsageError("--expires takes a day, such as 2027-01-31") from None
    if day <= dt.datetime.now(dt.UTC):
        raise click.UsageError("--expires takes a day to come, such as 2027-01-31")
    return day


def _owner(text: str | None) -> str | None:
    from pydantic import TypeAdapter, ValidationError

    from platform_core.specs.base import Owner

    try:
        return None if text is None else TypeAdapter(Owner).validate_python(text)
    except ValidationError:
        raise click.UsageError("--owner takes an e-mail address or team:<name>") from None


def _value(name: str) -> bytes:
    """The value, from a person or from standard input."""
    if sys.stdin.isatty():
        typed: str = click.prompt(f"value of {name} (not shown)", hide_input=True, confirmation_prompt="the same again")
        return typed.encode()
    value: bytes = sys.stdin.buffer.read(LARGEST + 3)
    value = value.removesuffix(b"\n").removesuffix(b"\r")
    if not value:
        raise SecretError(f"secret '{name}': standard input is empty; nothing was changed\n  give the value there")
    return value


def _tell_check(standings: Sequence[SecretStanding], tests: Sequence[ConnectionTest]) -> None:
    if standings:
        rows = [(each.name, str(each.standing), _used_by(each.dependents)) for each in standings]
        click.echo(_aligned(("SECRET", "STANDING", "USED BY"), rows))
    else:
        click.echo("nothing refers to a secret")
    if tests:
        words = {True: "good", False: "fails", None: "not tested"}
        asked = [(each.name, each.type, words[each.good], "" if each.good is False else each.told) for each in tests]
        click.echo("\n" + _aligned(("CONNECTION", "TYPE", "ANSWER", "ASKED"), asked))
    told = [(each.name, each.told) for each in standings if each.told]
    told += [(each.name, each.told) for each in tests if each.good is False]
    for name, text in told:
        click.echo(f"\n{name}:\n  " + text.replace("\n", "\n  "))
    click.echo("")


def _standing_as_json(each: SecretStanding, now: dt.datetime) -> dict[str, Any]:
    return {
        "name": each.name,
        "standing": str(each.standing),
        "owner": each.owner,
        "created_at": each.created_at.isoformat() if each.created_at else None,
        "age_days": (now - each.created_at).days if each.created_at else None,
        "expires_at": each.expires_at.isoformat() if each.expires_at else None,
        "used_by": {
            "environment": list(each.dependents.environment),
            "connections": list(each.dependents.connections),
            "tables": list(each.dependents.tables),
            "dashboards": list(each.dependents.dashboards),
        },
        "told": each.told,
    }


def _test_as_json(each: ConnectionTest) -> dict[str, Any]:
    return {"name": each.name, "type": each.type, "good": each.good, "told": each.told}


def _row(each: SecretStanding, now: dt.datetime) -> tuple[str, ...]:
    return (
        each.name,
        each.owner or "-",
        _age(now - each.created_at) if each.created_at else "-",
        f"{each.expires_at:%Y-%m-%d}" if each.expires_at else "-",
        str(each.standing),
        _used_by(each.dependents),
    )


def _age(age: dt.timedelta) -> str:
    if age.days < 1:
        return "today"
    return f"{age.days} {'day' if age.days == 1 else 'days'}"


def _used_by(used: Dependents) -> str:
    parts = [*used.environment, *_named("connection", used.connections)]
    parts += [*_named("table", used.tables), *_named("dashboard", used.dashboards)]
    return ", ".join(parts) or "nothing"


def _named(kind: str, names: Sequence[str]) -> Iterator[str]:
    """A few names, or how many there are."""
    if len(names) > _MOST_NAMED:
        yield f"{len(names)} {kind}s"
    elif names:
        yield f"{kind if len(names) == 1 else kind + 's'} {' and '.join(names)}"


def _aligned(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(headings, *rows, strict=True)]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
        for row in (headings, *rows)
    )
