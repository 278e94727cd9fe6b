"""What was measured, kept as JSON so that each command renews its own part of the report."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"
STORE = RESULTS / "ingest.json"
_PACKAGES = ("dlt", "connectorx", "deltalake", "duckdb", "pyarrow", "polars", "adbc-driver-postgresql", "dagster")


def read() -> dict[str, Any]:
    """All parts, by name; none where nothing was measured yet."""
    found: dict[str, Any] = json.loads(STORE.read_text()) if STORE.exists() else {}
    return found


def write(part: str, figures: dict[str, Any]) -> None:
    """Put a part in the place of an older one of its name."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    whole = {**read(), part: figures}
    STORE.write_text(json.dumps(dict(sorted(whole.items())), indent=1, default=str) + "\n")


def machine(peer_python: str) -> str:
    """What it ran on, without names of hosts or people."""
    memory = next(
        int(line.split()[1]) / 1024**2
        for line in Path("/proc/meminfo").read_text().splitlines()
        if line.startswith("MemTotal:")
    )
    models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    model = models[0].partition(":")[2].strip() if models else platform.machine()
    return (
        f"{os.cpu_count()} processors ({model}), {memory:.0f} GiB, Linux {platform.release()}, Python "
        f"{platform.python_version()}, {_versions(peer_python)}"
    )


def _versions(peer_python: str) -> str:
    told = {name: _version(name) for name in _PACKAGES}
    asked = "import importlib.metadata as m, json, sys; print(json.dumps({n: m.version(n) for n in sys.argv[1:]}))"
    peers = ["dlt", "connectorx"]
    answer = subprocess.run([peer_python, "-c", asked, *peers], capture_output=True, text=True, check=False)
    if answer.returncode == 0:
        told |= json.loads(answer.stdout)
    return ", ".join(f"{name} {version}" for name, version in told.items() if version)


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""
