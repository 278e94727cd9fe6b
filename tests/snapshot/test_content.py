"""The file of a snapshot holds all that is applied of a location, in one form, and says what it cannot be read by."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from platform_core.control.plan.declared import STATE, manifest_rows
from platform_core.control.snapshot.content import decode, digest_of, encode
from platform_core.control.store.kinds import in_order
from platform_core.errors import SnapshotError
from platform_core.specs.manifest import Manifest
from tests.control_plane.test_round_trip import ROOT, manifests
from tests.examples import examples
from tests.snapshot.conftest import Publishing


@pytest.mark.filterwarnings("ignore:Generating overly large repr")
@given(manifest=manifests())
@settings(max_examples=examples(20), deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_whatever_can_be_declared_comes_back(manifest: Manifest) -> None:
    rows = manifest_rows(manifest)
    stamp = {"environment": "dev", "location": manifest.location.name, "serial": 7, "mark": "m", "git_commit": "abc"}
    content = encode(rows, **stamp)
    assert encode(dict(reversed(rows.items())), **stamp) == content
    found = decode(content, root=ROOT, state=STATE, where="the snapshot")
    assert found.manifest == in_order(manifest)
    assert found.digest == digest_of(content)
    assert (found.provenance.serial, found.provenance.mark, found.provenance.git_commit) == (7, "m", "abc")


def test_folders_are_those_of_the_machine_that_loads(published: Publishing) -> None:
    content = published.content_file().read_bytes()
    for folder in (published.project.folder, published.state):
        assert str(folder).encode() not in content
    quoted = Path('/srv/a "b"')
    connections = decode(content, root=quoted / "crm", state=quoted / "state", where="x").manifest.connections
    assert {each.name: next(iter(each.options.values())) for each in connections} == {
        "crm": '/srv/a "b"/state/crm.db',
        "lists": '/srv/a "b"/crm/lists',
    }


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("format", 2), "the snapshot has format 2; this version of the platform"),
        (("rows", {"location": []}), "the snapshot holds no location"),
        (("rows", {"location": [{"name": "crm"}], "model": []}), "holds kind 'model', which this version"),
        (("rows", {"location": [{"name": "crm", "region": "eu"}]}), "holds field 'region' of location, which this"),
        (
            ("rows", {"location": [{"name": "crm"}], "workstream": [{"name": "crm", "owners": 7}]}),
            "holds workstream crm, which is none of this version: wrong owners",
        ),
    ],
)
def test_what_another_release_wrote_is_told(published: Publishing, change: tuple[str, object], said: str) -> None:
    document = json.loads(published.content_file().read_text()) | {change[0]: change[1], "release": "9.9.9"}
    with pytest.raises(SnapshotError) as caught:
        decode(json.dumps(document).encode(), root=ROOT, state=STATE, where="the/file.json")
    assert str(caught.value).startswith(f"the/file.json: {said}" if said.startswith("the") else "the/file.json: the")
    assert said in str(caught.value)
    assert "9.9.9" in str(caught.value)
    assert "edp publish --env dev" in str(caught.value)
