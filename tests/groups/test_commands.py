"""commands: the whole command line as data, and the parser keeps to it."""

import copy
import io
import json
import shlex

import pytest

import xeroctl
from conftest import every_case
from xeroctl import (ITEM, Group, Verb, by_flag, choice, deletes, field,
                     flag, integer, lists, number, shows, text_pair)

GROUPS = xeroctl.GROUPS + xeroctl.ABOUT


def do_nothing(app, group, args):
    """What no test of this file calls."""


NOTES = Group(
    "notes", "Keep notes.", "/notes", columns=("ID=id",), default="keep",
    verbs=(
        Verb("keep", "Keep a note.", do_nothing,
             flag("TEXT", "the text"),
             flag("[PLACE]", "where"),
             flag("WORD…", "what else", dest="words"),
             flag("-m, --mood MOOD", "how it is", choice("good", "bad"),
                  required=True),
             field("--level N", "how dear", integer(1, 5), default=3),
             field("--heat F", "how warm", number(0)),
             flag("--for SECONDS", "how long", xeroctl.seconds),
             flag("--loud", "say it"),
             flag("--tag KEY=TEXT…", "a tag", text_pair),
             flag("--more WORD", "some more", many=bool),
             writes=True, examples=("xeroctl notes keep x", "xeroctl notes")),
    ))
JOBS = Group(
    "jobs", "Run jobs.", "/jobs", columns=("ID=id",), verbs=by_flag(
        lists(), shows(), deletes("Delete a job.")) + (
        Verb("submit", "Submit a job.", do_nothing,
             flag("--wait", "wait for it"),
             by=flag("--input FILE", "submit this file"),
             writes=True),
        Verb("check", "Check a job.", do_nothing, ITEM)))


OUR_MAP = []


@pytest.fixture
def map_of(run):
    """The command map; of a table of groups that is handed in, or ours.

    Ours is the same each time, and so printed once.
    """
    def mapped(*groups):
        if not groups and OUR_MAP:
            return copy.deepcopy(OUR_MAP[0])
        shown = run("commands", "-o", "json", against=None,
                    groups=groups or None)
        assert (shown.exit_status, shown.stderr) == (0, ""), shown
        page = json.loads(shown)
        if not groups:
            OUR_MAP.append(copy.deepcopy(page))
        return page
    return mapped


def commands(page, group):
    """{verb: its entry} of one group, in the order of the table."""
    return {entry["verb"]: entry for entry in page["data"]
            if entry["group"] == group}


def name_of(found):
    return max(found["names"], key=len)


def flags(entries):
    """{long name: its entry} of flags or arguments."""
    return {name_of(entry): entry for entry in entries}


# == a table that is handed in ===============================================

def test_a_verb_is_told_whole(map_of):
    entry = commands(map_of(NOTES), "notes")["keep"]
    entry = {key: value for key, value in entry.items()
             if key not in ("flags", "arguments")}
    assert entry == {
        "command": "notes keep", "group": "notes", "word": None,
        "verb": "keep",
        "called_by": "keep", "default": True, "writes": True,
        "usage": "xeroctl notes keep TEXT [PLACE] WORD… --mood MOOD [flags]",
        "summary": "Keep a note.",
        "examples": ["xeroctl notes keep x", "xeroctl notes"]}


def test_a_flag_is_told_whole(map_of):
    found = flags(commands(map_of(NOTES), "notes")["keep"]["flags"])
    assert found["--mood"] == {
        "names": ["-m", "--mood"], "metavar": "MOOD", "type": "choice",
        "choices": ["good", "bad"], "default": None, "required": True,
        "repeatable": False, "needs": None, "sample": None,
        "help": "how it is"}
    assert found["--level"] == {
        "names": ["--level"], "metavar": "N", "type": "integer",
        "choices": None, "default": 3, "required": False,
        "repeatable": False, "needs": None, "sample": None,
        "help": "how dear"}


@pytest.mark.parametrize("name, kind, is_required, is_repeatable", [
    ("--mood", "choice", True, False), ("--level", "integer", False, False),
    ("--heat", "number", False, False), ("--for", "number", False, False),
    ("--loud", "boolean", False, False), ("--tag", "string", False, True),
    ("--more", "string", False, True), ("text", "string", True, False),
    ("place", "string", False, False), ("words", "string", True, True),
])
def test_a_flag_has_a_type_and_a_number(map_of, name, kind, is_required,
                                        is_repeatable):
    entry = commands(map_of(NOTES), "notes")["keep"]
    found = flags(entry["flags"] + entry["arguments"])[name]
    assert (found["type"], found["required"], found["repeatable"]) == (
        kind, is_required, is_repeatable)
    assert (name in flags(entry["arguments"])) == (not name.startswith("-"))


@pytest.mark.parametrize("verb, called_by, writes, words, names", [
    ("list", "bare", False, [], ["--limit", "--after", "--all"]),
    ("show", "bare", False, ["id"], []),
    ("delete", "--delete", True, ["id"], ["--delete"]),
    ("submit", "--input", True, [], ["--wait", "--input"]),
    ("check", "check", False, ["id"], []),
])
def test_a_verb_says_how_it_is_called(map_of, verb, called_by, writes, words,
                                      names):
    entry = commands(map_of(JOBS), "jobs")[verb]
    assert (entry["called_by"], entry["writes"], entry["default"]) == (
        called_by, writes, False)
    assert list(flags(entry["arguments"])) == words
    assert sorted(flags(entry["flags"])) == sorted(names)


def test_the_map_is_of_the_table_that_is_there(map_of):
    page = map_of(NOTES, JOBS)
    assert [entry["command"] for entry in page["data"]][:6] == [
        "notes keep", "jobs list", "jobs show", "jobs delete", "jobs submit",
        "jobs check"]


# == the whole command line ==================================================

def test_every_group_and_verb_is_there(map_of):
    page = map_of()
    assert (page["object"], page["version"]) == ("list", xeroctl.__version__)
    assert [(entry["group"], entry["verb"]) for entry in page["data"]] == [
        (group.name, verb.name) for group in GROUPS for verb in group.verbs]


def test_every_flag_is_there(map_of):
    page = map_of()
    assert [entry["names"] for entry in page["global_flags"]] == [
        list(declared.names) for declared in xeroctl.GLOBALS]
    verbs = [verb for group in GROUPS for verb in group.verbs]
    for verb, entry in zip(verbs, page["data"]):
        own = verb.flags + ((verb.by,) if verb.by_flag else ())
        names = [found["names"] for found in
                 entry["arguments"] + entry["flags"]]
        assert sorted(names) == sorted(list(f.names) for f in own)


@pytest.mark.parametrize("command, name, expected", [
    ("chat send", "--temperature", {"type": "number", "metavar": "F"}),
    ("chat send", "--max-tokens", {"type": "integer"}),
    ("chat send", "--stream", {"type": "boolean"}),
    ("chat send", "--attach", {"repeatable": True}),
    ("config add", "--api-key-env", {"metavar": "VARIABLE"}),
    ("api", "--field", {"repeatable": True, "metavar": "KEY=JSON"}),
])
def test_a_flag_of_a_command_is_told(map_of, command, name, expected):
    entry, = [entry for entry in map_of()["data"]
              if entry["command"] == command]
    found = flags(entry["flags"])[name]
    assert {key: found[key] for key in expected} == expected


@pytest.mark.parametrize("name, expected", [
    ("--output", {"names": ["-o", "--output"], "type": "choice", "choices":
                  ["table", "wide", "json", "jsonl", "csv", "id"]}),
    ("--style", {"type": "choice", "choices": ["xerotier", "openai"]}),
    ("--color", {"choices": ["auto", "always", "never"]}),
    ("--retries", {"type": "integer", "default": 2}),
    ("--timeout", {"type": "number", "default": None}),
    ("--max-time", {"type": "number"}),
    ("--header", {"repeatable": True}),
    ("--dry-run", {"type": "boolean", "repeatable": False}),
    ("--no-color", {"type": "boolean"}),
    ("--verbose", {"type": "count"}),
    ("--context", {"type": "string", "required": False}),
])
def test_a_global_flag_is_told(map_of, name, expected):
    found = flags(map_of()["global_flags"])[name]
    assert {key: found[key] for key in expected} == expected


WRITERS = {"chat send", "chat new", "api", "config init", "config add",
           "config use", "config set", "config unset", "config remove",
           "batches create", "batches submit", "batches cancel",
           "batches run", "files upload", "files delete"}
READERS = {"config list", "config show", "config path", "status", "commands",
           "shell-completion", "help", "batches list", "batches show",
           "batches download", "batches wait", "batches check",
           "files list", "files show", "files download"}


def test_what_changes_something_is_told(map_of):
    writes = {entry["command"]: entry["writes"] for entry in map_of()["data"]}
    assert {name for name in WRITERS if not writes[name]} == set()
    assert {name for name in READERS if writes[name]} == set()


def test_the_exit_codes_are_those_of_the_help(map_of, run):
    codes = map_of()["exit_codes"]
    assert [entry["code"] for entry in codes] == [
        0, 1, 2, 3, 4, 5, 6, 7, 8, 129, 130, 141, 143]
    told = " ".join(run("help", "exit-codes", against=None).split())
    for entry in codes:
        assert f"{entry['code']} {entry['meaning']}" in told


# == forms ===================================================================

@pytest.mark.parametrize("argv", [(), ("-o", "table"), ("-o", "wide")])
def test_it_is_json_for_a_person_too(run, router, argv):
    shown = run("commands", *argv, groups=(NOTES,))
    assert shown == run("commands", "-o", "json", groups=(NOTES,))
    assert router.requests == []


def test_csv_is_the_commands(run):
    assert run("commands", "-o", "csv", groups=(NOTES,)).startswith(
        "Command\r\nnotes keep\r\n")


def test_ids_are_commands(run, map_of):
    assert run("commands", "-o", "id").splitlines() == [
        entry["command"] for entry in map_of()["data"]]


def test_json_lines_are_those_of_the_map(run, map_of):
    shown = run("commands", "-o", "jsonl")
    assert [json.loads(line) for line in shown.splitlines()] == (
        map_of()["data"])


def test_the_map_asks_nothing_and_needs_no_config(run, router):
    shown = run("commands", against=None)
    assert (shown.exit_status, shown.stderr) == (0, "")
    run("commands", "-o", "json")
    assert router.requests == []


# == the parser keeps to the map =============================================

def read_map(*groups):
    """The map as main() shows it, for the cases below."""
    stdout = io.StringIO()
    xeroctl.main(["commands", "-o", "json"], {},
                 xeroctl.Streams(None, stdout, None), *groups)
    return json.loads(stdout.getvalue())


MAP = read_map()
LINES = [entry["command"] for entry in MAP["data"]]
LAST = MAP["data"][-1]          # on which the global flags are tried
SAMPLES = ("x", "1", "a=1", "A: b", "text", "1.0.0", "user:hi",
           "10.0.0.0/8")


def is_switch(found):
    return found["type"] in ("boolean", "count")


CASES = [(entry, found) for entry in MAP["data"] for found in entry["flags"]]
CASES += [(LAST, found) for found in MAP["global_flags"]]
FLAGS = [case for case in CASES if not is_switch(case[1])]
SWITCHES = [case for case in CASES if is_switch(case[1])]


def each_command(cases):
    """Cases by command: a test for each, of all its flags or examples."""
    found = {}
    for entry, case in cases:
        found.setdefault(entry["command"], (entry, []))[1].append(case)
    return pytest.mark.parametrize("entry, cases", found.values(), ids=found)


def parse(words):
    return xeroctl.parse(words, GROUPS)[1]


def refusal(words):
    """What is said of a command line that is refused, or None."""
    try:
        parse(words)
    except xeroctl.UsageError as problem:
        return str(problem)


def values_of(found, words):
    """Values that a flag should take: each choice, or one that fits."""
    if found["choices"]:
        return found["choices"]
    samples = SAMPLES if found["type"] == "string" else ("1",)
    samples = (found["sample"] or "1",) + samples
    return [next(value for value in samples
                 if not refusal(words + [name_of(found), value]))]


def call_of(entry):
    """The words that call a verb, without what it needs."""
    called_by = entry["called_by"]
    return [entry["group"]] + [entry["word"]] * bool(entry["word"]) + (
        [called_by] * (called_by not in (None, "bare")))


def needed_of(entry):
    return [found for found in entry["arguments"] + entry["flags"]
            if found["required"]]


def shortest_call(entry, without=None):
    """The shortest command line that is a whole one, or lacks one thing."""
    words = call_of(entry)
    if words[-1].startswith("-"):
        found = flags(entry["flags"])[words[-1]]
        if not is_switch(found):
            words.append(found["sample"] or "1")
    for found in needed_of(entry):
        if found is without:
            continue
        words += [name_of(found)] * name_of(found).startswith("-")
        words.append((found["choices"] or [found["sample"] or "1"])[0])
    if entry["called_by"] == "bare" and entry["verb"] == "update":
        words += [name_of(entry["flags"][0]), "x=1"]
    return words


def kept(words, found):
    """What parsing keeps as the value of a flag."""
    args = parse(words)
    *_, declared = [each for each in xeroctl.GLOBALS + args.verb.own
                    if list(each.names) == found["names"]]
    return getattr(args, declared.dest)


@pytest.mark.parametrize("entry", MAP["data"], ids=LINES)
def test_the_shortest_call_leaves_the_defaults(entry):
    words = shortest_call(entry)
    assert parse(words).verb.name == entry["verb"]
    for found in entry["flags"] + MAP["global_flags"]:
        if name_of(found) not in words:
            assert kept(words, found) == found["default"]


@each_command(FLAGS)
def test_flags_take_values_of_their_type(entry, cases):
    for found in cases:
        assert_takes(entry, found)


def needed_by(entry, found):
    """The flag that another goes with, with a value if it takes one."""
    name = found["needs"]
    needed = name and flags(entry["flags"] + MAP["global_flags"])[name]
    return [] if not name else [name if is_switch(needed) else name + "=1"]


def assert_takes(entry, found):
    """A flag takes its values, under each name, once and twice."""
    alone, name = shortest_call(entry), name_of(found)
    words = alone + needed_by(entry, found)
    for value in values_of(found, words):
        assert found["needs"] in alone + [None] or (
            found["needs"] in refusal(alone + [name, value]))
        once = kept(words + [name, value], found)
        assert once not in (None, [])
        for each in found["names"]:
            assert kept(words + [each, value], found) == once
            assert kept(words + [f"{each}={value}"], found) == once
        twice = kept(words + [name, value] * 2, found)
        assert twice == (once * 2 if found["repeatable"] else once)


@each_command(FLAGS)
def test_flags_take_no_other_value(entry, cases):
    for found in cases:
        words = shortest_call(entry) + [name_of(found)]
        assert refusal(words)
        if found["type"] != "string":
            assert refusal(words + ["no-such-word"]), words
        if found["type"] == "integer":
            assert refusal(words + ["1.5"]), words


@each_command(SWITCHES)
def test_switches_take_no_value(entry, cases):
    for found in cases:
        assert_switches(entry, found)


def assert_switches(entry, found):
    """A switch changes its value under each name, and takes none."""
    words, name = shortest_call(entry), name_of(found)
    for each in found["names"]:
        if name == "--help":
            with pytest.raises(xeroctl.HelpWanted):
                parse(words + [each])
        else:
            assert kept(words + [each], found) != found["default"]
    assert refusal(words + [name + "=x"])


@pytest.mark.parametrize("name", flags(MAP["global_flags"]))
def test_a_global_flag_may_stand_before_the_command(name):
    found = flags(MAP["global_flags"])[name]
    words = ["config", "list"] + needed_by(LAST, found)
    if name not in ("--help", "--version"):
        given = [name] if is_switch(found) else [
            name, values_of(found, words)[0]]
        before, after = parse(given + words), parse(words + given)
        assert vars(before) == vars(after) != vars(parse(words))


# What each command cannot do without, but for an ID.
REQUIRED = """
chat new:  --workspace --template
batches run:  --input --output-file
batches check:  file
models set-capabilities:  capability
rerank:  --query
score:  --text
conversations delete-item:  --item-id
upload:  path name
webhooks create:  --url --events
webhooks verify:  --secret-file --signature --timestamp --body
keys create:  --name --scopes
agents create:  --name
agents join-keys create:  --name --region --router-addr
slos create:  --name --metric --target
endpoints create:  slug --model
workspaces create:  --name
workspaces bind:  --agent
workspaces unbind:  --agent
chats create:  --workspace
chats rename:  --title
chats send:  --message
maintenance schedule:  --title --starts-at --ends-at
maintenance purge:  --before
project set-role:  --role
project invite:  --email
settings set:  value
exports create:  kind --from
exec invoke:  --workspace --tool --args
templates create:  --file
templates update:  --file
templates promote:  --scope
templates apply:  --workspace
templates apply-from-dir:  folder
approvals delegate:  --to
api:  path
config add:  name
config use:  name
config set:  name key setting
config unset:  name key
config remove:  name
shell-completion:  shell
"""


def test_what_is_required_is_told():
    told = {entry["command"]: [name_of(found) for found in needed_of(entry)
                               if name_of(found) != "id"]
            for entry in MAP["data"]}
    assert {command: names for command, names in told.items() if names} == {
        command: names.split() for command, names in (
            line.split(":") for line in REQUIRED.split("\n")[1:-1])}


@every_case
@each_command([(entry, found) for entry in MAP["data"]
               for found in needed_of(entry)])
def test_what_is_required_cannot_be_left_out(entry, cases):
    """Without an id, what shows one thing lists all, or nothing."""
    for found in cases:
        words, name = shortest_call(entry, without=found), name_of(found)
        told = refusal(words)
        if entry["called_by"] == "bare":
            assert told or parse(words).verb.name != entry["verb"]
        else:
            assert told and (name in told or name[0] != "-")


BY_FLAG = [entry for entry in MAP["data"]
           if str(entry["called_by"]).startswith("-")]


@every_case
@each_command([(entry, other) for entry in BY_FLAG for other in BY_FLAG
               if entry is not other and call_of(entry)[:-1] ==
               call_of(other)[:-1]])
def test_a_flag_that_calls_a_verb_calls_no_other_one(entry, cases):
    for other in cases:
        name = other["called_by"]
        if name not in flags(entry["flags"]):
            words = shortest_call(other)
            told = refusal(shortest_call(entry) + words[words.index(name):])
            assert name in told or entry["called_by"] in told


@every_case
@each_command([(entry, found) for entry in BY_FLAG
               for found in entry["flags"]
               if name_of(found) != entry["called_by"]])
def test_a_flag_goes_with_its_verb(entry, cases):
    """Alone it is another verb's, or refused by its name."""
    for found in cases:
        words = [name_of(found)] if is_switch(found) else [
            name_of(found), values_of(found, shortest_call(entry)
                                      + needed_by(entry, found))[0]]
        for thing in [], ["x"]:
            call = call_of(entry)[:-1] + thing + words
            told = refusal(call)
            assert (name_of(found) in told if told
                    else parse(call).verb.name != entry["verb"])


@pytest.mark.parametrize("entry", MAP["data"], ids=LINES)
def test_every_command_has_a_help_that_fits(run, router, entry):
    for words in (call_of(entry) + ["--help"], ["-h"] + call_of(entry)):
        shown = run(*words, against=None)
        assert (shown.exit_status, shown.stderr) == (0, ""), shown
        assert max(map(len, shown.splitlines())) <= 80
    words = entry["command"].split()
    page = run("help", *words)
    assert page == run(*words, "--help")
    assert page == shown or entry["called_by"] in (None, "bare", "update")
    assert entry["usage"] in page and entry["summary"] in page
    assert [name_of(found) for found in entry["flags"]
            if name_of(found) not in page] == []
    assert router.requests == []


# == every row, as its own examples call it ==================================

WAITS_FOR_CTRL_C = {"approvals watch"}
EXAMPLES = [(entry, line) for entry in MAP["data"]
            for line in entry["examples"]
            if entry["command"] not in WAITS_FOR_CTRL_C]


def words_of(line):
    """The words behind xeroctl in an example, as far as a pipe."""
    words = shlex.split(line.replace("<(", "").replace(")", ""))
    words = words[words.index("xeroctl") + 1:]
    ends = [words.index(mark) for mark in ("|", ">") if mark in words]
    return words[:min(ends, default=None)]


@each_command(EXAMPLES)
def test_a_dry_run_of_any_example_changes_nothing(run, router, tmp_path,
                                                  monkeypatch, entry, cases):
    monkeypatch.chdir(tmp_path)
    for words in map(words_of, cases):
        shown = run(*words, *["--dry-run"] * ("--dry-run" not in words),
                    XEROTIER_ENDPOINT="demo")
        assert "internal error" not in shown.stderr, shown
        assert "Traceback" not in shown + shown.stderr
    assert [seen for seen in router.requests
            if seen.method not in ("GET", "HEAD")] == []


def test_every_line_of_the_table_of_commands_has_an_example():
    assert {entry["command"] for entry, _ in EXAMPLES} | (
        WAITS_FOR_CTRL_C) == set(LINES)
