"""Fixtures that all tests share."""

import os

from dapr_sidecars import own_sidecars, sidecars
from docker_engine import base_tarball, builder_image, docker_address, docker_engine
from hypothesis import settings
from kafka_broker import broker, either_topic, kafka, own_broker, topic
from mqtt_broker import mosquitto, mqtt_broker, own_mosquitto
from registry_server import own_registry, registry

__all__ = [
    "base_tarball",
    "broker",
    "builder_image",
    "docker_address",
    "docker_engine",
    "either_topic",
    "kafka",
    "mosquitto",
    "mqtt_broker",
    "own_broker",
    "own_mosquitto",
    "own_registry",
    "own_sidecars",
    "registry",
    "sidecars",
    "topic",
]

# What an example takes is the machine's, not the property's. CI tries the same examples every time, so that a change is
# judged by what it changes; elsewhere new ones are looked for.
settings.register_profile("fleetfn", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") == "true" else "fleetfn")
