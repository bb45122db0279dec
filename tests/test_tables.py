"""Tables fit the terminal that they are on, in every list of the program.

A page with a record that has all that any column is about, in the length
that real ones have, is served to each list in turn; terminals of 60 to 200
columns show it.  What gives way, and in which order, is seen on small lists.
"""

import contextlib
import inspect
import io
import json
import os
import re
import struct

import pytest

import xeroctl
from conftest import FakeClock, environment, every_case, text_stream, written
from router import Router

fcntl = pytest.importorskip("fcntl")
termios = pytest.importorskip("termios")

NOW = 1770000000
UUID = "3f2b8c1e-9d47-4a6b-8e15-0c7d92f4a1b3"
NAME = "production-llama-3.1-70b-instruct-eu-001"
TEXT = "The pods of this node are evicted before it is restarted, twice."
WIDTHS = 60, 80, 120, 200
NUMBERS = re.compile("tokens|request|total|completed|failed|error|count|_ms|"
                     "score|index|attempts|code|target|messages|value|rank|"
                     "limit|row|dimensions|norm")
VALUES = {
    "time": NOW - 540, "age": NOW - 540, "size": 4200000000,
    "state": "in_progress", "list": ["batch.completed", "batch.failed",
                                     "response.completed", "file.uploaded"],
    "pairs": {"team": NAME}, "keys": {"team": NAME}, "percent": 0.9996,
    "progress": 41.7, "count": 70000000000, "content": TEXT, "item": TEXT,
    "said": TEXT, "lines": TEXT, "seconds": 340}


# == every list ==============================================================

def value_of(column):
    """What a server would send for a column, as long as it really is."""
    name = column.paths[0].rpartition(".")[2]
    if column.format:
        return VALUES[column.format]
    if re.search("(^|_)(id|slug)$", name):
        return UUID
    if NUMBERS.search(name):
        return 1234567
    return TEXT if re.search("description|message|note|reason", name) else (
        "2.10.0-rc.1" if name == "version" else NAME)


def all_columns():
    for group in xeroctl.GROUPS:
        for specs in [group.columns] + [v.columns or () for v in group.verbs]:
            yield from map(xeroctl.as_column, specs)


def whole_record():
    """A record that has what any column of the program is about."""
    record = {"created_at": NOW - 540, "compliance": 0.9996}
    for column in all_columns():
        with contextlib.suppress(TypeError, AttributeError):
            xeroctl.plant(record, column.paths[0], value_of(column))
    return record


def lists():
    """(group, verb) of all that shows a list which a server has sent."""
    for group in xeroctl.GROUPS:
        for verb in group.verbs:
            told = inspect.getsource(verb.run)
            if not verb.writes and re.search(r"out\.(rows|pages)\(", told):
                yield group, verb


LISTS = [(group, verb) for group, verb in lists()
         if group.name not in ("api", "config", "status")]


class Terminal(io.TextIOWrapper):
    """A stream with the size of a terminal; what it gets is kept."""

    number = None

    def isatty(self):
        return True

    def fileno(self):
        return self.number


@pytest.fixture(scope="module")
def sizes():
    """{columns: the number of an open terminal of that width}."""
    ends = [os.openpty() for _ in WIDTHS]
    for (_, near), columns in zip(ends, WIDTHS):
        fcntl.ioctl(near, termios.TIOCSWINSZ,
                    struct.pack("HHHH", 24, columns, 0, 0))
    yield {width: near for width, (_, near) in zip(WIDTHS, ends)}
    for each in ends:
        for number in each:
            os.close(number)


@pytest.fixture(scope="module")
def shared_router():
    with Router() as router:
        yield router


@pytest.fixture
def show(shared_router, sizes):
    """show(80, "models") is (lines, stderr) of a terminal so wide.

    Where it is whole, the terminal has both streams.
    """
    def runner(width, *argv, groups=xeroctl.GROUPS, is_whole=False):
        stdout = Terminal(io.BytesIO(), encoding="utf-8", newline="")
        stdout.number = sizes[width]
        streams = xeroctl.Streams(text_stream(), stdout,
                                  stdout if is_whole else text_stream())
        status = xeroctl.main(argv, environment(
            shared_router, XEROTIER_ENDPOINT="demo", NO_COLOR="1"), streams,
            FakeClock(), groups=groups)
        assert status == 0, written(streams.stderr)
        return written(stdout).splitlines(), written(streams.stderr)
    yield runner
    shared_router.orders.clear()


def serve(router, *records):
    router.order("GET *", times=None, body=json.dumps(
        {"object": "list", "data": records, "has_more": False}).encode())


def heads(columns):
    return [c.head for c in map(xeroctl.as_column, columns) if not c.is_wide]


@every_case
@pytest.mark.parametrize("group, verb", LISTS, ids=[
    xeroctl.verb_map(*each)["command"] for each in LISTS])
def test_every_list_fits(show, shared_router, group, verb):
    words = xeroctl.sample_call(group, verb).replace("triage", "ctpl_1")
    record = whole_record()
    serve(shared_router, record, dict(record, name="x"))
    for width in WIDTHS:
        lines, remark = show(width, *words.split()[1:])
        assert max(map(xeroctl.display_width, lines)) <= width
        columns = verb.columns or group.columns
        if not columns or verb.run is xeroctl.list_series:
            continue
        left = re.search(r"left out to fit: (.*) \(-o wide", remark)
        left = left.group(1).split(", ") if left else []
        shown = [h for h in heads(columns) if h not in left]
        for head in shown:
            assert head[:11] in lines[0]
        assert lines[1].count(UUID) >= ("ID" in shown)
        assert not {"ID", "SLUG", "Status", "STATUS"} & set(left)
        is_state = any(xeroctl.as_column(c).format == "state"
                       for c in columns)
        assert not is_state or "in_progress" in lines[1]


def test_the_walk_is_about_the_lists_that_there_are():
    names = {xeroctl.verb_map(*each)["command"] for each in LISTS}
    assert len(names) > 35 and {"models list", "files list", "usage daily",
                                "slos history", "chats messages"} <= names


# == what gives way ==========================================================

THINGS = xeroctl.Group(
    "things", "Things.", "/things", default="list",
    columns=("ID=id", "Name=name", "Size=size:size", "Status=status:state",
             "Owner=owner_id", "Created=created:time", "Note=note",
             "+More=more"),
    verbs=(xeroctl.lists(),))
THING = {"id": "t1", "name": "n" * 30, "size": 4200000000,
         "status": "in_progress", "owner_id": "o" * 8, "created": NOW - 540,
         "note": "m" * 30, "more": "w" * 300}


@pytest.fixture
def things(show, shared_router):
    def runner(width, form="table", **fields):
        shared_router.orders.clear()
        serve(shared_router, dict(THING, **fields))
        (head, line), remark = show(width, "things", "-o", form,
                                    groups=(THINGS,))
        return re.split(" {2,}", line), remark
    return runner


def test_what_has_room_stays_whole(things):
    line, remark = things(200)
    assert line == ["t1", "n" * 30, "4.2 GB", "in_progress", "o" * 8,
                    "2026-02-02 02:31 UTC", "m" * 30]
    assert remark == ""


def test_free_texts_give_way_first_the_longest_most(things):
    line, remark = things(120, note="short")
    assert line[1] == "n" * 30 and remark == ""
    line, remark = things(120, note="m" * 60)
    assert (line[1], line[-1]) == ("n" * 30, "m" * 30 + "…")
    assert line[-2] == "2026-02-02 02:31 UTC" and remark == ""


def test_then_times_are_ages(things):
    line, remark = things(80)
    assert line[-2] == "9m ago" and remark == ""
    assert line[1].endswith("…") and 12 <= len(line[1]) < 20
    line, remark = things(80, created=NOW + 3 * 86400)
    assert line[-2] == "in 3d"


def test_then_columns_are_left_out_the_last_one_first(things):
    line, remark = things(60)
    assert [cell[:6] for cell in line] == [
        "t1", "nnnnnn", "4.2 GB", "in_pro", "oooooo", "9m ago"]
    assert remark == "left out to fit: Note (-o wide shows all)\n"
    line, remark = things(60, owner_id=UUID)
    assert len(line) == 4 and "Owner, Created, Note" in remark


def test_an_id_and_a_state_are_the_last_to_stay(things):
    line, remark = things(60, id=UUID, status="pending_approval")
    assert line == [UUID, "pending_approval"]
    assert "Name, Size, Owner, Created, Note" in remark
    line, remark = things(60, id=UUID, status="s" * 30)
    assert line == [UUID]  # not both have room, and neither is cut
    line, remark = things(60, id="i" * 70)
    assert line == ["i" * 70, "in_progress"]  # it wraps all the same


def test_a_wide_table_is_never_cut(things):
    line, remark = things(60, "wide", name="n" * 90)
    assert line[1] == "n" * 90 and line[-1] == "w" * 300 and remark == ""


def test_quiet_says_nothing_of_what_is_left_out(show, shared_router):
    serve(shared_router, THING)
    assert show(60, "things", "-q", groups=(THINGS,))[1] == ""


def test_the_name_of_what_has_no_id_is_not_cut(show, shared_router):
    serve(shared_router, {"name": NAME, "description": TEXT})
    lines, _ = show(60, "exec", "tools")
    assert lines[1] == f"{NAME}  {TEXT[:17]}…"


def test_a_summary_keeps_what_one_asks_for(show, shared_router):
    serve(shared_router, {
        "id": UUID, "name": "n" * 40, "metric": "latency_p99", "target": 2500,
        "compliance": 0.937, "status": "breached"})
    lines, remark = show(80, "slos", "--summary")
    assert lines[-1].split() == ["n" * 40, "2500", "93.7%", "breached"]
    assert "METRIC" in remark


def test_the_bars_are_those_of_the_last_days(show, shared_router):
    serve(shared_router, *({"created_at": NOW - day * 86400,
                            "compliance": 0.9} for day in range(150)))
    lines, _ = show(80, "slos", UUID, "--history")
    assert lines[-1] == "compliance " + "▁" * 69
    assert len(show(200, "slos", UUID, "--history")[0][-1]) == 161


@every_case
@pytest.mark.parametrize("glyph", [
    "❤️", "👩‍💻", "🇩🇪", "👍🏽", "1️⃣", "👁️‍🗨️", "日"], ids=ascii)
def test_what_stands_in_two_cells_is_cut_whole(things, glyph):
    line, _ = things(120, name=glyph * 20, note="m" * 49)
    assert line[1] == glyph * 14 + "…"
    assert line[-1] == "m" * 30 + "…"


def test_a_joiner_that_joins_no_pictures_is_seen(things):
    line, _ = things(200, name="a\u200db👩\u200d💻\u200d")
    assert line[1] == "a\\u200db👩\u200d💻\\u200d"


# == what is told below a list ===============================================

@pytest.mark.parametrize("words", [
    "models --limit 2", "models --limit 2 -o json", "slos slo_1 --history",
    "models --limit 2 -o jsonl", "files --limit 1 --prefix a/",
    "files --limit 1 --tree", "api /models -o json"])
def test_how_to_go_on_is_told_below_the_list(show, shared_router, words):
    """To the letter of the seed: "at the end of the table"."""
    records = [{"id": f"thing_{n}", "relative_path": f"a/thing_{n}",
                "compliance": 0.5, "timestamp": NOW} for n in (1, 2)]
    shared_router.order("GET *", body=json.dumps(
        {"object": "list", "data": records, "has_more": True}).encode())
    shared_router.order("GET *", body=b'{"object": "list", "data": []}')
    lines, _ = show(120, *words.split(), is_whole=True)
    assert lines[-1].startswith("more exist: --"), lines
    assert any("thing_1" in line or "▁" in line for line in lines[:-1])


# == nouns ===================================================================

NOUNS = {"models versions list": "versions", "agents events": "events",
         "agents join-keys list": "join keys", "usage daily": "measurements",
         "conversations list-items": "items", "exec list": "executions",
         "responses input-items": "input items", "exec tools": "tools",
         "agents candidates list": "candidates", "chats list": "chats",
         "models recommend-for-workspace": "recommended models",
         "slos history": "measurements", "completions messages": "messages"}


@every_case
@pytest.mark.parametrize("group, verb", LISTS, ids=[
    xeroctl.verb_map(*each)["command"] for each in LISTS])
def test_an_empty_list_is_of_something(show, shared_router, group, verb):
    words = xeroctl.sample_call(group, verb).replace("triage", "ctpl_1")
    serve(shared_router)
    lines, remark = show(80, *words.split()[1:])
    command = xeroctl.verb_map(group, verb)["command"]
    noun = re.match("No ([a-z ]+) found.\n$", remark).group(1)
    assert lines == [] and noun in (NOUNS.get(command, noun),)
    assert noun not in ("list", "exec")
