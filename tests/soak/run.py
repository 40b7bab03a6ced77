"""One seed, from an empty folder to the verdict."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from confluent_kafka.admin import AdminClient, NewTopic

from soak import plan, schedule
from soak.brokers import Broker
from soak.disorder import Disorder
from soak.functions import ATTEMPTS, RISKY_ATTEMPTS, TRIGGERS, Functions
from soak.load_http import HttpLoad
from soak.load_kafka import KafkaLoad
from soak.load_mqtt import MqttLoad
from soak.pace import Pace
from soak.place import Place
from soak.quiet import Quiet
from soak.receivers import HttpReceiver, MqttReceiver

MUTANTS = Path(__file__).parent / "mutants"

CALLERS = 4
TELL_EVERY = 5.0

GOING_ON = 30
"""Events for each partition at each look whether it is quiet: of vehicles most of which wait for nothing."""

LONGER = 1.4
"""Times what the schedule was drawn for, after which no act of disorder begins."""

QUIET_LOOKS = 3
"""Looks in a row, a second apart, that find nothing to be done."""


Load = KafkaLoad | MqttLoad | HttpLoad


@dataclass(frozen=True)
class Options:
    size: str
    port: int
    """The first of ten that the run takes: Kafka's and its neighbours', Mosquitto's, and what the place needs."""
    settle: float
    """Seconds that everything may take to be sent and become quiet, once the last act of disorder is over."""
    mutant: str | None
    keep: bool
    """Keep the folder of a run that passed, too."""

    @property
    def mutant_folder(self) -> Path | None:
        return None if self.mutant is None else MUTANTS / self.mutant


Places = Callable[[int, Path, Options], Place]
"""By a seed and an empty folder. Nothing is started yet."""


def run(seed: int, options: Options, places: Places) -> bool:
    """Whether nothing was found wrong."""
    folder = Path(tempfile.mkdtemp(prefix=f"soak-{seed}-"))
    say(f"seed {seed}, {options.size}" + (f", mutant {options.mutant}" if options.mutant else "") + f": {folder}")
    with contextlib.ExitStack() as stack:
        _Run(seed, options, folder, stack, places(seed, folder, options)).run()
        verdict = judge(folder)
    print(verdict.stdout, end="", flush=True)
    print(verdict.stderr, end="", file=sys.stderr, flush=True)
    passed = verdict.returncode == 0
    if passed and not options.keep:
        shutil.rmtree(folder)
    else:
        say(f"what it left is in {folder}")
    return passed


def judge(folder: Path) -> subprocess.CompletedProcess[str]:
    """By a process of its own, which knows nothing of FleetFn."""
    tests = Path(__file__).parent.parent
    command = [sys.executable, "-m", "soak.judge", str(folder)]
    return subprocess.run(command, cwd=tests, capture_output=True, text=True, timeout=300, check=False)


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


class _Run:
    def __init__(self, seed: int, options: Options, folder: Path, stack: contextlib.ExitStack, place: Place) -> None:
        self._seed = seed
        self._options = options
        self._place = place
        self._size = place.sizes[options.size]
        self._folder = folder
        self._stack = stack
        self._events = plan.draw(seed, self._size)
        self._more = 0
        self._actions = schedule.draw(seed, self._size, place.deck(options.size))

    def run(self) -> None:
        self._write_down()
        self._begin()
        pace = Pace()
        self._stack.callback(pace.end)
        loads = self._loads(pace)
        disorder = Disorder(
            self._actions,
            self._place,
            self._functions,
            self._kafka,
            self._mosquitto,
            self._folder,
            pace,
        )
        for thread in (*loads, disorder):
            thread.start()
        self._watch(loads, disorder, pace)
        self._end(loads, disorder, pace)

    def _write_down(self) -> None:
        plan.write(self._events, self._folder / "plan.jsonl")
        text = "".join(f"{action}\n" for action in self._actions)
        (self._folder / "schedule.txt").write_text(text)
        print(text, end="", flush=True)

    def _begin(self) -> None:
        first, folder, stack = self._options.port, self._folder, self._stack
        self._kafka = self._broker("kafka", first)
        self._mosquitto = self._broker("mosquitto", first + 5)
        self._make_topics()
        self._mqtt_out = MqttReceiver(self._mosquitto.address, folder / "out-mqtt.jsonl")
        stack.callback(self._mqtt_out.close)
        self._http_out = HttpReceiver(folder / "out-http.jsonl", self._place.host)
        stack.callback(self._http_out.close)
        stack.callback(self._place.down)
        addresses = (self._kafka.address, self._mosquitto.address, self._http_out.address)
        self._functions = Functions(folder / "functions", *addresses, self._place.setting())
        self._functions.write()
        self._place.start()
        for name in Functions.names:
            self._place.fn("deploy", str(folder / "functions" / name))
        self._quiet = Quiet(self._place, self._kafka.address, self._size.partitions)
        stack.callback(self._quiet.close)
        self._write_facts()
        say("functions and brokers are up")

    def _broker(self, name: str, port: int) -> Broker:
        broker = Broker(name, self._folder / name, port, self._place.host)
        self._stack.callback(broker.stop)
        broker.start()
        return broker

    def _make_topics(self) -> None:
        admin = AdminClient({"bootstrap.servers": self._kafka.address, "log_level": 0})
        names = [*plan.TOPICS.values(), "out", "relayed"]
        for made in admin.create_topics([NewTopic(name, self._size.partitions, 1) for name in names]).values():
            made.result(30)

    def _write_facts(self) -> None:
        groups = [[self._place.group(*which), topic] for which, topic in TRIGGERS.items()]
        facts = {
            "seed": self._seed,
            "options": asdict(self._options),
            "kafka": self._kafka.address,
            "groups": groups,
            "attempts": {"k": ATTEMPTS, "m": ATTEMPTS, "h": ATTEMPTS, "x": RISKY_ATTEMPTS},
            **self._place.facts(),
        }
        (self._folder / "facts.json").write_text(json.dumps(facts))

    def _loads(self, pace: Pace) -> list[Load]:
        events, folder = self._events, self._folder
        kafka = [event for event in events if plan.topic_of(event.source) is not None]
        loads: list[Load] = [
            KafkaLoad(self._kafka.address, kafka, self._size.partitions, folder / "sent-kafka.jsonl", pace)
        ]
        mqtt = [event for event in events if event.source == "mqtt"]
        loads.append(MqttLoad(self._mosquitto.address, mqtt, folder / "sent-mqtt.jsonl", pace))
        http = [event for event in events if event.source in {"http", "async"}]
        front = self._place.front()
        for number in range(CALLERS):
            mine = [event for event in http if int(event.vehicle[1:]) % CALLERS == number]
            loads.append(HttpLoad(front, mine, folder / f"sent-http-{number}.jsonl", pace))
        return loads

    def _watch(self, loads: list[Load], disorder: Disorder, pace: Pace) -> None:
        """Until all is done, or there was time enough: on a slow machine, what is left of the schedule is left out."""
        limit = self._size.seconds * LONGER
        while disorder.is_alive() and pace.now < limit:
            for _ in _ticks(TELL_EVERY):
                if not disorder.is_alive():
                    break
            self._tell(loads, disorder, pace)
        if disorder.is_alive():
            say(f"the schedule ends here: {limit:g} s are over")
        disorder.stop()

    def _tell(self, loads: list[Load], disorder: Disorder, pace: Pace) -> None:
        kafka, mqtt, *http = (each.confirmed for each in loads)
        say(
            f"{pace.now:5.0f} s  sent {kafka} kafka, {mqtt} mqtt, {sum(http)} http; "
            f"left {self._left() or 'nothing'}; {disorder.done}/{len(self._actions)} {disorder.last}"
        )

    def _left(self) -> str:
        """What waits, for people; '' where nothing does."""
        return ", ".join(f"{count} {where}" for where, count in self._quiet.left().items() if count)

    def _end(self, loads: list[Load], disorder: Disorder, pace: Pace) -> None:
        """Everything is whole again, and nobody disturbs it until all is sent and it is quiet."""
        self._mend()
        calm, tell, more = 0, 0.0, 0.0
        limit = time.monotonic() + self._options.settle
        while calm < QUIET_LOOKS and time.monotonic() < limit:
            sending = any(each.is_alive() for each in loads)
            left = self._left()
            calm = 0 if left or sending else calm + 1
            if calm == 0 and time.monotonic() >= tell:
                self._tell(loads, disorder, pace)
                tell = time.monotonic() + TELL_EVERY
            if calm == 0 and not sending and time.monotonic() >= more:
                self._go_on(pace)
                more = time.monotonic() + min(5.0, 1.0 + 0.3 * self._more)  # else a slow machine is never quiet
            for _ in _ticks(1.0):
                pass
        pace.end()
        for load in loads:
            load.join(30)
            if load.problem:
                say(f"{type(load).__name__}: {load.problem}")
        for failure in disorder.failures:
            say(failure)
        if calm < QUIET_LOOKS:
            say(f"it did not become quiet within {self._options.settle:g} s")
        self._place.end(self._folder)

    def _go_on(self, pace: Pace) -> None:
        """More events, as there would be: broken ones of many vehicles are an outage where few others end well."""
        self._more += 1
        numbers = range(self._size.partitions)
        sources = [f"k{number}" for number in numbers] * GOING_ON + [f"x{number}" for number in numbers]
        events = [
            plan.Planned(f"m{self._more}x{place}", 0.0, f"V{place % self._size.vehicles:04}", source, "ok")
            for place, source in enumerate([*sources, *["mqtt"] * CALLERS])
        ]
        plan.write(events, self._folder / f"plan-more-{self._more}.jsonl")
        kafka, mqtt = events[:-CALLERS], events[-CALLERS:]
        file = self._folder / f"sent-kafka-more-{self._more}.jsonl"
        KafkaLoad(self._kafka.address, kafka, self._size.partitions, file, pace).run()
        MqttLoad(self._mosquitto.address, mqtt, self._folder / f"sent-mqtt-more-{self._more}.jsonl", pace).run()

    def _mend(self) -> None:
        self._kafka.start()
        self._mosquitto.start()
        self._place.start()
        for name in Functions.names:
            self._place.fn("resume", name)


def _ticks(seconds: float) -> Iterator[None]:
    """A tenth of a second apart."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.1)
        yield
