"""Writes benchmarks/results/ingest.md, and the chart beside it, from what was measured."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from typing import Any

from benchmarks.ingest import applying, record
from benchmarks.ingest.campaign import DLT, OURS, TOLD, dlt_name

REPORT = record.RESULTS / "ingest.md"
CHART = record.RESULTS / "ingest.svg"

WORKS = {
    "first": "First load",
    "second": "Second load: 1 % changed, 0.1 % gone, 1 % new, evenly; all rows are read, or what changed and all keys",
    "tenth": "Incremental: 9 % changed, evenly spread, and 1 % new are read and merged",
    "nothing": "Nothing has changed; all rows read, or all keys",
    "apply": "Second half of the second load alone: the landed rows compared with the table, and applied",
    "copy": "The way out of the server alone",
}
_HEAD = """# Ingestion beside its peers

How to read and run this: [docs/benchmarks.md](../../docs/benchmarks.md). Seconds are wall time of the load in a process
of its own, imports left out, median of all turns; MB are the peak of that process and its children, interpreter and
libraries included. Ours masks two columns, keeps the row hash, flags deletes, takes a lease and writes the load log;
no peer does any of these, but for the flags of the straight merge. "Right" is checked against the source by row count
and a checksum over all columns; for ours also the masked values against Python's `hmac`, the flags, and what the load
says it did.
"""


def render() -> str:
    """The whole report."""
    parts = record.read()
    sizes = sorted((int(name.removeprefix("rows ")), part) for name, part in parts.items() if name.startswith("rows "))
    lines = [_HEAD, *_targets(dict(sizes), parts)]
    for rows, part in reversed(sizes):
        lines += _size(rows, part)
    if "small" in parts:
        lines += _small(parts["small"])
    lines += _growth(parts, dict(sizes))
    lines += [
        "## ingestr",
        "",
        "Not measured: its package (1.1.76) holds no engine but fetches a binary from a place that is no package "
        "registry, which a closed network refuses.",
        "",
    ]
    return "\n".join(lines)


def median(turns: list[dict[str, Any]], name: str = "seconds") -> float:
    return float(statistics.median(turn[name] for turn in turns))


def _finished(part: dict[str, Any], work: str, contender: str) -> list[dict[str, Any]]:
    turns = part["taken"].get(work, {}).get(contender, [])
    return [] if any(turn["ended"] for turn in turns) else turns


def best_peer(part: dict[str, Any], work: str, *, right: bool = True) -> str | None:
    """dlt's fastest configuration of a piece of work."""
    found = {}
    for name in part["taken"].get(work, {}):
        turns = _finished(part, work, name) if name in DLT else []
        if turns and not (right and any(turn["wrong"] for turn in turns)):
            found[name] = median(turns)
    return min(found, key=lambda name: found[name]) if found else None


def _origin(part: dict[str, Any]) -> list[str]:
    return [
        f"`{part['command']}`; {part['machine']}; PostgreSQL on the same machine; load {part['load'][0]:.1f} at the "
        f"start, {part['load'][1]:.1f} at the end.",
        "",
    ]


def _size(rows: int, part: dict[str, Any]) -> Iterator[str]:
    yield f"## {rows:,} rows × 12 columns"
    yield ""
    yield from _origin(part)
    for work, title in WORKS.items():
        if part["taken"].get(work):
            yield f"### {title}"
            yield ""
            yield from _work(_by_name(part["taken"][work], work), base=_base(work))
            yield ""
    yield from _phases(part)


def _by_name(taken: dict[str, list[dict[str, Any]]], work: str) -> dict[str, list[dict[str, Any]]]:
    """Turns by what was done: dlt's first and incremental loads are one and the same for all its strategies."""
    if work not in ("first", "tenth"):
        return taken
    named: dict[str, list[dict[str, Any]]] = {}
    for name, turns in taken.items():
        named.setdefault(dlt_name(DLT[name][0], "upsert") if name in DLT else name, []).extend(turns)
    return named


def _base(work: str) -> str:
    return {"apply": next(iter(applying.CONTESTANTS)), "copy": "COPY … BINARY to nowhere"}.get(work, OURS)


def _work(taken: dict[str, list[dict[str, Any]]], *, base: str) -> Iterator[str]:
    yield "| | s | all turns | × ours | processor s | peak MB | result |"
    yield "|---|---|---|---|---|---|---|"
    own = median(taken[base]) if base in taken and not any(turn["ended"] for turn in taken[base]) else None
    finished = {name: turns for name, turns in taken.items() if not any(turn["ended"] for turn in turns)}
    for name in sorted(finished, key=lambda name: (name != base, median(finished[name]))):
        turns = finished[name]
        ratio = f"{median(turns) / own:.2f}" if own else ""
        wrong = next((turn["wrong"] for turn in turns if turn["wrong"]), "")
        each = ", ".join(f"{turn['seconds']:.2f}" for turn in turns)
        peak = max(turn["megabytes"] for turn in turns)
        yield (
            f"| {name} | {median(turns):.2f} | {each} | {ratio} | {median(turns, 'processor'):.2f} "
            f"| {peak:.0f} | {wrong or 'right'} |"
        )
    for name, turns in taken.items():
        if name not in finished:
            ended = next(turn for turn in turns if turn["ended"])
            yield f"| {name} | – | – | – | – | {ended['megabytes']:.0f} | {ended['ended']} |"


def _phases(part: dict[str, Any]) -> Iterator[str]:
    rows = {}
    for work in ("first", "second", "tenth", "nothing"):
        turns = _finished(part, work, OURS)
        if turns:
            rows[work] = (median(turns), {name: _phase(turns, name) for name in turns[0]["phases"]})
    if not rows:
        return
    names = list(next(iter(rows.values()))[1])
    yield "### Where our time goes, seconds"
    yield ""
    yield f"| | {' | '.join(names)} | outside of phases | in all |"
    yield f"|---|{'---|' * (len(names) + 2)}"
    for work, (total, phases) in rows.items():
        rest = total - sum(phases.values())
        yield f"| {work} | {' | '.join(f'{phases[name]:.2f}' for name in names)} | {rest:.2f} | {total:.2f} |"
    yield ""


def _phase(turns: list[dict[str, Any]], name: str) -> float:
    return float(statistics.median(turn["phases"][name] for turn in turns))


def _verdict(value: float, limit: float, *, least: bool) -> str:
    return "met" if (value >= limit if least else value <= limit) else "**missed**"


def _targets(sizes: dict[int, dict[str, Any]], parts: dict[str, Any]) -> Iterator[str]:
    yield "## Targets"
    yield ""
    yield "| target | rows | measured | |"
    yield "|---|---|---|---|"
    for rows, part in sizes.items():
        yield from _targets_of(rows, part)
    if "small" in parts:
        yield from _small_targets(parts["small"])
    yield ""


def _targets_of(rows: int, part: dict[str, Any]) -> Iterator[str]:
    second = _finished(part, "second", OURS)
    for own in (OURS, TOLD):
        yield from _beside_dlt(rows, part, own)
    engine, merge, floor = (_finished(part, "apply", name) for name in applying.CONTESTANTS)
    if engine and merge and floor:
        for what, turns, limit in (("diff, then delta-rs merge", merge, 0.65), ("the floor", floor, 1.3)):
            ratio = median(engine) / median(turns)
            worked = median(engine, "processor") / median(turns, "processor")
            yield (
                f"| full compare at no more than {limit} × of {what} | {rows:,} | {ratio:.2f} × ({worked:.2f} × in "
                f"processor seconds) | {_verdict(ratio, limit, least=False)} |"
            )
    copy = [turn for turns in part["taken"].get("copy", {}).values() for turn in turns]
    if second and copy:
        landing = statistics.median(
            sum(turn["phases"][name] for name in ("extract", "mask", "land")) for turn in second
        )
        share = median(copy) / landing
        yield (
            f"| extraction to masked landing at 60 % or more of raw COPY … BINARY | {rows:,} | {share:.0%} "
            f"| {_verdict(share, 0.6, least=True)} |"
        )
    if second:
        loads = [turn for work in ("first", "second", "tenth", "nothing") for turn in _finished(part, work, OURS)]
        peak = max(turn["megabytes"] for turn in loads)
        yield f"| peak memory under 1 GB | {rows:,} | {peak:.0f} MB | {_verdict(peak, 1000, least=False)} |"


def _beside_dlt(rows: int, part: dict[str, Any], own: str) -> Iterator[str]:
    second = _finished(part, "second", own)
    how = "" if own == OURS else f" ({own.removeprefix(OURS + ', ')})"
    for right in (True, False):
        peer = best_peer(part, "second", right=right)
        if not second or peer is None or (not right and peer == best_peer(part, "second")):
            continue
        turns = _finished(part, "second", peer)
        which = f"dlt's fastest right configuration ({peer})" if right else f"dlt's fastest, not right ({peer})"
        ratio = median(turns) / median(second)
        worked = median(turns, "processor") / median(second, "processor")
        yield (
            f"| second load{how} at least 4 × faster than {which} | {rows:,} | {ratio:.2f} × ({worked:.2f} × in "
            f"processor seconds) | {_verdict(ratio, 4, least=True)} |"
        )
        share = max(turn["megabytes"] for turn in second) / max(turn["megabytes"] for turn in turns)
        verdict = _verdict(share, 1 / 3, least=False)
        yield f"| … at no more than a third of its memory | {rows:,} | {share:.2f} × | {verdict} |"


def _small_targets(part: dict[str, Any]) -> Iterator[str]:
    where = f"{part['tables']} × {part['rows']:,}"
    if part["alone"]["ended"] or part["dagster"]["ended"]:
        return
    engine = part["alone"]["figures"]["engine"] * 1000
    yield (
        f"| a no-change load of a small table under 5 ms of engine time | {where} | {engine:.1f} ms "
        f"| {_verdict(engine, 5, least=False)} |"
    )
    figures = part["dagster"]["figures"]
    each, empty = (statistics.median(figures[name]) * 1000 for name in ("nothing", "empty"))
    yield (
        f"| no-change loads at no more than 40 ms each in a Dagster run | {where} | {each:.0f} ms, of which "
        f"{empty:.0f} ms are Dagster's for an empty asset | {_verdict(each, 40, least=False)} |"
    )


def _small(part: dict[str, Any]) -> Iterator[str]:
    yield f"## {part['tables']} tables of {part['rows']:,} rows"
    yield ""
    yield from _origin(part)
    alone, dagster = part["alone"], part["dagster"]
    if not alone["ended"]:
        figures = alone["figures"]
        yield "Milliseconds a table, one process, without Dagster (median of all loads):"
        yield ""
        yield "| | ms |"
        yield "|---|---|"
        yield f"| first load | {figures['first'] * 1000:.1f} |"
        yield f"| nothing changed, one after the other | {figures['wall'] * 1000:.1f} |"
        for name, seconds in alone["phases"].items():
            yield f"| – {name} | {seconds * 1000:.2f} |"
        yield f"| – engine: all phases but extract | {figures['engine'] * 1000:.2f} |"
        if "processor" in figures:
            yield f"| – processor | {figures['processor'] * 1000:.1f} |"
            yield f"| the same, compared with bronze all the same: engine | {figures['engine_compared'] * 1000:.2f} |"
            yield f"| – processor | {figures['processor_compared'] * 1000:.1f} |"
        yield f"| nothing changed, slowest twentieth from | {figures['slowest_twentieth'] * 1000:.1f} |"
        yield f"| nothing changed, 4 threads, a table | {figures['together'] * 1000:.1f} |"
        yield ""
    if not dagster["ended"]:
        figures = dagster["figures"]
        own = statistics.median(figures["empty"])
        yield "Milliseconds a table of whole Dagster runs, threaded executor with 8 steps at a time, SQLite storage:"
        yield ""
        yield "| | ms a step | all runs | beyond empty assets |"
        yield "|---|---|---|---|"
        titles = {
            "empty": "empty assets",
            "nothing": "nothing changed",
            "changed": "1 % changed",
            "first": "first load",
        }
        for name, title in titles.items():
            each = ", ".join(f"{seconds * 1000:.0f}" for seconds in figures[name])
            value = statistics.median(figures[name])
            yield f"| {title} | {value * 1000:.0f} | {each} | {(value - own) * 1000:.0f} |"
        yield ""
    if part.get("peers"):
        yield "dlt, all tables in one pipeline run, without Dagster:"
        yield ""
        yield "| | ms a table | peak MB |"
        yield "|---|---|---|"
        for name, turns in part["peers"].items():
            for title, taken in turns.items():
                value = taken["ended"] or f"{taken['seconds'] / part['tables'] * 1000:.0f}"
                yield f"| {name}, {title} | {value} | {taken['megabytes']:.0f} |"
        yield ""


def _growth(parts: dict[str, Any], sizes: dict[int, dict[str, Any]]) -> Iterator[str]:
    grown = {int(rows): part for rows, part in parts.get("growth", {}).get("sizes", {}).items()}
    every = {**sizes, **grown}
    if len(every) < 2:
        return
    yield "## Growth with the rows"
    yield ""
    if "growth" in parts:
        yield from _origin(parts["growth"])
    yield "Ours; sizes that have a section of their own are taken from there where they were not measured again."
    yield ""
    yield f"![Seconds and peak memory against rows]({CHART.name})"
    yield ""
    yield "| rows | first load s | peak MB | second load s | peak MB | k rows/s |"
    yield "|---|---|---|---|---|---|"
    values: list[dict[str, Any]] = []
    for rows, part in sorted(every.items()):
        first, second = (_finished(part, work, OURS) for work in ("first", "second"))
        if not first or not second:
            continue
        cells = []
        for title, turns in (("first load", first), ("second load", second)):
            seconds, peak = median(turns), max(turn["megabytes"] for turn in turns)
            cells += [f"{seconds:.2f}", f"{peak:.0f}"]
            values += [{"rows": rows, "load": f"ours, {title}", "seconds": seconds, "MB": peak}]
        yield f"| {rows:,} | {' | '.join(cells)} | {rows / median(second) / 1000:.0f} |"
        if peer := best_peer(part, "second"):
            turns = _finished(part, "second", peer)
            values.append(
                {
                    "rows": rows,
                    "load": "dlt, second load",
                    "seconds": median(turns),
                    "MB": max(turn["megabytes"] for turn in turns),
                }
            )
    yield ""
    _draw(values)


def _draw(values: list[dict[str, Any]]) -> None:
    import vl_convert

    def panel(field: str, title: str) -> dict[str, Any]:
        return {
            "width": 330,
            "height": 240,
            "mark": {"type": "line", "point": True},
            "encoding": {
                "x": {"field": "rows", "type": "quantitative", "scale": {"type": "log"}, "axis": {"format": "~s"}},
                "y": {"field": field, "type": "quantitative", "scale": {"type": "log"}, "title": title},
                "color": {"field": "load", "type": "nominal", "title": None},
            },
        }

    chart = {
        "$schema": "https://vega.github.io/schema/vega-lite/v5.json",
        "data": {"values": values},
        "hconcat": [panel("seconds", "seconds"), panel("MB", "peak MB")],
    }
    CHART.write_text(vl_convert.vegalite_to_svg(chart))
