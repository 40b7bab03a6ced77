"""KEDA, as a gateway's scaler meets it: calls over gRPC with a certificate, messages as bytes."""

import grpc
from fleetfn_gateway.cluster import scaler
from fleetfn_gateway.cluster.scaler_messages import _block as block
from grpc import aio

LIMIT = 60


def reference(function="f", **metadata):
    """ScaledObjectRef."""
    entries = {"function": function, **metadata}.items()
    maps = b"".join(block(3, block(1, key.encode()) + block(2, value.encode())) for key, value in entries)
    return block(1, b"scaled") + block(2, b"alerts") + maps


class Keda:
    """A client with a certificate of `name`."""

    def __init__(self, port, folder):
        read = [(folder / name).read_bytes() for name in ("ca.crt", "tls.key", "tls.crt")]
        options = [("grpc.ssl_target_name_override", "fleetfn-gateway")]
        self.channel = aio.secure_channel(f"127.0.0.1:{port}", grpc.ssl_channel_credentials(*read), options=options)

    async def ask(self, call, message):
        return await self.channel.unary_unary(f"/{scaler.SERVICE}/{call}")(message, timeout=LIMIT)

    def stream(self, message):
        return self.channel.unary_stream(f"/{scaler.SERVICE}/StreamIsActive")(message)
