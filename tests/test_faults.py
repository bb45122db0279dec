"""Every row of the command map against every fault of the router.

A case is a row, the number of the request that the fault meets, the fault,
and the form of the output.  The plain command runs a few that a seed chooses;
--full runs all of them, row by row.  What is no answer at all though its
status is 200 (an error, a login page, null) no row takes for one.
"""

import itertools
import json
import random
import re
import socket
import time

import pytest

import xeroctl
from conftest import IS_FULL, FakeClock, costly, every_case
from helpers import as_json
from router import ODD
from world import CALLS, Interrupting, Remembering, World, command_of

pytestmark = every_case

SEED = 20261121
COUNT = 120
MOST = 60                # cases of a row that waits
CODES = {code for code, _ in xeroctl.EXIT_CODES}

# Where a status is the answer to the one request of a row.
EXPECTED = {400: 1, 401: 3, 403: 3, 404: 4, 408: 1, 409: 1, 413: 1, 422: 1,
            429: 6, 500: 1, 502: 1, 503: 6, 504: 1}
DIGITS = b"9" * 5000


def page(times):
    return b"<html><title>Oops</title>" + b"<p>no</p>" * times


# The words of each fault; what has no body is answered in place of the truth.
FAULTS = {
    "dropped before": dict(drop="before"),
    "reset before": dict(drop="before", reset=True),
    "dropped after": dict(drop="after", after_acting=True),
    "reset after": dict(drop="after", reset=True, after_acting=True),
    "cut at once": dict(cut=0),
    "cut": dict(cut=7, after_acting=True),
    "cut by reset": dict(cut=7, reset=True, after_acting=True),
    "ended early": dict(end=9, after_acting=True),
    "truncated": dict(lie=40, after_acting=True),
    "over-long": dict(lie=-2, after_acting=True),
    "without a length": dict(no_chunked=True),
    "HTML": dict(html=True),
    "HTML 502": dict(html=True, status=502),
    "HTML 404": dict(html=True, status=404),
    "long HTML": dict(raw=page(9999), content_type="text/html", status=500),
    "no body": dict(raw=b""),
    "204": dict(status=204, raw=b""),
    "304": dict(status=304, raw=b""),
    "206": dict(status=206),
    "299": dict(status=299),
    "true": dict(raw=b"true"),
    "a number": dict(raw=b"17"),
    "a text": dict(raw=b'"text"'),
    "a list": dict(raw=b"[]"),
    "a list of null": dict(raw=b"[null]"),
    "an object": dict(raw=b"{}"),
    "data null": dict(raw=b'{"object":"list","data":null}'),
    "data of null": dict(raw=b'{"object":"list","data":[null]}'),
    "data of lists": dict(raw=b'{"object":"list","data":[[[]]]}'),
    "data of texts": dict(raw=b'{"object":"list","data":["a","b"]}'),
    "data an object": dict(raw=b'{"object":"list","data":{"a":1}}'),
    "pages for ever": dict(
        raw=b'{"object":"list","data":[],"has_more":true,"last_id":null}'),
    "error null": dict(raw=b'{"error":null}'),
    "error a number": dict(raw=b'{"error":5}', status=400),
    "error a list": dict(raw=b'[{"error":[]}]', status=500),
    "an odd error": dict(raw=b'{"error":{"message":{"a":[]},"code":[],'
                             b'"param":{},"type":1,"retry_after":"x"}}',
                         status=422),
    "an odd detail": dict(raw=b'{"detail":[{"loc":5,"msg":[]},null,"x"]}',
                          status=422),
    "NaN": dict(raw=b'{"id":NaN,"data":[Infinity]}'),
    "torn JSON": dict(raw=b'{"id": "x", "data": ['),
    "two documents": dict(raw=b"{}{}"),
    "bad UTF-8": dict(raw=b'{"id":"\xff\xfe"}'),
    "a surrogate": dict(raw=b'{"id":"\\ud800","data":["\\udfff"]}'),
    "UTF-16": dict(raw='{"id":"x"}'.encode("utf-16")),
    "a BOM": dict(raw=b'\xef\xbb\xbf{"id":"x"}'),
    "deep lists": dict(raw=b"[" * 100000),
    "deep objects": dict(raw=b'{"data":' * 20000 + b"1" + b"}" * 20000),
    "a deep error": dict(raw=b'{"error":' * 20000 + b"1" + b"}" * 20000,
                         status=400),
    "a huge number": dict(raw=b'{"id":' + DIGITS + b',"created_at":'
                              + DIGITS + b',"data":[{"id":' + DIGITS
                              + b"}]}"),
    "a huge float": dict(raw=b'{"id":1e999,"created_at":1e999,"size":-1e999}'),
    "a huge text": dict(raw=b'{"id":"' + b"x" * 300000 + b'"}'),
    "huge data": dict(raw=b'{"object":"list","data":['
                          + b",".join([b'{"id":"a"}'] * 3000) + b"]}"),
    "huge error": dict(raw=b'{"error":{"message":"' + b"x" * 300000 + b'"}}',
                       status=400),
    "text/plain": dict(content_type="text/plain"),
    "a stream": dict(frames=[b"data: {}\n\n", b"data: [DONE]\n\n"]),
    "an endless frame": dict(frames=[b"data: " + b"x" * 300000]),
    "no frames": dict(frames=[]),
    "frames of null": dict(frames=[b"data: null\n\n", b"data: []\n\n",
                                   b"data: 5\n\n", b"data: [DONE]\n\n"]),
    "odd frames": dict(frames=[
        b'data: {"choices":[null]}\n\n', b'data: {"choices":5}\n\n',
        b'data: {"choices":[{"delta":[],"finish_reason":{}}]}\n\n',
        b'event: response.output_text.delta\ndata: {"delta":{}}\n\n',
        b'event: response.completed\ndata: {"response":[]}\n\n']),
    "a torn frame": dict(frames=[b'data: {"choices":[{"delta":{"content":']),
    "an error frame": dict(frames=[
        b'data: {"choices":[{"delta":{"content":"He"}}]}\n\n',
        b'data: {"error":{"message":"no"}}\n\n']),
    "an odd status": dict(status=999, raw=b"{}"),
    "no reason": dict(status=500, reason="", raw=b""),
    "gzip not asked for": dict(headers={"Content-Encoding": "gzip"}),
    "drip": dict(drip=True),
    "redirect": dict(redirect="/elsewhere"),
    "redirect by 302": dict(redirect="/elsewhere", status=302),
    "redirect by 308": dict(redirect="/elsewhere", status=308),
    "redirect to a host": dict(redirect="http://192.0.2.1/v1"),
    "redirect to a file": dict(redirect="file:///etc/passwd"),
    "redirect to nowhere": dict(redirect="http://[::1"),
    "redirect to TLS": dict(redirect="https://127.0.0.1:1/"),
    "a loop": dict(redirect="?again=1", status=301),
    "quota": dict(status=429, code="quota_exceeded"),
    "long wait": dict(status=503, retry_after=4000),
    "odd Retry-After": dict(status=429, retry_after="soon"),
    "no retries": dict(status=503, retry_strategy="none"),
    "early 413": dict(status=413, early=True),
    "hang": dict(hang=True),
    "hang after acting": dict(hang=True, after_acting=True),
    "slow head": dict(delay=9),
    "slow drip": dict(drip=True, drip_delay=0.05),
}
for status in EXPECTED:
    FAULTS[str(status)] = dict(status=status)
    FAULTS[f"{status} empty"] = dict(status=status, raw=b"")
    FAULTS[f"{status} text"] = dict(status=status, raw=b"no\x1b[2J way\r\n")
SLOW = "hang", "hang after acting", "slow head", "slow drip"
REFUSED = "refused"             # the one that is no answer at all

# Where the router says that it did nothing, a POST may be sent again.
IS_UNDONE = re.compile("refused|429|503|quota|long wait|odd Retry|no retries")

# What is no JSON in any form is handed over as it comes.
RAW = "exec raw", "chats export"

# These show the bytes that came, whatever they are (a tool may print a page
# as well as an error); in a file, null is some.
BYTES = {"api": ODD, "files download": ["null"], "exports download": ["null"],
         "chats export": ["null"], "exec raw": ODD}

# What one of several requests asks for and the row does well without: how
# many bytes a file has, and whether there is a health check.
IS_SPARED = re.compile(r"GET .*(/files/[^/]+|/healthz)$")

# These look up what became of a POST before they send it again.
LOOKING_UP = "batches run", "upload"

# Values for every field of an answer.
VALUES = (None, True, -1, 1.5, "", "x\n\x1b]0;y\x07", [], {}, [None],
          {"a": []}, "x")

# What a warning says, or an approval of whoever approves, comes first.
SAID_BEFORE = re.compile(
    r"\A((warning|Tool|Risk|Arguments|Workspace|Agent|Requested by|Expires): "
    r".*\n)+")

# What can end well for one thing and badly for another says so in stdout.
BULK = ("batches create", "batches submit", "batches run", "batches wait",
        "batches show", "batches check", "files upload", "models delete",
        "responses wait", "responses create", "templates apply-from-dir",
        "health check", "health dashboard", "status", "exec watch",
        "models probe", "upload")


DRIVEN = [row for row in CALLS if not row.is_init
          and not command_of(row).startswith(("help", "shell", "commands"))
          and row.group.name != "config"
          and command_of(row) not in ("webhooks verify", "batches check")]


EVERY = DRIVEN if IS_FULL else DRIVEN[:1]


class Hasty(Interrupting):
    """Real time, in which a nap takes none."""

    def monotonic(self):
        return time.monotonic() + self.at


# == fields ==================================================================

def places(value, place=()):
    """The place of every field; of a list, those of its first item."""
    items = (value.items() if isinstance(value, dict)
             else enumerate(value[:1]) if isinstance(value, list) else ())
    for key, item in items:
        yield place + (key,)
        yield from places(item, place + (key,))


def with_field(value, place, new):
    """A JSON value with another one at a place."""
    if not place:
        return new
    changed = value.copy()
    changed[place[0]] = with_field(value[place[0]], place[1:], new)
    return changed


def with_all(value, new):
    """A JSON value with another one in the place of each that is no list."""
    if isinstance(value, dict):
        return {key: with_all(item, new) for key, item in value.items()}
    if isinstance(value, list):
        return [with_all(item, new) for item in value]
    return new


def frame_json(frame):
    """What stands before the JSON of a frame, and the JSON."""
    head, _, data = frame.partition(b"data: ")
    return head + b"data: ", as_json(data)


def encoded(value):
    return json.dumps(value).encode("utf-8")


def changed_answers(seen):
    """(name, words) for each answer that is the true one but for a field."""
    if len(seen.said) > 1:
        for number in {0, 1, len(seen.said) - 2, len(seen.said) - 1}:
            head, value = frame_json(seen.said[number])
            for name, data in changes(value, 1):
                frames = list(seen.said)
                frames[number] = head + data + b"\n\n"
                yield f"frame {number} {name}", dict(
                    frames=frames, after_acting=True)
    elif seen.said:
        for name, data in changes(as_json(seen.said[0])):
            yield name, dict(raw=data, status=seen.status, after_acting=True)


def changes(value, count=2):
    """(name, JSON) with one field of another type, then with all of them.

    Each field is given some of the values, and its neighbours the others.
    """
    if not isinstance(value, (dict, list)):
        return
    values = itertools.cycle(VALUES)
    for place in places(value):
        more = ["", ["a"]] if place[-1] == "id" else []
        for new in itertools.chain(itertools.islice(values, count), more):
            yield (f"{'.'.join(map(str, place))}={new!r}",
                   encoded(with_field(value, place, new)))
    for new in VALUES:
        yield f"all={new!r}", encoded(with_all(value, new))


# == one case ================================================================

class Run:
    """One row as it goes without a fault, to compare with."""

    def __init__(self, world, row):
        world.prepare(row)
        self.shown = world.start(row)
        assert self.shown.exit_status == (130 if row.is_endless else 0)
        self.requests = list(world.router.requests)
        self.distinct = []
        for number, seen in enumerate(self.requests, 1):
            if key_of(seen) not in [key_of(self.requests[at - 1])
                                    for at in self.distinct]:
                self.distinct.append(number)


def key_of(seen):
    return seen.method, seen.path


@pytest.fixture(scope="module")
def shared_world(tmp_path_factory):
    with Remembering() as router:
        world = World(router, tmp_path_factory.mktemp("world"))
        world.runs = {}
        yield world


@pytest.fixture(scope="module")
def dead_port():
    """A port on which nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


def undisturbed(world, row):
    if row.name not in world.runs:
        world.runs[row.name] = Run(world, row)
    return world.runs[row.name]


def meet(world, number, words):
    """Order a fault for the request with this number and all like it.

    Without a number it is for every request.
    """
    if number is None:
        return world.router.order("* *", times=None, **words)
    met = []

    def is_meant(seen):
        if len(world.router.requests) + 1 == number and not met:
            met.append(key_of(seen))
        return key_of(seen) in met
    world.router.order("* *", times=None, when=is_meant, **words)


def suffer(world, row, number, name, words, form):
    """Run a row under a fault; return what it showed, and how long it took.
    """
    world.prepare(row)
    options, more = {"clock": clock_for(row)}, ["-q", "-o", form]
    if name in SLOW:
        more += (["--max-time", "0.3"] if name == "slow drip"
                 else ["--timeout", "0.1"]) + ["--retries", "1"]
        options["clock"] = Hasty(30)
    meet(world, number, words)
    started = time.monotonic()
    shown = world.start(row, *more, **options)
    took = time.monotonic() - started
    if name in SLOW:    # the next one shall not meet what this one left
        world.router.orders.clear()
        seen = list(world.router.requests)
        world.router.settle()
        world.router.requests[:] = seen
    return shown, took


def check(world, row, number, name, form, shown, took):
    """Assert all that holds whatever the router does."""
    code, both = shown.exit_status, shown + shown.stderr
    assert code in CODES, "exit code"
    assert code != 2, "blames the command line"
    assert code != 130 or is_patient(row), "was interrupted"
    assert "Traceback" not in both and "internal error" not in both, "internal"
    check_secret(world.router.key, both)
    check_errors(shown, form)
    if form == "json" and code not in (0, 130) and shown and (
            command_of(row) not in RAW):
        assert command_of(row) in BULK, "stdout of what failed"
        json.loads(shown)
    assert took < 8, "took long"
    check_posts(world, row, name)


def clock_for(row):
    """A clock that ends a wait for ever; worker threads have none of it."""
    return FakeClock() if "--direct" in row.words else Interrupting(170)


def is_patient(row):
    return bool({"--wait", "watch", "run", "--download", "download"}
                & set(row.words))


def check_secret(key, text):
    half = len(key) // 2
    assert key[:half] not in text and key[half:] not in text, "key"


def check_errors(shown, form):
    if shown.exit_status in (0, 130):
        assert not re.search("(?m)^error", shown.stderr), "error, but exit 0"
    elif form == "json":
        assert isinstance(json.loads(SAID_BEFORE.sub("", shown.stderr)),
                          dict), "one error"
    else:
        assert len(re.findall("(?m)^error: ", shown.stderr)) == 1, "one error"
        assert "\x1b[" not in re.sub(r"\x1b\[2J", "", shown.stderr)


def check_posts(world, row, name):
    """Nothing that may have been done was asked for again."""
    if IS_UNDONE.match(name):
        return
    before = [(seen.method, seen.target, seen.size) for seen
              in undisturbed(world, row).requests]
    now = [(seen.method, seen.target, seen.size)
           for seen in world.router.requests]
    if command_of(row) in LOOKING_UP and "--direct" not in row.words:
        twice = [each for each, following in zip(now, now[1:])
                 if each == following and each[0] == "POST"]
        assert not twice, f"sent twice: {twice}"
        return
    for each in set(now):
        if each[0] in ("POST", "PATCH"):
            assert now.count(each) <= max(before.count(each), 1), (
                f"sent twice: {each}")


def check_status(row, run, name, words, shown):
    """A status alone decides on the exit code."""
    status = words.get("status")
    if (len(run.distinct) > 1 or status not in EXPECTED or "drip" in words
            or row.is_interactive or is_patient(row)):
        return
    if command_of(row) in BULK or row.group.name in ("health", "status"):
        return
    assert shown.exit_status == EXPECTED[status], f"HTTP {status}"


def check_odd(row, run, number, name, shown, asked_for):
    """What is no answer is not taken for one, where it was asked for.

    A batch that needs one more poll than before has another request there.
    """
    if number and asked_for[number - 1:number] != [
            key_of(run.requests[number - 1])]:
        return
    if name not in ODD or name in BYTES.get(command_of(row), ()):
        return
    asked = "" if number is None else " ".join(
        key_of(run.requests[number - 1]))
    if not IS_SPARED.match(asked):
        assert shown.exit_status != 0, "took what is no answer for one"


def judge(world, row, number, name, words, form):
    """None, or what is wrong with what a row does under a fault."""
    shown, took = suffer(world, row, number, name, words, form)
    try:
        check(world, row, number, name, form, shown, took)
        check_status(row, undisturbed(world, row), name, words, shown)
        check_odd(row, undisturbed(world, row), number, name, shown,
                  list(map(key_of, world.router.requests)))
    except (AssertionError, ValueError) as problem:
        said = str(problem).splitlines()[0]
        return (f"{row} | request {number} | {name} | -o {form}: {said}\n"
                f"   {shown!r:.700}")
    return None


def forms_of(row):
    return ("table",) if row.is_interactive else ("table", "json")


def each_case(world, row):
    """(number, name, words, form) for every fault at every request.

    The forms alternate, and the next row begins with the other one.
    """
    run = undisturbed(world, row)
    forms = forms_of(row)
    for number in run.distinct:
        seen = run.requests[number - 1]
        faults = list(FAULTS.items()) + list(changed_answers(seen))
        for place, (name, words) in enumerate(faults, DRIVEN.index(row)):
            yield number, name, words, forms[place % len(forms)]


def enough(row, cases):
    """All the cases of a row; of one that takes its time, some."""
    cases = list(cases)
    if not is_patient(row) or len(cases) < MOST:
        return cases
    return random.Random(SEED).sample(cases, MOST)


def chosen(cases, draw):
    """One of the cases, as a number from 0 to 1 says."""
    cases = list(cases)
    return cases[int(draw * len(cases))]


def draws():
    """What the plain command runs: a row, and a number that chooses."""
    source = random.Random(SEED)
    quick = [row for row in DRIVEN if not is_patient(row)]
    return [(source.choice(quick), source.random()) for _ in range(COUNT)]


@pytest.mark.parametrize("row, draw", draws(), ids=lambda each: (
    f"seed {SEED}: {each:.6f}" if isinstance(each, float) else str(each)))
def test_a_fault_ends_in_one_error(world, row, draw):
    number, name, words, form = chosen(
        [case for case in each_case(world, row) if case[1] not in SLOW], draw)
    assert not judge(world, row, number, name, words, form)


@costly
@pytest.mark.parametrize("row", EVERY, ids=str)
def test_every_fault_ends_in_one_error(world, row):
    found = [judge(world, row, *case) for case in enough(
        row, each_case(world, row))]
    wrong = [each for each in found if each]
    assert not wrong, f"{len(wrong)} of {len(found)}\n" + "\n".join(wrong[:9])


def odd_cases(world, row):
    """(number, name, words, form) for each answer that is none.

    First it is the answer to every request, then to each of several alone.
    """
    run = undisturbed(world, row)
    numbers = [None] * bool(run.distinct) + run.distinct
    for number in numbers[:1] if len(run.distinct) == 1 else numbers:
        for name, form in itertools.product(ODD, forms_of(row)):
            yield number, name, {"odd": name}, form


@pytest.mark.parametrize("row", DRIVEN, ids=str)
def test_what_is_no_answer_is_taken_for_none(world, row):
    """The plain command runs one case of each row, --full all of them."""
    cases = list(odd_cases(world, row))
    if cases and not IS_FULL:
        cases = [cases[DRIVEN.index(row) % len(cases)]]
    found = [judge(world, row, *case) for case in cases]
    wrong = [each for each in found if each]
    assert not wrong, f"{len(wrong)} of {len(found)}\n" + "\n".join(wrong[:9])


@costly
@pytest.mark.parametrize("row", EVERY, ids=str)
@pytest.mark.parametrize("form", ["table", "json"])
def test_a_refused_connection_ends_in_one_error(world, row, form, dead_port):
    if form == "json" and row.is_interactive:
        pytest.skip("a session has one form")
    nowhere = f"http://127.0.0.1:{dead_port}/proj_demo/v1"
    run = undisturbed(world, row)
    world.prepare(row)
    shown = world.start(row, "-q", "-o", form, "--base-url", nowhere,
                        "--api-key", "@" + world.place("key.txt"),
                        clock=FakeClock())
    check(world, row, 1, REFUSED, form, shown, 0)
    code = 1 if "--recursive" in row.words else 5  # of a file, it is 5
    assert shown.exit_status == (code if run.requests else 0)
    assert world.router.requests == []
