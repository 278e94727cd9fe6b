"""Looks whether what is installed is what the platform was released with, extras of the environment among them."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, metadata, version
from typing import Any

from platform_core.control.plan.release import platform_release
from platform_core.operations.doctor_findings import Check, Finding, Machine, Subject, Verdict
from platform_core.specs.environment import EnvironmentSpec
from platform_core.specs.manifest import Manifest

PACKAGE = "edp-platform-core"
_TOLD = ("dagster", "deltalake", "duckdb", "polars", "pyarrow", "sqlalchemy", "dbt-core")
"""Packages whose versions decide how tables, runs and definitions come out."""

_OF_TYPE = {"rest": "dlt", "azure_key_vault": "azure"}
"""Extras of plug-ins that do not bear the plug-in's name."""

_OF_SCHEME = {
    **dict.fromkeys(("abfs", "abfss", "az", "adl"), "azure"),
    **dict.fromkeys(("s3", "s3a"), "s3"),
    **dict.fromkeys(("sftp", "ssh"), "sftp"),
}
"""Extras that files at a URL are read with; the lake itself is read by deltalake alone."""


def version_checks(
    environment: EnvironmentSpec | None, manifests: Sequence[Manifest], *, machine: Machine
) -> Iterator[Check]:
    """Python, the platform's packages, and the extras that the environment and its connections need.

    Args:
        environment: None: it could not be read.
    """
    about = Subject(area="versions", name="release", looked_at=f"installed packages, and what {PACKAGE} asks for")
    yield Check(about=about, look=lambda: _packages(about, machine))
    needed = extras_needed(environment, manifests)
    extras = Subject(area="versions", name="extras", looked_at="connections, and the environment's file")
    yield Check(about=extras, look=lambda: _extras(extras, needed, machine))


def extras_needed(environment: EnvironmentSpec | None, manifests: Sequence[Manifest]) -> dict[str, set[str]]:
    """Who needs which extra, by its name."""
    known = set(metadata(PACKAGE).get_all("Provides-Extra") or ())
    needed: dict[str, set[str]] = {}

    def need(extra: str | None, who: str) -> None:
        if extra in known:
            needed.setdefault(str(extra), set()).add(who)

    for manifest in manifests:
        for spec in manifest.connections:
            who = f"connection {spec.workstream}.{spec.name}"
            need(_OF_TYPE.get(spec.type, spec.type), who)
            for value in spec.options.values():
                need(_of_url(value), who)
        for table in manifest.ingestions:
            if table.object.lower().endswith((".xlsx", ".xls", ".xlsb")):
                need("excel", f"table {table.ref}")
    if environment is not None:
        need(_OF_TYPE.get(environment.secrets.type, environment.secrets.type), "secret store")
        urls = {"control database": environment.control.url}
        urls |= {f"database {name}": each.url for name, each in environment.databases.items() if each.url}
        for who, url in urls.items():
            need("control" if url.startswith("postgresql") else None, who)
    return needed


def _of_url(value: Any) -> str | None:
    scheme, found, _ = value.partition("://") if isinstance(value, str) else ("", "", "")
    return _OF_SCHEME.get(scheme.lower()) if found else None


def _packages(about: Subject, machine: Machine) -> Iterator[Finding]:
    asked = metadata(PACKAGE)
    wrong = [*_faults(_requirements(asked.get_all("Requires-Dist") or (), extra=None), machine)]
    own, wanted = platform.python_version(), asked["Requires-Python"] or ""
    if not _fits(own, wanted):
        wrong.insert(0, f"python is {own}, and must be {wanted}")
    told = ", ".join([f"{PACKAGE} {platform_release()}", f"python {own}", *_versions(_TOLD, machine)])
    yield about.finding(Verdict.OK, told)
    for each in wrong:
        advice = "install what the release was tested with: uv sync --locked"
        yield about.finding(Verdict.FAILED, each, name=each.partition(" ")[0], advice=advice)


def _extras(about: Subject, needed: Mapping[str, set[str]], machine: Machine) -> Iterator[Finding]:
    asked = metadata(PACKAGE).get_all("Requires-Dist") or ()
    there = []
    for extra, names in sorted(needed.items()):
        who = ", ".join(sorted(names))
        if wrong := [*_faults(_requirements(asked, extra=extra), machine)]:
            yield about.finding(
                Verdict.FAILED,
                f"{'; '.join(wrong)}; needed by {who}",
                name=extra,
                advice=f"install it: pip install '{PACKAGE}[{extra}]'",
            )
        else:
            there.append(f"{extra} (for {who})")
    if there or not needed:
        yield about.finding(Verdict.OK, f"installed: {', '.join(there)}" if there else "none is needed")


def _requirements(lines: Iterable[str], *, extra: str | None) -> dict[str, str]:
    """Wanted versions by package, of the platform itself or of one of its extras."""
    from packaging.requirements import Requirement

    found = {}
    for line in lines:
        each = Requirement(line)
        of_extra = each.marker is not None and "extra" in str(each.marker)
        if of_extra is (extra is not None) and (each.marker is None or each.marker.evaluate({"extra": extra or ""})):
            found[each.name] = str(each.specifier)
    return found


def _faults(requirements: Mapping[str, str], machine: Machine) -> Iterator[str]:
    for name, wanted in sorted(requirements.items()):
        found = machine.version(name)
        if found is None:
            yield f"{name} is not installed"
        elif not _fits(found, wanted):
            yield f"{name} is {found}, and must be {wanted}"


def _fits(found: str, wanted: str) -> bool:
    from packaging.specifiers import SpecifierSet

    return SpecifierSet(wanted).contains(found, prereleases=True)


def _versions(names: Iterable[str], machine: Machine) -> list[str]:
    return [f"{name} {machine.version(name) or 'missing'}" for name in names]


def version_of(name: str) -> str | None:
    """The version of an installed package; None: it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None
