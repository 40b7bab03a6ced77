"""Bills of materials: valid, complete, equal for equal contents."""

import json

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from fleetfn_builder.assembly import sbom
from fleetfn_builder.assembly.sbom import Base

BASE = Base("docker.io/library/python", "sha256:" + "cd" * 32)


def put(folder, name, version="1.0", *lines, body=""):
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    head = "\n".join(["Metadata-Version: 2.4", f"Name: {name}", f"Version: {version}", *lines])
    (info / "METADATA").write_text(f"{head}\n\n{body}")
    return folder


def made(*folders, **more):
    return json.loads(sbom.bill("battery-alert", installed=folders, **more))


def purls(document):
    return [each["purl"] for each in document["components"] if "purl" in each]


def licenses(tmp_path, *lines):
    put(tmp_path, "one", "1.0", *lines)
    return made(tmp_path)["components"][0].get("licenses")


def test_it_is_valid_by_the_formats_own_schema(tmp_path):
    site = put(tmp_path / "site", "msgspec", "0.22.0", "License-Expression: BSD-3-Clause")
    put(site, "Some.Name_here", "1.0+local", "License: proprietary", "Classifier: Private :: Do Not Upload")
    put(site, "two", "2", "Classifier: License :: OSI Approved :: MIT License", "Classifier: License :: Other")
    runtime = put(tmp_path / "runtime", "fleetfn", "0.1.0", "License-Expression: Apache-2.0")
    packages = [sbom.package("deb", "libstdc++6", "1:12.2.0-14+deb12u1", "amd64")]
    document = sbom.bill("battery-alert", installed=[site, runtime], base=BASE, packages=packages)
    assert JsonStrictValidator(SchemaVersion.V1_5).validate_str(document.decode()) is None


def test_it_lists_what_is_installed_and_nothing_else(tmp_path):
    site = put(tmp_path / "site", "confluent-kafka", "2.16.1")
    put(site, "Some.Name_here", "1.0+local")
    runtime = put(tmp_path / "runtime", "fleetfn", "0.1.0")
    document = made(site, runtime, base=BASE)
    assert purls(document) == [
        "pkg:pypi/confluent-kafka@2.16.1",
        "pkg:pypi/fleetfn@0.1.0",
        "pkg:pypi/some-name-here@1.0%2Blocal",
    ]
    assert [each["type"] for each in document["components"]] == ["container", "library", "library", "library"]


def test_the_function_is_what_it_is_of(tmp_path):
    assert made(tmp_path)["metadata"]["component"] == {
        "bom-ref": "function:battery-alert",
        "type": "application",
        "name": "battery-alert",
    }


def test_the_base_is_named_by_digest(tmp_path):
    container = made(tmp_path, base=BASE)["components"][0]
    assert (container["name"], container["version"]) == ("docker.io/library/python", BASE.digest)
    assert container["hashes"] == [{"alg": "SHA-256", "content": "cd" * 32}]


@pytest.mark.parametrize(
    ("kind", "purl"),
    [
        ("deb", "pkg:deb/debian/Py_Thing@1"),
        ("apk", "pkg:apk/alpine/Py_Thing@1"),
        ("pypi", "pkg:pypi/py-thing@1"),
    ],
)
def test_packages_of_a_base_are_named_by_their_kind(kind, purl):
    assert sbom.package(kind, "Py_Thing", "1")["purl"] == purl


def test_the_version_in_a_package_url_is_quoted():
    purl = sbom.package("deb", "libstdc++6", "1:12.2.0-14+deb12u1", "amd64")["purl"]
    assert purl == "pkg:deb/debian/libstdc%2B%2B6@1%3A12.2.0-14%2Bdeb12u1?arch=amd64"


def test_equal_contents_are_equal_bytes(tmp_path):
    for place in ("one", "two"):
        for name in ("b", "a") if place == "one" else ("a", "b"):
            put(tmp_path / place, name)
    first, second = (sbom.bill("battery-alert", installed=[tmp_path / place]) for place in ("one", "two"))
    assert first == second


def test_other_contents_have_another_serial_number(tmp_path):
    before = made(put(tmp_path, "a"))
    after = made(put(tmp_path, "b"))
    assert before["serialNumber"] != after["serialNumber"]
    assert before["serialNumber"].startswith("urn:uuid:")


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        (["License-Expression: MIT OR Apache-2.0", "Classifier: License :: X"], [{"expression": "MIT OR Apache-2.0"}]),
        (["Classifier: License :: OSI Approved :: MIT License"], [{"license": {"id": "MIT"}}]),
        (["Classifier: License :: OSI Approved :: BSD License"], [{"license": {"name": "BSD License"}}]),
        (["License: BSD-3-Clause"], [{"license": {"name": "BSD-3-Clause"}}]),
        (["License: Copyright\n        all of it"], None),
        (["License: UNKNOWN"], None),
        ([], None),
    ],
    ids=["expression", "classifier", "vague", "own-word", "text", "unknown", "none"],
)
def test_licences_are_as_the_package_says(tmp_path, lines, found):
    assert licenses(tmp_path, *lines) == found
