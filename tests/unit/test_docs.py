"""What the pages say is so: their Python runs, their YAML is taken, their commands and links exist."""

import configparser
import itertools
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import get_args

import pytest
from documents import ROOT, blocks
from fleetfn import position, states, testing
from fleetfn.cloudevents import http as http_codec
from fleetfn.values import Codec
from fleetfn_cli import describing, reference, templates
from fleetfn_deploy import places
from fleetfn_gateway import __main__ as gateway_main
from fleetfn_gateway import fires, metrics, mqtt_bridge, mqtt_names, queue_letters, queue_space, sane_clock, workers
from fleetfn_gateway.queue import Queue
from fleetfn_node import metering, revisions, scaling
from fleetfn_node.metering import NodeMetrics
from fleetfn_runtime import (
    breaker,
    dapr_documents,
    dapr_key_index,
    dapr_output,
    dapr_owed_keys,
    dapr_sidecar,
    dapr_store,
    ends,
    gathering,
    http_head,
    http_output,
    kafka_holding,
    log_file,
    mqtt_output,
    outages,
    retrying,
    worker,
)
from fleetfn_runtime.metrics import Metrics
from fleetfn_spec import check, durations, gateway, walk, yaml_nodes
from fleetfn_spec.control import Phase, TriggerStatus
from fleetfn_spec.environments import Environments
from fleetfn_spec.function import BatchPolicy, Breaker, Function, RetryPolicy, Scale, Spec
from fleetfn_triggers import cron_times, inbox, mqtt
from fleetfn_triggers.cron import Cron
from fleetfn_triggers.http import Http
from fleetfn_triggers.http_output import HttpOutput

PAGES = [
    "README.md",
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    *sorted(str(each.relative_to(ROOT)) for folder in ("docs", "samples") for each in (ROOT / folder).rglob("*.md")),
]
LEFT_OUT = {"README.md": "from fleetfn import Config, State\nReading = Pack = Limits = Alert = dict"}
"""Of a page's Python, so that what matters stands out."""

MODELS = {"Function": Function, "Environments": Environments}

SPEC_FIELDS = [field for field in Spec.__struct_fields__ if field not in ("handler", "triggers")]


def of_language(language):
    """One case per page that has blocks of this language which stand for themselves."""
    found = {page: [each for each in blocks(page) if each.language == language and not each.note] for page in PAGES}
    return [pytest.param(page, each, id=page) for page, each in found.items() if each]


def run(page, found, names):
    for text in (LEFT_OUT.get(page, ""), *("\n" * each.line + each.text for each in found)):
        exec(compile(text, page, "exec"), names)  # noqa: S102 - our own pages
    return names


@pytest.fixture
def function(tmp_path, monkeypatch):
    """The folder that `fn new first-alert` writes; what is imported of it is forgotten afterwards."""
    templates.write("alert", "first-alert", tmp_path / "first-alert")
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "handler", raising=False)
    yield tmp_path / "first-alert"
    sys.modules.pop("handler", None)


@pytest.mark.parametrize(("page", "found"), of_language("python"))
def test_the_python_of_a_page_runs(page, found, function):
    names = run(page, found, {"__name__": "page", "__file__": str(function / "tests/test_page.py")})
    for test in [value for name, value in names.items() if name.startswith("test_")]:
        test()


def python_of(page):
    return run(page, [each for each in blocks(page) if each.language == "python"], {"__name__": "page"})


def test_the_handlers_of_their_page_do_what_it_says():
    names = python_of("docs/handlers.md")
    watch = testing.Function(names["watch"], key="V1", returns="alerts")
    assert watch({"vehicle": "V1", "temperature": 71.0}).emits[0].data == {"vehicle": "V1", "level": 2}
    assert "no temperature" in watch({"vehicle": "V1", "temperature": -300.0}).error
    split = testing.Function(names["split"], outputs=["readings", "urgent"])
    sent = split([{"vehicle": "V1", "temperature": 20.0}, {"vehicle": "V2", "temperature": 95.0}]).emits
    assert [(each.output, each.key) for each in sent] == [("readings", "V1"), ("readings", "V2"), ("urgent", None)]
    cautious = testing.Function(names["cautious"])
    hot = {"vehicle": "V1", "temperature": 61.0}
    assert not cautious(hot).done
    assert cautious(hot, attempt=2).done
    enrich = testing.Function(names["enrich"], resources={"V1": "Lyon"})
    assert enrich(hot).returned["depot"] == "Lyon"


def test_the_handlers_of_the_page_on_batches_do_what_it_says():
    names = python_of("docs/batches.md")
    rows = [{"vehicle": "V1", "temperature": degrees} for degrees in (20.0, 20.5, 20.0)]
    results = testing.Function(names["store"]).batch(rows)
    assert [result.error for result in results] == ["duplicate", "", "duplicate"]
    watch = testing.Function(names["watch"], key="V1", outputs=["records"])
    assert [len(result.emits) for result in watch.batch(rows)] == [1, 1, 0]


def test_the_converter_of_the_page_on_state_is_asked():
    trips = python_of("docs/state.md")["Trips"]
    found = Codec(trips).load(b'{"count": 2, "metres": 1500.0}')
    assert (found.count, found.kilometres) == (2, 1.5)


@pytest.mark.parametrize(("page", "found"), of_language("yaml"))
def test_the_yaml_of_a_page_is_taken(page, found):
    for block in found:
        assert problems(whole(block.text)) == [], f"{page}:{block.line}"


def test_settings_named_in_the_text_are_taken():
    """`scale: {min: 1}` and the like."""
    named = re.compile(rf"`((?:{'|'.join(SPEC_FIELDS)}): [^`]+)`")
    found = [(page, setting) for page in PAGES for setting in named.findall((ROOT / page).read_text("utf-8"))]
    assert len(found) > 5
    for page, setting in found:
        if "." not in setting.split(":")[0] and setting != "returns: null":
            assert problems(whole(setting)) == [], f"{page}: {setting}"


def whole(text):
    """A page shows what matters; the rest of the file is added here."""
    if text.startswith("apiVersion:"):
        return text
    head = "apiVersion: fleetfn.dev/v1alpha1\nkind: Function\nmetadata: {name: example}\nspec:\n"
    rest = {"handler": "  handler: handler:run\n", "triggers": "  triggers:\n  - {name: get, http: {path: /example}}\n"}
    if "returns:" in text and "outputs:" not in text:
        rest["outputs"] = "  outputs:\n  - {name: alerts, kafka: {topic: alerts}}\n"
    added = "".join(line for name, line in rest.items() if not re.search(rf"^{name}:", text, re.MULTILINE))
    return head + added + "".join(f"  {line}\n" for line in text.splitlines())


def problems(text):
    root, found = yaml_nodes.parse(text, "page.yaml")
    model = MODELS[re.search(r"^kind: (\w+)", text, re.MULTILINE)[1]]
    value, places, wrong = walk.walk(root, model, "page.yaml")
    more = check.check_spec(value, places) if model is Function else check.check_environments(value, places)
    return [str(each) for each in (*found, *wrong, *more)]


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", (ROOT / page).read_text("utf-8")):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        there = (ROOT / page).parent / path if path else ROOT / page
        assert there.exists(), target
        if anchor:
            assert anchor in anchors(there), target


def anchors(page):
    headings = re.findall(r"^#+ (.*)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_reference_of_fn_is_that_of_its_commands():
    shown = (ROOT / "docs/reference" / reference.PAGE).read_text("utf-8")
    assert shown == reference.page(), "run `make reference`"


COMMANDS = {
    path: {name for each in command.params for name in (*each.opts, *each.secondary_opts)}
    for path, command in reference.commands()
}
GROUPS = {path[:1] for path in COMMANDS if len(path) > 1}
SHARED = {"-h", "--help", "-n", "--node", "-o", "--output", "-q", "--quiet", "--debug"}


@pytest.mark.parametrize("page", [page for page in PAGES if page != "CHANGELOG.md"])
def test_commands_named_on_a_page_exist(page):
    for line in commands_of(page):
        words = shlex.split(line, comments=True)[1:]
        while words and words[0].startswith("-"):  # `fn -n bench up`
            words = words[2:]
        path = next((known for known in COMMANDS if tuple(words[: len(known)]) == known), None)
        assert path is not None or tuple(words[:1]) in GROUPS or words[:1] in ([], ["COMMAND"]), line
        options = {word for word in words if re.fullmatch(r"-[a-zA-Z]|--[a-z-]+", word)}
        assert options <= (COMMANDS[path] if path else set()) | SHARED, line


def commands_of(page):
    text = (ROOT / page).read_text("utf-8")
    yield from re.findall(r"`(fn [^`]+)`", text)
    for block in blocks(page):
        if block.language in {"sh", "ini"}:
            yield from re.findall(r"^(?:\S.*/)?(fn .*)$", block.text, re.MULTILINE)
    yield from re.findall(r"^    (fn .*)$", text, re.MULTILINE)


def test_every_command_is_on_a_page_that_people_read():
    named = Counter(
        path
        for page in PAGES
        if "reference" not in page
        for line in commands_of(page)
        for path in COMMANDS
        if tuple(line.split()[1 : len(path) + 1]) == path
    )
    assert set(COMMANDS) - set(named) == set()


def test_every_page_is_linked_from_the_readme_or_from_a_page_next_to_it():
    text = "".join((ROOT / page).read_text("utf-8") for page in PAGES)
    for page in (ROOT / "docs").rglob("*.md"):
        assert re.search(rf"\(([\w./-]*/)?{re.escape(page.name)}[#)]", text), page


def test_pages_that_templates_write_name_commands_that_exist():
    for template in ("alert", "mqtt", "http", "cron"):
        text = (Path(templates.__file__).parent / template / "README.md.in").read_text("utf-8")
        for line in re.findall(r"^    (fn .*)$", text, re.MULTILINE):
            assert (line.split()[1],) in COMMANDS or tuple(line.split()[1:3]) in COMMANDS, line


GATEWAY = gateway_main._parser().parse_args(["--data", "data", "--socket", "socket"])
QUOTA = f"{GATEWAY.quota >> 30}"
DAYS = f"{GATEWAY.dead_letters / 86400:.0f}"
MARGIN = f"{queue_space.MARGIN >> 20} MiB"
LIMITS = f"{durations.seconds(Breaker().window):g} s"
OUTPUT = HttpOutput(url="http://desk.example/")


def probes():
    """Seconds between the first probes of a breaker that stays open."""
    made = breaker.Breaker(breaker.Limits(), jitter=lambda *_: 1.0)
    made.open(breaker.Opened(since=0, type="", place="", failed=5, runs=5, keys=5), 0.0)
    found = [made.probe_at]
    while len(found) < 2 or found[-1] != found[-2]:
        before = made.probe_at
        made.probe_failed(before)
        found.append(made.probe_at - before)
    return [f"{each:g} s" for each in found[:-1]]


@pytest.mark.parametrize(
    ("page", "words"),
    [
        pytest.param("http", f"among the last {position.REMEMBER} of that key", id="names remembered"),
        pytest.param("http", f"last {position.REPLIES} and at most {position.REPLY_LIMIT >> 10} KiB", id="replies"),
        pytest.param("http", f"`max_body` ({Http(path='/').max_body >> 20} MiB", id="max_body"),
        pytest.param("http", f"head is longer than {http_head.HEAD_LIMIT >> 10} KiB", id="head"),
        pytest.param("http", f"until {inbox.REMEMBER / 3600:.0f} hours after", id="asynchronous requests known"),
        pytest.param("http", f"at most {http_output.AT_ONCE} requests of an output", id="requests at once"),
        pytest.param("http", f"2xx within `timeout` ({OUTPUT.timeout:g} s)", id="timeout of an output"),
        pytest.param("http", f"`Retry-After` is heeded, up to {http_output.AFTER:g} s", id="Retry-After"),
        pytest.param("state", f"up to {worker.SAMPLES} stored values", id="samples"),
        pytest.param("state", f"{states.PAGE} records are read at a time", id="page of a walk"),
        pytest.param("node", f"up to {worker.SAMPLES} keys", id="samples again"),
        pytest.param("node", f"`scale.idle` ({Scale().idle[:-1]} s)", id="idle"),
        pytest.param("node", f"`scale.concurrency` ({Scale().concurrency})", id="concurrency"),
        pytest.param("node", {1: "once a second"}[scaling.LOOK], id="looks"),
        pytest.param("node", {2: "twice the concurrency"}[scaling.AHEAD], id="more workers"),
        pytest.param("node", {1: "more than they handle in a second"}[scaling.BEHIND], id="backlog"),
        pytest.param("node", f"({QUOTA} GiB without it", id="quota"),
        pytest.param("node", f"or less than {MARGIN} of the disk are free", id="margin"),
        pytest.param("node", f"({DAYS} days without it", id="retention"),
        pytest.param("node", f"the last {revisions.KEPT} deploys", id="deploys kept"),
        pytest.param("edge-box", f"`fn up --quota {QUOTA}GiB` (the default)", id="quota again"),
        pytest.param("edge-box", f"less than {MARGIN} left", id="margin again"),
        pytest.param("edge-box", f"for all but {queue_space.LOG >> 20} MiB", id="log"),
        pytest.param(
            "edge-box",
            f"of a time before {datetime.fromtimestamp(queue_letters.CREDIBLE, UTC):%Y}",
            id="letters without a time",
        ),
        pytest.param("edge-box", f"the last {revisions.KEPT} deploys", id="deploys kept again"),
        pytest.param(
            "edge-box", f"{log_file.SIZE >> 20} MiB and {['no', 'one', 'two'][log_file.KEPT]} older files", id="logs"
        ),
        pytest.param("edge-box", f"longer than {places.SOCKET_LIMIT} bytes", id="socket paths"),
        pytest.param("dead-letters", f"{DAYS} days, unless", id="retention again"),
        pytest.param("promises", f"[{DAYS} days]", id="retention as promised"),
        pytest.param("promises", f"of {Breaker().keys} different keys have failed alike within {LIMITS}", id="breaker"),
        pytest.param("promises", f"a wait is longer than {ends.HERE:g} s", id="waits as promised"),
        pytest.param("retries", f"A wait of up to {ends.HERE:g} s stays in the worker", id="short waits"),
        pytest.param("retries", {0.2: "each wait give or take a fifth"}[retrying.JITTER], id="jitter"),
        pytest.param(
            "retries",
            f"tried {probes()[0]} later, then after {', '.join(probes()[1:-1])} and at last every {probes()[-1]}",
            id="probes",
        ),
        pytest.param("retries", {0.2: "(each give or take a fifth)"}[breaker.JITTER], id="jitter of probes"),
        pytest.param("kafka", f"more than {ends.HERE:g} s later", id="long waits"),
        pytest.param(
            "kafka",
            f"at most {kafka_holding.COUNT:,} unsettled records or {kafka_holding.BYTES >> 20} MiB of a trigger",
            id="waiting events",
        ),
        pytest.param("mqtt", f"away for {mqtt_bridge.EXPIRY / 86400:g} days", id="session"),
        pytest.param("mqtt", f"Messages of more than {mqtt_bridge.PACKET_LIMIT >> 20} MiB", id="messages"),
        pytest.param("mqtt", f"or than {mqtt_output.LIMIT >> 20} MiB, is refused", id="messages out"),
        pytest.param("mqtt", f"{mqtt_bridge.FIRST:g} s at first and {mqtt_bridge.LONGEST:g} s at last", id="tries"),
        pytest.param("mqtt", f"event of type `{mqtt.TYPE}`", id="type"),
        pytest.param(
            "mqtt",
            f"(`{mqtt_names.client_id('<environment>', '<node>', '<function>', '<trigger>')}`)",
            id="client id",
        ),
        pytest.param("cron", f"of more than {fires.MOST:,} the latest", id="fires at once"),
        pytest.param("cron", f"more than {fires.ON_TIME:g} s ago", id="on time"),
        pytest.param("cron", f"more than {sane_clock.LITTLE:g} s behind", id="clock behind"),
        pytest.param("cron", f"by more than {sane_clock.JUMP:g} s", id="clock moved"),
        pytest.param("cron", f"gone on evenly for {sane_clock.SETTLE:g} s", id="clock settles"),
        pytest.param("cron", f"({Cron(schedule='@daily').timezone} unless it says otherwise)", id="zone"),
        pytest.param("batches", f"| `size` | {BatchPolicy().size} |", id="size of a batch"),
        pytest.param("batches", f"| `wait` | {BatchPolicy().wait} |", id="wait for a batch"),
        pytest.param("batches", f"| `by` | {BatchPolicy().by} |", id="keys of a batch"),
        pytest.param(
            "batches", f"beyond {gathering.FULL:,} events or {gathering.FULL_BYTES >> 20} MiB", id="what gathers"
        ),
        pytest.param(
            "batches", f"up to {workers.Worker('', 10**6, now=0).room(0):,} messages", id="messages of a batch"
        ),
        pytest.param("dapr", f"longer than {dapr_store.LONGEST} characters", id="keys of Dapr"),
        pytest.param("dapr", f"up to {dapr_key_index.KEYS} in a leaf", id="leaves"),
        pytest.param("dapr", f"of up to {dapr_documents.WRITERS} others", id="writers"),
        pytest.param(
            "dapr", f"up to {dapr_documents.READS} and {dapr_documents.WRITES} keys at once", id="keys at once"
        ),
        pytest.param("dapr", {3600: "an hour later takes the list away"}[dapr_owed_keys.OLD], id="old lists"),
        pytest.param("dapr", f"At most {dapr_sidecar.AT_ONCE} requests of a worker", id="requests of a worker"),
        pytest.param("dapr", f"is waited for, for {dapr_sidecar.READY:g} s", id="sidecars that start"),
        pytest.param("dapr", f"One of more than {dapr_output.LARGEST >> 20} MiB", id="events for Dapr"),
        pytest.param(
            "dapr",
            f"tried again after {outages.BACKOFF[0]:g} s at first and {outages.BACKOFF[1]:g} s at last",
            id="down",
        ),
        pytest.param("../ARCHITECTURE", f"about {workers.BATCH} rows in one request", id="batch"),
    ],
)
def test_numbers_on_pages_are_those_of_the_code(page, words):
    assert words in " ".join((ROOT / f"docs/{page}.md").read_text("utf-8").split())


def test_the_defaults_that_blocks_show_are_those_of_the_models():
    text = (ROOT / "docs/retries.md").read_text("utf-8")
    retry, limits = RetryPolicy(), Breaker()
    shown = f"attempts: {retry.attempts}, initial: {retry.initial}, factor: {retry.factor:g}, max: {retry.max}"
    assert f"`retry: {{{shown}}}`" in text
    assert f"breaker: {{keys: {limits.keys}, window: {limits.window}}}\n" in text


def test_what_a_breaker_says_is_what_the_page_quotes():
    since = 9 * 3600 + 31 * 60 + 4
    opened = breaker.Opened(since=since, type="ConnectionError", place="handler.py:21", failed=6, runs=6, keys=5)
    assert f"`{opened}; next probe in " in (ROOT / "docs/retries.md").read_text("utf-8")


def test_the_doubts_of_a_clock_are_those_of_the_page():
    """Three, one for each line there."""
    now, even = [0.0], [0.0]
    looks = sane_clock.SaneClock(lambda: now[0], lambda: even[0])
    doubts = [looks.look().doubt]
    now[0] = sane_clock.BUILT + 1e6
    doubts.append(looks.look().doubt)
    even[0] = sane_clock.SETTLE
    now[0] += sane_clock.SETTLE
    doubts.append(looks.look(now[0] + sane_clock.LITTLE + 1).doubt)
    assert looks.look().doubt == ""
    for doubt, words in zip(doubts, ["before FleetFn was built", "was moved by", "has been already"], strict=True):
        assert words in doubt
    page = (ROOT / "docs/cron.md").read_text("utf-8")
    assert (
        len(re.findall(r"^- (?:is|was) ", page.partition("## Clocks that lie")[2].partition("##")[0], re.MULTILINE))
        == 3
    )


def test_the_credentials_that_are_not_kept_are_named():
    text = (ROOT / "docs/http.md").read_text("utf-8").partition("but for credentials")[2].partition(".\n")[0]
    assert {name.lower() for name in re.findall(r"`([\w-]+)`", text)} == http_codec.SECRET


def test_the_schedules_that_the_page_of_clocks_names_are_read():
    text = (ROOT / "docs/cron.md").read_text("utf-8")
    named = set(re.findall(r"`(@[^`]+|(?:[\d*/]+ ){4}[\d*/]+)`", text))
    assert len(named) >= 8
    for schedule in named:
        cron_times.parse(schedule)


def test_clock_changes_are_as_the_page_says():
    """Berlin, 2026: forward on 29 March at 02:00, back on 25 October at 03:00."""

    def times(schedule, day):
        read = cron_times.parse(schedule, "Europe/Berlin")
        begin = datetime.fromisoformat(f"{day}T00:00+00:00").timestamp()
        within = itertools.takewhile(lambda at: at < begin + 4 * 3600, read.after(begin - 1))
        return [f"{datetime.fromtimestamp(at, UTC):%H:%M}" for at in within]

    assert times("30 2 * * *", "2026-03-29") == ["01:00"]
    assert times("30 2 * * *", "2026-10-25") == ["00:30"]
    assert times("*/30 2 * * *", "2026-03-29") == []
    assert times("*/30 2 * * *", "2026-10-25") == ["00:00", "00:30", "01:00", "01:30"]


def test_the_figures_of_a_trigger_on_the_page_are_those_that_fn_shows():
    status = TriggerStatus(
        name="battery", kind="mqtt", where="", paused=False, problem="", backlog=1, waiting=2, held=2, parked=1,
        in_flight=1, dead=1, oldest=1.0, next_due=20.0, next_fire=30.0, last_fire=5.0,
    )  # fmt: skip
    shown = describing._state_of(status, 10.0)
    page = " ".join((ROOT / "docs/node.md").read_text("utf-8").split())
    named = page.partition("Of each trigger it shows")[2].partition(". `fn list`")[0]
    for word in re.findall(r"`([^`]+)`", named):
        assert word in shown, word
    assert "behind a dead letter" in shown


def test_the_unit_of_the_edge_box_is_one_that_systemd_takes(tmp_path):
    """And what stands in it is what a node asks for."""
    (unit,) = [block.text for block in blocks("docs/edge-box.md") if block.language == "ini"]
    read = configparser.ConfigParser(interpolation=None)
    read.optionxform = str
    read.read_string(unit)
    service = read["Service"]
    given = dict(pair.split("=", 1) for pair in service["Environment"].split())
    assert given["FN_DATA"] == f"/var/lib/{service['StateDirectory']}"
    assert given["XDG_RUNTIME_DIR"] == f"/run/{service['RuntimeDirectory']}"
    assert given["XDG_CACHE_HOME"] == f"/var/cache/{service['CacheDirectory']}"
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        return
    file = tmp_path / "fleetfn.service"
    file.write_text(unit.replace("/opt/fleetfn/bin/fn", shutil.which("true")))
    done = subprocess.run([analyze, "verify", file], capture_output=True, text=True, check=False)
    said = [line for line in done.stderr.splitlines() if "fleetfn" in line]
    assert said == []


def test_the_phases_on_the_page_are_those_of_the_api():
    assert set(get_args(Phase)) == first_cells("docs/node.md", "phase")


async def test_the_metrics_on_the_page_are_those_that_are_served(tmp_path):
    worker_metrics = Metrics("f")
    worker_metrics.cold_start = 0.1
    node = NodeMetrics()
    node.woke("f")(0.1)
    queue = await Queue.open(tmp_path / "inbox.db", quota=1 << 30)
    try:
        of_gateway = metrics.text(queue, {"f": {"battery": 1}}, [("f", "nightly", 1)])
    finally:
        await queue.close()
    text = metering.merged([worker_metrics.text(), node.text(["running"]), of_gateway]).decode()
    served = {name for name in re.findall(r"^# TYPE (\w+)", text, re.MULTILINE) if not name.endswith("_created")}
    read_at_the_scrape = {"fleetfn_in_flight", "fleetfn_store_commits_total", "fleetfn_store_writes_total"}
    assert first_cells("docs/node.md", "metric") == served | read_at_the_scrape


def first_cells(page, heading):
    """The names in the first column of the table with this heading."""
    text = (ROOT / page).read_text("utf-8")
    table = text[text.index(f"| {heading} |") :].partition("\n\n")[0]
    return {name for row in table.splitlines()[2:] for name in re.findall(r"`([^`]+)`", row.split("|")[1])}


def test_the_reasons_of_dead_letters_are_those_that_fn_takes():
    listed = next(command for path, command in reference.commands() if path == ("dlq", "list"))
    taken = next(each for each in listed.params if each.name == "reason").type.choices
    line = next(
        line for line in (ROOT / "docs/promises.md").read_text("utf-8").splitlines() if "dead letter is one" in line
    )
    assert set(re.findall(r"`([^`]+)`", line)) == set(taken) == first_cells("docs/dead-letters.md", "reason")


def test_the_files_that_the_architecture_names_are_there():
    rooms = ("functions", "triggers", "spec", "plumbing", "runtime", "gateway", "node", "builder", "deploy", "cli")
    rooms += ("tests/soak",)
    there = {str(each.relative_to(ROOT)) for room in rooms for each in (ROOT / room).rglob("*.py")}
    for name in re.findall(r"`([\w/]+\.py)`", (ROOT / "ARCHITECTURE.md").read_text("utf-8")):
        assert name in there or any(each.endswith(f"/{name}") for each in there), name


def test_the_calls_that_the_architecture_lists_are_those_of_the_control_api():
    source = "".join(
        (ROOT / "node/fleetfn_node" / name).read_text("utf-8") for name in ("control.py", "event_calls.py")
    )
    served = {(method.upper(), path) for method, path in re.findall(r'@api\.(\w+)\("([^"]+)"\)', source)}
    served.add(("POST", "/v1/functions/{name}/wake"))  # wake_call.py, before all others
    text = (ROOT / "ARCHITECTURE.md").read_text("utf-8").partition("## The control API")[2].partition("\n## ")[0]
    listed = set()
    for row in re.findall(r"^\| (`.*?) \| ", text, re.MULTILINE):
        for method, path in re.findall(r"`(GET|POST|DELETE) ([^`?\s]+)", row) + [
            ("POST", path) for path in re.findall(r"· `(\.\.\.[^`\s]+)`", row)
        ]:
            listed.add((method, path.replace("...", "/v1/functions/{name}").replace("{key}", "{key:path}")))
    assert listed == served


def test_the_calls_that_the_architecture_lists_are_those_of_a_gateway():
    text = (ROOT / "ARCHITECTURE.md").read_text("utf-8").partition("## The gateway's calls")[2]
    listed = set(re.findall(r"^\| `([A-Z]+) ([^`?\s]+)", text, re.MULTILINE))
    said = gateway.__doc__.partition("The gateway asks its owner")[0]
    assert listed == {(method, path.partition("?")[0]) for method, path in re.findall(r"\b([A-Z]{3,6}) +(/\S+)", said)}


def test_the_import_rule_of_the_architecture_is_that_of_the_linter():
    """Each room may import what stands below it, and names the nearest of those."""
    layers = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"][0]["layers"]
    level = {
        name.strip().removeprefix("fleetfn_").replace("fleetfn", "functions"): number
        for number, line in enumerate(layers)
        for name in line.split("|")
    }
    table = (ROOT / "ARCHITECTURE.md").read_text("utf-8").partition("| room |")[2].partition("\n\n")[0]
    rows = {row[0]: row[1] for row in re.findall(r"^\| `(\w+)/fleetfn\w*` \|.*\| ([^|]+) \|$", table, re.MULTILINE)}
    assert rows.keys() == level.keys()
    for room, below in rows.items():
        for other in below.split(", ") if below != "-" else []:
            assert level[other] > level[room], (room, other)


def test_make_knows_the_targets_that_pages_name():
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    for page in PAGES:
        named = re.findall(r"(?:^|`)make ([a-z0-9-]+)", (ROOT / page).read_text("utf-8"), re.MULTILINE)
        assert set(named) <= targets, page
