"""The text of a `dagster.yaml` for runs that are timed, in folders of their own."""

from __future__ import annotations

from pathlib import Path

_STORAGE = (
    "storage: {{custom: {{module: platform_core.execution.embedded_storage, class: EmbeddedStorage, "
    "config: {{base_dir: '{home}'}}}}}}\n"
)


def write_instance_file(home: Path, *, own_storage: bool = True) -> None:
    """Write it, with the storage that a project of ours has, or with Dagster's own."""
    storage = _STORAGE.format(home=home) if own_storage else ""
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n" + storage)
