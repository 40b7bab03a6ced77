"""What a spare lives through before it knows whose worker it is: a start is quick only for what was rehearsed."""

import logging
import sys

from fleetfn_runtime.rehearsal import rehearse


async def test_requests_a_message_and_a_fire_are_handled(caplog):
    """It never fails; what did not work would be in the log."""
    given, path = [], list(sys.path)
    with caplog.at_level(logging.INFO):
        await rehearse(lambda settings: given.append(settings) or settings)
    assert caplog.messages == []
    (settings,) = given
    kinds = {trigger.name: trigger.kind.name for trigger in settings.function.spec.triggers}
    assert kinds == {"keep": "http", "look": "http", "hear": "mqtt", "tick": "cron"}
    assert not settings.data.exists()
    assert sys.path == path


async def test_what_does_not_work_is_said_and_fails_nobody(caplog):
    def told(settings):
        raise ValueError("unreadable")

    await rehearse(told)
    assert caplog.messages == ["a warm parent's rehearsal failed: its workers start slower"]
