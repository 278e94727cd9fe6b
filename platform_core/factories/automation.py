"""When assets are requested across runs and locations: only on fit, newer inputs.

Both conditions ask :mod:`platform_core.factories.readiness`, as the assets themselves do. They compare what the event
log says of now, and remember nothing between two ticks, so that no update falls between them.
"""

import datetime as dt
from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

import dagster as dg
from dagster._core.asset_graph_view.asset_graph_view import AssetGraphView
from dagster._core.definitions.assets.graph.base_asset_graph import BaseAssetGraph
from dagster._core.storage.event_log.base import AssetRecord

from platform_core.factories.readiness import due
from platform_core.factories.standing import Standing
from platform_core.factories.translation import PAUSED_TAG


@dataclass
class _Tick:
    """What all assets of one tick share.

    Args:
        standing: the event log, as far as it was read.
        coming: what is asked for; inputs are asked about before what reads them.
    """

    standing: Standing
    coming: set[dg.AssetKey] = field(default_factory=set)


_TICKS: WeakKeyDictionary[AssetGraphView, _Tick] = WeakKeyDictionary()
"""The ticks under way."""


def _tick(view: AssetGraphView) -> _Tick:
    return _TICKS.setdefault(view, _Tick(Standing(view.instance)))


class InputsNewer(dg.AutomationCondition[dg.AssetKey]):
    """True where the inputs of an asset are fit and newer than what its last attempt, successful or not, had seen.

    Going by the last *success* instead would request for ever after a failed attempt.

    Args:
        every: all inputs must be newer, and what is behind them be fit, too; else one newer input suffices.
        together: all that the inputs are made from must be in one state for all of them.
    """

    def __init__(self, *, every: bool, together: bool = False) -> None:
        self._every = every
        self._together = together

    @property
    def name(self) -> str:
        """Shown in the UI, and under which evaluations are kept."""
        return "every_input_newer_and_fit" if self._every else "an_input_newer_and_all_fit"

    @property
    def description(self) -> str:
        """Shown in the UI."""
        newer = "Every input is newer" if self._every else "At least one input is newer"
        return f"{newer} than what the last attempt had seen; none failed, fails a blocking check, or is being built"

    def get_label(self) -> str | None:
        """Shown in the UI."""
        return "every input is newer, and all are fit" if self._every else "an input is newer, and all are fit"

    def evaluate(self, context: dg.AutomationContext[dg.AssetKey]) -> dg.AutomationResult[dg.AssetKey]:
        """Decide for the one unpartitioned asset of this context."""
        view, graph = context.asset_graph_view, context.asset_graph_view.asset_graph
        inputs = graph.get(context.key).parent_keys
        behind = looked_behind(graph, inputs) if self._every else frozenset()
        tick = _tick(view)
        standing = tick.standing
        asked = standing.unknown({context.key, *inputs, *behind})
        # Dagster has read most of them for this tick already.
        standing.take(asked, AssetRecord.blocking_get_many(view, asked))
        wanted = due(
            context.key,
            inputs=inputs,
            behind=behind,
            every=self._every,
            together=self._together,
            coming=tick.coming,
            standing=standing,
            checks=lambda key: declared_checks(graph, key),
            still=lambda key: is_paused(graph, key),
        )
        if wanted:
            tick.coming.add(context.key)
        subset = context.candidate_subset if wanted else context.get_empty_subset()
        return dg.AutomationResult(context=context, true_subset=subset)


def looked_behind(graph: BaseAssetGraph, keys: Set[dg.AssetKey]) -> frozenset[dg.AssetKey]:  # type: ignore[type-arg]
    """What assets are made from, as far as a location builds it itself."""
    found = {key for shown in keys if graph.has(shown) for key in graph.get_ancestor_asset_keys(shown)}
    return frozenset(key for key in found - set(keys) if graph.get(key).is_executable)


def declared_checks(graph: BaseAssetGraph, key: dg.AssetKey) -> Mapping[str, bool]:  # type: ignore[type-arg]
    """Checks that a location declares on an asset, by name: whether they are blocking."""
    if not graph.has(key):
        return {}
    return {check.name: graph.get(check).blocking for check in graph.get(key).check_keys}


def is_paused(graph: BaseAssetGraph, key: dg.AssetKey) -> bool:  # type: ignore[type-arg]
    """Whether a location declares an asset of its own as paused."""
    return graph.has(key) and PAUSED_TAG in graph.get(key).tags


class Looked(dg.AutomationCondition[dg.AssetKey]):
    """True once in every span of time, so that an external asset is looked at; not while it is being looked at.

    Spans are counted from a fixed moment: what was missed while nothing was up is made up for by one look.

    Args:
        every: the span.
    """

    def __init__(self, *, every: dt.timedelta) -> None:
        self._every = every

    @property
    def name(self) -> str:
        """Shown in the UI, and under which evaluations are kept."""
        return f"looked_at_every_{self._every.total_seconds():g}_seconds"

    @property
    def description(self) -> str:
        """Shown in the UI."""
        return f"{self._every} have passed since the last look"

    def get_label(self) -> str | None:
        """Shown in the UI."""
        return f"every {self._every}"

    def evaluate(self, context: dg.AutomationContext[dg.AssetKey]) -> dg.AutomationResult[dg.AssetKey]:
        """Decide for the one unpartitioned asset of this context."""
        before, view = context.previous_evaluation_time, context.asset_graph_view
        wanted = before is None or self._span(before) != self._span(context.evaluation_time)
        if wanted:
            wanted = _tick(view).standing.building(context.key) is None
        subset = context.candidate_subset if wanted else context.get_empty_subset()
        return dg.AutomationResult(context=context, true_subset=subset)

    def _span(self, moment: dt.datetime) -> int:
        return int(moment.timestamp() // self._every.total_seconds())


PROCESSING = InputsNewer(every=False)
"""A processing step: at least one input is newer than what its last attempt had seen."""

REFRESH = InputsNewer(every=True, together=True)
"""A dashboard: every table it shows is newer than what its last attempt had seen, and they belong together."""

REFRESH_LATEST = InputsNewer(every=True)
"""A dashboard that shows its tables as they are, even where they do not belong together."""
