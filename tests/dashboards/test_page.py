from __future__ import annotations

import datetime as dt
import re
import stat
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pyarrow as pa
import pytest
from pydantic import ValidationError

from platform_core.dashboards.charts import PALETTE, build_spec
from platform_core.dashboards.page import FILE, PageDashboard
from platform_core.dashboards.page_options import MOST_POINTS, ChartOptions, PageOptions
from platform_core.dashboards.page_query import PageQuery, Points
from platform_core.dashboards.publishing import publish, put
from platform_core.errors import RefreshError
from platform_core.plugins.interfaces import RefreshRequest, Secret
from tests.dashboards.conftest import FakeReader
from tests.dashboards.suite import DashboardSuite

HOSTILE = """<script>alert(1)</script>"'&<img src=x onerror=alert(2)>"""

DAILY = pa.table(
    {
        "day": [dt.date(2026, 1, 3), dt.date(2026, 1, 1), dt.date(2026, 1, 2)],
        "rides": [30, 10, 20],
        "casual": [3, 1, None],
        "fee": pa.array([Decimal("1.10"), Decimal("2.25"), None], pa.decimal128(10, 2)),
        "season": ["winter", "winter", None],
        "seen": pa.array(
            [dt.datetime(2026, 1, day, 23, tzinfo=dt.UTC) for day in (3, 1, 2)], pa.timestamp("us", "UTC")
        ),
    }
)
CHART: dict[str, Any] = {"title": "Rides", "table": "gold.daily", "x": "day", "y": "rides"}
TABLE: dict[str, Any] = {"title": "Days", "table": "gold.daily"}
FIGURE: dict[str, Any] = {"title": "Rides", "table": "gold.daily", "column": "rides"}


def page(**options: Any) -> PageDashboard:
    return PageDashboard(PageOptions(**options), connection=None, secret=lambda name: Secret(name, b""), root=Path())


def render(requests, table: pa.Table = DAILY, **options: Any) -> str:
    return page(**options).render(requests({"gold.daily": table}))


def points(table: pa.Table = DAILY, **changes: Any) -> Points:
    return PageQuery({"gold.daily": FakeReader(table)}).points(ChartOptions(**(CHART | changes)))


def spec(table: pa.Table = DAILY, **changes: Any) -> dict[str, Any]:
    return build_spec(ChartOptions(**(CHART | changes)), points(table, **changes), width=500)


def figure(requests, table: pa.Table = DAILY, **changes: Any) -> str:
    shown = render(requests, table, figures=[FIGURE | changes])
    found = re.search(r'<div class="value"><span class="(?:amount|text)">([^<]*)', shown)
    assert found is not None
    return found[1].strip()


class TestSuite(DashboardSuite):
    @pytest.fixture
    def working(self) -> PageDashboard:
        return page(charts=[CHART])

    @pytest.fixture
    def failing(self) -> PageDashboard:
        return page(charts=[CHART | {"y": "passengers"}])

    @pytest.fixture
    def request_(self, requests) -> RefreshRequest:
        return requests({"gold.daily": DAILY})

    @pytest.fixture
    def name(self) -> str:
        return "page"

    def cancelled_request(self, requests) -> RefreshRequest:
        return requests({"gold.daily": DAILY}, cancelled=lambda: True)


class _Parser(HTMLParser):
    """Collects what a browser would see."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def parsed(text: str) -> list[tuple[str, dict[str, str | None]]]:
    parser = _Parser()
    parser.feed(text)
    return parser.tags


def test_the_page_stands_alone_without_script_or_outside_request(requests) -> None:
    shown = render(requests, intro="Hello", figures=[FIGURE], charts=[CHART], tables=[TABLE])
    tags = parsed(shown)
    assert not {"script", "iframe", "img", "object", "embed", "base", "form"} & {tag for tag, _ in tags}
    assert {url for _, attributes in tags for key in ("href", "src") if (url := attributes.get(key))} == {"data:,"}
    assert set(re.findall(r"https?://[^\"'\s)]+", shown)) <= {"http://www.w3.org/2000/svg"}
    assert not re.search(r"url\(|@import", shown)
    policies = [attributes["content"] for tag, attributes in tags if "http-equiv" in attributes]
    assert policies == ["default-src 'none'; style-src 'unsafe-inline'; img-src data:"]


def test_hostile_texts_and_values_stay_text(requests) -> None:
    table = pa.table({"x": [HOSTILE, "b"], "y": [1, 2], "kind": [HOSTILE, "k"]})
    shown = page(
        intro=HOSTILE,
        figures=[
            {
                "title": HOSTILE,
                "table": "gold.daily",
                "column": "x",
                "aggregate": "max",
                "unit": HOSTILE,
                "caption": HOSTILE,
            }
        ],
        charts=[
            {
                "title": HOSTILE,
                "description": HOSTILE,
                "table": "gold.daily",
                "mark": "bar",
                "x": "x",
                "y": "y",
                "color": "kind",
                "x_title": HOSTILE,
                "y_title": HOSTILE,
            }
        ],
        tables=[{"title": HOSTILE, "description": HOSTILE, "table": "gold.daily", "labels": {"x": HOSTILE}}],
    ).render(requests({"gold.daily": table}, title=HOSTILE, name=HOSTILE))
    tags = parsed(shown)
    assert not {"script", "img"} & {tag for tag, _ in tags}
    assert not [key for _, attributes in tags for key in attributes if key.startswith("on")]
    assert shown.count("&lt;script&gt;alert(1)&lt;/script&gt;") > 15


def test_hostile_column_names_are_quoted(requests) -> None:
    name = 'a"; drop table shown; --'
    table = pa.table({name: [1, 2], "y": [3, 4]})
    assert points(table, x=name, y="y", aggregate="sum").rows.column("y").to_pylist() == [3, 4]
    assert figure(requests, table, column=name) == "3"


@pytest.mark.parametrize(
    ("column", "aggregate", "format", "text"),
    [
        ("rides", "sum", None, "60"),
        ("rides", "max", ",.1f", "30.0"),
        ("rides", "mean", None, "20"),
        ("casual", "sum", None, "4"),
        ("casual", "count", None, "2"),
        (None, "count", None, "3"),
        ("fee", "sum", None, "3.35"),
        ("fee", "mean", ".1%", "167.5%"),
        ("fee", "min", ",d", "1"),
        ("day", "max", None, "2026-01-03"),
        ("seen", "min", None, "2026-01-01 23:00 UTC"),
        ("season", "max", None, "winter"),
    ],
)
def test_figures_come_from_the_whole_table(
    requests, column: str | None, aggregate: str, format: str | None, text: str
) -> None:
    assert figure(requests, column=column, aggregate=aggregate, format=format) == text


def test_large_sums_do_not_lose_digits(requests) -> None:
    table = pa.table({"rides": pa.array([2**62, 2**62, 1])})
    assert figure(requests, table) == f"{2**63 + 1:,d}"


def test_the_last_value_is_that_of_the_newest_row(requests) -> None:
    assert figure(requests, DAILY.drop(["seen"]), aggregate="last") == "30"
    assert figure(requests, aggregate="last", order_by="rides", column="day") == "2026-01-03"


def test_the_last_value_needs_a_column_that_tells_the_newest_row(requests) -> None:
    with pytest.raises(RefreshError, match=r"needs 'order_by'[\s\S]*day, seen"):
        figure(requests, aggregate="last")


def test_a_figure_of_no_rows_is_a_dash(requests) -> None:
    assert figure(requests, DAILY.slice(0, 0)) == "–"


def test_points_are_ordered_by_x_and_nulls_stay_gaps() -> None:
    rows = points(y="casual").rows
    assert rows.column("x").to_pylist() == [dt.date(2026, 1, day) for day in (1, 2, 3)]
    assert rows.column("y").to_pylist() == [1, None, 3]


def test_rows_without_x_are_left_out_and_counted(requests) -> None:
    assert points(x="season", aggregate="sum").without_x == 1
    assert "1 row without Season left out" in render(requests, charts=[CHART | {"x": "season", "aggregate": "sum"}])


@pytest.mark.parametrize(
    ("aggregate", "values"), [("sum", [40]), ("mean", [20]), ("max", [30]), ("median", [20]), ("count", [2])]
)
def test_rows_of_one_x_are_aggregated_before_they_are_drawn(aggregate: str, values: list[float]) -> None:
    assert points(x="season", aggregate=aggregate, mark="bar").rows.column("y").to_pylist() == values


def test_rows_can_be_counted_without_a_number_column() -> None:
    assert points(x="season", y=None, aggregate="count").rows.to_pylist() == [{"x": "winter", "y": 2.0, "series": ""}]


def test_several_y_columns_become_series_in_their_order() -> None:
    shown = spec(y=["rides", "casual"], labels={"casual": "Now and then"})
    assert shown["encoding"]["color"]["scale"]["domain"] == ["Rides", "Now and then"]
    assert [(value["y"], value["series"]) for value in shown["data"]["values"][:2]] == [
        (10, "Rides"),
        (1, "Now and then"),
    ]


def test_values_of_the_colour_column_become_series_in_natural_order() -> None:
    table = pa.table({"x": [1, 1, 1], "y": [1, 2, 3], "line": ["Line 10", "Line 9", None]})
    shown = spec(table, x="x", y="y", color="line")
    assert shown["encoding"]["color"]["scale"]["domain"] == ["Line 9", "Line 10", "–"]


def test_more_series_than_colours_are_refused() -> None:
    many = len(PALETTE) + 1
    table = pa.table({"x": [1] * many, "y": [1] * many, "kind": [f"k{number}" for number in range(many)]})
    with pytest.raises(RefreshError, match=f"{many} series, but only {many - 1}"):
        spec(table, x="x", y="y", color="kind")


def test_several_rows_of_one_point_are_refused_where_a_line_would_zigzag() -> None:
    with pytest.raises(RefreshError, match=r"several rows of the same season.*\n.*aggregate"):
        points(DAILY.filter(DAILY["season"].is_valid()), x="season")
    assert points(x="season", mark="point").rows.num_rows == 2


def test_too_many_points_are_refused_with_advice() -> None:
    table = pa.table({"day": range(MOST_POINTS + 1), "rides": range(MOST_POINTS + 1)})
    with pytest.raises(RefreshError, match=r"more than 5,000 points\n  aggregate the table gold.daily in gold"):
        points(table)
    assert points(table.slice(0, MOST_POINTS)).rows.num_rows == MOST_POINTS


def test_a_limit_takes_the_first_in_the_declared_order() -> None:
    assert points(sort="-y", limit=2).rows.column("y").to_pylist() == [30, 20]
    assert points(sort="-x", limit=3, y=["rides", "casual"]).rows.column("y").to_pylist() == [30, 3, 20]


def test_times_are_drawn_alike_in_every_time_zone() -> None:
    shown = spec()
    assert shown["encoding"]["x"]["scale"] == {"type": "utc"}
    assert shown["data"]["values"][0]["x"] == 1_767_225_600_000
    naive = pa.table({"day": [dt.datetime(2026, 1, 1)], "rides": [1]})
    assert spec(naive)["data"]["values"][0]["x"] == 1_767_225_600_000


def test_numbers_that_are_none_are_drawn_as_gaps(requests) -> None:
    table = pa.table({"day": [1, 2, 3], "rides": [1.0, float("nan"), float("inf")]})
    shown = render(requests, table, charts=[CHART], tables=[TABLE])
    assert "NaN" not in shown and "nan<" not in shown and "inf<" not in shown


@pytest.mark.parametrize("mark", ["line", "bar", "area", "point"])
@pytest.mark.parametrize(
    "changes", [{}, {"x": "rides"}, {"color": "season"}, {"y": ["rides", "fee"]}, {"x": "seen", "format": ",.1f"}]
)
def test_every_mark_is_drawn_with_a_title_and_a_description(requests, mark: str, changes: dict[str, Any]) -> None:
    shown = render(requests, charts=[CHART | {"mark": mark} | changes])
    drawings = re.findall(r"<svg.*?</svg>", shown, re.DOTALL)
    assert len(drawings) == 2
    for drawing in drawings:
        root = ElementTree.fromstring(drawing)
        title, description = root[0], root[1]
        assert root.get("role") == "img"
        assert root.get("aria-labelledby") == f"{title.get('id')} {description.get('id')}"
        assert title.text == "Rides"
        assert f"{6 if isinstance(changes.get('y'), list) else 3} points from" in (description.text or "")
        assert any(colour in drawing for colour in PALETTE)
        labels = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
        assert any(labels)


def test_ids_are_unique_on_the_page(requests) -> None:
    shown = render(requests, charts=[CHART, CHART], tables=[TABLE])
    ids = [attributes["id"] for _, attributes in parsed(shown) if "id" in attributes]
    assert len(ids) == len(set(ids)) > 4


@pytest.mark.parametrize("mark", ["bar", "area"])
def test_series_of_a_colour_add_up_and_columns_only_when_asked_for(mark: str) -> None:
    table = pa.table({"day": [1, 1], "rides": [1, 2], "casual": [1, 2], "kind": ["a", "b"]})
    assert spec(table, mark=mark, color="kind")["encoding"]["y"]["stack"] == "zero"
    assert spec(table, mark=mark, color="kind", stack=False)["encoding"]["y"]["stack"] is None
    columns = {"mark": mark, "y": ["rides", "casual"], "aggregate": "sum"}
    assert spec(table, **columns)["encoding"]["y"]["stack"] is None
    assert spec(table, **columns, stack=True)["encoding"]["y"]["stack"] == "zero"


def test_long_names_get_bars_that_lie(requests) -> None:
    table = pa.table({"x": [f"a rather long name {number}" for number in range(12)], "y": range(12)})
    shown = spec(table, x="x", y="y", mark="bar")
    assert shown["encoding"]["y"]["type"] == "nominal"
    assert shown["encoding"]["x"]["field"] == "y"


def test_an_empty_table_gives_a_page_that_says_so(requests) -> None:
    empty = DAILY.slice(0, 0)
    shown = render(requests, empty, charts=[CHART], tables=[TABLE])
    assert shown.count("No rows to show yet.") == 2


def test_tables_show_the_declared_columns_in_order(requests) -> None:
    table = TABLE | {"columns": ["rides", "fee"], "order_by": "-rides", "limit": 2}
    cells = re.findall(r"<td[^>]*>([^<]*)</td>", render(requests, tables=[table | {"formats": {"rides": ",.1f"}}]))
    assert cells == ["30.0", "1.10", "20.0", "–"]


def test_time_and_versions_are_told(requests) -> None:
    shown = page(charts=[CHART]).render(requests(tables={"gold.daily": DAILY}))
    assert '<time datetime="2026-11-21T06:30:00+00:00">21 November 2026, 06:30 UTC</time>' in shown
    assert "<li>gold.daily v3</li>" in shown


def test_the_same_tables_give_the_same_page(requests) -> None:
    assert render(requests, charts=[CHART]) == render(requests, charts=[CHART])


def test_pages_are_rendered_from_several_threads(requests) -> None:
    with ThreadPoolExecutor(4) as pool:
        pages = set(pool.map(lambda _: render(requests, charts=[CHART, CHART | {"mark": "bar"}]), range(8)))
    assert len(pages) == 1


@pytest.mark.parametrize(
    "options",
    [
        {"figures": [FIGURE | {"column": "ride"}]},
        {"figures": [FIGURE | {"aggregate": "last", "order_by": "ride"}]},
        {"charts": [CHART | {"x": "ride"}]},
        {"charts": [CHART | {"y": ["casual", "ride"]}]},
        {"charts": [CHART | {"color": "ride"}]},
        {"tables": [TABLE | {"columns": ["ride"]}]},
        {"tables": [TABLE | {"order_by": ["-ride"]}]},
    ],
)
def test_an_unknown_column_is_refused_with_the_known_ones(requests, options: dict[str, Any]) -> None:
    message = r"has no column 'ride'\n  columns: day, rides, casual, fee, season, seen\n  did you mean 'rides'\?"
    with pytest.raises(RefreshError, match=message):
        render(requests, **options)


def test_an_unknown_table_is_refused_with_the_shown_ones(requests) -> None:
    with pytest.raises(RefreshError, match=r"'gold.dayly' is not among.*\n.*gold.daily\n  did you mean"):
        render(requests, charts=[CHART | {"table": "gold.dayly"}])


@pytest.mark.parametrize("column", ["season", "day"])
def test_sums_and_charts_of_what_is_no_number_are_refused(requests, column: str) -> None:
    with pytest.raises(RefreshError, match=f"needs a number, but column '{column}' is"):
        figure(requests, column=column)
    with pytest.raises(RefreshError, match=f"needs a number, but column '{column}' is"):
        points(x="rides", y=column)


def test_a_value_that_breaks_a_query_is_not_told(requests) -> None:
    class Broken(FakeReader):
        def read(self, *, columns: tuple[str, ...] | None = None) -> pa.RecordBatchReader:
            def batches() -> Any:
                raise OSError("row of Jane Doe is broken")
                yield

            return pa.RecordBatchReader.from_batches(self.schema.empty_table().select(columns).schema, batches())

    with pytest.raises(RefreshError, match=r"query over its table failed\n  duckdb\.") as raised:
        PageQuery({"gold.daily": Broken(DAILY)}).points(ChartOptions(**CHART))
    assert "Jane" not in str(raised.value)
    assert raised.value.__cause__ is None and raised.value.__context__ is None


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"charts": [CHART | {"mark": "pie"}]},
        {"charts": [CHART | {"y": None}]},
        {"charts": [CHART | {"color": "season", "y": ["rides", "casual"]}]},
        {"charts": [CHART | {"format": "{!r}"}]},
        {"charts": [CHART | {"stack": True}]},
        {"charts": [CHART | {"format": ".1d"}]},
        {"charts": [CHART | {"limit": MOST_POINTS + 1}]},
        {"charts": [CHART | {"sort": "-y", "color": "season"}]},
        {"figures": [FIGURE | {"column": None}]},
        {"figures": [FIGURE | {"order_by": "day"}]},
        {"figures": [FIGURE | {"agregate": "sum"}]},
        {"tables": [TABLE | {"columns": []}]},
    ],
)
def test_options_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        PageOptions(**wrong)


def test_a_refresh_writes_one_file_and_says_where(requests) -> None:
    result = page(charts=[CHART]).refresh(requests({"gold.daily": DAILY}))
    assert [path.name for path in requests.folder.iterdir()] == [FILE]
    assert result.url == (requests.folder / FILE).as_uri()
    assert result.figures["bytes"] == (requests.folder / FILE).stat().st_size


def test_the_old_page_stays_when_a_refresh_fails(requests) -> None:
    page(charts=[CHART]).refresh(requests({"gold.daily": DAILY}))
    before = (requests.folder / FILE).read_bytes()
    with pytest.raises(RefreshError):
        page(charts=[CHART | {"y": "gone"}]).refresh(requests({"gold.daily": DAILY}))
    assert (requests.folder / FILE).read_bytes() == before


def test_a_folder_that_cannot_be_written_is_an_error_that_says_where(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(RefreshError, match=r"file/index\.html: cannot be written"):
        publish(b"new", folder=str(tmp_path / "file"), name=FILE, storage_options={})


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(b"old", folder=str(tmp_path), name=FILE, storage_options={})

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(RefreshError, match="No space left on device"):
        publish(b"new", folder=str(tmp_path), name=FILE, storage_options={})
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {FILE: b"old"}


def test_a_published_file_can_be_read_by_others(tmp_path: Path) -> None:
    publish(b"page", folder=str(tmp_path), name=FILE, storage_options={})
    assert (tmp_path / FILE).stat().st_mode & stat.S_IRGRP


@pytest.mark.parametrize("write", [publish, put])
def test_a_folder_may_be_a_url(tmp_path: Path, write: Any) -> None:
    folder = tmp_path / "with space"
    folder.mkdir()
    for content in (b"old", b"new"):
        url = write(content, folder=folder.as_uri(), name=FILE, storage_options={})
        assert url == (folder / FILE).as_uri()
        assert (folder / FILE).read_bytes() == content


def test_a_store_that_refuses_is_an_error_without_credentials() -> None:
    options = {
        "account_name": "lake",
        "account_key": "bm90LWEta2V5",
        "endpoint": "http://127.0.0.1:9",
        "allow_http": "true",
    }
    with pytest.raises(RefreshError, match="the store refused") as raised:
        publish(
            b"new",
            folder="abfss://lake@lake.dfs.core.windows.net/x",
            name=FILE,
            storage_options=options | {"max_retries": "0"},
        )
    assert "bm90" not in str(raised.value)
    assert raised.value.__context__ is None
