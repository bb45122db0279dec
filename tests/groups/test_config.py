"""config: the deployments on file, verb by verb.

In process, but for init: it asks on a terminal, and has a pseudo-terminal.
"""

import csv
import io
import json
import os
import re
import select
import subprocess
import sys
import time

import pytest

import xeroctl
from conftest import STARTED, Result, environment, text_stream, written
from helpers import check_error, typed as typed_stream
from router import DEMO_KEY

SECRET = DEMO_KEY.rpartition("_")[2]
URL = "https://host/acme/v1"
LIMIT_S = 20
DUMB = {"TERM": "dumb"}

TWO = f"""\
# My deployments.
current = "prod"   # the dear one

# Hands off!
[deployment.prod]
base_url = "{URL}"  # the router
api_key = "{DEMO_KEY}"
colour = "blue"
endpoint = 'demo'

[other]
deployment = "prod"

  [deployment."stag ing"]
  "base_url" = "https://stage.example/v1"
  style = "openai"
  # the end
"""


# == a config file, and who asks =============================================

@pytest.fixture
def config(tmp_path):
    """The path of a config file that is not there yet."""
    return tmp_path / "config.toml"


@pytest.fixture
def two(config):
    """A config file of two deployments, comments and what nobody knows."""
    config.write_text(TWO)
    config.chmod(0o600)
    return config


@pytest.fixture
def cli(run, config):
    """Run a verb of config; nothing in the environment names a server."""
    def runner(verb, *argv, **options):
        options.setdefault("against", None)
        return run("config", verb, *argv,
                   **dict({"XEROTIER_CONFIG": str(config)}, **options))
    return runner


@pytest.fixture
def answer(clock, config):
    """answer(b"y\\n", "remove", "prod"): run a verb on a terminal."""
    def runner(typed, verb, *argv):
        streams = xeroctl.Streams(typed_stream(typed), text_stream(),
                                  text_stream())
        status = xeroctl.main(("config", verb) + argv,
                              {"XEROTIER_CONFIG": str(config)}, streams,
                              clock)
        return Result(written(streams.stdout), written(streams.stderr),
                      status)
    return runner


def changed(old="", new=""):
    """The config of two deployments, with one change."""
    assert TWO.count(old) == 1 or old == new == ""
    return TWO.replace(old, new)


def names(cli, **environ):
    """The names of the deployments, and the one that is current."""
    rows = json.loads(cli("list", "-o", "json", **environ))["data"]
    return ([row["name"] for row in rows],
            [row["name"] for row in rows if row["current"]])


# == a life ==================================================================

def test_a_deployment_is_added_used_changed_and_removed(cli, run, config,
                                                        router):
    environ = {"XEROTIER_CONFIG": str(config), "against": None}
    assert cli("add", "prod", "--base-url", router.base_url, "--api-key",
               DEMO_KEY) == "added prod\n"
    assert cli("add", "local", "--base-url", router.origin + "/v1",
               "--style", "openai") == "added local\n"
    assert names(cli) == (["prod", "local"], ["prod"])
    assert cli("use", "local") == "current is local\n"
    assert names(cli) == (["prod", "local"], ["local"])
    cli("use", "prod")
    assert cli("set", "prod", "endpoint", "demo").exit_status == 0
    assert run("chat", "-m", "hi", **environ).startswith("Hello!")
    assert cli("unset", "prod", "endpoint").exit_status == 0
    assert run("chat", "-m", "hi", **environ).exit_status == 2
    assert cli("remove", "prod", "--force") == "removed prod\n"
    assert names(cli) == (["local"], [])
    assert run("api", "/models", **environ).exit_status == 3
    assert [seen.target for seen in router.requests] == [
        "/proj_demo/demo/v1/chat/completions"]


# == add =====================================================================

def test_the_first_deployment_becomes_current(cli, config):
    cli("add", "one", "--base-url", URL, "--api-key", DEMO_KEY)
    cli("add", "two", "--base-url", URL + "/", "--api-key-env", "KEY")
    assert config.read_text() == (
        'current = "one"\n\n[deployment.one]\n'
        f'base_url = "{URL}"\napi_key = "{DEMO_KEY}"\n\n'
        f'[deployment.two]\nbase_url = "{URL}"\napi_key_env = "KEY"\n')


@pytest.mark.parametrize("words, lines", [
    (["--api-key-env", "KEY"], ['api_key_env = "KEY"']),
    (["--api-key-file", "~/k"], ['api_key_file = "~/k"']),
    (["--api-key-command", "pass show 'x y'"],
     ["api_key_command = \"pass show 'x y'\""]),
    (["--api-key-command", 'a "b\\c"'], [r'api_key_command = "a \"b\\c\""']),
    (["--api-key-keychain", "xeroctl-prod"],
     ['api_key_keychain = "xeroctl-prod"']),
    (["--api-key", DEMO_KEY], [f'api_key = "{DEMO_KEY}"']),
    (["--api-key=" + DEMO_KEY], [f'api_key = "{DEMO_KEY}"']),
    (["--api-key", "-"], [f'api_key = "{DEMO_KEY}"']),
    (["--api-key", "@{file}"], [f'api_key = "{DEMO_KEY}"']),
    (["--style", "openai"], ['style = "openai"']),
    (["--api-key-env", "K", "--style", "xerotier", "--endpoint", "demo",
      "--frontend-url", "https://front/", "--cacert", "/ca.pem"],
     ['api_key_env = "K"', 'style = "xerotier"', 'endpoint = "demo"',
      'frontend_url = "https://front"', 'cacert = "/ca.pem"']),
])
def test_a_deployment_is_stored_as_it_is_given(cli, config, tmp_path, words,
                                               lines):
    (tmp_path / "key").write_text(f" {DEMO_KEY}\r\n")
    words = [word.format(file=tmp_path / "key") for word in words]
    shown = cli("add", "prod", "--base-url", URL, *words,
                stdin=DEMO_KEY.encode() + b"\n")
    assert (shown.exit_status, shown) == (0, "added prod\n"), shown
    assert config.read_text().splitlines() == [
        'current = "prod"', "", "[deployment.prod]",
        f'base_url = "{URL}"'] + lines


@pytest.mark.parametrize("words, code, word", [
    (["--api-key", DEMO_KEY], 2, "--base-url"),
    (["--base-url", URL], 2, "--api-key @FILE"),
    (["--base-url", URL, "--style", "xerotier"], 2, "--api-key"),
    (["--base-url", URL, "--api-key-env", "K", "--api-key-file", "k"], 2,
     "api"),
    (["--base-url", URL, "--api-key", DEMO_KEY, "--api-key-command", "k"], 2,
     "api"),
    (["--base-url", "https://host/acme", "--api-key", DEMO_KEY], 3, "/v1"),
    (["--base-url", "file:///etc/v1", "--api-key", DEMO_KEY], 3, "base"),
    (["--base-url", f"https://a:{DEMO_KEY}@host/v1", "--api-key-env", "K"],
     3, "credentials"),
    (["--base-url", URL, "--api-key", DEMO_KEY + " x"], 3, "key"),
    (["--base-url", URL, "--api-key", ""], 2, "key"),
    (["--base-url", URL, "--api-key", "@/no/such/file"], 3, "/no/such/file"),
    (["--base-url", URL, "--api-key-env", "K", "--style", "opnai"], 2,
     "did you mean openai?"),
    (["--base-url", URL, "--api-key-env", "K", "--frontend-url", "x"], 3,
     "frontend"),
    (["--base-url", URL, "--api-key-env", "K", "--endpoint", "\udcff"], 2,
     "no text"),
])
def test_what_cannot_be_a_deployment_is_not_stored(cli, config, words, code,
                                                   word):
    shown = cli("add", "prod", *words)
    check_error(shown, code, word)
    assert SECRET not in shown.stderr
    assert not config.exists()


def test_two_key_sources_are_named(cli, config):
    shown = cli("add", "prod", "--base-url", URL, "--api-key-env", "K",
                "--api-key-keychain", "k")
    check_error(shown, 2, "api_key_env", "api_key_keychain")


def test_a_deployment_is_replaced_by_force_alone(cli, two):
    words = "prod", "--base-url", URL, "--api-key-env", "K"
    check_error(cli("add", *words), 2, "prod", "--force", "config set")
    assert two.read_text() == TWO
    assert cli("add", *words, "--force") == "added prod\n"
    assert names(cli) == (["prod", "stag ing"], ["prod"])
    shown = json.loads(cli("show", "prod", "-o", "json"))
    assert (shown["key"], "colour" in shown) == ("api_key_env K", False)
    assert SECRET not in two.read_text()


def test_a_replaced_deployment_does_not_become_current(cli, two):
    cli("add", "stag ing", "--base-url", URL, "--api-key-env", "K", "-y")
    assert names(cli) == (["prod", "stag ing"], ["prod"])


@pytest.mark.parametrize("name", [
    "a.b", "ü b", '"', "'", "]", "a]\n[b", "#", "-", "=", "\\", "5", "\t",
    "日本"])
def test_a_deployment_may_have_any_name(cli, config, run, router, name):
    words = "--base-url", router.base_url, "--api-key", DEMO_KEY
    for each in ("other", name):
        assert cli("add", *words, "--", each).exit_status == 0
    assert cli("use", "--", name).exit_status == 0
    assert names(cli) == (["other", name], [name])
    assert cli("set", "--", name, "endpoint", "x").exit_status == 0
    shown = run("api", "/models", f"--context={name}", against=None,
                XEROTIER_CONFIG=str(config))
    assert shown.exit_status == 0, shown
    assert cli("remove", "--force", "--", name).exit_status == 0
    assert names(cli) == (["other"], [])


@pytest.mark.parametrize("name, told", [
    ("\udcff", "no text"), ("a\x7f", "no text"), ("", "the text is empty")])
def test_a_name_that_is_no_text_is_refused(cli, config, name, told):
    shown = cli("add", name, "--base-url", URL, "--api-key-env", "K")
    check_error(shown, 2, told)
    assert not config.exists()


def test_nothing_but_a_deployment_is_stored(cli, config):
    cli("add", "prod", "--base-url", URL, "--api-key-env", "K", "-o", "id",
        "--timeout", "5", "-q", "--retries", "0", XEROTIER_ENDPOINT="demo",
        XEROTIER_STYLE="openai")
    assert config.read_text() == (
        f'current = "prod"\n\n[deployment.prod]\nbase_url = "{URL}"\n'
        'api_key_env = "K"\n')


# == use =====================================================================

def test_another_deployment_becomes_current(cli, two):
    assert cli("use", "stag ing") == "current is stag ing\n"
    assert two.read_text() == changed('current = "prod"',
                                      'current = "stag ing"')


@pytest.mark.parametrize("text, expected", [
    ("[deployment.prod]\n", 'current = "prod"\n\n[deployment.prod]\n'),
    ("# mine\na = 1\n\n# its\n[deployment.prod]",
     '# mine\na = 1\ncurrent = "prod"\n\n# its\n[deployment.prod]'),
    ("[deployment.prod]\r\na = 1\r\n",
     'current = "prod"\r\n\r\n[deployment.prod]\r\na = 1\r\n'),
])
def test_a_file_may_not_yet_say_which_is_current(cli, config, text, expected):
    config.write_bytes(text.encode())
    assert cli("use", "prod").exit_status == 0
    assert config.read_bytes().decode() == expected


@pytest.mark.parametrize("verb", [
    ("use",), ("show",), ("set", "endpoint", "x"), ("unset", "endpoint"),
    ("remove", "--force")])
@pytest.mark.parametrize("name, word", [
    ("prd", "did you mean prod?"), ("x", "prod, stag ing")])
def test_a_deployment_that_is_not_there_is_told(cli, two, verb, name, word):
    verb, *more = verb
    check_error(cli(verb, name, *more), 3, repr(name), str(two), word)
    assert two.read_text() == TWO


# == list and show ===========================================================

PROD = {"id": "prod", "name": "prod", "key": "xero_demo_…", "current": True,
        "base_url": URL, "colour": "blue", "endpoint": "demo"}
STAGING = {"id": "stag ing", "name": "stag ing", "key": None,
           "current": False, "base_url": "https://stage.example/v1",
           "style": "openai"}
TABLE = f"""\
Name      Current  Base URL                  Style   Key
prod      yes      {URL}      -       xero_demo_…
stag ing  no       https://stage.example/v1  openai  -
"""
RECORD = f"""\
Name:         prod
Current:      yes
Base URL:     {URL}
Style:        -
Endpoint:     demo
Key:          xero_demo_…
Output:       -
Frontend URL: -
Timeout:      -
CA bundle:    -
"""


def test_the_list_is_a_table(cli, two):
    assert cli("list") == TABLE
    assert cli("list", "-o", "wide") == TABLE


def test_one_deployment_is_a_record(cli, two):
    assert cli("show", "prod") == RECORD
    assert cli("show", "prod", "-o", "wide") == RECORD


def test_list_and_show_have_every_form(cli, two):
    assert json.loads(cli("list", "-o", "json")) == {
        "object": "list", "data": [PROD, STAGING]}
    assert list(map(json.loads, cli("list", "-o", "jsonl").splitlines())) == [
        PROD, STAGING]
    assert cli("list", "-o", "id") == "prod\nstag ing\n"
    assert list(csv.reader(io.StringIO(cli("list", "-o", "csv")))) == [
        ["Name", "Current", "Base URL", "Style", "Key"],
        ["prod", "true", URL, "", "xero_demo_…"],
        ["stag ing", "false", "https://stage.example/v1", "openai", ""]]
    assert json.loads(cli("show", "-o", "json")) == PROD
    assert json.loads(cli("show", "stag ing", "-o", "jsonl")) == STAGING
    assert cli("show", "-o", "id") == "prod\n"
    head, row = csv.reader(io.StringIO(cli("show", "-o", "csv")))
    assert dict(zip(head, row))["Key"] == "xero_demo_…"


@pytest.mark.parametrize("form, text, remark", [
    ("table", "", "No deployments found.\n"),
    ("csv", "Name,Current,Base URL,Style,Key\r\n", ""), ("id", "", ""),
    ("json", '{\n  "object": "list",\n  "data": []\n}\n', "")])
@pytest.mark.parametrize("exists", [True, False])
def test_no_deployment_is_a_list_too(cli, config, exists, form, text, remark):
    if exists:
        config.write_text("# none yet\n")
    shown = cli("list", "-o", form)
    assert (shown, shown.stderr, shown.exit_status) == (text, remark, 0)


@pytest.mark.parametrize("source, value, key", [
    ("api_key", "sk-s3same", "…"), ("api_key", "xero_a_s3same", "xero_a_…"),
    ("api_key", "xero_s3same", "…"), ("api_key_env", "K", "api_key_env K"),
    ("api_key_file", "~/k", "api_key_file ~/k"),
    ("api_key_command", "pass x", "api_key_command pass x"),
    ("api_key_keychain", "x", "api_key_keychain x")])
def test_a_key_is_shown_as_where_it_is_from(cli, config, source, value, key):
    config.write_text(f'[deployment.prod]\n{source} = "{value}"\n')
    config.chmod(0o600)
    for verb in (["list"], ["show", "prod"]):
        shown = cli(*verb)
        assert key in shown and "s3same" not in shown + shown.stderr
        shown = json.loads(cli(*verb, "-o", "json"))
        assert shown.get("data", [shown])[0]["key"] == key


@pytest.mark.parametrize("words, variable, name", [
    ([], None, "prod"), ([], "", "prod"), ([], "stag ing", "stag ing"),
    (["--context", "stag ing"], None, "stag ing"),
    (["prod", "--context", "stag ing"], None, "prod")])
def test_without_a_name_the_current_one_is_shown(cli, two, words, variable,
                                                 name):
    shown = cli("show", *words, "-o", "id", XEROTIER_CONTEXT=variable)
    assert shown == name + "\n"


def test_where_none_is_current_none_is_shown(cli, two):
    two.write_text(TWO.replace("current = ", "# "))
    check_error(cli("show"), 3, "current", "config init")


# == set and unset ===========================================================

@pytest.mark.parametrize("key, value, line", [
    ("base_url", "http://127.0.0.1:8080/p/v1//",
     'base_url = "http://127.0.0.1:8080/p/v1"'),
    ("frontend_url", "https://front/", 'frontend_url = "https://front"'),
    ("api_key", " sk-1\n", 'api_key = "sk-1"'),
    ("api_key_env", "K", 'api_key_env = "K"'),
    ("api_key_file", "~/k", 'api_key_file = "~/k"'),
    ("api_key_command", "a 'b c'", "api_key_command = \"a 'b c'\""),
    ("api_key_keychain", "x", 'api_key_keychain = "x"'),
    ("style", "openai", 'style = "openai"'),
    ("output", "json", 'output = "json"'),
    ("endpoint", "5", 'endpoint = "5"'),
    ("endpoint", "ü\n\"\\", r'endpoint = "ü\n\"\\"'),
    ("timeout", "2.5", "timeout = 2.5"),
    ("timeout", "90", "timeout = 90.0"),
    ("cacert", "/ca.pem", 'cacert = "/ca.pem"'),
])
def test_each_key_can_be_set_and_unset(cli, config, key, value, line):
    config.write_text("# mine\n[deployment.prod]\ncolour = 1\n")
    shown = cli("set", "prod", key, value)
    assert (shown, shown.exit_status) == (f"set {key} of prod\n", 0), shown
    assert config.read_text() == (
        f"# mine\n[deployment.prod]\ncolour = 1\n{line}\n")
    shown = cli("unset", "prod", key)
    assert (shown, shown.exit_status) == (f"removed {key} of prod\n", 0)
    assert config.read_text() == "# mine\n[deployment.prod]\ncolour = 1\n"


@pytest.mark.parametrize("key, value, code, word", [
    ("base_url", "host/v1", 3, "base_url"),
    ("base_url", "https://me:s3same@host/v1", 3, "base_url"),
    ("base_url", "https://host/v1?a=b", 3, "base_url"),
    ("base_url", "", 3, "base_url"),
    ("frontend_url", "file:///x", 3, "frontend_url"),
    ("api_key", "", 3, "key"), ("api_key", "s3same open", 3, "key"),
    ("api_key", "s3same\nopen", 3, "key"),
    ("style", "xero", 2, "did you mean xerotier?"),
    ("output", "yaml", 2, "jsonl"), ("output", "", 2, "output"),
    ("timeout", "0", 2, "timeout"), ("timeout", "-1", 2, "timeout"),
    ("timeout", "soon", 2, "timeout"), ("timeout", "inf", 2, "timeout"),
    ("timeout", "nan", 2, "timeout"),
    ("endpoint", "\udcff", 2, "no text"),
    ("endpiont", "x", 2, "did you mean endpoint?"),
    ("current", "x", 2, "base_url, api_key"),
    ("key", "s3same", 2, "'key'"), ("", "x", 2, "base_url"),
])
def test_a_value_that_cannot_be_is_not_stored(cli, two, key, value, code,
                                              word):
    shown = cli("set", "prod", "--", key, value)
    check_error(shown, code, word)
    assert "s3same" not in shown.stderr
    assert two.read_text() == TWO


def test_an_edit_changes_its_own_line_alone(cli, two):
    assert cli("set", "prod", "endpoint", "mine").exit_status == 0
    assert two.read_text() == changed("'demo'", '"mine"')
    cli("set", "prod", "endpoint", "demo")
    assert cli("set", "prod", "base_url", "http://x/v1").exit_status == 0
    assert two.read_text() == changed("'demo'", '"demo"').replace(
        f'"{URL}"  # the', '"http://x/v1"  # the')


def test_a_new_key_goes_to_the_end_of_its_table(cli, two):
    assert cli("set", "prod", "timeout", "5").exit_status == 0
    assert two.read_text() == changed("'demo'\n", "'demo'\ntimeout = 5.0\n")
    assert cli("set", "stag ing", "timeout", "5").exit_status == 0
    assert two.read_text().endswith("\ntimeout = 5.0\n  # the end\n")


def test_an_unset_key_takes_its_line_with_it(cli, two):
    assert cli("unset", "prod", "base_url").exit_status == 0
    assert two.read_text() == changed(
        f'base_url = "{URL}"  # the router\n', "")
    assert cli("unset", "stag ing", "base_url").exit_status == 0
    assert '"base_url"' not in two.read_text()


def test_what_nobody_knows_can_be_unset(cli, two):
    assert cli("unset", "prod", "colour").exit_status == 0
    assert two.read_text() == changed('colour = "blue"\n', "")


@pytest.mark.parametrize("key", ["timeout", "endpiont", ""])
def test_what_is_not_set_cannot_be_unset(cli, two, key):
    check_error(cli("unset", "prod", "--", key), 2, f"prod has no {key}")
    assert two.read_text() == TWO


@pytest.mark.parametrize("old", ["api_key", "api_key_env"])
@pytest.mark.parametrize("new", [
    "api_key", "api_key_env", "api_key_file", "api_key_command",
    "api_key_keychain"])
def test_a_new_key_source_takes_the_place_of_the_old_one(cli, config, old,
                                                         new):
    config.write_text(f'[deployment.prod]\n{old} = "a"\nstyle = "openai"\n')
    config.chmod(0o600)
    assert cli("set", "prod", new, "b").exit_status == 0
    lines = config.read_text().splitlines()
    assert sorted(lines[1:]) == [f'{new} = "b"', 'style = "openai"']


@pytest.mark.parametrize("key, typed, line", [
    ("api_key", b" sk-1\r\n", 'api_key = "sk-1"'),
    ("endpoint", b"a b\n", 'endpoint = "a b"'),
    ("endpoint", "ü".encode(), 'endpoint = "ü"')])
def test_a_value_is_read_from_standard_input(cli, config, key, typed, line):
    config.write_text("[deployment.prod]\n")
    shown = cli("set", "prod", key, "-", stdin=typed)
    assert shown.exit_status == 0, shown
    assert config.read_text("utf-8") == f"[deployment.prod]\n{line}\n"


# == remove ==================================================================

GONE = TWO.replace('current = "prod"   # the dear one\n', "").replace(
    TWO[TWO.index("[deployment.prod]"):TWO.index("\n[other]")], "")


@pytest.mark.parametrize("typed", [b"y\n", b"Yes\n", b" YES \n", b"y"])
def test_a_deployment_is_removed_after_a_yes(answer, two, typed):
    shown = answer(typed, "remove", "prod")
    assert (shown.exit_status, shown) == (0, "removed prod\n"), shown
    assert shown.stderr.startswith("Remove deployment prod? [y/N] ")
    assert two.read_text() == GONE


@pytest.mark.parametrize("typed", [b"n\n", b"\n", b"", b"no\n", b"yess\n",
                                   b"prod\n"])
def test_a_deployment_stays_without_a_yes(answer, two, typed):
    shown = answer(typed, "remove", "prod")
    assert (shown.exit_status, shown) == (1, ""), shown
    assert "nothing was changed" in shown.stderr
    assert two.read_text() == TWO


def test_what_is_current_stays_so_without_another_one(cli, two):
    assert cli("remove", "stag ing", "--force").exit_status == 0
    assert names(cli) == (["prod"], ["prod"])
    assert two.read_text() == (
        TWO[:TWO.index('  [deployment."stag')] + "  # the end\n")


def test_no_question_is_asked_about_what_is_not_there(answer, two):
    check_error(answer(b"y\n", "remove", "prd"), 3, "did you mean prod?")


# == path ====================================================================

@pytest.mark.parametrize("form", ["table", "wide", "id", "jsonl", "json"])
def test_the_path_is_told_file_or_no_file(cli, config, form):
    shown = cli("path", "-o", form)
    assert shown.exit_status == 0, shown
    if form.startswith("json"):
        assert json.loads(shown)["path"] == str(config)
    else:
        assert shown == f"{config}\n"
    assert not config.exists()


@pytest.mark.parametrize("text", [
    "broken", "current = 'nope'\n", "deployment = 5\n",
    'current = "a"\n[deployment.a]\noutput = "xml"\n'])
def test_the_path_of_a_broken_file_is_told(cli, config, text):
    config.write_text(text)
    shown = cli("path")
    assert (shown, shown.exit_status) == (f"{config}\n", 0), shown


# == whatever the run is about ===============================================

CHANGES = [("use", "stag ing"), ("set", "prod", "timeout", "5"),
           ("unset", "prod", "endpoint"), ("remove", "prod", "--force"),
           ("add", "new", "--base-url", URL, "--api-key-env", "K"),
           ("add", "prod", "--base-url", URL, "--api-key-env", "K", "-y")]


@pytest.mark.parametrize("argv", CHANGES)
@pytest.mark.parametrize("form", ["table", "json", "jsonl", "id", "csv"])
def test_a_change_is_told_in_every_form(cli, two, argv, form):
    shown = cli(*argv, "-o", form)
    name = argv[1]
    assert (shown.exit_status, shown.stderr) == (0, ""), shown
    assert two.read_text() != TWO
    if form.startswith("json"):
        assert json.loads(shown)["id"] == name
        assert json.loads(shown)["path"] == str(two)
    elif form == "id":
        assert shown == name + "\n"
    else:
        assert name in shown


@pytest.mark.parametrize("argv", CHANGES)
@pytest.mark.parametrize("words, variable", [
    (["--context", "prod"], None), ([], "prod"), ([], "nope")])
def test_a_change_does_not_hang_on_what_is_current(cli, two, argv, words,
                                                   variable):
    shown = cli(*argv, *words, XEROTIER_CONTEXT=variable)
    assert shown.exit_status == 0, shown
    assert two.read_text() != TWO


@pytest.mark.parametrize("argv", CHANGES)
def test_a_dry_run_writes_nothing(cli, two, argv):
    shown = cli(*argv, "--dry-run")
    assert (shown.exit_status, shown.stderr) == (0, ""), shown
    assert str(two) in shown and "would" in shown and argv[1] in shown
    assert two.read_text() == TWO
    assert os.listdir(str(two.parent)) == [two.name]


@pytest.mark.parametrize("argv", CHANGES)
def test_a_dry_run_as_json_is_json(cli, two, argv):
    assert json.loads(cli(*argv, "--dry-run", "-o", "json"))


def test_a_dry_run_makes_no_folder(cli, config, tmp_path):
    path = tmp_path / "new" / "config.toml"
    shown = cli("add", "prod", "--base-url", URL, "--api-key", DEMO_KEY,
                "--dry-run", XEROTIER_CONFIG=str(path))
    assert shown.exit_status == 0, shown
    assert os.listdir(str(tmp_path)) == []


def test_the_hint_on_key_sources_names_flags_that_there_are(cli, two):
    shown = cli("add", "new", "--base-url", URL)
    check_error(shown, 2, "a key source is missing")
    flags = re.findall(r"(?<!\w)-[\w-]+", shown.stderr.partition("hint:")[2])
    assert flags and set(flags) <= set(
        xeroctl.flag_table(xeroctl.CONFIG.verbs))


# == init ====================================================================

# A process of its own session, whose terminal is its standard input.
TAKE_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.executable, [sys.executable] + sys.argv[1:])
"""


CTRL_C = "\3"


class Conversation:
    """A command on a pseudo-terminal of its own, answered as it asks."""

    def __init__(self, *argv, **environ):
        pty = pytest.importorskip("pty")
        self.far, self.near = pty.openpty()
        self.screen = b""
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", TAKE_TERMINAL, STARTED, *argv],
            stdin=self.near, stdout=subprocess.PIPE, stderr=self.near,
            start_new_session=True, env=environment(None, **environ))

    def read(self, seconds):
        """Read what the terminal shows; return whether it was anything."""
        is_there = select.select([self.far], [], [], seconds)[0]
        self.screen += os.read(self.far, 4096) if is_there else b""
        return is_there

    def until(self, wanted):
        """Read what the terminal shows until it ends so."""
        end = time.monotonic() + LIMIT_S
        while not self.screen.endswith(wanted.encode()):
            assert self.read(max(0, end - time.monotonic())), self.screen

    def says(self, *dialogue):
        """Answer each question, of (its end, the answer) pairs."""
        for question, reply in dialogue:
            self.until(question)
            if reply == CTRL_C:  # no person is between a write and a read:
                time.sleep(0.1)  # there Python sees it at the next key only
            os.write(self.far, reply.encode())
        return self

    def result(self):
        """The Result: its stderr is all that the terminal has shown."""
        stdout = self.process.communicate(timeout=LIMIT_S)[0].decode()
        while self.read(0):
            pass
        shown = self.screen.decode("utf-8").replace("\r\n", "\n")
        return Result(stdout, shown, self.process.returncode)

    def echoes(self):
        """Whether the terminal shows what is typed."""
        import termios
        return bool(termios.tcgetattr(self.near)[3] & termios.ECHO)

    def close(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        os.close(self.near)
        os.close(self.far)


@pytest.fixture
def talk(config):
    """talk((question, answer), …): config init on a terminal."""
    begun = []

    def talker(*dialogue, argv=(), **environ):
        begun.append(Conversation("config", "init", *argv,
                                  XEROTIER_CONFIG=str(config), **DUMB,
                                  **environ))
        return begun[-1].says(*dialogue).result()
    talker.begun = begun
    yield talker
    for one in begun:
        one.close()


NAME, BASE, STYLE, KEY, STORE = (
    "[default]: ", "https://HOST/PROJECT/v1: ", "]: ", "(not shown): ",
    "[y/N] ")


def test_init_asks_tries_and_stores(talk, config, router):
    shown = talk((NAME, "prod\n"), (BASE, router.base_url + "/\n"),
                 (STYLE, "\n"), (KEY, DEMO_KEY + "\n"))
    assert (shown.exit_status, shown) == (0, "added prod\n"), shown
    assert "[xerotier]: " in shown.stderr
    assert re.search(r"answers.* 7 models", shown.stderr), shown
    assert SECRET not in shown.stderr and talk.begun[0].echoes()
    assert config.read_text() == (
        f'current = "prod"\n\n[deployment.prod]\n'
        f'base_url = "{router.base_url}"\napi_key = "{DEMO_KEY}"\n'
        'style = "xerotier"\n')
    assert config.stat().st_mode & 0o777 == 0o600
    seen, = router.requests
    assert (seen.method, seen.target) == ("GET", "/proj_demo/v1/models")
    assert seen.headers["Authorization"] == "Bearer " + DEMO_KEY


def test_a_key_from_the_keyboard_is_not_shown(config):
    desk = Conversation("config", "add", "prod", "--base-url", URL,
                        "--api-key", "-", XEROTIER_CONFIG=str(config), **DUMB)
    try:
        shown = desk.says((KEY, DEMO_KEY + "\n")).result()
        assert (shown.exit_status, shown) == (0, "added prod\n"), shown
        assert desk.echoes() and shown.stderr == f"API key {KEY}\n"
    finally:
        desk.close()
    assert f'api_key = "{DEMO_KEY}"\n' in config.read_text()


def test_init_stores_a_server_without_a_key(talk, config, openai_router):
    openai_router.order("GET /models", body=b'{"data":[]}')
    shown = talk((NAME, "\n"), (BASE, openai_router.base_url + "\n"),
                 (STYLE, "\n"), (KEY, "\n"))
    assert shown.exit_status == 0, shown
    assert "[openai]: " in shown.stderr
    assert config.read_text() == (
        'current = "default"\n\n[deployment.default]\n'
        f'base_url = "{openai_router.base_url}"\nstyle = "openai"\n')
    assert openai_router.requests[0].headers["Authorization"] is None


def test_init_tries_what_it_stores_whatever_variables_say(talk, config,
                                                          closed_port):
    pytest.importorskip("ssl")
    shown = talk((NAME, "new\n"), (BASE, f"https://127.0.0.1:{closed_port}/v1"
                                   "\n"), (STYLE, "\n"), (KEY, "\n"),
                 (STORE, "y\n"), argv=["--retries", "0"],
                 XEROTIER_CONTEXT="new", XEROTIER_STYLE="x",
                 XEROTIER_BASE_URL="http://127.0.0.1:9/v1")
    assert (shown.exit_status, shown) == (0, "added new\n"), shown
    assert f"error: connect: 127.0.0.1:{closed_port}: " in shown.stderr


@pytest.mark.parametrize("reply, code", [("y\n", 0), ("n\n", 1), ("\4", 1)])
def test_init_asks_whether_to_store_what_does_not_answer(
        talk, config, router, reply, code):
    router.order("GET /models", status=401, message=f"No {DEMO_KEY}")
    shown = talk((NAME, "prod\n"), (BASE, router.base_url + "\n"),
                 (STYLE, "\n"), (KEY, DEMO_KEY + "\n"), (STORE, reply))
    assert shown.exit_status == code, shown
    assert "error: HTTP 401 No xero_demo_…" in shown.stderr
    assert SECRET not in shown + shown.stderr
    assert config.exists() == (code == 0)
    assert len(router.requests) == 1


@pytest.mark.parametrize("lines", [[], ["prod"], ["prod", "{}"]],
                         ids=["name", "url", "style"])
def test_init_ends_with_its_input(answer, config, router, lines):
    typed = "".join(line + "\n" for line in lines).format(router.base_url)
    shown = answer(typed.encode(), "init")
    assert (shown.exit_status, shown) == (1, ""), shown
    assert shown.stderr.endswith(
        ": \nerror: no answer: nothing was changed\n")
    assert not config.exists() and router.requests == []


@pytest.mark.parametrize("typed, code", [("\4", 1), (CTRL_C, 130)],
                         ids=["end of input", "ctrl-c"])
def test_a_key_that_is_not_typed_stores_nothing(talk, config, router, typed,
                                                code):
    shown = talk((NAME, "prod\n"), (BASE, router.base_url + "\n"),
                 (STYLE, "\n"), (KEY, typed))
    assert (shown.exit_status, shown) == (code, ""), shown
    told = "error: no answer: nothing was changed\n" if code == 1 else ""
    assert shown.stderr.endswith(f"{KEY}\n{told}")
    assert talk.begun[0].echoes()
    assert not config.exists() and router.requests == []


@pytest.mark.parametrize("lines, code, word", [
    (["", "host"], 3, "base URL"),
    (["", "https://a:s3same@host/v1"], 3, "base URL"),
    (["", URL, "opnai"], 2, "did you mean openai?")])
def test_init_stores_nothing_that_cannot_be(answer, config, lines, code,
                                            word):
    shown = answer("".join(line + "\n" for line in lines).encode(), "init")
    assert (shown.exit_status, shown) == (code, ""), shown
    assert word in shown.stderr and "s3same" not in shown.stderr
    assert not config.exists()


def test_init_takes_no_key_that_cannot_be(talk, config, router):
    shown = talk((NAME, "\n"), (BASE, router.base_url + "\n"), (STYLE, "\n"),
                 (KEY, "s3same open\n"))
    assert (shown.exit_status, shown) == (3, ""), shown
    assert "key" in shown.stderr and "s3same" not in shown.stderr
    assert not config.exists() and router.requests == []


@pytest.mark.parametrize("typed", [b"prod\nn\n", b"prod\n\n", b"prod\n"])
def test_init_replaces_nothing_without_a_yes(answer, two, typed):
    shown = answer(typed, "init")
    assert (shown.exit_status, shown) == (1, ""), shown
    assert "Replace deployment prod? [y/N] " in shown.stderr
    assert two.read_text() == TWO


@pytest.mark.parametrize("words, questions", [
    ([], [(STORE, "y\n")]), (["--force"], []), (["--dry-run"], [])],
    ids=["yes", "force", "dry run"])
def test_init_replaces_a_deployment(talk, two, router, words, questions):
    shown = talk((NAME, "prod\n"), *questions, (BASE, router.base_url + "\n"),
                 (STYLE, "\n"), (KEY, DEMO_KEY + "\n"), argv=words)
    assert shown.exit_status == 0, shown
    if "--dry-run" in words:
        assert "would" in shown and two.read_text() == TWO
    else:
        assert router.base_url in two.read_text()
        assert "blue" not in two.read_text()


def test_init_needs_a_terminal(cli, config, router):
    shown = cli("init", stdin=b"prod\n" + router.base_url.encode() + b"\n\n")
    check_error(shown, 2, "terminal", "config add")
    assert not config.exists() and router.requests == []
