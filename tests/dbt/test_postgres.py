"""The same models built in PostgreSQL, because the environment's file says so."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pyarrow as pa
import pytest

from platform_core.errors import StepError, StorageError
from platform_core.operations.dbt import build
from platform_core.operations.dbt_manifest import read_manifest
from platform_core.operations.dbt_postgres import PostgresWarehouse
from platform_core.operations.platform import Platform
from platform_core.plugins.interfaces import NoOptions, Secret, SecretStore
from platform_core.specs.environment import DatabaseSpec, DbtChoice
from tests.dbt.conftest import SALES, Teams
from tests.services.postgres import PostgresServer

pytestmark = [pytest.mark.slow, pytest.mark.services]

REVENUE, TOP, HISTORY, RATES = (
    f"{kind}.sales.{name}"
    for kind, name in (
        ("model", "revenue"),
        ("model", "top"),
        ("snapshot", "customer_history"),
        ("seed", "rates"),
    )
)


class OneSecret(SecretStore):
    """A store that holds the password of the server."""

    def __init__(self, password: str) -> None:
        super().__init__(NoOptions())
        self._password = password

    def get(self, name: str) -> Secret:
        assert name == "shop/warehouse"
        return Secret(name, self._password.encode())


@pytest.fixture
def platform(teams: Teams, postgres_server: PostgresServer, postgres_database: str) -> Platform:
    """The teams' platform, in an environment whose dbt target is a database."""
    server = postgres_server
    url = f"postgresql+psycopg://{server.user}@{server.host}:{server.port}/{postgres_database}"
    teams.environment = teams.environment.model_copy(
        update={
            "dbt": DbtChoice(target="warehouse", database="warehouse"),
            "databases": {"warehouse": DatabaseSpec(url=url, password={"secret": "shop/warehouse"})},
        }
    )
    return replace(teams.platform(), secrets=OneSecret(server.password))


def test_the_same_models_are_built_in_postgresql_and_published_to_the_lake(teams: Teams, platform: Platform) -> None:
    project = teams.project(SALES, platform)
    assert project.adapter == "postgres"
    manifest = read_manifest(SALES, folder=project.folder)
    chosen = [REVENUE, TOP, HISTORY]
    result = build(project, manifest=manifest, models=chosen, tests=(), platform=platform)
    assert result.failures == ()
    # What they read that was not in the database was built there, too, and is no result of this build.
    assert list(result.models) == sorted(chosen, key=list(manifest.model_by_id).index)
    assert teams.rows("gold.revenue") == [{"customer": "Ada", "total": 60.0}, {"customer": "Bo", "total": 120.0}]
    assert teams.rows("gold.top") == [{"customer": "Bo", "total": 120.0}]
    assert [row["name"] for row in teams.rows("gold.customer_history")] == ["Ada", "Bo"]
    assert result.models[REVENUE].columns == {"customer": "text", "total": "double precision"}
    assert not project.database.exists()
    secret = platform.secrets.get("shop/warehouse").reveal()
    written = [path for path in teams.root.rglob("*") if path.is_file()]
    assert [path for path in written if secret in path.read_bytes()] == []


def test_an_environment_that_does_not_say_which_database_is_told_so(teams: Teams, platform: Platform) -> None:
    environment = platform.environment.model_copy(update={"dbt": DbtChoice(target="warehouse")})
    teams.environment = environment
    project = teams.project(SALES)
    manifest = read_manifest(SALES, folder=project.folder)
    with pytest.raises(
        StepError, match=r"the environment does not say which database that is\n  looked at: dbt.database"
    ):
        build(
            project,
            manifest=manifest,
            models=[REVENUE],
            tests=(),
            platform=replace(platform, environment=environment),
        )


def test_copies_of_lake_tables_follow_them_and_views_on_them_stay(
    teams: Teams, platform: Platform, postgres_server: PostgresServer, postgres_database: str
) -> None:
    project = teams.project(SALES, platform)
    manifest = read_manifest(SALES, folder=project.folder)
    warehouse = PostgresWarehouse(project, platform)

    def copied() -> list[int]:
        warehouse.prepare(manifest, wanted=[HISTORY])
        with warehouse.built() as built:
            return sorted(built.rows(("silver", "customers")).read_all()["customer_id"].to_pylist())

    def execute(statement: str) -> None:
        postgres_server.execute(statement, database=postgres_database)

    assert copied() == [1, 2]
    execute("CREATE VIEW public.seen AS SELECT customer_id FROM silver.customers")
    execute("DELETE FROM silver.customers WHERE customer_id = 1")
    # Of the same version, it is not copied again.
    assert copied() == [2]
    teams.put("silver.customers", {"customer_id": [3, 4, 5], "name": ["Cy", "Di", "Ed"]})
    assert copied() == [3, 4, 5]
    with warehouse.built() as built:
        assert built.rows(("public", "seen")).read_all().num_rows == 3
    # With other columns it is another table, and dbt makes its views anew.
    teams.put("silver.customers", {"customer_id": [6], "town": ["Delft"]})
    assert copied() == [6]
    with warehouse.built() as built:
        assert ("public", "seen") not in built.columns()


def test_numbers_come_back_as_exact_decimals_or_not_at_all(
    teams: Teams, platform: Platform, postgres_server: PostgresServer, postgres_database: str
) -> None:
    postgres_server.execute(
        "CREATE TABLE public.money AS SELECT 12.30::numeric(9, 2) AS price, 0.1::numeric AS share, 7::bigint AS pieces",
        database=postgres_database,
    )
    warehouse = PostgresWarehouse(teams.project(SALES, platform), platform)
    with warehouse.built() as built:
        found = built.rows(("public", "money")).read_all()
    assert found.schema.types == [pa.decimal128(9, 2), pa.decimal128(38, 10), pa.int64()]
    assert found.to_pylist() == [{"price": Decimal("12.30"), "share": Decimal("0.1000000000"), "pieces": 7}]
    postgres_server.execute("UPDATE public.money SET share = 1 / 3.0", database=postgres_database)
    with (
        pytest.raises(StorageError, match=r"a numeric of public\.money does not fit decimal"),
        warehouse.built() as built,
    ):
        built.rows(("public", "money")).read_all()
