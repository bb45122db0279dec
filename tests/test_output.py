"""Floor 8: what standard output gets, in every form."""

import csv
import io
import json
import os
import re
import struct

import pytest

import xeroctl
from conftest import Result, environment, text_stream, written
from router import Router
from xeroctl import (Group, acts, by_flag, creates, deletes, field,
                     lists, shows, updates)

FORMS = "table", "wide", "json", "jsonl", "csv", "id"
CREATED = 1769989200  # three hours before the clock of the tests

STATE = field("--state WORD", "a state", sends="metadata.state")
TITLE = field("--title TEXT", "a title", sends="metadata.title")
CONVERSATIONS = Group(
    "conversations", "Keep conversations.", "/conversations",
    columns=("ID=id", "State=metadata.state:state", "+Bytes=bytes:size",
             "+Pinned=pinned", "+Created At=created_at:time",
             "Title=metadata.title"),
    fields=("ID=id", "State=metadata.state:state",
            "Created At=created_at:time", "Title=metadata.title"),
    verbs=(lists(), shows(), creates("Keep one.", STATE, TITLE),
           updates("Change one.", STATE, TITLE), deletes()))
MODELS = Group(
    "models", "Look at models.", "/models",
    columns=("Name=id|name", "Age=created:age", "+Owner=owned_by"),
    verbs=by_flag(lists(paging="offset"), shows(),
                  acts("share", "Share one.")))
TABLE = CONVERSATIONS, MODELS


@pytest.fixture
def router():
    with Router(clock=lambda: CREATED) as router:
        yield router


@pytest.fixture
def cli(run):
    """Run a command line with the groups of this file."""
    def runner(*argv, **options):
        return run(*argv, groups=TABLE, **options)
    return runner


class TerminalStream(io.TextIOWrapper):
    """A stream that is a terminal: number tells how wide, or else 80."""

    number = None

    def __init__(self):
        super().__init__(io.BytesIO(), encoding="ascii", newline="")

    def isatty(self):
        return True

    def fileno(self):
        return super().fileno() if self.number is None else self.number


@pytest.fixture
def on_terminal(router, clock):
    """As cli, but standard output is a terminal; colour is off."""
    def runner(*argv, number=None, NO_COLOR="1", **environ):
        streams = xeroctl.Streams(text_stream(), TerminalStream(),
                                  text_stream())
        streams.stdout.number = number
        status = xeroctl.main(
            argv, environment(router, NO_COLOR=NO_COLOR, **environ), streams,
            clock, groups=TABLE)
        return Result(written(streams.stdout), written(streams.stderr),
                      status)
    return runner


@pytest.fixture
def narrow():
    """The number of an open terminal that is 30 columns wide."""
    fcntl, termios = map(pytest.importorskip, ("fcntl", "termios"))
    ends = os.openpty()
    fcntl.ioctl(ends[1], termios.TIOCSWINSZ,
                struct.pack("HHHH", 24, 30, 0, 0))
    yield ends[1]
    for end in ends:
        os.close(end)


def serve(router, answer, path="/conversations", times=1):
    """Order an answer of these bytes, or of this value as JSON."""
    raw = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
    router.order(f"GET {path}", times=times, body=raw)


def conversation(number, **fields):
    return dict({"id": f"conv_{number}"}, **fields)


def titled(*titles):
    return [conversation(number, metadata={"title": title})
            for number, title in enumerate(titles)]


def conv(number):
    """The id that the router gives its conversation of a number."""
    return f"conv_{number:024x}"


def keep(cli, *titles):
    for title in titles:
        done = cli("conversations", "create", "--title", title)
        assert done.exit_status == 0, done


def ids_of(shown):
    return [record["id"] for record in json.loads(shown)["data"]]


# == the six forms ===========================================================

RECORD = ('{"id":"c1","bytes":4200000000,"created_at":1769989200,'
          '"pinned":true,"metadata":{"state":"active","title":"a, \\"ü\\""},'
          '"extra":[1,2.50]}')
PRETTY = """{
  "id": "c1",
  "bytes": 4200000000,
  "created_at": 1769989200,
  "pinned": true,
  "metadata": {
    "state": "active",
    "title": "a, \\"ü\\""
  },
  "extra": [
    1,
    2.5
  ]
}
"""


@pytest.mark.parametrize("form, text", [
    ("table", 'ID  State   Title\n'
              'c1  active  a, "ü"\n'),
    ("wide", 'ID  State   Bytes   Pinned  Created At            Title\n'
             'c1  active  4.2 GB  yes     2026-02-01 23:40 UTC  a, "ü"\n'),
    ("jsonl", RECORD.replace("2.50", "2.5") + "\n"),
    ("csv", 'ID,State,Bytes,Pinned,Created At,Title\r\n'
            'c1,active,4200000000,true,1769989200,"a, ""ü"""\r\n'),
    ("id", "c1\n")])
def test_a_list_has_a_form(cli, router, form, text):
    serve(router, f'{{"data":[{RECORD}]}}'.encode())
    shown = cli("conversations", "list", "-o", form)
    assert (shown, shown.stderr, shown.exit_status) == (text, "", 0)


@pytest.mark.parametrize("form, text", [
    ("table", 'ID:         c1\n'
              'State:      active\n'
              'Created At: 2026-02-01 23:40 UTC\n'
              'Title:      a, "ü"\n'),
    ("wide", 'ID:         c1\n'
             'State:      active\n'
             'Created At: 2026-02-01 23:40 UTC\n'
             'Title:      a, "ü"\n'),
    ("json", PRETTY),
    ("jsonl", RECORD.replace("2.50", "2.5") + "\n"),
    ("csv", 'ID,State,Created At,Title\r\n'
            'c1,active,1769989200,"a, ""ü"""\r\n'),
    ("id", "c1\n")])
def test_a_single_thing_has_a_form(cli, router, form, text):
    serve(router, RECORD.encode(), "/conversations/c1")
    shown = cli("conversations", "show", "c1", "-o", form)
    assert (shown, shown.stderr, shown.exit_status) == (text, "", 0)


def test_a_json_list_is_what_the_router_sent(cli, router):
    serve(router, '{"first":1,"data":[{"b":"é","a":{}}],"x":null}'.encode())
    assert cli("conversations", "list", "-o", "json") == (
        '{\n  "first": 1,\n  "data": [\n    {\n      "b": "é",\n'
        '      "a": {}\n    }\n  ],\n  "x": null\n}\n')


def test_a_form_that_nobody_asked_for_is_a_table(cli):
    keep(cli, "one", "two")
    assert cli("conversations", "list") == (
        "ID                             State  Title\n"
        f"{conv(2)}  -      two\n"
        f"{conv(1)}  -      one\n")


def test_what_a_write_returns_has_a_form_too(cli, router):
    made = cli("conversations", "create", "--title", "one", "-o", "id")
    assert made == conv(1) + "\n"
    shown = cli("conversations", "update", conv(1), "--title", "two")
    assert shown.endswith("Title:      two\n")
    router.order("POST /models/m1/share", body=b'{"id":"m1"}')
    assert cli("models", "m1", "--share", "-o", "jsonl") == '{"id":"m1"}\n'


def test_a_deletion_is_a_line_or_the_answer(cli):
    keep(cli, "one", "two")
    gone = cli("conversations", "delete", conv(1), "--force")
    assert gone == f"deleted {conv(1)}\n"
    gone = cli("conversations", "delete", conv(2), "--force", "-o", "jsonl")
    assert gone == (f'{{"id":"{conv(2)}","object":"conversation.deleted",'
                    '"deleted":true}\n')


def test_a_deletion_without_an_answer_tells_the_id(cli, router):
    router.order("DELETE /conversations/c1", status=204)
    gone = cli("conversations", "delete", "c1", "-y", "-o", "json")
    assert json.loads(gone) == {"id": "c1"}


@pytest.mark.parametrize("form", FORMS)
def test_a_list_has_one_shape_whatever_its_length(cli, router, form):
    # Head and table lines come on top of one line for each record.
    lines = []
    for count in (1, 2, 3):
        serve(router, {"data": titled(*"abc"[:count])})
        lines.append(cli("conversations", "list", "-o", form).count("\n"))
    assert lines[2] - lines[1] == lines[1] - lines[0] > 0


# == empty lists and missing values ==========================================

def test_a_quiet_empty_list_says_nothing(cli):
    shown = cli("conversations", "list", "-q")
    assert (shown, shown.stderr) == ("", "")


@pytest.mark.parametrize("record", [
    {}, {"id": None, "bytes": None, "pinned": None, "created_at": None,
         "metadata": None}, {"metadata": {"title": None, "state": None}},
    {"metadata": ["no", "object"]}, None, "no object", 4])
def test_a_missing_value_is_a_dash_or_nothing(cli, router, record):
    serve(router, {"data": [record]}, times=2)
    assert cli("conversations", "list", "-o", "wide").splitlines() == [
        "ID  State  Bytes  Pinned  Created At  Title",
        "-   -      -      -       -           -"]
    shown = cli("conversations", "list", "-o", "csv")
    assert shown.splitlines()[1] == ",,,,,"


def test_a_missing_value_of_a_record_is_a_dash(cli, router):
    serve(router, b'{"id":"c1","created_at":null}', "/conversations/c1")
    assert cli("conversations", "show", "c1") == (
        "ID:         c1\nState:      -\nCreated At: -\nTitle:      -\n")


def test_the_first_place_that_has_a_value_is_taken(cli, router):
    serve(router, {"data": [{"id": None, "name": "a"},
                            {"id": "b", "name": "c"},
                            {"id": "", "name": "d"}]}, "/models")
    shown = cli("models", "-o", "csv")
    assert shown.split() == ["Name,Age,Owner", "a,,", "b,,", ",,"]


@pytest.mark.parametrize("value, cell", [
    (True, "yes"), (False, "no"), (0, "0"), (0.5, "0.5"), ("", ""),
    (["a", 1], '["a",1]'), ({"b": None}, '{"b":null}')])
def test_a_value_of_any_type_is_one_cell(cli, router, value, cell):
    serve(router, {"data": titled(value)})
    shown = cli("conversations", "list")
    assert shown.splitlines()[1] == f"conv_0  -      {cell}"


@pytest.mark.parametrize("value, cell", [
    (True, "true"), (0, "0"), (1769989200.5, "1769989200.5"),
    ("2026-02-01", "2026-02-01"), (["a", 1], '["a",1]')])
def test_csv_has_raw_values(cli, router, value, cell):
    serve(router, {"data": [conversation(0, created_at=value)]})
    shown = cli("conversations", "list", "-o", "csv")
    assert list(csv.reader(io.StringIO(shown)))[1] == [
        "conv_0", "", "", "", cell, ""]


@pytest.mark.parametrize("created, age", [
    (CREATED, "3h ago"), (CREATED + 10795.5, "4s ago"),
    ("2026-01-31T02:40:00Z", "2d ago"), (None, "-"), ("soon", "soon")])
def test_an_age_is_told_by_the_clock_of_the_run(cli, router, created, age):
    serve(router, {"data": [{"id": "a", "created": created}]}, "/models")
    assert cli("models").splitlines()[1] == f"a     {age}"


# == widths, controls, line ends =============================================

def test_columns_are_aligned_by_the_width_on_a_terminal(cli, router):
    serve(router, {"data": [
        {"id": "日本", "metadata": {"state": "e\u0301", "title": "x"}},
        {"id": "ab", "metadata": {"state": "ｆ", "title": "y"}},
        {"id": "👍", "metadata": {"state": "queued", "title": "z"}}]})
    assert cli("conversations", "list") == (
        "ID    State   Title\n"
        "日本  e\u0301       x\n"
        "ab    ｆ      y\n"
        "👍    queued  z\n")


@pytest.mark.parametrize("form", ["table", "wide"])
def test_a_line_end_in_a_cell_is_shown_as_an_escape(cli, router, form):
    serve(router, {"data": [conversation(
        0, created_at="x\ny", metadata={"title": "a\n\tb"})]})
    head, row = cli("conversations", "list", "-o", form).splitlines()
    assert row.endswith("  a\\n\\tb")
    assert ("x\\ny" in row) == (form == "wide")


def test_a_line_end_in_an_age_is_shown_as_an_escape(cli, router):
    serve(router, b'{"data":[{"id":"a","created":"x\\ny"}]}', "/models")
    assert cli("models") == "Name  Age\na     x\\ny\n"


def test_a_line_end_in_a_label_is_shown_as_an_escape(cli, router):
    serve(router, conversation(0, metadata={"title": "a\n\tb"}),
          "/conversations/conv_0")
    shown = cli("conversations", "show", "conv_0")
    assert shown.endswith("Title:      a\\n\\tb\n")


@pytest.mark.parametrize("title, cell", [
    ("a\0b", "a\0b"), ("a\r\nb\t", '"a\r\nb\t"'), ("a, b", '"a, b"'),
    ('say "a"', '"say ""a"""'), (" a ", " a "), ("a\rb", '"a\rb"')])
def test_csv_is_the_same_from_every_python(cli, router, title, cell):
    serve(router, {"data": titled(title)})
    assert cli("conversations", "list", "-o", "csv").endswith(
        f",{cell}\r\n")


def test_csv_has_no_empty_line_for_an_empty_cell():
    assert xeroctl.csv_text([[""], [None]], "\n") == '""\n""\n'


def test_on_a_terminal_a_line_of_csv_ends_without_an_escape(on_terminal):
    shown = on_terminal("conversations", "list", "-o", "csv")
    assert shown.splitlines() == ["ID,State,Bytes,Pinned,Created At,Title"]


@pytest.mark.parametrize("form", FORMS)
def test_a_lone_surrogate_does_no_harm(cli, router, form):
    serve(router, b'{"data":[{"id":"\\ud800","metadata":{"title":"\\udc80"}}]'
                  b'}')
    shown = cli("conversations", "list", "-o", form)
    assert shown.exit_status == 0 and "\\ud800" in shown


# == a terminal's width ======================================================

LONG = "word " * 40 + "end"


def test_a_pipe_never_gets_a_cut_line(cli, router):
    serve(router, {"data": titled(LONG)})
    assert cli("conversations", "list").endswith(LONG + "\n")


def test_a_terminal_gets_its_last_column_cut(on_terminal, router):
    serve(router, {"data": titled(LONG, "short")})
    lines = on_terminal("conversations", "list").split("\n")
    assert lines[1] == ("conv_0  -      " + LONG)[:79] + "…"
    assert lines[2:] == ["conv_1  -      short", ""]


def test_a_cut_counts_the_cells_of_wide_text(on_terminal, router):
    serve(router, {"data": titled("日" * 60)})
    line = on_terminal("conversations", "list").splitlines()[1]
    assert line == "conv_0  -      " + "日" * 32 + "…"


def test_a_cut_counts_the_cells_of_escapes(on_terminal, router):
    serve(router, {"data": titled("\x1b" * 60)})
    line = on_terminal("conversations", "list").splitlines()[1]
    assert xeroctl.display_width(line) <= 80 and line.endswith("…")


def test_a_table_fits_the_terminal_it_is_on(on_terminal, router, narrow):
    serve(router, {"data": titled("a" * 15, "b" * 16)})
    shown = on_terminal("conversations", "list", number=narrow)
    assert shown.splitlines()[1:] == ["conv_0  -      " + "a" * 15,
                                      "conv_1  -      " + "b" * 14 + "…"]


def test_an_id_is_never_cut(on_terminal, router, narrow):
    serve(router, {"data": [{"id": "i" * 40,
                             "metadata": {"title": "a title"}}]})
    shown = on_terminal("conversations", "list", number=narrow)
    assert shown.splitlines()[1] == "i" * 40 + "  -"
    assert "left out to fit: Title (-o wide" in shown.stderr


@pytest.mark.parametrize("form", ["json", "jsonl", "csv"])
def test_a_terminal_gets_data_uncut(on_terminal, router, form):
    serve(router, {"data": titled(LONG)})
    assert LONG in on_terminal("conversations", "list", "-o", form)


def test_a_terminal_gets_a_single_thing_uncut(on_terminal, router):
    serve(router, titled(LONG)[0], "/conversations/conv_0")
    assert LONG + "\n" in on_terminal("conversations", "show", "conv_0")


# == colour ==================================================================

@pytest.mark.parametrize("state, code", [
    ("active", "32"), ("Completed", "32"), ("in_progress", "33"),
    ("queued", "33"), ("failed", "31"), ("expired", "31")])
def test_a_state_is_coloured_on_a_terminal(on_terminal, router, state, code):
    serve(router, {"data": [conversation(0, metadata={"state": state})]})
    shown = on_terminal("conversations", "list", NO_COLOR="")
    assert f"conv_0  \033[{code}m{state}\033[0m  -\n" in shown


def test_the_state_of_a_single_thing_is_coloured(on_terminal, router):
    serve(router, {"id": "c1", "metadata": {"state": "failed"}},
          "/conversations/c1")
    shown = on_terminal("conversations", "show", "c1", NO_COLOR="")
    assert "State:      \033[31mfailed\033[0m\n" in shown


def test_only_a_state_is_coloured(on_terminal, router):
    serve(router, {"data": [conversation(0, metadata={"title": "failed"})]})
    head, row = on_terminal("conversations", "list",
                            NO_COLOR="").splitlines()
    assert row == "conv_0  -      failed"


# == where a list stands, and numbers ========================================

@pytest.mark.parametrize("place", ["data", "models", "items", "results"])
def test_a_list_is_found_under_any_of_its_names(cli, router, place):
    serve(router, {"object": "list", place: [{"id": "a"}, {"id": "b"}]},
          times=3)
    assert cli("conversations", "list", "-o", "id") == "a\nb\n"
    assert cli("conversations", "list").split() == [
        "ID", "State", "Title", "a", "-", "-", "b", "-", "-"]
    shown = cli("conversations", "list", "-o", "json")
    assert json.loads(shown) == {"object": "list",
                                 place: [{"id": "a"}, {"id": "b"}]}


def test_a_list_may_stand_bare(cli, router):
    serve(router, b'[{"id":"a"},{"id":"b"}]', times=2)
    assert cli("conversations", "list", "-o", "id") == "a\nb\n"
    shown = cli("conversations", "list", "-o", "json")
    assert json.loads(shown) == [{"id": "a"}, {"id": "b"}]


def test_a_list_of_something_else_is_not_taken_for_the_records(cli, router):
    serve(router, b'{"models":"none","items":[{"id":"a"}]}')
    assert cli("conversations", "list", "-o", "id") == "a\n"


@pytest.mark.parametrize("answer", [
    b"{}", b'{"data":{}}', b'{"list":[1]}', b"null", b'"text"', b"4"])
def test_an_answer_without_a_list_is_an_error(cli, router, answer):
    serve(router, answer)
    shown = cli("conversations", "list")
    assert (shown, shown.exit_status) == ("", 1)
    assert shown.stderr.startswith(
        "error: the answer " + (
            "is null" if answer == b"null" else "holds no list: "))


@pytest.mark.parametrize("form", FORMS)
def test_an_answer_without_a_list_is_an_error_in_any_form(cli, router, form):
    serve(router, b'{"object":"list"}')
    shown = cli("conversations", "list", "-o", form)
    assert (shown, shown.exit_status) == ("", 1)
    assert "the answer holds no list" in shown.stderr


NUMBERS = """{
  "z": 1,
  "id": "c1",
  "a": 123456789012345678901234567890,
  "m": -9007199254740993,
  "f": 0.1,
  "g": 100.0,
  "h": -0.0,
  "i": 5e-324,
  "b": 1.7976931348623157e+308,
  "é": false
}
"""


@pytest.mark.parametrize("form, text", [
    ("json", NUMBERS), ("jsonl", re.sub(r"\s", "", NUMBERS) + "\n")])
def test_numbers_and_the_order_of_keys_are_kept(cli, router, form, text):
    serve(router, NUMBERS.encode(), "/conversations/c1")
    assert cli("conversations", "show", "c1", "-o", form) == text


def test_a_number_beyond_all_floats_makes_no_broken_json(cli, router):
    record = '{"id":"c1","n":1e999,"m":[-1e999,0.5],"t":{"é":"1"}}'
    serve(router, record.encode(), "/conversations/c1")
    shown = cli("conversations", "show", "c1", "-o", "jsonl")
    assert shown == re.sub("-?1e999", "null", record) + "\n"


@pytest.mark.parametrize("opened, closed", [('{"a":', "}"), ("[", "]")])
def test_json_that_is_too_deep_is_not_indented(cli, router, opened, closed):
    """80 KB would become 200 MB: only Python 3.14 reads what is so deep."""
    deep = opened * 10000 + "1" + closed * 10000
    serve(router, '{{"id":"c1","b":{}}}'.format(deep).encode(),
          "/conversations/c1")
    shown = cli("conversations", "show", "c1", "-o", "json")
    assert (shown, shown.exit_status) == ("", 1)
    assert "nested too deeply" in shown.stderr


def test_a_great_number_is_exact_in_cells_too(cli, router):
    great = 123456789012345678901234567890
    serve(router, {"data": titled(great)}, times=2)
    assert cli("conversations", "list").endswith(f"  {great}\n")
    assert cli("conversations", "list", "-o", "csv").endswith(
        f",{great}\r\n")


# == pages ===================================================================

def test_no_limit_is_sent_when_none_was_given(cli, router):
    cli("conversations", "list")
    seen, = router.requests
    assert seen.query == []


@pytest.mark.parametrize("limit", ["0", "-1", "x", "1.5", ""])
def test_a_limit_is_a_positive_number(cli, router, limit):
    shown = cli("conversations", "list", "--limit", limit)
    assert shown.exit_status == 2 and "--limit" in shown.stderr
    assert router.requests == []


@pytest.mark.parametrize("form", FORMS)
def test_a_hint_gives_the_exact_next_flag(cli, form):
    keep(cli, "one", "two", "three")
    shown = cli("conversations", "list", "--limit", "2", "-o", form)
    hint, = shown.stderr.splitlines()
    flag = re.search(r"--after \S+", hint).group().split()
    assert flag == ["--after", conv(2)] and "--all" in hint
    rest = cli("conversations", "list", "--limit", "2", "-o", "id", *flag)
    assert (rest, rest.stderr) == (conv(1) + "\n", "")


def test_the_hint_to_an_offset_is_a_number(cli, router):
    shown = cli("models", "--limit", "3", "--offset", "0")
    assert "--offset 3" in shown.stderr
    shown = cli("models", "--limit", "3", "--offset", "3")
    assert "--offset 6" in shown.stderr
    shown = cli("models", "--limit", "3", "--offset", "6")
    assert shown.stderr == ""
    assert [seen.query for seen in router.requests] == [
        [("limit", "3"), ("offset", offset)] for offset in "036"]


def test_a_quiet_list_has_no_hint(cli):
    keep(cli, "one", "two")
    shown = cli("conversations", "list", "--limit", "1", "-q")
    assert shown.stderr == ""


def test_a_full_page_that_says_nothing_may_have_a_next(cli, router):
    serve(router, {"data": titled("a", "b")}, times=2)
    shown = cli("conversations", "list", "--limit", "2", "-o", "id")
    assert "--after conv_1" in shown.stderr
    shown = cli("conversations", "list", "--limit", "3", "-o", "id")
    assert shown.stderr == ""


def test_a_total_tells_that_more_exist(cli, router):
    serve(router, {"data": titled("a", "b"), "total": 5}, "/models", times=2)
    assert "--offset 2" in cli("models").stderr
    assert cli("models", "--offset", "3").stderr == ""


def test_all_is_one_json_document(cli, router):
    keep(cli, *"abcde")
    router.requests.clear()
    shown = cli("conversations", "list", "--all", "--limit", "2",
                "-o", "json")
    assert ids_of(shown) == [conv(n) for n in (5, 4, 3, 2, 1)]
    page = json.loads(shown)
    assert (page["first_id"], page["last_id"]) == (conv(5), conv(1))
    assert page["has_more"] is False and shown.stderr == ""
    assert [seen.query for seen in router.requests] == [
        [("limit", "2")], [("limit", "2"), ("after", conv(4))],
        [("limit", "2"), ("after", conv(2))]]


def test_all_follows_offsets_too(cli, router):
    shown = cli("models", "--all", "--limit", "3", "-o", "json")
    assert len(set(ids_of(shown))) == 7
    assert [dict(seen.query).get("offset") for seen in router.requests] == [
        None, "3", "6"]


@pytest.mark.parametrize("form, text", [
    ("table", "ID      State  Title\n"
              "conv_0  -      a\nconv_1  -      b\nconv_2  -      c\n"),
    ("csv", "ID,State,Bytes,Pinned,Created At,Title\r\n"
            "conv_0,,,,,a\r\nconv_1,,,,,b\r\nconv_2,,,,,c\r\n"),
    ("jsonl", "".join(f'{{"id":"conv_{n}","metadata":{{"title":"{title}"}}}}'
                      "\n" for n, title in enumerate("abc"))),
    ("id", "conv_0\nconv_1\nconv_2\n")])
def test_all_is_one_document_in_every_form(cli, router, form, text):
    first, *rest = titled(*"abc")
    serve(router, {"data": [first], "has_more": True})
    serve(router, {"data": rest, "has_more": False})
    assert cli("conversations", "list", "--all", "-o", form) == text


def test_all_of_bare_lists_is_a_bare_list(cli, router):
    *first, last = titled(*"abc")
    serve(router, first)
    serve(router, [last])
    shown = cli("conversations", "list", "--all", "--limit", "2",
                "-o", "json")
    assert json.loads(shown) == titled(*"abc")


def test_all_of_a_list_without_pages_is_that_list(cli, router):
    serve(router, b'{"data":[{"id":"a"}]}')
    shown = cli("conversations", "list", "--all", "-o", "json")
    assert json.loads(shown) == {"data": [{"id": "a"}]}
    assert len(router.requests) == 1


@pytest.mark.parametrize("command, path", [
    (("conversations", "list"), "/conversations"), (("models",), "/models")])
def test_all_ends_where_a_server_knows_no_pages(cli, router, command, path):
    serve(router, {"data": titled("a", "b"), "has_more": True}, path,
          times=None)
    shown = cli(*command, "--all", "-o", "id")
    assert shown == "conv_0\nconv_1\n"
    assert len(router.requests) == 2


def test_all_ends_where_the_cursor_does_not_move(cli, router):
    for title in "abcdef":
        serve(router, {"data": [conversation(title)], "has_more": True,
                       "last_id": "conv_a"})
    shown = cli("conversations", "list", "--all", "-o", "id")
    assert shown.startswith("conv_a\nconv_b\n")
    assert len(router.requests) == 2


@pytest.mark.parametrize("answer", [
    {"data": titled("a"), "has_more": True},
    {"data": titled("a"), "has_more": True, "last_id": "x"}])
@pytest.mark.parametrize("argv, path", [
    (("models", "--all"), "/models"), (("api", "/models", "--all"), "/models"),
    (("files", "--prefix", "a/"), "/files")])
def test_a_list_that_may_be_cut_says_so(run, router, argv, path, answer):
    serve(router, answer, path, times=None)
    shown = run(*argv, "-o", "json")
    assert (shown.exit_status, len(router.requests)) == (0, 2)
    assert "the list may be cut" in shown.stderr


@pytest.mark.parametrize("command, path", [
    (("conversations", "list"), "/conversations"), (("models",), "/models")])
def test_all_ends_at_an_empty_page(cli, router, command, path):
    serve(router, {"data": titled("a"), "has_more": True}, path)
    serve(router, {"data": [], "has_more": True, "total": 9}, path,
          times=None)
    assert cli(*command, "--all", "-o", "id") == "conv_0\n"
    assert len(router.requests) == 2


def test_all_shows_nothing_of_a_list_that_broke_off(cli, router):
    keep(cli, *"abc")
    router.order("GET /conversations")
    router.order("GET /conversations", status=400)
    shown = cli("conversations", "list", "--all", "--limit", "2",
                "-o", "json")
    assert (shown, shown.exit_status) == ("", 1)


# == plans ===================================================================

PLANNED = ("conversations", "create", "--title", "é", "--dry-run")


def test_a_plan_is_a_request_for_people(cli, router):
    shown = cli(*PLANNED)
    assert shown == (f"POST {router.base_url}/conversations\n"
                     "Authorization: Bearer xero_demo_…\n"
                     "Content-Type: application/json\n\n"
                     '{\n  "metadata": {\n    "title": "é"\n  }\n}\n')
    assert (shown.stderr, router.requests) == ("", [])


def test_a_plan_is_an_object_for_programs(cli, router):
    plan = {"method": "POST", "url": router.base_url + "/conversations",
            "headers": {"Authorization": "Bearer xero_demo_…",
                        "Content-Type": "application/json"},
            "body": {"metadata": {"title": "é"}}}
    assert cli(*PLANNED, "-o", "json") == json.dumps(
        plan, indent=2, ensure_ascii=False) + "\n"
    assert cli(*PLANNED, "-o", "jsonl") == json.dumps(
        plan, separators=(",", ":"), ensure_ascii=False) + "\n"


NEW_CHAT = ("chat", "new", "--workspace", "w", "--template", "ctpl_1",
            "-m", "hi", "--dry-run")
PATHS = ["/workspaces/w/chat-templates/ctpl_1/apply",
         "/chats/<chat id>/messages"]


@pytest.mark.parametrize("form", ["table", "wide", "csv", "id"])
def test_a_plan_of_several_requests_is_in_their_order(run, router, form):
    shown = run(*NEW_CHAT, "-o", form)
    assert re.findall("(?m)^POST .*", shown) == [
        f"POST {router.base_url}{path}" for path in PATHS]
    assert "}\n\nPOST" in shown and shown.endswith("}\n")
    assert "chat created" not in shown and router.requests == []


def test_a_plan_of_several_requests_is_a_list(run, router):
    shown = run(*NEW_CHAT, "-o", "json")
    urls = [request["url"] for request in json.loads(shown)]
    assert urls == [router.base_url + path for path in PATHS]
    lines = run(*NEW_CHAT, "-o", "jsonl").splitlines()
    assert [json.loads(line)["url"] for line in lines] == urls


def test_a_plan_without_a_body_has_none(cli, router):
    shown = cli("conversations", "delete", "a/b", "--dry-run")
    assert shown == (f"DELETE {router.base_url}/conversations/a%2Fb\n"
                     "Authorization: Bearer xero_demo_…\n")
    assert router.requests == []


def test_a_plan_shows_a_body_of_bytes_as_it_is(run, router):
    shown = run("api", "/conversations", "--input", "-", "--dry-run",
                stdin=b'{"metadata": {"a" : "\xc3\xa9"}}')
    assert shown.endswith('\n\n{"metadata": {"a" : "é"}}\n')
    assert router.requests == []


def test_curl_names_the_key_by_its_variable(cli, router):
    shown = cli("conversations", "create", "--title", "it's", "--curl")
    assert shown == (
        f"curl -sS -X POST {router.base_url}/conversations \\\n"
        '  -H "Authorization: Bearer $XEROTIER_API_KEY" \\\n'
        "  -H 'Content-Type: application/json' \\\n"
        "  --data-raw '{\"metadata\":{\"title\":\"it'\"'\"'s\"}}'\n")
    assert router.requests == []


def test_curl_is_a_text_in_an_object_for_programs(cli):
    plan = "conversations", "create", "--curl"
    text = str(cli(*plan)).rstrip("\n")
    assert json.loads(cli(*plan, "-o", "json")) == {"curl": text}


@pytest.mark.parametrize("flags, options", [
    ((), "-sS"), (("--stream",), "-sSN")])
def test_curl_shows_a_stream_as_it_comes(run, flags, options):
    shown = run("chat", "--endpoint", "demo", "-m", "hi", "--curl", *flags)
    assert shown.startswith(f"curl {options} -X POST ")


def test_curl_prints_what_a_dry_run_would_do(cli, router):
    assert cli("models", "--curl").startswith(
        f"curl -sS -X GET {router.base_url}/models")
    assert router.requests == []
    assert cli("models", "--dry-run").startswith("Name")
    assert len(router.requests) == 1
