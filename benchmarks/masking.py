"""Time every mask on one core, and check each value: `python -m benchmarks.masking [--rows N] [--write]`.

Each mask works in a process of its own that is bound to one core, on batches as a load hands them over. Seconds are the
processor's, so that others on the machine do not count. Tokens are compared with Python's own hmac, one by one, in the
same process; that loop is timed too, as what a plain implementation would reach.
"""

from __future__ import annotations

import argparse
import hashlib
import hmac
import json
import os
import platform
import secrets
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "masking.md"
BATCH_ROWS = 65_536
REPEATED = 5_000
CHECKED = 20_000

Case = tuple[str, dict[str, Any], str]
CASES: tuple[Case, ...] = (
    ("hash", {"domain": "email"}, "email"),
    ("hash", {"domain": "phone"}, "phone"),
    ("hash", {"domain": "phone", "country": "NL"}, "phone"),
    ("hash", {"domain": "identifier"}, "identifier"),
    ("hash", {"domain": "identifier"}, "integer"),
    ("hash", {"domain": "date"}, "day"),
    ("hash", {"domain": "number"}, "number"),
    ("hash", {"domain": "text"}, "text"),
    ("hash", {"domain": "text"}, "accents"),
    ("partial", {"keep_first": 1}, "text"),
    ("partial", {"keep_first": 1, "email": True}, "email"),
    ("truncate", {"keep": 4}, "identifier"),
    ("truncate", {"to": "month"}, "date"),
    ("year", {}, "date"),
    ("full", {}, "text"),
    ("null", {}, "text"),
)


def value(column: str, number: int) -> Any:
    """The number-th value of a column."""
    import datetime as dt

    makers: dict[str, Callable[[], Any]] = {
        "email": lambda: f"user{number}@example.com",
        "phone": lambda: f"06-{number:08d}",
        "identifier": lambda: f"NL{number:09d}",
        "integer": lambda: number,
        "day": lambda: str(dt.date(1, 1, 1) + dt.timedelta(days=number % 3_650_000)),
        "number": lambda: f"{number}.50",
        "text": lambda: f"name of {number}",
        "accents": lambda: f"naïve Zoë {number}",
        "date": lambda: dt.date(1900, 1, 1) + dt.timedelta(days=number % 40_000),
    }
    return makers[column]()


def form(options: dict[str, Any], column: str, of: Any) -> str:
    """The canonical form of such a value: these are written so already, but for a few."""
    if options.get("country") == "NL":
        return "+31" + str(of).replace("-", "")[1:]
    match options["domain"]:
        case "phone":
            return str(of).replace("-", "")
        case "identifier":
            return str(of).lower()
        case "number":
            return str(of).removesuffix("0")
        case _:
            return str(of)


def expected(key: bytes, options: dict[str, Any], column: str, values: list[Any]) -> list[str]:
    """Tokens as the reference documents them, by Python's own hmac."""
    domain = options["domain"]

    def derived(*purpose: str) -> str:
        return hmac.new(key, "\x1f".join(("edp1", *purpose)).encode(), hashlib.sha256).hexdigest()

    prefix, domain_key = derived("key-id", "1")[:8], derived("token", domain, "1").encode()
    return [f"{prefix}.{hmac.digest(domain_key, form(options, column, of).encode(), 'sha256').hex()}" for of in values]


def measure(case: Case, rows: int) -> dict[str, Any]:
    """Millions of values a second of one mask, in this process."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    import pyarrow as pa

    from platform_core.plugins.interfaces import Secret
    from platform_core.plugins.registry import plugin

    pa.set_cpu_count(1)
    name, options, column = case
    key = secrets.token_hex(32).encode()
    kind = plugin("mask", name)
    mask = kind(kind.Options(**options), key=Secret("x/masking_key", key) if kind.needs_key else None)
    found: dict[str, Any] = {}
    for label, distinct in (("distinct", rows), ("repeated", REPEATED)):
        values = [value(column, number % distinct) for number in range(rows)]
        array = pa.array(values)
        batches = [array.slice(start, BATCH_ROWS) for start in range(0, rows, BATCH_ROWS)]
        mask.apply(batches[0])
        seconds = []
        for _ in range(3):
            begin = time.process_time()
            masked = [mask.apply(batch) for batch in batches]
            seconds.append(time.process_time() - begin)
        found[label] = rows / statistics.median(seconds) / 1e6
        if name == "hash":
            begin = time.process_time()
            wanted = expected(key, options, column, values[:CHECKED])
            found["hmac"] = CHECKED / (time.process_time() - begin) / 1e6
            got = pa.chunked_array(masked).slice(0, CHECKED).to_pylist()
            found["wrong"] = found.get("wrong", 0) + sum(a != b for a, b in zip(got, wanted, strict=True))
    return found


def in_a_process(case: Case, rows: int) -> dict[str, Any]:
    """Measure in a process with one thread."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.masking", "--rows", str(rows), "--case", json.dumps(case)],
        env=os.environ | {"POLARS_MAX_THREADS": "1", "OMP_NUM_THREADS": "1"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def report(rows: int, measured: list[tuple[Case, dict[str, Any]]]) -> str:
    """The table, as Markdown."""
    lines = [
        "# Masking: million values a second on one core",
        "",
        f"`python -m benchmarks.masking --rows {rows}`; Python {platform.python_version()}, {platform.machine()}, "
        f"batches of {BATCH_ROWS} rows, seconds of processor time, median of three, load {os.getloadavg()[0]:.1f}. "
        f"Repeated: {REPEATED} different values. {CHECKED} tokens of each run are compared with "
        "Python's own `hmac`, whose loop over finished forms is the last column.",
        "",
        "| mask | values | distinct | repeated | wrong tokens | `hmac` loop |",
        "|---|---|---|---|---|---|",
    ]
    for (name, options, column), found in measured:
        said = " ".join([name, *(f"{option}: {chosen}" for option, chosen in options.items())])
        wrong, loop = (str(found["wrong"]), f"{found['hmac']:.2f}") if "hmac" in found else ("", "")
        lines.append(f"| {said} | {column} | {found['distinct']:.1f} | {found['repeated']:.1f} | {wrong} | {loop} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--write", action="store_true", help=f"write {RESULTS.relative_to(ROOT)}")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.case:
        print(json.dumps(measure(tuple(json.loads(arguments.case)), arguments.rows)))
        return
    measured = [(case, in_a_process(case, arguments.rows)) for case in CASES]
    text = report(arguments.rows, measured)
    print(text)
    if arguments.write:
        RESULTS.write_text(text)
    if wrong := sum(found.get("wrong", 0) for _, found in measured):
        raise SystemExit(f"{wrong} tokens differ from hmac")


if __name__ == "__main__":
    main()
