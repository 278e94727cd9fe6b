"""What doctor says of secrets, masking keys and connections."""

from __future__ import annotations

import time

import pytest

from platform_core.operations.doctor_findings import Verdict
from platform_core.secrets.masking_keys import new_masking_key
from tests.doctor.conftest import PASSWORD, Project, chosen, failed, one
from tests.services.postgres import PostgresServer

ERP = """\
source: erp
tables:
  - {{object: {table}, mode: full, key: [id]}}
"""


def add_erp(project: Project, *, host: str = "127.0.0.1", port: int = 1, user: str = "edp", table: str = "t") -> None:
    """A connection to PostgreSQL with a password."""
    project.write(
        "shop/control/connections.yaml",
        f"""\
        connections:
          - {{name: lists, type: files, root: '${{env.state}}/lists'}}
          - name: erp
            type: postgres
            host: {host}
            port: {port}
            database: postgres
            user: {user}
            password: {{secret: shop/erp_password}}
        """,
    )
    project.write("shop/control/ingestion/erp.yaml", ERP.format(table=table))
    (project.folder / "shop/control/ingestion.yaml").rename(project.folder / "shop/control/ingestion/lists.yaml")


def mask_prices(project: Project) -> None:
    project.write(
        "shop/control/ingestion.yaml",
        """\
        source: lists
        tables:
          - {object: prices.csv, table: prices, mode: full, key: [item], columns: {price: {mask: hash, domain: text}}}
        """,
    )


def test_a_project_without_secrets_is_well(project: Project) -> None:
    findings = project.findings()
    assert failed(findings) == []
    assert one(findings, "secrets", "store").told == "nothing refers to a secret"
    assert one(findings, "connections", "shop.lists").told == "prices.csv has 2 columns"


def test_a_missing_secret_is_named_with_what_sets_it(project: Project) -> None:
    add_erp(project)
    findings = project.findings()
    assert one(findings, "secrets", "store").told == "0 of 1 secrets can be read"
    found = one(findings, "secrets", "shop/erp_password")
    assert found.verdict is Verdict.FAILED
    assert found.told == "missing; owner: team:shop"
    assert found.advice == "set it: edp secrets set shop/erp_password --env staging"


def test_masking_keys_are_told_by_themselves(project: Project) -> None:
    mask_prices(project)
    findings = project.findings()
    assert failed(findings) == ["masking keys: store", "masking keys: shop/masking_key"]
    project.set_secret("shop/masking_key", "short")
    found = one(project.findings(), "masking keys", "shop/masking_key")
    assert found.verdict is Verdict.FAILED
    assert found.told.startswith("unreadable")
    project.set_secret("shop/masking_key", new_masking_key().decode())
    findings = project.findings()
    assert one(findings, "masking keys", "store").told == "1 of 1 masking keys can be read"
    assert failed(findings) == []


def test_a_connection_that_is_refused_hides_no_other(project: Project) -> None:
    add_erp(project)
    project.set_secret("shop/erp_password", PASSWORD)
    findings = project.findings()
    assert failed(findings) == ["connections: shop.erp"]
    found = one(findings, "connections", "shop.erp")
    assert "cannot connect to database 'postgres' at 127.0.0.1:1" in found.told
    assert "check host, port" in found.advice
    assert PASSWORD not in repr(findings)


@pytest.mark.services
def test_a_wrong_password_is_told_at_once_and_never_shown(project: Project, postgres_server: PostgresServer) -> None:
    server = postgres_server
    add_erp(project, host=server.host, port=server.port, user=server.user)
    project.set_secret("shop/erp_password", PASSWORD)
    began = time.monotonic()
    findings = project.findings()
    # A load would wait ten seconds for a new password.
    assert time.monotonic() - began < 9
    assert failed(findings) == ["connections: shop.erp"]
    assert "password authentication failed" in one(findings, "connections", "shop.erp").advice
    assert PASSWORD not in repr(findings)


@pytest.mark.services
def test_a_connection_that_lets_us_in_is_well(project: Project, postgres_server: PostgresServer) -> None:
    server = postgres_server
    database = "postgres"
    server.execute("CREATE TABLE IF NOT EXISTS doctor_orders (id bigint primary key)", database=database)
    add_erp(project, host=server.host, port=server.port, user=server.user, table="public.doctor_orders")
    project.set_secret("shop/erp_password", server.password)
    assert one(project.findings(), "connections", "shop.erp").told == "public.doctor_orders has 1 column"


def test_a_location_with_faults_hides_no_other(project: Project) -> None:
    project.write(
        "workspace.yaml",
        """\
        load_from:
          - python_module: {module_name: shop.definitions, location_name: shop, working_directory: .}
          - python_module: {module_name: city.definitions, location_name: city, working_directory: .}
        """,
    )
    project.write("city/__init__.py", "")
    project.write("city/definitions.py", "")
    project.write("city/control/location.yaml", "location: city\nworkstreams: [{name: city, owners: ['team:city']}]\n")
    project.write("city/control/ingestion.yaml", "source: nowhere\ntables: [{object: a, mode: ful, key: [id]}]\n")
    findings = project.findings()
    assert failed(findings) == ["control files: locations"]
    found = one(findings, "control files", "locations")
    assert "city/control/ingestion.yaml" in found.told
    assert found.advice == "see all of them: edp check --env staging"
    assert [each.name for each in chosen(findings, "connections")] == ["shop.lists"]


def test_an_environment_that_cannot_be_read_hides_no_version(project: Project) -> None:
    project.write("home/environments/staging.yaml", "lake: {rot: lake}\nsecrets: {type: files}\n")
    findings = project.findings()
    assert one(findings, "control files", "environment").verdict is Verdict.FAILED
    assert one(findings, "versions", "release").verdict is Verdict.OK
