"""Help that reads like a manual, and lists that come page by page."""

import re

import pytest

import xeroctl
from test_terminal import screen, show

assert screen and show  # fixtures
NEWLINE = "\n"


def test_each_group_stands_in_one_family(run):
    named = " ".join(names for _, names in xeroctl.FAMILIES).split()
    known = [group.name for group in xeroctl.GROUPS + xeroctl.ABOUT]
    assert sorted(named) == sorted(known)
    shown = run("help", against=None).split(NEWLINE)
    heads = [line.split()[0] for line in shown if line[:1].isalpha()
             and not line.endswith(":")]
    assert heads == ["usage:"] + [family for family, _ in xeroctl.FAMILIES]
    assert all(sum(line[11:].startswith(name + " ") for line in shown) == 1
               for name in known)
    assert len(shown) <= 50


def test_a_verb_has_usage_summary_flags_examples_and_no_global_flag(run):
    shown = run("help", "files", "download", against=None)
    assert shown == """\
usage: xeroctl files ID --download PATH [flags]

Download a file.

flags:
  --download PATH  write the file there, or into this folder; - is standard
                   output

examples:
  xeroctl files file-1 --download .

global flags: xeroctl help flags
"""


def test_a_group_is_a_line_a_verb_and_the_main_job_comes_first(run):
    shown = run("help", "batches", against=None).split(NEWLINE)
    verbs = shown[shown.index("verbs:") + 1:shown.index("examples:") - 1]
    forms = [line[2:].partition("  ")[0] for line in verbs]
    assert forms == [
        "batches run --input FILE …", "batches", "batches ID",
        "batches --input FILE", "batches --input-prefix PATH",
        "batches ID --cancel", "batches ID --download", "batches ID --errors",
        "batches ID --wait", "batches check FILE"]
    assert shown[shown.index("examples:") + 1].startswith(
        "  xeroctl batches run ")


def test_the_verbs_below_a_word_have_a_page(run):
    shown = run("help", "models", "versions", against=None)
    for verb in ("ID", "ID --create VERSION", "ID --promote VERSION",
                 "ID --rollback VERSION"):
        assert f"\n  models versions {verb} " in shown
    for words in (["models", "versions", "--help"],
                  ["models", "versions", "-h"],
                  ["models", "versions", "help"]):
        assert run(*words, against=None) == shown
    assert "--notes TEXT" in run("help", "models", "versions", "create")


GROUPS = xeroctl.GROUPS + xeroctl.ABOUT


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group.name)
def test_a_group_has_one_page_however_asked_for(run, group):
    pages = {run(*words, against=None) for words in (
        ["help", group.name], [group.name, "help"], [group.name, "--help"],
        [group.name, "-h"]) if words != ["help", "help"]}
    page, = pages
    named = [verb for verb in group.verbs if verb.name]
    assert len(named) < 2 or page.startswith(group.summary + NEWLINE * 2)
    assert len(named) < 2 or all(verb.summary in " ".join(page.split())
                                 for verb in named)


def verb_pages(run):
    return [run("help", *xeroctl.command_of(group, verb).split(),
                against=None) for group in GROUPS for verb in group.verbs]


def test_the_page_of_a_verb_is_about_20_lines(run):
    lengths = [page.count(NEWLINE) for page in verb_pages(run)]
    assert sum(lengths) / len(lengths) < 15
    assert sorted(lengths)[len(lengths) * 9 // 10] <= 20


def test_no_page_of_a_verb_repeats_an_example_or_a_global_flag(run):
    names = {f.long_name for f in xeroctl.GLOBALS}
    for page in verb_pages(run):
        head, _, tail = page.partition("\nexamples:\n")
        *examples, told = tail.replace("\\\n", "").strip().split(NEWLINE)
        assert told == "global flags: xeroctl help flags"
        assert len(set(examples)) == len(examples) <= 4
        flags = set(re.findall(r"(?m)^  (?:-\w, )?(--[\w-]+)", head))
        assert not flags & names - {"--version"}


def test_the_global_flags_have_a_page(run):
    shown = run("help", "flags", against=None)
    assert all(f"{', '.join(f.names)}" in shown for f in xeroctl.GLOBALS)


# == words ===================================================================

@pytest.mark.parametrize("line, example", [
    ("agents update", "xeroctl agents agent_1 --update --name my-agent"),
    ("agents join-keys create", "xeroctl agents join-keys --create --name"
     " my-agent --region eu-central"),
    ("project update", "xeroctl project update --name my-project"),
    ("slos create", "xeroctl slos --create --name my-slo --metric"),
    ("workspaces create", "xeroctl workspaces create --name my-workspace"),
    ("embeddings create", "xeroctl embeddings --endpoint my-embed"
     " --input-file in.txt")])
def test_an_example_names_what_it_is_about(run, line, example):
    assert example in run("help", *line.split()).replace(" \\\n    ", " ")


@pytest.mark.parametrize("word, found", [
    ("download", "files download: Download a file."),
    ("rotate", "keys rotate: Give a key a new value, shown once."),
    ("quota", "keys quota --quota-window: in so many seconds"),
    ("QUOTA", "keys quota: Limit how often a key may be used."),
    ("input-prefix", "batches submit --input-prefix: make a batch of each"),
    ("cacert", "--cacert: trust the CAs in this file"),
    ("capabilities", "models set-capabilities: ")])
def test_a_word_finds_the_verbs_and_flags_that_have_it(run, router, word,
                                                       found):
    shown = run("help", word, against=None)
    assert any(line.startswith(found) for line in shown.split(NEWLINE))
    assert (shown.stderr, shown.exit_status) == ("", 0)
    assert max(map(len, shown.split(NEWLINE))) < 80
    for line in re.sub(r"\n    ", " ", shown.strip()).split(NEWLINE):
        assert word.lower() in line.lower()


def test_a_word_finds_verbs_before_flags_and_20_of_them_at_most(run):
    *found, rest = re.sub(r"\n    ", " ", run(
        "help", "id", against=None).strip()).split(NEWLINE)
    assert len(found) == 20 and re.match(r"and \d+ more$", rest)
    shown = run("help", "rotate", against=None).split(NEWLINE)
    assert [line.partition(":")[0] for line in shown][:2] == [
        "keys rotate", "agents curve-rotate"]


def test_a_word_that_nothing_has_is_a_usage_error(run):
    shown = run("help", "teapot", against=None)
    assert (shown, shown.exit_status) == ("", 2) and "teapot" in shown.stderr


@pytest.mark.parametrize("line, told", [
    ("chat send", "--max-tokens N .*4096"),
    ("keys create", r"--endpoint SLUG\|UUID only for this endpoint"),
    ("slos create", r"--endpoint SLUG\|UUID only for this endpoint"),
    ("slos list", r"--endpoint SLUG\|UUID those of an endpoint"),
    ("exports create", r"--filter K=V… .*'status_codes=\[200,500\]'"),
    ("exports download", "NDJSON")])
def test_a_page_tells_what_a_person_needs(run, line, told):
    shown = run("help", *line.split(), against=None)
    assert re.search(told, " ".join(shown.split()))


# == files ===================================================================

CONFIG_HEAD = "the config file (~/.config/xeroctl/config.toml):"


@pytest.mark.parametrize("words, lines", [
    (["config"], [CONFIG_HEAD, "    [deployment.prod]"]),
    (["config", "--help"], [CONFIG_HEAD]),
    (["batches"], ["the input file:", "the output file:"])])
def test_a_topic_of_a_file_stands_in_the_help_of_its_command(run, words,
                                                             lines):
    argv = words if "--help" in words else ["help"] + words
    shown = run(*argv, against=None).split(NEWLINE)
    assert all(line in shown for line in lines)
    assert max(map(len, shown)) < 80
    assert shown.index("examples:") < shown.index(lines[0])
    assert shown[-2].startswith("  ")


def test_the_input_file_of_the_topic_is_one_that_passes(run, tmp_path):
    shown = run("help", "batches", against=None)
    begin = shown.index('    {"custom_id"')
    lines = shown[begin:].split(NEWLINE)[:2]
    path = tmp_path / "in.jsonl"
    path.write_text(" ".join(line.strip() for line in lines) + NEWLINE)
    assert run("batches", "check", str(path), against=None).exit_status == 0


def test_the_config_file_of_the_topic_is_one_that_is_read(run, tmp_path):
    shown = run("help", "config", against=None)
    text = shown[shown.index("    current ="):shown.index("  A deployment")]
    path = tmp_path / "config.toml"
    path.write_text(text)
    listed = run("config", "list", "-o", "id", against=None,
                 XEROTIER_CONFIG=str(path))
    assert listed == "prod\n"


def test_heads_are_bold_on_a_terminal_only(run, show):
    shown = show("help", "chat", "send", TERM="xterm")
    assert "\x1b[1mflags:\x1b[0m\n" in shown
    assert shown.count("\x1b[1m") == shown.count("\x1b[0m") == 2
    assert "\x1b" not in show("help", "chat", "send", TERM="xterm",
                              NO_COLOR="1")
    assert "\x1b" not in run("help", "chat", "send", against=None)


@pytest.mark.parametrize("form, first, count", [
    ("id", "file-", 2), ("jsonl", '{"id":"file-', 2), ("csv", "ID,", 3),
    ("table", "", 0), ("json", "", 0), ("wide", "", 0)])
def test_a_page_is_shown_at_once_where_no_form_needs_the_whole(
        run, router, form, first, count):
    for number in range(3):
        router.add_file(f"{number}.txt", b"x")
    asked = []
    router.order("GET /files", when=lambda request: asked.append(1)
                 or len(asked) == 2, status=400)
    shown = run("files", "--all", "--limit", "2", "-o", form)
    assert shown.exit_status == 1 and "is not valid" in shown.stderr
    assert shown.startswith(first) and len(shown.splitlines()) == count
