"""What is generated from the models is kept exact: JSON Schemas and reference pages."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from fleetfn_spec import reference, schema

ROOT = Path(__file__).parents[3]
FUNCTION = (ROOT / "samples/battery-alert/function.yaml").read_text()
ENVIRONMENTS = """
apiVersion: fleetfn.dev/v1alpha1
kind: Environments
environments:
- name: bench
  target: {node: {}}
  connections:
  - name: kafka
    kafka:
      brokers: ["127.0.0.1:9092"]
      tls: {ca: /etc/ca.pem}
      sasl: {mechanism: PLAIN, username: fn, password: {env: PW}}
"""


@pytest.mark.parametrize("name", schema.MODELS)
def test_the_schemas_are_those_of_the_models(name: str) -> None:
    assert schema.path(name).read_bytes() == schema.rendered(name), "run `make reference`"


@pytest.mark.parametrize("name", reference.PAGES)
def test_the_pages_are_those_of_the_models(name: str) -> None:
    assert (ROOT / "docs/reference" / f"{name}.md").read_text() == reference.page(name), "run `make reference`"


@pytest.mark.parametrize("name", reference.PAGES)
def test_every_field_is_described_and_in_the_docs(name: str) -> None:
    page = reference.page(name)
    for block in reference.blocks(reference.PAGES[name]):
        assert block.type.cls.__doc__
        for field in block.type.fields:
            about = reference.json_schema(field.type)
            assert about.get("description"), f"{block.path}.{field.name}"
            assert f"| `{field.encode_name}` |" in page


def validator(name: str) -> jsonschema.Draft202012Validator:
    checked: dict[str, Any] = json.loads(schema.path(name).read_bytes())
    jsonschema.Draft202012Validator.check_schema(checked)
    return jsonschema.Draft202012Validator(checked)


def test_the_schemas_take_valid_files() -> None:
    validator("function").validate(yaml.safe_load(FUNCTION))
    validator("environments").validate(yaml.safe_load(ENVIRONMENTS))


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        pytest.param("function", "v1alpha1", "v2", id="version"),
        pytest.param("function", "kind: Function", "kind: Fun", id="kind"),
        pytest.param("function", "name: battery-alert", "name: Battery", id="name"),
        pytest.param("function", "handler: handler:watch", "handler: watch", id="handler"),
        pytest.param("function", "handler: handler:watch", "handlr: handler:watch", id="unknown key"),
        pytest.param("function", "topic: vehicle.telemetry", "topic: vehicle telemetry", id="topic"),
        pytest.param("function", "kafka: {topic: vehicle.telemetry}", "mqtt: {topic: x, qos: 3}", id="mqtt"),
        pytest.param("function", "kafka: {topic: vehicle.telemetry}", "cron: {schedule: 5}", id="cron"),
        pytest.param("function", "kafka: {topic: vehicle.telemetry}", "timeout: 5s", id="no kind"),
        pytest.param("function", "kafka: {topic: vehicle", "http: {path: /x}, kafka: {topic: vehicle", id="two kinds"),
        pytest.param("function", "methods: [GET]", "methods: [GTE]", id="method"),
        pytest.param("function", "methods: [GET]", "methods: GET", id="text for a list"),
        pytest.param("function", "{ttl: 90d}", "{ttl: 90}", id="duration"),
        pytest.param("function", "{ttl: 90d}", "{ttl: 5m1h}", id="duration in the wrong order"),
        pytest.param("function", "{idle: 10s}", "{max: 100}", id="max"),
        pytest.param("function", "{idle: 10s}", "{concurrency: 0}", id="concurrency"),
        pytest.param("environments", "{node: {}}", "{kubernetes: {}}", id="kubernetes"),
        pytest.param("environments", "{env: PW}", "hunter2", id="password"),
        pytest.param("environments", "PLAIN", "OAUTHBEARER", id="mechanism"),
        pytest.param("environments", "127.0.0.1:9092", "127.0.0.1", id="broker"),
        pytest.param("environments", "- name: bench", "- nmae: bench", id="unknown key of an environment"),
    ],
)
def test_the_schemas_refuse_broken_files(name: str, old: str, new: str) -> None:
    text = FUNCTION if name == "function" else ENVIRONMENTS
    assert old in text
    assert not validator(name).is_valid(yaml.safe_load(text.replace(old, new, 1)))
