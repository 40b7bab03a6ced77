"""The judge reads by itself what Redis holds: a document that a function on a cluster left there, byte for byte."""

from __future__ import annotations

import base64
import json

import msgspec
from soak.judge.dapr_documents import Kept, kept

LEFT = b'"k6pfNDlPejE3OS4ykMQalaJWMcQHeyJuIjoxfctB2t4j8hhD3ZKAkJA="'


def of_key(key: str, value: bytes | None, unsent: list[list[str]]) -> bytes:
    body = msgspec.msgpack.encode([key, value, None, [{}, []], unsent])
    document = msgspec.msgpack.encode(["w.2", ["v.1"], body])
    return json.dumps(base64.b64encode(document).decode()).encode()


def test_a_record_is_read() -> None:
    assert list(kept({"ns.chains||record:V1": LEFT}, "ns.chains")) == [Kept("V1", {"n": 1}, 0)]


def test_emits_that_are_not_known_to_be_sent_are_counted_also_where_there_is_no_state() -> None:
    documents = {"ns.f||record:a%2Fb": of_key("a/b", None, [["out"], ["out"]])}
    assert list(kept(documents, "ns.f")) == [Kept("a/b", None, 2)]


def test_documents_of_other_functions_and_those_that_are_no_records_are_passed_over() -> None:
    documents = {"ns.chains||index": b"?", "ns.chains||owner": b"?", "ns.audit||record:V1": LEFT}
    assert list(kept(documents, "ns.chains")) == []
