"""What doctor says of installed packages."""

from __future__ import annotations

from dataclasses import replace

from platform_core.operations.doctor_findings import Verdict
from platform_core.operations.doctor_versions import version_of
from tests.doctor.conftest import Project, failed, one


def install(project: Project, name: str, version: str | None) -> None:
    """Have a package be there in another version, or not at all."""
    project.machine = replace(project.machine, version=lambda asked: version if asked == name else version_of(asked))


def add_connection(project: Project, line: str) -> None:
    project.write(
        "shop/control/connections.yaml",
        "connections:\n  - {name: lists, type: files, root: '${env.state}/lists'}\n" + f"  - {line}\n",
    )


def test_what_is_installed_is_what_the_release_asks_for(project: Project) -> None:
    found = one(project.findings(), "versions", "release")
    assert found.verdict is Verdict.OK
    for name in ("python 3.", "dagster 1.", "deltalake 1.", "duckdb 2."):
        assert name in found.told


def test_a_package_of_another_version_fails(project: Project) -> None:
    install(project, "deltalake", "1.5.1")
    findings = project.findings()
    assert failed(findings) == ["versions: deltalake"]
    assert one(findings, "versions", "deltalake").told.startswith("deltalake is 1.5.1, and must be ")


def test_an_extra_that_a_connection_needs_and_has_not_fails(project: Project) -> None:
    add_connection(project, "{name: erp, type: mysql, host: h, database: d, user: u, password: {secret: shop/p}}")
    install(project, "pymysql", None)
    found = one(project.findings(), "versions", "mysql")
    assert found.verdict is Verdict.FAILED
    assert found.told == "pymysql is not installed; needed by connection shop.erp"
    assert found.advice == "install it: pip install 'edp-platform-core[mysql]'"


def test_extras_are_told_with_who_needs_them(project: Project) -> None:
    add_connection(project, "{name: drop, type: files, root: 's3://bucket/drop'}")
    project.write_environment("control: {url: 'postgresql+psycopg://edp@127.0.0.1:1/edp'}")
    findings = project.findings()
    assert "s3 (for connection shop.drop)" in one(findings, "versions", "extras").told
    assert "control (for control database)" in one(findings, "versions", "extras").told


def test_nothing_is_asked_for_that_nobody_needs(project: Project) -> None:
    assert one(project.findings(), "versions", "extras").told == "none is needed"
