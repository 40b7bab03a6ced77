"""KEDA's messages by hand, held to protobuf's own runtime: what it writes is read, what is written it reads."""

import pytest
from fleetfn_gateway.cluster import scaler_messages
from fleetfn_gateway.cluster.scaler_messages import Asked, Figure, ScaledObject
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from hypothesis import given
from hypothesis import strategies as st

STRING, INT64, DOUBLE, BOOL, MESSAGE = 9, 3, 1, 8, 11
OPTIONAL, REPEATED = 1, 3

# externalscaler.proto of KEDA 2.20
SHAPES = {
    "ScaledObjectRef": [("name", 1, STRING), ("namespace", 2, STRING), ("scalerMetadata", 3, "*Entry")],
    "Entry": [("key", 1, STRING), ("value", 2, STRING)],  # a map is repeated entries on the wire
    "IsActiveResponse": [("result", 1, BOOL)],
    "GetMetricSpecResponse": [("metricSpecs", 1, "*MetricSpec")],
    "MetricSpec": [("metricName", 1, STRING), ("targetSize", 2, INT64), ("targetSizeFloat", 3, DOUBLE)],
    "GetMetricsRequest": [("scaledObjectRef", 1, "ScaledObjectRef"), ("metricName", 2, STRING)],
    "GetMetricsResponse": [("metricValues", 1, "*MetricValue")],
    "MetricValue": [("metricName", 1, STRING), ("metricValue", 2, INT64), ("metricValueFloat", 3, DOUBLE)],
}


def _classes():
    file = descriptor_pb2.FileDescriptorProto(name="x.proto", package="externalscaler", syntax="proto3")
    for name, fields in SHAPES.items():
        message = file.message_type.add(name=name)
        for field, number, kind in fields:
            added = message.field.add(name=field, number=number, label=OPTIONAL)
            if isinstance(kind, str):
                added.type, added.type_name = MESSAGE, f".externalscaler.{kind.strip('*')}"
                added.label = REPEATED if kind.startswith("*") else OPTIONAL
            else:
                added.type = kind
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        each: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"externalscaler.{each}")) for each in SHAPES
    }


PROTO = _classes()
texts = st.text(st.characters(exclude_categories=["Cs"]))
metadata = st.dictionaries(texts, texts)


def _reference(name, namespace, given):
    entries = [PROTO["Entry"](key=key, value=value) for key, value in given.items()]
    return PROTO["ScaledObjectRef"](name=name, namespace=namespace, scalerMetadata=entries)


@given(texts, texts, metadata, texts)
def test_reads_what_protobuf_writes(name, namespace, given, metric):
    reference = _reference(name, namespace, given)
    who = ScaledObject(name, namespace, given)
    assert scaler_messages.scaled_object(reference.SerializeToString()) == who
    request = PROTO["GetMetricsRequest"](scaledObjectRef=reference, metricName=metric)
    assert scaler_messages.asked(request.SerializeToString()) == Asked(who, metric)


@given(st.lists(st.tuples(texts, st.floats(0, 1e15))))
def test_protobuf_reads_what_is_written(each):
    written = scaler_messages.figures([Figure(*one) for one in each])
    specs = PROTO["GetMetricSpecResponse"].FromString(written).metricSpecs
    values = PROTO["GetMetricsResponse"].FromString(written).metricValues
    assert [(one.metricName, one.targetSizeFloat, one.targetSize) for one in specs] == [
        (name, value, round(value)) for name, value in each
    ]
    assert [(one.metricName, one.metricValueFloat) for one in values] == each


@pytest.mark.parametrize("is_active", [True, False])
def test_activity_is_one_flag(is_active):
    assert PROTO["IsActiveResponse"].FromString(scaler_messages.active(is_active)).result is is_active


@given(st.binary())
def test_what_is_no_message_is_refused_in_one_way(data):
    for read in (scaler_messages.scaled_object, scaler_messages.asked):
        try:
            read(data)
        except ValueError:
            continue
