"""A repository of a registry as an ImageStore, by the OCI distribution specification 1.1.

https://github.com/opencontainers/distribution-spec/blob/main/spec.md
"""

from __future__ import annotations

import contextlib
import urllib.parse
from collections.abc import Callable, Iterator, Sequence
from typing import IO, Self, TypeVar

import msgspec

from fleetfn_builder.blobs import verified
from fleetfn_builder.builder import Access, BuildError
from fleetfn_builder.image_store import Bytes, nobody
from fleetfn_builder.images import INDEXES, MANIFESTS, Descriptor, check_size, describe, is_digest
from fleetfn_builder.references import Reference
from fleetfn_builder.registry_errors import FORBIDDEN, NOT_FOUND, UNAUTHORIZED, RegistryError
from fleetfn_builder.registry_http import USUAL, Host, Patience, Reply

_ACCEPTED = ", ".join((*MANIFESTS, *INDEXES))
_FOUND, _CREATED, _OPENED, _GONE, _PARTIAL = 200, 201, 202, 204, 206
_PIECE = 256 << 10
"""Bytes sent at a time."""

_Found = TypeVar("_Found")


class _Place:
    """One host's copy of the repository."""

    def __init__(self, host: Host, name: str) -> None:
        self.host = host
        self.name = name
        self.silent = False
        """Gives no answer; of a mirror, that is not waited for twice."""
        self.path = f"/v2/{name}"
        self.pull = (f"repository:{name}:pull",)
        self.push = (f"repository:{name}:pull,push",)

    def __str__(self) -> str:
        return f"{self.host.name}/{self.name}"


class Registry:
    """Mirrors are asked first, for reading; what they lack or fail to give, the registry is asked for."""

    def __init__(self, reference: Reference, access: Access, patience: Patience = USUAL) -> None:
        self._main = _Place(Host(reference.host, access, patience), reference.name)
        self._mirror: _Place | None = None
        if mirror := access.mirrors.get(reference.host):
            host, _, prefix = mirror.partition("/")
            quick = Host(host, access, Patience(attempts=1))
            self._mirror = _Place(quick, f"{prefix}/{reference.name}" if prefix else reference.name)

    def resolve(self, version: str) -> Descriptor | None:
        return self._first(lambda place: self._resolve(place, version))

    def read(self, descriptor: Descriptor) -> bytes:
        check_size(descriptor)
        with self.open(descriptor) as content:
            return content.read()

    def open(self, descriptor: Descriptor, progress: Bytes = nobody) -> IO[bytes]:
        found = self._first(lambda place: _Download.of(place, descriptor))
        if found is None:
            raise BuildError(
                f"{self._main} lacks {descriptor.digest}", hint="The image is not whole there: push it again."
            )
        return verified(found, descriptor, f"{found.place}", progress)

    def has(self, descriptor: Descriptor) -> bool:
        place = self._main
        path = f"{place.path}/{_kind(descriptor)}/{descriptor.digest}"
        heads = {"accept": _ACCEPTED} if descriptor.is_manifest else {}
        what = f"push to {place}"  # what is there already is what it is asked for
        answer = place.host.ask("HEAD", path, {_FOUND, NOT_FOUND}, what, scopes=place.push, headers=heads)
        return answer.status_code == _FOUND

    def put(
        self,
        descriptor: Descriptor,
        open: Callable[[], IO[bytes]],  # noqa: A002
        mount_from: Reference | None = None,
        progress: Bytes = nobody,
    ) -> None:
        if self.has(descriptor) or (mount_from is not None and self._mount(descriptor, mount_from)):
            return
        self._main.host.patience(lambda: self._upload(descriptor, open, progress))

    def tag(self, manifest: bytes, media_type: str, versions: Sequence[str]) -> Descriptor:
        descriptor = describe(manifest, media_type)
        place = self._main
        for version in versions or [descriptor.digest]:
            path = f"{place.path}/manifests/{version}"
            heads = {"content-type": media_type}
            what = f"push to {place}"
            answer = place.host.ask("PUT", path, {_CREATED}, what, scopes=place.push, headers=heads, content=manifest)
            told = answer.headers.get("docker-content-digest", descriptor.digest)
            if told != descriptor.digest:
                raise BuildError(
                    f"{place} took {descriptor.digest}, and calls it {told}", hint="Is a proxy in between?"
                )
        return descriptor

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for place in (self._main, self._mirror):
            if place is not None:
                place.host.close()

    def _first(self, ask: Callable[[_Place], _Found | None]) -> _Found | None:
        """Of the first place that has it."""
        if self._mirror is not None and not self._mirror.silent:
            try:
                if (found := ask(self._mirror)) is not None:
                    return found
            except RegistryError as error:
                self._mirror.silent = error.status == 0
        return ask(self._main)

    def _resolve(self, place: _Place, version: str) -> Descriptor | None:
        path, what, heads = f"{place.path}/manifests/{version}", f"pull from {place}", {"accept": _ACCEPTED}
        answer = place.host.ask("HEAD", path, {_FOUND, NOT_FOUND}, what, scopes=place.pull, headers=heads)
        if answer.status_code == NOT_FOUND:
            return None
        digest, size = answer.headers.get("docker-content-digest"), answer.headers.get("content-length", "")
        media_type = answer.headers.get("content-type", "").partition(";")[0].strip()
        if not digest or not size.isdecimal():  # both are only recommended
            answer = place.host.ask("GET", path, {_FOUND}, what, scopes=place.pull, headers=heads)
            digest, size = describe(answer.content, media_type).digest, str(len(answer.content))
        if is_digest(version) and digest != version:
            raise BuildError(
                f"{place} is asked for {version}, and gives {digest}",
                hint="Another image than the one named is not taken. Is a proxy in between?",
            )
        if media_type not in {*MANIFESTS, *INDEXES}:
            raise BuildError(
                f"{place}:{version} is of the kind {media_type!r}, which is no image that can be read",
                hint="Images by the OCI specification or by Docker (schema 2) can be read.",
            )
        try:
            return msgspec.convert(Descriptor(media_type, digest, int(size)), Descriptor, from_attributes=True)
        except msgspec.ValidationError as error:
            raise BuildError(f"{place}:{version} has a digest that is none: {digest!r}") from error

    def _mount(self, descriptor: Descriptor, source: Reference) -> bool:
        """Have it taken from a neighbour's repository; False where the registry would rather be sent it."""
        place = self._main
        if source.host != place.host.name or source.name == place.name:
            return False
        scopes = (*place.push, f"repository:{source.name}:pull")
        fields = {"mount": descriptor.digest, "from": source.name}
        path = f"{place.path}/blobs/uploads/?{urllib.parse.urlencode(fields)}"
        try:
            answer = place.host.ask("POST", path, {_CREATED, _OPENED}, f"push to {place}", scopes=scopes)
        except RegistryError as error:
            if error.status in {UNAUTHORIZED, FORBIDDEN, NOT_FOUND}:
                return False  # not allowed to read there; whether we may write here, the upload will tell
            raise
        if answer.status_code == _OPENED:  # an upload that nobody needs
            with contextlib.suppress(RegistryError):
                place.host.send(
                    "DELETE", place.host.location(answer), {_GONE}, "end an upload", scopes=place.push
                ).close()
        return answer.status_code == _CREATED

    def _upload(self, descriptor: Descriptor, open: Callable[[], IO[bytes]], progress: Bytes) -> None:  # noqa: A002
        """Once, as one body."""
        place, sent = self._main, 0
        what = f"push to {place}"

        def content() -> Iterator[bytes]:
            nonlocal sent
            progress(-sent)  # the last attempt does not count
            sent = 0
            with verified(open(), descriptor, f"what is to be pushed to {place}") as source:
                while chunk := source.read(_PIECE):
                    yield chunk
                    sent += len(chunk)
                    progress(len(chunk))

        try:
            with place.host.send("POST", f"{place.path}/blobs/uploads/", {_OPENED}, what, scopes=place.push) as answer:
                url = place.host.location(answer.response).copy_merge_params({"digest": descriptor.digest})
            heads = {"content-type": "application/octet-stream", "content-length": str(descriptor.size)}
            put = place.host.send("PUT", url, {_CREATED}, what, scopes=place.push, headers=heads, content=content)
            put.close()
        except RegistryError as error:
            progress(-sent)
            if error.status == NOT_FOUND and sent:
                error.again = True  # the registry has lost the upload: it was started anew, or is several
            raise


class _Download:
    """Reads on where a connection broke."""

    def __init__(self, place: _Place, descriptor: Descriptor, reply: Reply) -> None:
        self.place = place
        self._descriptor = descriptor
        self._reply = reply
        self._chunk = b""
        self._position = 0
        self._breaks = 0

    @classmethod
    def of(cls, place: _Place, descriptor: Descriptor) -> _Download | None:
        """None where it is not there."""
        reply = place.host.patience(lambda: _fetch(place, descriptor))
        if reply.response.status_code == NOT_FOUND:
            reply.close()
            return None
        return cls(place, descriptor, reply)

    def read(self, size: int) -> bytes:
        if not self._chunk:
            self._chunk = self._next()
        given, self._chunk = self._chunk[:size], self._chunk[size:]
        self._position += len(given)
        return given

    def close(self) -> None:
        self._reply.close()

    def _next(self) -> bytes:
        while True:
            try:
                return self._reply.chunk()
            except RegistryError:
                self._breaks += 1
                if self._breaks >= self.place.host.patience.attempts:
                    raise
            self._reply.close()
            self._reply, rest = self.place.host.patience(self._continue)
            if rest:
                return rest

    def _continue(self) -> tuple[Reply, bytes]:
        """A new reply, and what of it was read already."""
        reply = _fetch(self.place, self._descriptor, self._position)
        skip = 0 if reply.response.status_code == _PARTIAL else self._position
        chunk = b""
        try:
            while skip > 0 and (chunk := reply.chunk()):
                skip, chunk = skip - len(chunk), chunk[skip:]
        except RegistryError:
            reply.close()
            raise
        return reply, chunk


def _fetch(place: _Place, descriptor: Descriptor, position: int = 0) -> Reply:
    heads = {"accept": _ACCEPTED} if descriptor.is_manifest else {}
    if position:
        heads["range"] = f"bytes={position}-"
    path = f"{place.path}/{_kind(descriptor)}/{descriptor.digest}"
    fine = {_FOUND, _PARTIAL} if position else {_FOUND, NOT_FOUND}
    return place.host.send("GET", path, fine, f"pull from {place}", scopes=place.pull, headers=heads)


def _kind(descriptor: Descriptor) -> str:
    return "manifests" if descriptor.is_manifest else "blobs"
