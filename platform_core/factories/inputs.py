"""Which assets stand behind what a step or dashboard reads."""

from collections.abc import Iterable

from platform_core.control.ddl_declared import declared_cached
from platform_core.specs.manifest import Manifest
from platform_core.specs.table import TableRef


def built_inputs(refs: Iterable[TableRef], *, manifest: Manifest) -> tuple[TableRef, ...]:
    """The tables that something builds: of a view those below it, of a migration's own table none.

    Nothing ever materialises a view, or a table that only migrations know: whoever waited for it would wait for ever.
    """
    declared = declared_cached(manifest.root, tuple(workstream.name for workstream in manifest.location.workstreams))
    return tuple(ref for ref in declared.below(refs) if ref not in declared.tables or _is_built(ref, manifest))


def _is_built(ref: TableRef, manifest: Manifest) -> bool:
    if any((project.workstream, project.layer) == ref[:2] for project in manifest.dbt):
        return True
    try:
        manifest.table(ref)
    except KeyError:
        return False
    return True
