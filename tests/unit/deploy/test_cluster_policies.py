"""Whom pods of a function reach, and who reaches them."""

from typing import Any

import pytest
from cluster_functions import deployable, environment, every_environment, everything, function, installation, plain
from fleetfn_deploy.kubernetes import addresses, policies, render
from fleetfn_deploy.kubernetes.addresses import Address
from fleetfn_deploy.kubernetes.values import Deployable

Rules = list[dict[str, Any]]

ALWAYS = 2
"""Rules that each function has: DNS, the gateway."""

ANYWHERE = [{"ipBlock": {"cidr": "0.0.0.0/0"}}, {"ipBlock": {"cidr": "::/0"}}]


def ports(rule: dict[str, Any]) -> list[int]:
    return [each["port"] for each in rule.get("ports", [])]


def pods(namespace: str) -> dict[str, Any]:
    return {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}}}


def reaching(made: Deployable) -> list[tuple[Any, list[int]]]:
    return [(rule["to"], ports(rule)) for rule in policies.egress(made)[ALWAYS:]]


def broker(address: str, target: dict[str, Any] | None = None, **others: Any) -> Deployable:
    spec = {"triggers": [{"name": "telemetry", "kafka": {"topic": "t"}}]}
    return deployable(function(spec), environment(target, kafka={"brokers": [address]}), **others)


def test_a_function_that_names_nothing_reaches_dns_and_its_gateway() -> None:
    dns, gateway = policies.egress(plain())
    assert "to" not in dns
    assert set(ports(dns)) == {53, 5353}
    assert gateway["to"] == [{"podSelector": {"matchLabels": {"fleetfn.dev/part": "gateway"}}}]
    assert ports(gateway) == [8443]


@pytest.mark.parametrize(
    ("address", "to"),
    [
        pytest.param("10.1.2.3:9092", [{"ipBlock": {"cidr": "10.1.2.3/32"}}], id="address"),
        pytest.param("[fd00::7]:9092", [{"ipBlock": {"cidr": "fd00::7/128"}}], id="IPv6"),
        pytest.param("kafka.queues.svc:9092", [pods("queues")], id="Service"),
        pytest.param("kafka-0.kafka.queues.svc:9092", [pods("queues")], id="pod of a headless Service"),
        pytest.param("kafka.queues.svc.cluster.local:9092", [pods("queues")], id="Service, whole name"),
        pytest.param("kafka:9092", [pods("alerts")], id="neighbour"),
        pytest.param("kafka.example.org:9092", ANYWHERE, id="outside"),
    ],
)
def test_what_a_connection_names_is_open_at_its_port(address: str, to: Rules) -> None:
    assert reaching(broker(address)) == [(to, [9092])]


def test_a_name_with_one_dot_may_be_in_the_cluster_or_not() -> None:
    assert reaching(broker("kafka.queues:9092")) == [([pods("queues")], [9092]), (ANYWHERE, [9092])]


def test_api_servers_are_taken_out_of_what_is_open_to_all_addresses() -> None:
    ((to, _),) = reaching(broker("kafka.example.org:443", apart=("10.9.0.1", "fd00::1")))
    assert to == [
        {"ipBlock": {"cidr": "0.0.0.0/0", "except": ["10.9.0.1/32"]}},
        {"ipBlock": {"cidr": "::/0", "except": ["fd00::1/128"]}},
    ]


def test_egress_of_the_environment_stands_for_all_that_is_outside() -> None:
    target = {"egress": [{"cidr": "10.20.0.0/16", "ports": [9092, 9093]}, {"namespace": "queues"}]}
    made = broker("kafka.example.org:9092", target)
    assert reaching(made) == [([{"ipBlock": {"cidr": "10.20.0.0/16"}}], [9092, 9093]), ([pods("queues")], [])]
    assert reaching(broker("kafka.example.org:9092", {"egress": []})) == []
    assert reaching(broker("10.1.2.3:9092", {"egress": []})) == [([{"ipBlock": {"cidr": "10.1.2.3/32"}}], [9092])]


def test_outputs_and_components_count_too() -> None:
    assert addresses.of(everything()) == [
        Address("10.1.2.3", 8883),
        Address("hooks.example.org", 443),
        Address("kafka-0.kafka.svc", 9093),
        Address("kafka.example.org", 9094),
        Address("redis.queues.svc", 6379),
        Address("redis.stores.svc", 6380),
    ]
    assert reaching(everything()) == [
        ([{"ipBlock": {"cidr": "10.1.2.3/32"}}], [8883]),
        ([pods("kafka")], [9093]),
        ([pods("queues")], [6379]),
        ([pods("stores")], [6380]),
        (ANYWHERE, [443, 9094]),
    ]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        pytest.param({"redisHost": "redis.a.svc:6379"}, [("redis.a.svc", 6379)], id="host and port"),
        pytest.param({"hosts": "a.b.svc:1, c.d.svc:2"}, [("a.b.svc", 1), ("c.d.svc", 2)], id="list"),
        pytest.param(
            {"connectionString": "postgres://fn@db.a.svc:5433/state?sslmode=disable"}, [("db.a.svc", 5433)], id="URL"
        ),
        pytest.param(
            {"connectionString": "host=db.a.svc user=fn port=5433 database=state"}, [("db.a.svc", 5433)], id="words"
        ),
        pytest.param({"connectionString": "host=db.a.svc user=fn"}, [("db.a.svc", 5432)], id="words without port"),
        pytest.param({"host": "db.a.svc", "port": 5433}, [("db.a.svc", 5433)], id="two fields"),
        pytest.param({"enableTLS": "true", "at": "10:00", "ratio": "1:70000"}, [], id="no port"),
        pytest.param({"connectionString": {"secret": "db/url"}}, [], id="a Secret is not seen"),
    ],
)
def test_addresses_of_components_are_found_in_their_fields(fields: dict[str, Any], expected: list[Any]) -> None:
    component = {"component": "vehicles", "type": "state.any"}
    component |= {"metadata": [{"name": name, "value": value} for name, value in fields.items()]}
    made = deployable(
        function({"triggers": [{"name": "s", "http": {"path": "/s"}}]}), environment(state={"dapr": component})
    )
    assert addresses.of(made) == expected


def test_with_the_injector_only_the_cluster_knows_where_its_store_is() -> None:
    spec = {"triggers": [{"name": "show", "http": {"path": "/show"}}]}
    made = deployable(function(spec), environment(state={"dapr": {"component": "vehicles"}}), apart=("10.9.0.1",))
    (dapr, _), (everywhere, at) = reaching(made)
    assert dapr == [pods("dapr-system")]
    assert at == []
    assert everywhere[0] == {"ipBlock": {"cidr": "0.0.0.0/0", "except": ["10.9.0.1/32"]}}
    closed = environment({"egress": [{"namespace": "stores", "ports": [6379]}]}, state={"dapr": {"component": "v"}})
    assert reaching(deployable(function(spec), closed)) == [([pods("dapr-system")], []), ([pods("stores")], [6379])]


def test_a_worker_is_called_by_anybody_and_handed_deliveries_by_its_gateway_alone() -> None:
    (policy,) = [each for each in render.objects(everything()) if each["kind"] == "NetworkPolicy"]
    assert policy["spec"]["podSelector"]["matchLabels"] == {
        "fleetfn.dev/function": "battery-alert",
        "fleetfn.dev/part": "worker",
    }
    assert policy["spec"]["policyTypes"] == ["Ingress", "Egress"]
    http, deliveries = policy["spec"]["ingress"]
    assert http == {"ports": [{"protocol": "TCP", "port": 8080}]}
    assert deliveries["from"] == [{"podSelector": {"matchLabels": {"fleetfn.dev/part": "gateway"}}}]
    assert ports(deliveries) == [8443]


def test_the_gateway_hears_who_has_a_certificate_keda_and_callers() -> None:
    target = {"keda": {"namespace": "scaling"}}
    (policy,) = [each for each in render.gateway_objects(installation(target)) if each["kind"] == "NetworkPolicy"]
    inbox, keda, callers, health = policy["spec"]["ingress"]
    assert policy["spec"]["policyTypes"] == ["Ingress"]
    assert inbox == {"ports": [{"protocol": "TCP", "port": 8443}]}
    assert (keda["from"], ports(keda)) == ([pods("scaling")], [9443])
    assert callers == {"ports": [{"protocol": "TCP", "port": 18000, "endPort": 19999}]}
    assert ports(health) == [8082]


def test_the_same_comes_out_in_the_same_order() -> None:
    turned = every_environment()
    assert policies.egress(everything()) == policies.egress(deployable(function(), turned))
