"""Which snapshot a process loads: the one that its code server had, so that a run knows what it was planned from.

Dagster hands what a code server notes while it loads definitions to the runs and steps that it starts. Without this a
run that starts after something was published would not be of the graph that it was launched from, and its isolated
steps might be of yet another one.
"""

from collections.abc import Mapping

from dagster._core.definitions.definitions_load_context import DefinitionsLoadContext, DefinitionsLoadType


def pinned_snapshot(location: str) -> str | None:
    """Digest of the snapshot that the code server of this run had loaded; None: this process is the first to load."""
    if not DefinitionsLoadContext.is_set():
        return None
    context = DefinitionsLoadContext.get()
    noted: Mapping[str, object] = (
        context.get_pending_reconstruction_metadata()
        if context.load_type is DefinitionsLoadType.INITIALIZATION
        else {**context.get_pending_reconstruction_metadata(), **context.reconstruction_metadata}
    )
    found = noted.get(_key(location))
    return found if isinstance(found, str) else None


def pin_snapshot(location: str, digest: str) -> None:
    """Note which snapshot this process has loaded, for the runs and steps that come from it."""
    if DefinitionsLoadContext.is_set():
        DefinitionsLoadContext.get().add_to_pending_reconstruction_metadata(_key(location), digest)


def _key(location: str) -> str:
    return f"edp/snapshot/{location}"
