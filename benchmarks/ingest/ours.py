"""Our side: the operation itself, with control database, lease, masks, landing, row hash and delete flags."""

from __future__ import annotations

from pathlib import Path
from typing import Any

WORKSTREAM = "bench"
MASKING_KEY = "7d0e5a9c31f84b6282a6e1d05c94b7f36e2810dc9fa7435bb1c8605e3f92d47a"
MEMORY_LIMIT = "512MB"
MODES = {"tenth": "incremental"}


def variables(password: str) -> dict[str, str]:
    """Environment variables that hold the secrets of a load."""
    prefix = f"EDP_SECRET_{WORKSTREAM.upper()}_"
    return {f"{prefix}PASSWORD": password, f"{prefix}MASKING_KEY": MASKING_KEY}


def prepared() -> None:
    """Import what a worker that loads has imported long before."""
    import polars_hash  # noqa: F401

    import platform_core.engines.local
    import platform_core.operations.ingest
    import platform_core.sources.postgres  # noqa: F401


def warmed(work: dict[str, Any]) -> None:
    """Load a few rows, as a process that has loaded before."""
    prepared()
    load({**work, "day": "warm", "folder": f"{work['folder']}-warm"})


def opened(folder: Path) -> Any:
    """A platform that keeps everything below one folder."""
    from platform_core.operations.platform import open_platform
    from platform_core.specs.environment import EnvironmentSpec

    environment = EnvironmentSpec(
        name="bench",
        lake={"root": str(folder / "lake")},
        secrets={"type": "environment"},
        engine={"type": "local", "options": {"memory_limit": MEMORY_LIMIT, "spill": str(folder / "spill")}},
        control={"url": f"sqlite:///{folder / 'control.db'}"},
    )
    folder.mkdir(parents=True, exist_ok=True)
    return open_platform(environment, state=folder)


def declared(day: str, *, mode: str, parallel: int = 1, told: bool = False) -> Any:
    """The table's spec.

    Args:
        told: the source tells which rows changed.
    """
    from platform_core.specs.ingestion import IngestionSpec

    return IngestionSpec(
        workstream=WORKSTREAM,
        source="shop",
        object=f"{day}.orders",
        table="orders",
        mode=mode,
        key=("id",),
        cursor="updated_at" if mode == "incremental" else None,
        parallel=parallel,
        detect_changes={"by": "source"} if told else None,
        columns={
            "email": {"masking": {"mask": "hash", "options": {"domain": "email"}}},
            "name": {"masking": {"mask": "partial", "options": {"keep_first": 1}}},
        },
    )


def connection(source: dict[str, Any]) -> Any:
    """The connection's spec."""
    from platform_core.specs.connection import ConnectionSpec

    options = {name: source[name] for name in ("host", "port", "user", "database")}
    options["password"] = {"secret": f"{WORKSTREAM}/password"}
    return ConnectionSpec(name="shop", workstream=WORKSTREAM, type="postgres", options=options)


def load(work: dict[str, Any]) -> dict[str, Any]:
    """One load; returns its phases and figures."""
    from platform_core.operations.ingest import ingest

    mode = MODES.get(work["work"], "full")
    spec = declared(work["day"], mode=mode, parallel=work.get("parallel", 1), told=work.get("told", False))
    result = ingest(spec, connection=connection(work["source"]), platform=opened(Path(work["folder"])))
    return {"phases": dict(result.seconds), "figures": result.figures()}
