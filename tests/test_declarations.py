"""Floors 9, 10 (waiting) and 12: from a row of a table to what it does."""

import re
import shlex

import pytest

import xeroctl
from conftest import Result, costly, environment, text_stream, written
from xeroctl import (ENDPOINT, ITEM, SLUG, Group, Verb, acts, below, by_flag,
                     creates, deletes, field, flag, integer, json_pair, lists,
                     number, path_of, shows, text_pair, updates, wait_until)
from helpers import asked_paths as asked, check_refused, sent, typed


# == a table of groups =======================================================

def send_message(app, group, args):
    """Keep a note of texts, each of which may come from standard input."""
    texts = {name: app.read_text("-") if text == "-" else text
             for name, text in (("message", args.message),
                                ("system", args.system)) if text is not None}
    group.call(app, "POST", body={"metadata": texts})


def tag_note(app, group, args):
    """Set the tags of a note."""
    pairs = dict((args.metadata or []) + (args.data or []))
    group.call(app, "POST", path_of(args.id), body={"metadata": pairs})


def submit_job(app, group, args):
    """Make a job of a file's name, and wait for it if told so."""
    job = group.call(app, "POST", body={"metadata": {"input": args.input}})
    args.id = job["id"]
    if args.wait:
        wait_for_job(app, group, args)


def wait_for_job(app, group, args):
    """Wait until a job is over."""
    job = wait_until(
        app, lambda: group.call(app, "GET", path_of(args.id)),
        lambda job: job.get("state", "done") == "done",
        lambda job: (f"state: {job.get('state')}",),
        resume=f"xeroctl jobs {args.id} --wait")
    app.out.record(job, group.fields)


def check_job(app, group, args):
    """Say what would be checked."""
    app.out.line(f"checked {args.file}")


TRACE = flag("--trace WORD", "a header of its own", header="X-Trace")
WAIT_TIMEOUT = flag("--wait-timeout S", "wait no longer than this",
                    xeroctl.seconds)
NOTES = Group(
    "notes", "Keep notes.", "/conversations", columns=("ID=id",),
    fields=("ID=id", "Message=metadata.message"),
    verbs=(
        lists("List items.", field("--order WORD", "asc or desc"),
              examples=("xeroctl notes list --all",)),
        shows(examples=("xeroctl notes show n1",)),
        creates("Keep a note.",
                field("-m, --message TEXT", "the text",
                      sends="metadata.message"),
                field("--stream", "a switch"),
                field("--level N", "how dear it is: 100% of them are",
                      integer(1, 5)),
                field("--heat F", "how warm it is", number(-2, 2)),
                field("--seed N", "a seed", integer()),
                field("--dear", "as --level 5", const=5, sends="level"),
                TRACE, examples=("xeroctl notes create -m hi",)),
        updates("Change a note.",
                field("--title TEXT", "its title", sends="metadata.title"),
                field("--state WORD", "its state", sends="metadata.state"),
                TRACE, examples=("xeroctl notes update n1 --title x",)),
        Verb("tag", "Set the tags of a note.", tag_note, ITEM,
             flag("--metadata KEY=TEXT…", "pairs of metadata", text_pair,
                  many=lambda word: "=" in word),
             flag("--data KEY=JSON…", "the same, as JSON", json_pair),
             writes=True, usage="ID --metadata A=B"),
        acts("move", "Move a note.",
             field("--to PLACE", "where", required=True),
             TRACE, examples=("xeroctl notes move n1 --to x",)),
        deletes(examples=("xeroctl notes delete n1",))))
JOBS = Group(
    "jobs", "Run jobs.", "/conversations", thing="batch job",
    columns=("ID=id",),
    fields=("ID=id", "State=state"),
    verbs=by_flag(
        lists(), shows(), acts("share", "Share a job."),
        updates("Rename a job.",
                field("--title TEXT", "the new name", sends="metadata.title"),
                name="rename"),
        deletes()) + (
        Verb("submit", "Submit a job.", submit_job,
             flag("--wait", "wait for its end"),
             WAIT_TIMEOUT,
             by=flag("--input FILE", "submit this file"),
             writes=True),
        Verb("wait", "Wait for a job.", wait_for_job, ITEM, WAIT_TIMEOUT,
             by=flag("--wait", "wait for it")),
        Verb("check", "Check a file.", check_job,
             flag("FILE", "the file", from_stdin=True))))
ASKS = Group(
    "asks", "Ask.", "/conversations", columns=("ID=id",), default="send",
    verbs=(
        Verb("send", "Ask one thing.", send_message,
             flag("-m, --message TEXT", "the text; - reads standard input",
                  from_stdin=True),
             flag("--system TEXT", "the system text; - reads standard input",
                  from_stdin=True),
             flag("--attach FILE…", "a file", from_stdin=True),
             writes=True),
        creates("Ask nothing.", name="new")))
STORED = Group(
    "stored", "Look at stored completions.", "/chat/completions",
    columns=("ID=id",), scope=ENDPOINT,
    verbs=(lists("List items.", SLUG), shows()))
TABLE = NOTES, JOBS, ASKS, STORED


@pytest.fixture
def cli(run):
    """Run a command line with the groups of this file."""
    def runner(*argv, **options):
        return run(*argv, groups=TABLE, **options)
    return runner


@pytest.fixture
def with_stdin(router, clock):
    """As cli, with a standard input (and error) of one's own."""
    def runner(stdin, *argv, stderr=None):
        streams = xeroctl.Streams(stdin, text_stream(),
                                  stderr or text_stream())
        status = xeroctl.main(argv, environment(router), streams, clock,
                              groups=TABLE)
        return Result(written(streams.stdout), written(streams.stderr),
                      status)
    return runner


# == verbs by word, by flag, by default ======================================

@pytest.mark.parametrize("line, wanted", [
    ("notes list", "GET /conversations"),
    ("notes show n1", "GET /conversations/n1"),
    ("notes create", "POST /conversations"),
    ("notes update n1 --title x", "POST /conversations/n1"),
    ("notes move n1 --to x", "POST /conversations/n1/move"),
    ("notes move --to x n1", "POST /conversations/n1/move"),
    ("notes delete n1 --force", "DELETE /conversations/n1"),
    ("jobs", "GET /conversations"),
    ("jobs j1", "GET /conversations/j1"),
    ("jobs j1 --share", "POST /conversations/j1/share"),
    ("jobs --share j1", "POST /conversations/j1/share"),
    ("jobs j1 --rename --title x", "POST /conversations/j1"),
    ("jobs --title x j1 --rename", "POST /conversations/j1"),
    ("jobs j1 --delete -y", "DELETE /conversations/j1"),
    ("jobs --input a.jsonl", "POST /conversations"),
    ("jobs --input=a.jsonl", "POST /conversations"),
    ("jobs j1 --wait", "GET /conversations/j1"),
    ("asks -m hi", "POST /conversations"),
    ("asks send -m hi", "POST /conversations"),
    ("asks new", "POST /conversations"),
    ("notes show list", "GET /conversations/list"),
    ("notes get n1", "GET /conversations/n1"),
    ("notes get show", "GET /conversations/show"),
    ("jobs list", "GET /conversations"),
    ("jobs -q list --limit 2", "GET /conversations"),
    ("jobs show j1", "GET /conversations/j1"),
    ("jobs get j1", "GET /conversations/j1"),
    ("jobs show list", "GET /conversations/list"),
    ("jobs -- list", "GET /conversations/list"),
    ("jobs get -- list", "GET /conversations/list"),
    ("jobs --share -- list", "POST /conversations/list/share"),
    ("jobs share j1", "POST /conversations/j1/share"),
    ("jobs share j1 --share", "POST /conversations/j1/share"),
    ("jobs share delete", "POST /conversations/delete/share"),
    ("jobs rename j1 --title x", "POST /conversations/j1"),
    ("jobs --title x rename j1", "POST /conversations/j1"),
    ("jobs delete j1 -y", "DELETE /conversations/j1"),
    ("jobs submit a.jsonl", "POST /conversations"),
    ("jobs submit --input a.jsonl", "POST /conversations"),
    ("jobs submit list", "POST /conversations"),
    ("jobs submit -- -5", "POST /conversations"),
    ("jobs wait j1 --wait-timeout 5", "GET /conversations/j1")])
def test_a_command_line_asks_one_thing(cli, router, line, wanted):
    router.order("* *", body=b'{"data":[],"id":"x"}')
    shown = cli(*line.split())
    assert (shown.exit_status, asked(router)) == (0, [wanted]), shown


def test_a_value_is_no_verb_of_that_name(cli, router):
    cli("asks", "-m", "new")
    assert sent(router) == {"metadata": {"message": "new"}}


def test_a_group_by_flag_may_have_a_verb_by_word(cli, router):
    assert cli("jobs", "check", "a.jsonl") == "checked a.jsonl\n"
    assert asked(router) == []


@pytest.mark.parametrize("line", [
    "jobs --input a.jsonl --wait", "jobs submit a.jsonl --wait",
    "jobs submit --wait --input a.jsonl"])
def test_an_action_that_another_one_has_as_a_flag_modifies_it(cli, router,
                                                              line):
    shown = cli(*line.split(), "-o", "id")
    made, = router.seen("POST", "/conversations")
    assert made.json == {"metadata": {"input": "a.jsonl"}}
    assert asked(router)[1] == "GET /conversations/" + shown.strip()


@pytest.mark.parametrize("line, words", [
    ("jobs j1 --delete --share", ("--delete", "--share")),
    ("jobs j1 --share --rename --title x", ("--share", "--rename")),
    ("jobs j1 --wait --delete", ("--wait", "--delete")),
    ("jobs --delete", ("--delete", "ID")),
    ("jobs --share -o json", ("--share", "ID")),
    ("jobs --wait", ("--wait", "ID")),
    ("jobs j1 --wait-timeout 5", ("--wait-timeout", "--wait")),
    ("jobs --wait-timeout 5", ("--wait-timeout", "--wait")),
    ("jobs j1 --title x", ("--title", "--rename")),
    ("jobs j1 --share --title x", ("--title", "--rename")),
    ("jobs j1 --limit 5", ("--limit", "list")),
    ("jobs show j1 --limit 5", ("--limit", "list")),
    ("jobs list --share", ("list", "--share")),
    ("jobs delete j1 --share", ("--delete", "--share")),
    ("jobs wait --input a.jsonl", ("--wait", "--input")),
    ("jobs submit a.jsonl --delete", ("--input", "--delete")),
    ("jobs share j1 --title x", ("--title", "--rename")),
    ("jobs check a --rename", ("check", "--rename")),
    ("notes show n1 --title x", ("--title goes with update",)),
    ("notes list --trace x", ("goes with create or update or move",)),
    ("notes show -m --title", ("--message needs a value",)),
    ("jobs j1 --rename", ("--title",))])
def test_what_does_not_go_together_is_named(cli, router, line, words):
    check_refused(cli(*line.split()), router, *words)


@pytest.mark.parametrize("line, words", [
    ("notes show", ("ID",)), ("notes delete --force", ("ID",)),
    ("notes move n1", ("--to",)), ("notes show n1 n2", ("n2",)),
    ("jobs j1 j2", ("j2",)), ("jobs j1 j2 --delete -y", ("j2",)),
    ("jobs j1 check", ("check",)), ("jobs delete", ("ID is missing",)),
    ("jobs show", ("ID is missing",)), ("jobs list j1", ("j1",)),
    ("jobs submit", ("FILE is missing",)), ("jobs submit a b", ("'b'",)),
    ("jobs submit a --input b", ("'a'",)), ("jobs share j1 j2", ("j2",)),
    ("jobs -- list --share", ("'--share' is one more",)),
    ("notes list n1", ("n1",)), ("jobs check", ("FILE",)),
    ("notes update n1", ("--title", "--state"))])
def test_too_little_or_too_much_is_a_usage_error(cli, router, line, words):
    check_refused(cli(*line.split()), router, *words)


def test_nothing_is_sent_that_was_not_given(cli, router):
    cli("notes", "create")
    assert sent(router) == {}
    assert router.requests[0].query == []
    assert "X-Trace" not in router.requests[0].headers


def test_flags_are_sent_where_their_row_says(cli, router):
    cli("notes", "create", "-m", "hi", "--stream", "--level", "3",
        "--heat", "-1.5", "--seed", "-12345678901234567890")
    assert sent(router) == {
        "metadata": {"message": "hi"}, "stream": True, "level": 3,
        "heat": -1.5, "seed": -12345678901234567890}


def test_a_switch_may_stand_for_a_value(cli, router):
    cli("notes", "create", "--level", "3", "--dear")
    assert sent(router) == {"level": 5}


@pytest.mark.parametrize("line", [
    "notes create", "notes update n1 --title x", "notes move n1 --to x"])
def test_a_flag_may_set_a_header(cli, router, line):
    cli(*line.split(), "--trace", "on")
    assert router.requests[0].headers["X-Trace"] == "on"
    assert "trace" not in sent(router)


def test_an_action_without_fields_has_no_body(cli, router):
    cli("jobs", "j1", "--share")
    assert router.requests[0].body == b""


def test_the_flags_of_a_list_are_its_query(cli, router):
    cli("notes", "list", "--order", "asc", "--limit", "7")
    assert router.requests[0].query == [("order", "asc"), ("limit", "7")]


@pytest.mark.parametrize("argv, environ", [
    (("--endpoint", "demo"), {}), ((), {"XEROTIER_ENDPOINT": "demo"}),
    (("--endpoint", "demo"), {"XEROTIER_ENDPOINT": "other"})])
def test_a_group_of_an_endpoint_has_its_slug_in_the_path(
        cli, router, argv, environ):
    assert cli("stored", "list", *argv, **environ).exit_status == 0
    seen, = router.requests
    assert seen.path == "/proj_demo/demo/v1/chat/completions"


def test_style_openai_has_no_slug_in_a_path(cli, openai_router):
    shown = cli("stored", "list", "--style", "openai", against=openai_router)
    assert shown.exit_status == 0
    assert asked(openai_router) == ["GET /chat/completions"]


# == words that nobody knows =================================================

@pytest.mark.parametrize("line, words", [
    ("nots list", ("nots", "did you mean notes?")),
    ("zzz", ("zzz", "xeroctl help")),
    ("notes lst", ("lst", "did you mean list?")),
    ("notes zzz", ("zzz", "list, show, get, create")),
    ("jobs shaer j1", ("j1", "did you mean share?")),
    ("jobs update", ("jobs has no verb 'update'", "rename")),
    ("jobs create j1", ("jobs has no verb 'create'",)),
    ("asks snd -m hi", ("snd", "did you mean send?")),
    ("notes list --limt 5", ("--limt", "did you mean --limit?")),
    ("notes list --outptu=json", ("--outptu", "did you mean --output?")),
    ("--outptu json notes list", ("--outptu", "did you mean --output?")),
    ("jobs j1 --delet", ("--delet", "did you mean --delete?")),
    ("notes list -z", ("-z",)),
    ("notes list -vz", ("-vz",)),
    ("notes show --message x n1", ("--message",)),
    ("notes list -o jsn", ("--output", "jsn", "did you mean json?")),
    ("notes list -o zzz", ("--output", "zzz", "jsonl")),
    ("notes list --color never-", ("--color", "did you mean never?"))])
def test_an_unknown_word_is_told_with_the_nearest(cli, router, line, words):
    shown = cli(*line.split())
    check_refused(shown, router, *words)
    assert "None" not in shown.stderr


@pytest.mark.parametrize("line, said", [
    ("not list", "unknown command"), ("notes lis", "no verb"),
    ("notes list --lim 5", "unknown flag --lim"),
    ("notes create --mess hi", "unknown flag --mess"),
    ("--out json notes list", "unknown flag --out"),
    ("jobs j1 --del", "unknown flag --del")])
def test_nothing_may_be_abbreviated(cli, router, line, said):
    check_refused(cli(*line.split()), router, said, "did you mean")


@pytest.mark.parametrize("line, command", [
    ("notes show", "xeroctl help notes show"),
    ("notes list --limit 0", "xeroctl help notes list"),
    ("jobs --delete", "xeroctl help jobs"),
    ("jobs delete", "xeroctl help jobs delete"),
    ("jobs get j1 j2", "xeroctl help jobs show"),
    ("jobs j1 j2", "xeroctl help jobs"),
    ("jobs check", "xeroctl help jobs check")])
def test_a_usage_error_tells_where_the_help_is(cli, line, command):
    shown = cli(*line.split())
    assert shown.stderr.endswith(f"  hint: {command}\n")


@pytest.mark.parametrize("line", [
    "nots", "notes lst", "notes show", "notes list --limit 0",
    "jobs --delete", "notes list --limt 5"])
def test_a_usage_error_comes_before_the_configuration(cli, router, line):
    check_refused(cli(*line.split(), against=None), router)


# == globals =================================================================

@pytest.mark.parametrize("line", [
    "-o id notes list", "notes -o id list", "notes list -o id",
    "--output id notes list", "notes list --output=id",
    "notes list -oid", "notes list -o=id", "-qoid notes list",
    "-o json notes list -o id", "-o json notes -o csv list --output=id",
    "notes list -o json -o id"])
def test_a_global_flag_stands_anywhere_and_the_last_wins(cli, router, line):
    router.order("GET /conversations", body=b'{"data":[{"id":"n1"}]}')
    assert cli(*line.split()) == "n1\n"


@pytest.mark.parametrize("line, level", [
    ("notes list", 0), ("notes list -v", 1), ("-v notes list", 1),
    ("notes list --verbose", 1), ("notes list -qv", 1),
    ("notes list -vv", 2), ("-v notes list -v", 2), ("-vv notes list", 2),
    ("notes -v list -v", 2)])
def test_verbose_adds_up(cli, router, line, level):
    router.order("GET /conversations", body=b'{"data":[{"id":"n1"}]}')
    said = cli(*line.split()).stderr
    assert len(re.findall("(?m)^GET http.* 200 ", said)) == min(level, 1)
    assert bool(re.search("(?m)^> Accept: ", said)) == (level == 2)


@pytest.mark.parametrize("line", [
    "--version", "notes list --version", "--version notes list",
    "--version notes show", "notes delete --version"])
def test_the_version_is_told_wherever_it_is_asked_for(cli, router, line):
    shown = cli(*line.split(), against=None)
    assert shown == f"xeroctl {xeroctl.__version__}\n"
    assert (shown.stderr, shown.exit_status) == ("", 0)


@pytest.mark.parametrize("line", [
    "--version nots", "notes lst --version", "notes list --version --nosuch"])
def test_what_is_asked_with_the_version_has_to_be_there(cli, router, line):
    check_refused(cli(*line.split()), router)


@pytest.mark.parametrize("line", [
    "notes delete n1 --force", "notes delete -y n1", "notes --force delete"
    " n1", "--force notes delete n1", "-y notes delete n1"])
def test_force_stands_anywhere(cli, router, line):
    cli(*line.split())
    assert asked(router) == ["DELETE /conversations/n1"]


@pytest.mark.parametrize("argv", [
    ("-q=1",), ("--dry-run=yes",), ("notes", "create", "--stream=1"),
    ("notes", "list", "--all=yes")])
def test_a_switch_takes_no_value(cli, router, argv):
    check_refused(cli(*argv, "notes", "list"), router)


# == values ==================================================================

@pytest.mark.parametrize("words, message", [
    (("-m", "hi"), "hi"), (("-mhi",), "hi"), (("-m=hi",), "hi"),
    (("--message", "hi"), "hi"), (("--message=hi",), "hi"),
    (("--message=a=b",), "a=b"), (("-m", "a=b"), "a=b"),
    (("-m", "-5 degrees"), "-5 degrees"), (("-m", "-5"), "-5"),
    (("-m", "-.5"), "-.5"), (("-m", "-"), "-"),
    (("-m", "- a list"), "- a list"), (("-m", "--not known"), "--not known"),
    (("-m", "--> there"), "--> there"), (("-m", "---"), "---"),
    (("-m", "-xz"), "-xz"), (("-m", "-no flag"), "-no flag"),
    (("--message=--stream",), "--stream"), (("--message=-v",), "-v"),
    (("-m--stream",), "--stream"), (("-m=--stream",), "--stream"),
    (("--message=--",), "--"), (("--message=-h",), "-h"),
    (("-m", ""), ""), (("--message=",), ""), (("-m", " \n "), " \n "),
    (("-m", "100%"), "100%"), (("-m", "@file"), "@file"),
    (("-m", "one", "-m", "two"), "two"), (("-m", "é"), "é")])
def test_a_value_is_taken_as_it_was_written(cli, router, words, message):
    shown = cli("notes", "create", *words)
    assert shown.exit_status == 0, shown
    assert sent(router) == {"metadata": {"message": message}}


@pytest.mark.parametrize("rest", [
    "--stream", "--level 3", "--level=3", "-q", "-o json", "--output=json",
    "--", "-m", "-vv", ""])
def test_a_known_flag_is_no_value(cli, router, rest):
    shown = cli("notes", "create", "-m", *rest.split())
    check_refused(shown, router, "--message needs a value")


def test_an_action_that_takes_a_value_needs_one(cli, router):
    shown = cli("jobs", "--input", "--wait")
    check_refused(shown, router, "--input needs a value")


def test_the_way_to_force_a_flag_as_a_value_is_told(cli):
    shown = cli("notes", "create", "-m", "--stream")
    assert "--message=--stream" in shown.stderr


@pytest.mark.parametrize("argv, wanted", [
    (("notes", "show", "--", "--id"), "GET /conversations/--id"),
    (("notes", "show", "--", "-h"), "GET /conversations/-h"),
    (("notes", "show", "-o", "id", "--", "-v"), "GET /conversations/-v"),
    (("notes", "show", "-5"), "GET /conversations/-5"),
    (("jobs", "--", "--share"), "GET /conversations/--share"),
    (("jobs", "--share", "--", "-j"), "POST /conversations/-j/share")])
def test_two_dashes_end_the_flags(cli, router, argv, wanted):
    cli(*argv)
    assert asked(router) == [wanted]


@pytest.mark.parametrize("words, pairs", [
    ("--metadata a=b n1", {"a": "b"}),
    ("n1 --metadata a=b", {"a": "b"}),
    ("--metadata a=b c=d n1", {"a": "b", "c": "d"}),
    ("--metadata a=b c=d --metadata e=f n1", {"a": "b", "c": "d", "e": "f"}),
    ("--metadata=a=b c=d n1", {"a": "b", "c": "d"}),
    ("--metadata a=b=c n1", {"a": "b=c"}),
    ("--metadata a= n1", {"a": ""}),
    ("--metadata a=1 a=2 n1", {"a": "2"}),
    ("--metadata a=b -o id n1", {"a": "b"})])
def test_many_values_do_not_swallow_the_id(cli, router, words, pairs):
    cli("notes", "tag", *words.split())
    assert asked(router) == ["POST /conversations/n1"]
    assert sent(router) == {"metadata": pairs}


@pytest.mark.parametrize("words", [
    "--metadata n1", "--metadata =b n1", "--metadata a=b n1 n2",
    "n1 --metadata", "n1 --metadata n2", "n1 --metadata a=b --ouput=json",
    "n1 --metadata a=b -z=1"])
def test_what_is_no_pair_is_not_taken_for_one(cli, router, words):
    check_refused(cli("notes", "tag", *words.split()), router)


@pytest.mark.parametrize("name, value, said", [
    ("--level", "0", "from 1 to 5"), ("--level", "6", "from 1 to 5"),
    ("--level", "1.5", "whole number"), ("--level", "two", "two"),
    ("--level", "", "whole number"), ("--heat", "2.01", "from -2 to 2"),
    ("--seed", "1.5", "is not a whole number\n"),
    ("--heat", "-2.01", "from -2 to 2"), ("--heat", "nan", "nan"),
    ("--heat", "inf", "inf"), ("--heat", "warm", "warm")])
def test_a_range_is_checked_before_anything_is_sent(
        cli, router, name, value, said):
    check_refused(cli("notes", "create", name, value), router, name, said)


@pytest.mark.parametrize("name, value", [
    ("level", 1), ("level", 5), ("heat", -2.0), ("heat", 2.0),
    ("heat", 0.0)])
def test_the_ends_of_a_range_are_in_it(cli, router, name, value):
    cli("notes", "create", f"--{name}", str(value))
    assert sent(router) == {name: value}


@pytest.mark.parametrize("argv", [
    ("--timeout", "0"), ("--timeout", "-1"), ("--timeout", "nan"),
    ("--timeout", "inf"), ("--max-time", "0"), ("--retries", "-1"),
    ("--retries", "1.5")])
def test_globals_have_ranges_too(cli, router, argv):
    check_refused(cli(*argv, "notes", "list"), router, argv[0])


@pytest.mark.parametrize("name, value, said", [
    ("--limit", "0", "'0' is not a whole number of at least 1\n"),
    ("--timeout", "0", "'0' is not a number above 0, up to 1000000000\n"),
    ("--timeout", "-1", "'-1' is not a number above 0, up to 1000000000\n")])
def test_a_range_is_told(cli, name, value, said):
    assert said in cli("notes", "list", name, value).stderr


@pytest.mark.parametrize("line", ["-o zzz", "--retries x -q",
                                  "--color zzz"])
def test_globals_are_checked_where_there_is_no_command(cli, router, line):
    check_refused(cli(*line.split()), router, line.split()[1])


def test_half_a_second_is_some_time(cli):
    assert cli("notes", "list", "--timeout", "0.5").exit_status == 0


def test_a_pair_of_json_is_decoded(cli, router):
    cli("notes", "tag", "n1", "--data", 'a={"b": [1, "é"]}', "--data",
        "c=null")
    assert sent(router) == {"metadata": {"a": {"b": [1, "é"]}, "c": None}}


@pytest.mark.parametrize("pair", ["a=b", "a=", "a", "=1", "a=NaN", "a={'b'}"])
def test_what_is_no_pair_of_json_is_refused(cli, router, pair):
    check_refused(cli("notes", "tag", "n1", "--data", pair), router,
                  "--data")


@pytest.mark.parametrize("header, value", [
    ("X-Note: a: b ", "a: b"), ("X-Note:", ""), ("X-Note:é", "é")])
def test_a_header_is_sent_with_each_request(cli, router, header, value):
    cli("notes", "list", "--header", header, "--header", "X-More: 1")
    headers = router.requests[0].headers
    assert (headers["X-Note"], headers["X-More"]) == (value, "1")


@pytest.mark.parametrize("header", [
    "X-Note", ": a", "X Note: a", "X-Nöte: a", "X-Note: a\r\nX-Evil: 1",
    "X-Note: \u65e5", "X-Note\n: a", "X-Note: \x00"])
def test_a_header_that_cannot_be_sent_is_refused(cli, router, header):
    check_refused(cli("notes", "list", "--header", header), router,
                  "--header")


# == standard input ==========================================================

@pytest.mark.parametrize("argv, names", [
    (("asks", "-m", "-", "--system", "-"), ("--message", "--system")),
    (("asks", "-m", "-", "--attach", "-"), ("--message", "--attach")),
    (("asks", "--attach", "-", "--attach", "-"), ("--attach",)),
    (("asks", "-m", "-", "--api-key", "-"), ("--message", "--api-key")),
    (("--api-key=-", "asks", "--system=-"), ("--api-key", "--system")),
    (("jobs", "check", "-", "--api-key", "-"), ("--api-key", "FILE"))])
def test_standard_input_is_read_once(cli, router, argv, names):
    shown = cli(*argv, stdin=b"text")
    check_refused(shown, router, "standard input", *names)


def test_a_dash_is_a_dash_where_nothing_is_read(cli, router):
    cli("notes", "create", "-m", "-", "--trace", "-")
    assert sent(router) == {"metadata": {"message": "-"}}
    shown = cli("jobs", "check", "a", "--api-key", "-")
    assert shown == "checked a\n"


def test_a_dash_is_standard_input_where_a_flag_says_so(cli, router):
    cli("asks", "-m", "-", "--system", "s", stdin="né\n".encode())
    assert sent(router) == {"metadata": {"message": "né", "system": "s"}}


# == confirmation ============================================================

@pytest.mark.parametrize("reply", [b"y\n", b"yes\n", b"Y\r\n", b" YES \n"])
def test_a_yes_is_a_yes(with_stdin, router, reply):
    router.order("DELETE /n1", status=204)
    shown = with_stdin(typed(reply), "notes", "delete", "n1")
    assert (shown, shown.exit_status) == ("deleted n1\n", 0)
    assert shown.stderr == "Delete note n1? [y/N] "
    assert asked(router) == ["DELETE /conversations/n1"]


def test_a_question_names_the_thing(with_stdin):
    shown = with_stdin(typed(b"n\n"), "jobs", "a b", "--delete")
    assert shown.stderr.startswith("Delete batch job a b? [y/N] ")


@pytest.mark.parametrize("reply", [
    b"n\n", b"\n", b"no\n", b"yep\n", b"n\ny\n", b"\xff\n", b""])
def test_all_else_is_a_no(with_stdin, router, reply):
    shown = with_stdin(typed(reply), "notes", "delete", "n1")
    assert (shown, shown.exit_status, asked(router)) == ("", 1, [])
    assert shown.stderr.startswith("Delete note n1? [y/N] ")
    assert ("not confirmed" if reply else "no answer") in shown.stderr


def test_the_end_of_input_ends_the_line_of_the_question(with_stdin):
    shown = with_stdin(typed(b""), "notes", "delete", "n1")
    assert shown.stderr.startswith("Delete note n1? [y/N] \nerror: ")


@pytest.mark.parametrize("force", ["--force", "-y"])
def test_force_asks_no_question(with_stdin, router, force):
    shown = with_stdin(typed(b"n\n"), "notes", "delete", "n1",
                       force)
    assert "[y/N]" not in shown.stderr
    assert asked(router) == ["DELETE /conversations/n1"]


@pytest.mark.parametrize("plan", ["--dry-run", "--curl"])
def test_a_plan_asks_no_question(with_stdin, router, plan):
    shown = with_stdin(typed(b""), "jobs", "j1", "--delete", plan)
    assert "DELETE" in shown and "/conversations/j1" in shown
    assert (shown.stderr, shown.exit_status, asked(router)) == ("", 0, [])


# == waiting =================================================================

WAIT = "jobs", "j1", "--wait"


def come(router, state, times=1):
    """Order the state that the next polls see."""
    router.order("GET /j1", times=times,
                 body=f'{{"id":"j1","state":"{state}"}}'.encode())


def test_a_wait_polls_every_two_seconds_until_the_end(cli, router, clock):
    come(router, "queued", 3)
    come(router, "done")
    assert cli(*WAIT) == "ID:    j1\nState: done\n"
    assert (len(router.requests), clock.slept) == (4, [2, 2, 2])


def test_a_wait_for_what_is_over_does_not_sleep(cli, router, clock):
    come(router, "done")
    assert cli(*WAIT, "-o", "id") == "j1\n"
    assert (len(router.requests), clock.slept) == (1, [])


@pytest.mark.parametrize("fault", [
    {"status": 500}, {"status": 502, "html": True}, {"status": 503},
    {"status": 429}, {"drop": "after"}, {"drop": "before"}])
def test_a_failure_that_passes_is_borne(cli, router, clock, fault):
    come(router, "queued")
    router.order("GET /j1", times=7, **fault)
    come(router, "done")
    shown = cli(*WAIT, "--retries", "0", "-q")
    assert (shown.exit_status, shown.stderr) == (0, ""), shown
    assert clock.slept == [2] * 8


@pytest.mark.parametrize("status, code", [(404, 4), (403, 3), (400, 1)])
def test_a_failure_that_lasts_ends_the_wait(cli, router, status, code):
    come(router, "queued")
    router.order("GET /j1", status=status)
    assert cli(*WAIT).exit_status == code
    assert len(router.requests) == 2


def test_an_outage_is_borne_for_five_minutes(cli, router, clock):
    router.order("GET /j1", times=None, status=503)
    shown = cli(*WAIT, "--retries", "0")
    assert shown.exit_status == 6 and "HTTP 503" in shown.stderr
    assert 300 <= sum(clock.slept) <= 302


def test_a_poll_waits_as_long_as_the_server_asks(cli, router, clock):
    router.order("GET /j1", status=429, retry_after=30)
    come(router, "done")
    assert cli(*WAIT, "--retries", "0").exit_status == 0
    assert clock.slept == [30]


def test_a_poll_waits_no_longer_than_the_wait(cli, router, clock):
    router.order("GET /j1", times=None, status=429, retry_after=30)
    shown = cli(*WAIT, "--retries", "0", "--wait-timeout", "20")
    assert shown.exit_status == 8 and sum(clock.slept) == 20


def test_each_outage_is_measured_on_its_own(cli, router, clock):
    for _ in range(2):
        router.order("GET /j1", times=120, status=503)
        come(router, "queued")
    come(router, "done")
    assert cli(*WAIT, "--retries", "0").exit_status == 0
    assert sum(clock.slept) == 2 * 242


def test_a_wait_that_runs_out_tells_how_to_go_on(cli, router, clock):
    come(router, "queued", None)
    shown = cli(*WAIT, "--wait-timeout", "6")
    assert (shown, shown.exit_status) == ("", 8)
    assert re.search("(?m)^error: .*state: queued", shown.stderr)
    assert "xeroctl jobs j1 --wait" in shown.stderr
    assert sum(clock.slept) == 6


def test_a_wait_runs_out_in_an_outage_too(cli, router, clock):
    come(router, "queued")
    router.order("GET /j1", times=None, status=503)
    shown = cli(*WAIT, "--wait-timeout", "6", "--retries", "0")
    assert shown.exit_status == 8
    assert "xeroctl jobs j1 --wait" in shown.stderr
    assert sum(clock.slept) == 6


def test_a_wait_keeps_to_the_limit_on_the_whole_call(cli, router, clock):
    come(router, "queued", None)
    shown = cli(*WAIT, "--max-time", "5")
    assert shown.exit_status == 5 and "--max-time" in shown.stderr
    assert 4 <= sum(clock.slept) <= 6


def test_in_a_pipe_a_change_is_told_every_30_seconds_at_most(cli, router):
    for done in range(40):
        come(router, f"{done} of 40")
    come(router, "done")
    assert cli(*WAIT).stderr.splitlines() == [
        "2026-02-02T02:40:00Z state: 0 of 40",
        "2026-02-02T02:40:30Z state: 15 of 40",
        "2026-02-02T02:41:00Z state: 30 of 40"]


def test_in_a_pipe_nothing_new_is_not_told(cli, router):
    come(router, "queued", 40)
    come(router, "done")
    said = cli(*WAIT).stderr.splitlines()
    assert said == ["2026-02-02T02:40:00Z state: queued",
                    "2026-02-02T02:41:20Z state: done"]


def test_in_a_pipe_a_change_is_told_late_but_told(cli, router):
    come(router, "queued", 2)
    come(router, "running", 20)
    come(router, "done")
    said = cli(*WAIT).stderr.splitlines()
    assert said == ["2026-02-02T02:40:00Z state: queued",
                    "2026-02-02T02:40:30Z state: running"]


def test_a_quiet_wait_says_nothing(cli, router):
    come(router, "queued", 20)
    come(router, "done")
    assert cli(*WAIT, "-q").stderr == ""


def test_on_a_terminal_a_wait_has_a_line_that_goes_away(with_stdin, router):
    come(router, "queued")
    come(router, "done")
    shown = with_stdin(text_stream(), *WAIT, "--no-color",
                       stderr=typed(b""))
    assert shown.stderr == (
        "\rstate: queued\033[K\rstate: done\033[K\r\033[K")
    assert shown == "ID:    j1\nState: done\n"


def test_ctrl_c_tells_how_to_take_the_wait_up_again(cli, router, clock):
    def interrupted(seconds):
        raise KeyboardInterrupt()
    clock.sleep = interrupted
    come(router, "queued")
    shown = cli(*WAIT)
    assert (shown, shown.exit_status) == ("", 130)
    assert "xeroctl jobs j1 --wait\n" in shown.stderr
    assert asked(router) == ["GET /conversations/j1"]


# == help ====================================================================

BROKEN = {"XEROTIER_OUTPUT": "no form", "XEROTIER_BASE_URL": "no url",
          "XEROTIER_STYLE": "no style"}
SAME_HELP = [
    ["help", "-h", "--help", "", "help -o json", "-q help", "-h -q",
     "-qh"],
    ["help notes", "notes help", "notes -h", "notes --help", "-h notes",
     "notes", "help -q notes", "notes -qh"],
    ["help jobs", "jobs help", "jobs -h", "--help jobs", "jobs -qh",
     "jobs j1 --nosuch -h"],
    ["help notes list", "notes list -h", "notes -h list", "-h notes list",
     "notes list --limit x -h", "notes list -qh",
     "notes list --nosuch -h", "notes list --help -o json"],
    ["help jobs list", "jobs list -h", "jobs --help list"],
    ["help jobs show", "help jobs get", "jobs get -h", "jobs show j1 -h"],
    ["help notes show", "notes show -h", "notes show n1 --help",
     "notes show n1 n2 -h"],
    ["help asks send", "asks send -h", "asks send -m hi -h"],
    ["help asks", "asks help", "asks -h", "asks -m hi --help"],
    ["help jobs share", "jobs --share -h", "jobs j1 --share -h",
     "-h jobs --share", "jobs share -h", "jobs share j1 --help"],
    ["help jobs check", "jobs check -h"],
    ["help help", "help -h"],
]


@pytest.mark.parametrize("environ", [{}, BROKEN], ids=["empty", "broken"])
@pytest.mark.parametrize("same", SAME_HELP, ids=lambda same: same[0])
def test_help_is_the_same_however_asked_for(cli, same, environ):
    texts = {}
    for line in same:
        shown = cli(*line.split(), against=None, **environ)
        assert (shown.stderr, shown.exit_status) == ("", 0), line
        texts.setdefault(str(shown), []).append(line)
    assert len(texts) == 1, list(texts.values())


def test_each_level_has_a_help_of_its_own(cli):
    texts = {str(cli(*same[0].split(), against=None)) for same in SAME_HELP}
    assert len(texts) == len(SAME_HELP)


def test_help_asks_nothing_of_the_router(cli, router):
    for same in SAME_HELP:
        for line in same:
            cli(*line.split())
    assert asked(router) == []


@pytest.mark.parametrize("line, words", [
    ("help", ("commands", "Print all commands", "flags, exit-codes, "
              "environment", "xeroctl help WORD")),
    ("help notes", ("\n  notes list  ", "  Move a note.\n",
                    "\n  notes move ID --to PLACE  ",
                    "\n  notes tag ID --metadata A=B  ",
                    "\nxeroctl help notes VERB tells more\n")),
    ("help jobs", ("\n  jobs  ", "\n  jobs ID  ", "\n  jobs ID --share  ",
                   "\n  jobs --input FILE  ", "\n  jobs check FILE  ",
                   "a word, too: list, show, share,\n"
                   "rename, delete, submit, wait\n")),
    ("help asks", ("  Ask one thing.\n", "  Ask nothing.\n")),
    ("help notes create", ("usage: xeroctl notes create [flags]\n",
                           "Keep a note.", "--message TEXT",
                           "100% of them are",
                           "\nglobal flags: xeroctl help flags\n")),
    ("help notes show", ("usage: xeroctl notes show ID [flags]\n",
                         "Show one item.")),
    ("help flags", ("  -o, --output FMT  ", "  -h, --help  ")),
    ("help jobs submit", ("usage: xeroctl jobs --input FILE [flags]\n",
                          "submit this file")),
    ("help jobs wait", ("usage: xeroctl jobs ID --wait [flags]\n",
                        "Wait for a job.", "--wait-timeout")),
    ("help jobs rename", ("usage: xeroctl jobs ID --rename [flags]\n",
                          "--title")),
    ("help stored list", ("--endpoint", "--after", "--all"))])
def test_help_tells_what_there_is(cli, line, words):
    shown = cli(*line.split(), against=None)
    for word in words:
        assert word in shown


@pytest.mark.parametrize("line", [
    "notes list --all", "notes show n1", "notes create -m hi",
    "notes update n1 --title x", "notes move n1 --to x", "notes delete n1"])
def test_help_on_a_verb_ends_with_its_examples(cli, line):
    shown = cli("help", *line.split()[:2], against=None)
    assert shown.endswith(f"\n\nexamples:\n  xeroctl {line}\n\n"
                          "global flags: xeroctl help flags\n")


def test_help_on_a_group_ends_with_three_of_its_examples(cli):
    assert (
        "\n\nexamples:\n  xeroctl notes list --all\n"
        "  xeroctl notes show n1\n  xeroctl notes create -m hi\n\n"
        "xeroctl help notes VERB tells") in cli("help", "notes", against=None)


@pytest.mark.parametrize("line, words", [
    ("help notts", ("notts", "did you mean notes?")),
    ("help notes lst", ("lst", "did you mean list?")),
    ("help zzz", ("zzz",))])
def test_help_on_what_is_not_there_is_a_usage_error(
        cli, router, line, words):
    check_refused(cli(*line.split()), router, *words)


def test_help_on_exit_codes_lists_them_all(cli):
    shown = cli("help", "exit-codes", against=None)
    assert re.findall(r"(?m)^  (\d+) ", shown) == (
        "0 1 2 3 4 5 6 7 8 129 130 141 143".split())
    assert shown.exit_status == 0


@pytest.mark.parametrize("topic", ["exit-codes", "environment"])
def test_a_topic_is_two_aligned_columns(cli, topic):
    head, _, *lines = cli("help", topic, against=None).splitlines()
    starts = {re.match(r"  \S.*?  +|    +", line).end() for line in lines}
    assert head.endswith(":") and len(starts) == 1


@pytest.mark.parametrize("columns", ["40", "300"])
def test_help_is_the_same_in_any_window(cli, monkeypatch, columns):
    before = cli("help", against=None)
    monkeypatch.setenv("COLUMNS", columns)
    assert cli("help", against=None) == before


# == the help of the real groups =============================================

GROUPS = xeroctl.GROUPS + (xeroctl.HELP,)
VERBS = [f"help {xeroctl.command_of(group, verb)}" for group in GROUPS
         for verb in group.verbs if verb.name]
LEVELS = ["help"] + [f"help {group.name}" for group in GROUPS] + [
    pytest.param(line, marks=costly) for line in VERBS]
TOPICS = ["help exit-codes", "help environment", "help flags"]


def test_a_row_says_only_what_is_known():
    for group in GROUPS + xeroctl.ABOUT:
        for verb in group.verbs:
            for row, known in [(group, Group("x", "X.")), (
                    verb, Verb("x", "X.", None))] + [
                    (each, flag("ID", "x")) for each in verb.own]:
                words = set(vars(row)) - set(dir(known))
                assert not words, (group.name, verb.name, words)


def line_of(level):
    """The command line of a parameter that may carry a mark."""
    return level if isinstance(level, str) else level.values[0]


@pytest.mark.parametrize("line", LEVELS + TOPICS)
def test_help_fits_80_columns(run, router, line):
    shown = run(*line.split(), against=None)
    assert (shown.stderr, shown.exit_status) == ("", 0)
    assert [text for text in shown.split("\n") if len(text) > 79] == []
    assert shown.endswith("\n") and not shown.endswith("\n\n")


@pytest.mark.parametrize("line", LEVELS)
def test_help_has_examples_that_run(run, line):
    shown = run(*line.split(), against=None)
    examples = shown.partition("\nexamples:\n")[2].replace(
        "\\\n", "").partition("\n\n")[0].splitlines()
    assert 1 <= len(examples) <= 3, examples
    for example in examples:
        words = shlex.split(example)
        words = words[words.index("xeroctl") + 1:]
        ends = [words.index(mark) for mark in ("|", ">") if mark in words]
        xeroctl.parse(words[:min(ends, default=None)], GROUPS)


def test_each_variable_that_help_names_stands_in_its_table(run):
    topic = run("help", "environment", against=None)
    named = set(re.findall("XEROTIER_[A-Z_]+", "".join(
        run(*line_of(level).split(), against=None) for level in LEVELS)))
    listed = set(re.findall("(?m)^  ([A-Z_]+) ", topic))
    assert named and named <= listed


# == rows below a word =======================================================

def name_row(app, group, args):
    app.out.text(f"{args.verb.name} {args.id} {getattr(args, 'create', '')}")


ROW_ID = flag("ID", "the model")
VERSIONED = Group("things", "Things.", verbs=by_flag(
    Verb("list", "List.", name_row, flag("[ID]", "none")),
    Verb("delete", "Delete.", name_row, ROW_ID)) + below(
    "versions",
    Verb("show", "List the versions.", name_row, ROW_ID, by="bare"),
    Verb("make", "Make a version.", name_row, ROW_ID,
         flag("--notes TEXT", "notes"),
         by=flag("--create VERSION", "a version"))))


@pytest.mark.parametrize("argv, said", [
    ("things", "list None "), ("things t1 --delete", "delete t1 "),
    ("things versions t1", "show t1 "),
    ("things versions t1 --create 2.0.0", "make t1 2.0.0"),
    ("things versions make t1 2.0.0 --notes n", "make t1 2.0.0"),
    ("things versions make t1 --create 2.0.0", "make t1 2.0.0"),
    ("things versions get make", "show make "),
    ("things versions -- make", "show make "),
    ("things -q versions --notes n make t1 2.0.0", "make t1 2.0.0"),
    ("things versions --create 2.0.0 t1 --notes n", "make t1 2.0.0")])
def test_a_word_holds_rows_by_flag_of_its_own(run, argv, said):
    assert run(*argv.split(), groups=(VERSIONED,)) == said


@pytest.mark.parametrize("argv, said", [
    ("things versions delete t1", "things versions has no verb 'delete'"),
    ("things versions list", "it has show, get, make"),
    ("things make t1", "things has no verb 'make'"),
    ("things versions make t1", "VERSION is missing")])
def test_the_words_of_another_level_are_no_ids(run, argv, said):
    shown = run(*argv.split(), groups=(VERSIONED,))
    assert (shown.exit_status, shown) == (2, "") and said in shown.stderr


def test_flags_below_a_word_stay_below_it(run):
    shown = run("things", "t1", "--create", "2.0.0", groups=(VERSIONED,))
    assert shown.exit_status == 2 and "--create" in shown.stderr
    shown = run("things", "versions", "t1", "--notes", "n",
                groups=(VERSIONED,))
    assert shown.exit_status == 2
    assert "--notes goes with --create" in shown.stderr
    assert "\n  things versions ID --create VERSION  " in run(
        "help", "things", "versions", groups=(VERSIONED,))
