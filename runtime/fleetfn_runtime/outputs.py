"""All outputs of a function as one Publisher: each event goes to the publisher of its output's connection."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from fleetfn.errors import OutputError, OutputRefused
from fleetfn.invocation import Emit

from fleetfn_runtime.publisher import Publisher


class Outputs:
    """`of`: the publisher of each output's name; several outputs may share one."""

    def __init__(self, of: Mapping[str, Publisher]) -> None:
        self._of = dict(of)
        self._publishers = list({id(publisher): publisher for publisher in of.values()}.values())

    def check(self, emit: Emit) -> None:
        """Raises OutputRefused, also for an output that the function does not have."""
        self._publisher(emit).check(emit)

    async def publish(self, emits: Sequence[Emit]) -> list[OutputError | None]:
        if len(self._publishers) == 1 and all(emit.output in self._of for emit in emits):
            return await self._publishers[0].publish(emits)
        results: list[OutputError | None] = [None] * len(emits)
        parts: dict[int, list[int]] = {}
        for place, emit in enumerate(emits):
            try:
                parts.setdefault(id(self._publisher(emit)), []).append(place)
            except OutputRefused as error:
                results[place] = error
        known = {id(publisher): publisher for publisher in self._publishers}
        answers = await asyncio.gather(
            *(known[which].publish([emits[place] for place in places]) for which, places in parts.items())
        )
        for places, answer in zip(parts.values(), answers, strict=True):
            for place, result in zip(places, answer, strict=True):
                results[place] = result
        return results

    async def close(self) -> None:
        await asyncio.gather(*(publisher.close() for publisher in self._publishers))

    def _publisher(self, emit: Emit) -> Publisher:
        try:
            return self._of[emit.output]
        except KeyError:
            # A record may hold what a revision before this one emitted to an output that is gone.
            raise OutputRefused(
                f'there is no output "{emit.output}"', hint="give the function the output again"
            ) from None
