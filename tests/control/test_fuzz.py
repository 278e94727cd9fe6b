"""Whatever stands in a control folder, loading it gives a manifest or one ConfigError, in bounded time."""

from __future__ import annotations

import time
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from platform_core.control.load import load_manifest
from platform_core.errors import ConfigError
from platform_core.specs.manifest import Manifest
from tests.control.conftest import GOOD, Package
from tests.examples import examples

LONGEST_SECONDS = 5.0
NAMES = sorted(name for name in GOOD if name.startswith("control/") or name.endswith(".sql"))
WORDS = [
    *(
        "a",
        "erp",
        "mode",
        "full",
        "key",
        "[",
        "]",
        "{",
        "}",
        ":",
        "- ",
        "? ",
        "\n",
        "\n  ",
        " ",
        "&x ",
        "*x",
        "!t ",
        "<<",
    ),
    *(
        "|",
        ">",
        "'",
        '"',
        "#",
        "%",
        "@",
        "`",
        "---",
        "...",
        "\t",
        "~",
        "null",
        "true",
        "no",
        "0777",
        "1e999",
        "12:30",
        "9" * 30,
    ),
    *("${", "${var.port}", "$${", "bronze.orders", "silver.order_totals", "\x00", "\u202e", "é", "\ufeff", ","),
    *("select", "from", "(", ")", "$x", ";", "--", "/*"),
]

fuzzed = settings(
    max_examples=examples(40),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def outcome(package: Package) -> Manifest | ConfigError:
    """What loading gives; any other exception and any waiting fails the test."""
    start = time.process_time()
    try:
        return load_manifest(package.control, environment="dev", state=Path("/state"))
    except ConfigError as error:
        assert error.issues
        assert all(line.isprintable() for line in str(error).split("\n"))
        return error
    finally:
        assert time.process_time() - start < LONGEST_SECONDS


@st.composite
def mutations(draw: st.DrawFn) -> tuple[str, str]:
    """A file of the good package with some pieces cut, doubled, replaced or put in."""
    name = draw(st.sampled_from(NAMES))
    text = GOOD[name]
    for _ in range(draw(st.integers(1, 6))):
        start = draw(st.integers(0, len(text)))
        end = min(len(text), start + draw(st.integers(0, 30)))
        piece = draw(st.one_of(st.sampled_from(WORDS), st.just(""), st.just(text[start:end] * 2), st.text(max_size=8)))
        text = text[:start] + piece + text[end:]
    return name, text


@fuzzed
@given(name=st.sampled_from(NAMES), content=st.binary(max_size=400))
def test_any_bytes_give_a_manifest_or_a_clear_error(package: Package, name: str, content: bytes) -> None:
    package.write(dict(GOOD)).write({name: content})
    outcome(package)


@fuzzed
@given(name=st.sampled_from(NAMES), words=st.lists(st.sampled_from(WORDS), max_size=60))
def test_any_soup_of_yaml_gives_a_manifest_or_a_clear_error(package: Package, name: str, words: list[str]) -> None:
    package.write(dict(GOOD)).write({name: "".join(words).encode()})
    outcome(package)


@settings(fuzzed, max_examples=examples(80))
@given(mutation=mutations())
def test_any_mutation_gives_a_manifest_or_a_clear_error(package: Package, mutation: tuple[str, str]) -> None:
    name, text = mutation
    package.write(dict(GOOD)).write({name: text.encode("utf-8", "surrogatepass")})
    outcome(package)


values = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.text(max_size=12),
        st.sampled_from(["erp", "full", "gold.forecast"]),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=8), inner, max_size=4)),
    max_leaves=12,
)


@fuzzed
@given(data=st.data())
def test_any_value_in_any_place_gives_a_manifest_or_a_clear_error(package: Package, data: st.DataObject) -> None:
    import yaml

    name = data.draw(st.sampled_from([name for name in NAMES if name.endswith(".yaml")]))
    package.write(dict(GOOD))
    document = yaml.safe_load((package.root / name).read_text())
    containers = [document]
    for container in containers:
        inner = container.values() if isinstance(container, dict) else container
        containers.extend(each for each in inner if isinstance(each, (dict, list)) and each)
    container = data.draw(st.sampled_from(containers))
    key = data.draw(st.sampled_from(sorted(container) if isinstance(container, dict) else range(len(container))))
    container[key] = data.draw(values)
    package.write({name: yaml.safe_dump(document, allow_unicode=True).encode("utf-8", "surrogatepass")})
    outcome(package)
