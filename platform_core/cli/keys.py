"""``edp keys``: show the ids of masking keys, put a new key in place, and let the old one go."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import click

from platform_core.control.environment import load_environment
from platform_core.control.workspace import check_workspace
from platform_core.errors import PluginError, SecretError, SecretMissing
from platform_core.masks.keys import require_strong
from platform_core.operations.platform import open_lake, open_secrets
from platform_core.operations.tokens import Tokens, key_ids, tokens_of
from platform_core.plugins.interfaces import Secret, SecretStore
from platform_core.plugins.registry import plugin
from platform_core.secrets.masking_keys import MASKING_KEY, PREVIOUS_MASKING_KEY, MaskingKeyKeeper
from platform_core.settings import read_settings
from platform_core.specs.environment import EnvironmentSpec
from platform_core.specs.ingestion import IngestionSpec
from platform_core.specs.manifest import Manifest

_ENVIRONMENT = click.option("--env", "environment", help="Environment; default: EDP_ENVIRONMENT, else dev.")
_JSON = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")


@click.group("keys")
def command() -> None:
    """Show masking keys by their ids, rotate and retire them. No command ever shows a key.

    \b
    Examples:
      edp keys show
      edp keys show crm --tokens
      edp keys rotate crm
      edp keys retire crm
    """


@command.command("show")
@click.argument("workstreams", metavar="[WORKSTREAM]...", nargs=-1)
@click.option("--tokens", is_flag=True, help="Count the tokens in the lake, by key; reads every hashed column.")
@_ENVIRONMENT
@_JSON
def show(workstreams: tuple[str, ...], tokens: bool, environment: str | None, as_json: bool) -> None:
    """Print the ids of each workstream's masking keys, with which their tokens begin.

    Exit code 1 if a key is missing, unfit or unreadable.

    \b
    Examples:
      edp keys show
      edp keys show crm --tokens --json
    """
    project = _open(environment)
    entries = [project.entry(name, tokens=tokens) for name in project.chosen(workstreams)]
    if as_json:
        click.echo(json.dumps(entries, indent=2))
    for entry in () if as_json else entries:
        click.echo("\n".join(_lines(entry)))
    if any(entry["error"] for entry in entries):
        raise SystemExit(1)


@command.command("rotate")
@click.argument("workstream")
@_ENVIRONMENT
def rotate(workstream: str, environment: str | None) -> None:
    """Put a new masking key in the place of a workstream's; the old one is kept as the previous key.

    From then on loads make tokens of the new key: reload every table that the command names, for until then
    their tokens do not join with new ones. Works where secrets are in a vault or in files; elsewhere the owner of
    the store copies masking_key to masking_key_previous and puts 32 random bytes, in hex, in its place.

    \b
    Example:
      edp keys rotate crm
    """
    project = _open(environment)
    project.chosen((workstream,))
    project.keeper().rotate_masking_key(workstream)
    current, previous = project.ids(workstream, MASKING_KEY), project.ids(workstream, PREVIOUS_MASKING_KEY)
    click.echo(f"{workstream}: the masking key is {', '.join(current)} now, and was {', '.join(previous)}")
    tables = list(project.hashed(workstream))
    for spec in tables:
        click.echo(f"  reload {spec.ref} ({spec.mode})")
    if tables:
        click.echo(f"  then run `edp keys retire {workstream}`; see docs/how-to/rotate-a-masking-key.md")


@command.command("retire")
@click.argument("workstream")
@_ENVIRONMENT
def retire(workstream: str, environment: str | None) -> None:
    """Destroy the previous masking key of a workstream, once no current row holds a token of it.

    Rows that the source no longer has keep the tokens they have, which nobody can then compute again.
    Exit code 1 if tables still have to be reloaded.

    \b
    Example:
      edp keys retire crm
    """
    project = _open(environment)
    project.chosen((workstream,))
    keeper = project.keeper()
    try:
        ids = project.ids(workstream, PREVIOUS_MASKING_KEY)
    except SecretMissing:
        click.echo(f"{workstream}: there is no previous masking key")
        return
    old = [found for found in project.tokens(workstream) if found.key_id in ids]
    if held := [found for found in old if found.current]:
        for found in held:
            click.echo(f"{found.table}: column {found.column} has {found.current} tokens of {found.key_id}", err=True)
        raise SecretError(
            f"the previous masking key of '{workstream}' is in use: reload these tables first\n"
            "  see docs/how-to/rotate-a-masking-key.md"
        )
    keeper.retire_masking_key(workstream)
    click.echo(f"{workstream}: the masking key {', '.join(ids)} is destroyed")
    if gone := sum(found.gone for found in old):
        click.echo(f"  {gone} tokens of it stay in rows that the source no longer has")


@dataclass(frozen=True)
class _Project:
    """What the commands look at."""

    environment: EnvironmentSpec
    manifests: list[Manifest]
    store: SecretStore

    def chosen(self, workstreams: tuple[str, ...]) -> list[str]:
        """The named workstreams, or all; a usage error names an unknown one."""
        known = sorted(spec.name for manifest in self.manifests for spec in manifest.location.workstreams)
        if unknown := sorted(set(workstreams) - set(known)):
            raise click.UsageError(f"unknown workstream '{unknown[0]}'; known: {', '.join(known)}")
        return sorted(workstreams) or known

    def keeper(self) -> MaskingKeyKeeper:
        """The store, where the platform makes keys in it; PluginError where it does not.

        SecretError in a personal environment: what is looked at there are one person's tables, and the key is that of
        everybody's.
        """
        if self.environment.developer:
            raise SecretError(
                f"environment '{self.environment.name}' is a personal one, and its masking keys are everybody's\n"
                "  name the environment whose tables are masked with them: --env <name>"
            )
        if not isinstance(self.store, MaskingKeyKeeper):
            raise PluginError(
                f"secret store '{self.environment.secrets.type}' is filled by its owner, never by the platform\n"
                f"  copy {MASKING_KEY} to {PREVIOUS_MASKING_KEY} there, and put a new random key in its place"
            )
        return self.store

    def ids(self, workstream: str, name: str) -> tuple[str, ...]:
        """The ids of a key; SecretError where it is missing or none."""
        key: Secret = self.store.get(f"{workstream}/{name}")
        require_strong(key)
        return key_ids(key)

    def hashed(self, workstream: str) -> Iterator[IngestionSpec]:
        """Tables of a workstream in which a mask works with the key."""
        for spec in (spec for manifest in self.manifests for spec in manifest.ingestions):
            keyed = any(plugin("mask", rule.mask).needs_key for rule in spec.masks.values())
            if keyed and spec.workstream == workstream:
                yield spec

    def tokens(self, workstream: str) -> list[Tokens]:
        lake = open_lake(self.environment, secrets=self.store)
        return [found for spec in self.hashed(workstream) for found in tokens_of(spec, lake=lake)]

    def entry(self, workstream: str, *, tokens: bool) -> dict[str, Any]:
        """What `show` says of a workstream."""
        entry: dict[str, Any] = {"workstream": workstream, "current": [], "previous": [], "error": None}
        try:
            entry["current"] = list(self.ids(workstream, MASKING_KEY))
            entry["previous"] = list(self.ids(workstream, PREVIOUS_MASKING_KEY))
        except SecretMissing as error:
            # Most workstreams have no previous key; that the current one is missing is a fault.
            entry["error"] = None if entry["current"] else str(error)
        except SecretError as error:
            entry["error"] = str(error)
        if tokens:
            entry["tokens"] = [
                {
                    "table": str(found.table),
                    "column": found.column,
                    "key_id": found.key_id,
                    "current": found.current,
                    "gone": found.gone,
                }
                for found in self.tokens(workstream)
            ]
        return entry


def _open(environment: str | None) -> _Project:
    settings = read_settings(environment=environment)
    manifests = list(check_workspace(settings))
    spec = load_environment(settings)
    return _Project(spec, manifests, open_secrets(spec.secrets))


def _lines(entry: dict[str, Any]) -> Iterator[str]:
    previous = f", previous {', '.join(entry['previous'])}" if entry["previous"] else ""
    yield f"{entry['workstream']}: key {', '.join(entry['current']) or 'none'}{previous}"
    if entry["error"]:
        yield "  " + entry["error"].replace("\n", "\n  ")
    for found in entry.get("tokens", ()):
        yield (
            f"  {found['table']}.{found['column']}: {found['current']} tokens of {found['key_id']}"
            + (f", {found['gone']} more in rows that are gone" if found["gone"] else "")
        )
