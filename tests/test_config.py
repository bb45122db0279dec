"""Floor 5: the config file, what it says to a run, and how it is written.

In process, but for the keychain: its tool is looked for on PATH.
"""

import io
import json
import os
import re
import subprocess
import sys

import pytest

import xeroctl
from conftest import STARTED, Result, environment, text_stream, written
from helpers import asked_whole as asked, keys_sent, mode_of
from router import DEMO_KEY

SECRET = DEMO_KEY.rpartition("_")[2]
OTHER_KEY = "xero_other_0000000000000000"
MODELS = "api", "/models", "-o", "id"
CHAT = "chat", "-m", "hi"
NO_HOST = "a" * 64 + ".example"

posix = pytest.mark.skipif(os.name != "posix", reason="modes of POSIX")


# == a config file ===========================================================

def toml(name="prod", **values):
    """A deployment that is current; values are TOML, and None is left out."""
    lines = [f'current = "{name}"', "", f"[deployment.{name}]"]
    lines += [f"{key} = {value}" for key, value in values.items()
              if value is not None]
    return "\n".join(lines) + "\n"


def store(path, text, mode=0o600):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode("utf-8"))
    path.chmod(mode)


def make_tool(path, *lines):
    """Write a shell script that can be run."""
    path.write_text("\n".join(("#!/bin/sh",) + lines) + "\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def config(tmp_path):
    """The path of a config file that is not there yet."""
    return tmp_path / "conf" / "config.toml"


@pytest.fixture
def cli(run, config):
    """As run, with the config file in place of the router's variables."""
    def runner(*argv, **options):
        options.setdefault("against", None)
        return run(*argv, **dict({"XEROTIER_CONFIG": str(config)}, **options))
    return runner


@pytest.fixture
def keep(config, router):
    """keep(style='"openai"'): write a deployment of the router."""
    def keeper(name="prod", **values):
        given = {"base_url": f'"{router.base_url}"',
                 "api_key": f'"{DEMO_KEY}"'}
        given.update(values)
        store(config, toml(name, **given))
    return keeper


def add(*more, name="prod"):
    """The words that add a deployment."""
    return ("config", "add", name, "--base-url", "https://host/p/v1",
            "--api-key", DEMO_KEY) + more


# == where it is =============================================================

OWN, XDG = "own.toml", "xdg/xeroctl/config.toml"
HOME = "home/.config/xeroctl/config.toml"
ALL = {"XEROTIER_CONFIG": "{}/own.toml", "XDG_CONFIG_HOME": "{}/xdg",
       "HOME": "{}/home"}


@pytest.mark.parametrize("environ, place", [
    (ALL, OWN),
    (dict(ALL, XEROTIER_CONFIG=""), XDG),
    (dict(ALL, XEROTIER_CONFIG="", XDG_CONFIG_HOME=""), HOME),
    (dict(ALL, XEROTIER_CONFIG="", XDG_CONFIG_HOME="xdg"), HOME),
    ({"XDG_CONFIG_HOME": "{}/xdg"}, XDG),
    ({"HOME": "{}/home"}, HOME),
    ({"XEROTIER_CONFIG": "{}/a/b/own.toml"}, "a/b/own.toml"),
])
def test_the_config_file_has_one_place(run, tmp_path, environ, place):
    environ = {name: text.format(tmp_path) for name, text in environ.items()}
    shown = run("config", "path", against=None, **environ)
    assert shown == f"{tmp_path / place}\n"
    assert run(*add(), against=None, **environ).exit_status == 0
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [
        tmp_path / place]
    shown = run("config", "list", "-o", "id", against=None, **environ)
    assert shown == "prod\n"


HOMELESS = [{}, {"HOME": ""}, {"HOME": "relative"},
            {"HOME": "", "XDG_CONFIG_HOME": "relative"}]


@pytest.mark.parametrize("environ", HOMELESS)
def test_without_a_home_there_is_no_config(run, router, environ):
    shown = run(*MODELS, against=None, **environ)
    assert shown.exit_status == 3
    assert "--base-url" in shown.stderr and "config init" in shown.stderr
    assert asked(router) == []
    assert run(*MODELS, **environ).exit_status == 0


@pytest.mark.parametrize("argv", [
    ("chat", "-m", "hi"), ("batches",), ("responses", "create", "-m", "hi")])
def test_a_newcomer_is_told_first_that_nothing_is_configured(run, argv):
    shown = run(*argv, against=None)
    assert (shown.exit_status, shown) == (3, "")
    assert shown.stderr.startswith("error: no base URL: nothing is conf")


@pytest.mark.parametrize("environ", HOMELESS)
@pytest.mark.parametrize("argv", [add(), ("config", "path")])
def test_without_a_home_nothing_is_stored(run, environ, argv):
    shown = run(*argv, against=None, **environ)
    assert (shown.exit_status, shown) == (3, "")
    assert "home" in shown.stderr and "XEROTIER_CONFIG" in shown.stderr


@pytest.mark.parametrize("argv, code", [
    (MODELS, 0), (CHAT + ("--endpoint", "demo"), 0), (("status",), 0),
    (("config", "list"), 0), (("config", "show"), 3),
    (("config", "path"), 0), (("commands",), 0), (add("--dry-run"), 0)])
def test_what_only_reads_writes_nothing(run, tmp_path, argv, code):
    home = {"HOME": str(tmp_path / "home")}
    assert run(*argv, **home).exit_status == code
    assert list(tmp_path.rglob("*")) == []


# == how it is written =======================================================

@posix
def test_a_new_config_is_its_owners_alone(cli, config):
    before = os.umask(0)
    try:
        assert cli(*add()).exit_status == 0
    finally:
        os.umask(before)
    assert mode_of(config) == 0o600
    assert mode_of(config.parent) == 0o700


@posix
def test_an_edit_makes_a_config_private(cli, config):
    store(config, toml(endpoint='"x"'), 0o644)
    assert cli("config", "set", "prod", "endpoint", "y").exit_status == 0
    assert mode_of(config) == 0o600


@posix
def test_a_new_file_takes_the_place_of_the_old_one(cli, config, tmp_path):
    store(config, toml(endpoint='"x"'))
    os.link(str(config), str(tmp_path / "old"))
    assert cli("config", "set", "prod", "endpoint", "y").exit_status == 0
    assert (tmp_path / "old").read_text() == toml(endpoint='"x"')
    assert config.read_text() == toml(endpoint='"y"')
    assert os.listdir(str(config.parent)) == ["config.toml"]


@posix
@pytest.mark.parametrize("is_relative", [True, False])
def test_a_link_stays_a_link(cli, config, tmp_path, is_relative):
    target = tmp_path / "dotfiles" / "xeroctl"
    store(target, toml(endpoint='"x"'), 0o644)
    config.parent.mkdir()
    link = "../dotfiles/xeroctl" if is_relative else str(target)
    config.symlink_to(link)
    assert cli("config", "set", "prod", "endpoint", "y").exit_status == 0
    assert os.readlink(str(config)) == link
    assert target.read_text() == toml(endpoint='"y"')
    assert mode_of(target) == 0o600
    assert os.listdir(str(target.parent)) == ["xeroctl"]


@posix
@pytest.mark.parametrize("link", ["gone.toml", "../dotfiles/gone.toml"])
def test_a_link_that_leads_nowhere_is_written_through(cli, config, link):
    config.parent.mkdir()
    config.symlink_to(link)
    assert cli("config", "list").stderr == "No deployments found.\n"
    assert cli(*add()) == "added prod\n"
    assert os.readlink(str(config)) == link
    assert mode_of(config.parent / link) == 0o600
    assert cli("config", "list", "-o", "id") == "prod\n"


@posix
@pytest.mark.parametrize("mode, kept", [
    (0o640, 0o640), (0o400, 0o400), (0o440, 0o440), (0o660, 0o600),
    (0o700, 0o600), (0o4600, 0o600)])
def test_an_edit_keeps_a_mode_that_is_narrow_enough(cli, config, mode, kept):
    store(config, toml(endpoint='"x"'), mode)
    assert cli("config", "set", "prod", "endpoint", "y").exit_status == 0
    assert (mode_of(config), config.read_text()) == (kept,
                                                     toml(endpoint='"y"'))


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0,
                    reason="root alone gives files away")
@pytest.mark.parametrize("mode, kept", [(0o640, 0o640), (0o644, 0o600)])
def test_an_edit_by_root_leaves_a_file_to_its_owner(cli, config, mode, kept):
    store(config, toml(endpoint='"x"'), mode)
    os.chown(str(config), 12345, 54321)
    assert cli("config", "set", "prod", "endpoint", "y").exit_status == 0
    about = config.stat()
    assert (about.st_uid, about.st_gid) == (12345, 54321)
    assert mode_of(config) == kept


@pytest.mark.parametrize("begin", ["\ufeff", "# a\x7fb\n"],
                         ids=["mark", "comment"])
def test_an_edit_leaves_odd_characters_where_they_are(cli, config, begin):
    """A byte order mark, which TOML has not, and a DEL in a comment."""
    store(config, begin + toml(endpoint='"x"'))
    assert cli("config", "list", "-o", "id") == "prod\n"
    assert cli("config", "set", "prod", "endpoint", "y").exit_status == 0
    assert config.read_bytes().decode() == begin + toml(endpoint='"y"')


@pytest.mark.parametrize("odd", ["a\x7fb", "a\udcffb"])
def test_what_is_no_text_is_told_with_its_place(cli, config, odd):
    store(config, toml(endpoint='"x"'))
    shown = cli("config", "set", "prod", "endpoint", odd)
    assert shown.exit_status == 2
    assert f"deployment.prod.endpoint: {odd[1]!r}" in shown.stderr
    assert config.read_text() == toml(endpoint='"x"')


def test_no_edit_makes_more_than_can_be_read(cli, config):
    store(config, toml(endpoint='"x"'))
    shown = cli("config", "set", "prod", "endpoint", "-", stdin=b"y" * 10**6)
    assert (shown.exit_status, shown) == (3, "")
    assert f"{config} cannot be changed so" in shown.stderr
    assert config.read_text() == toml(endpoint='"x"')


# == one edit at a time ======================================================

@pytest.fixture
def hold(config):
    """hold(): lock the config's folder, as an edit does; what lets go."""
    fcntl = pytest.importorskip("fcntl")
    held = []

    def holder():
        held.append(os.open(str(config.parent), os.O_RDONLY))
        fcntl.flock(held[-1], fcntl.LOCK_EX | fcntl.LOCK_NB)
        return lambda: os.close(held.pop())
    yield holder
    for number in held:
        os.close(number)


EDITS = [
    (("config", "set", "prod", "endpoint", "y"), {"a", "dev", "prod", "y"}),
    (("config", "unset", "prod", "endpoint"), {"a", "dev", "prod"}),
    (("config", "use", "prod"), {"a", "dev", "prod", "x"}),
    (("config", "remove", "prod", "-y"), {"a", "dev"}),
    (add(name="new"), {"a", "dev", "prod", "x", "new"}),
]


@pytest.mark.parametrize("argv, left", EDITS)
def test_an_edit_changes_what_the_one_before_it_has_left(
        cli, config, clock, hold, argv, left):
    store(config, toml(endpoint='"x"'))
    let_go, sleep = hold(), clock.sleep

    def slept(seconds):
        sleep(seconds)
        if len(clock.slept) == 3:
            store(config, config.read_text() + "[deployment.dev]\na = 1\n")
            let_go()
    clock.sleep = slept
    assert cli(*argv).exit_status == 0
    assert len(clock.slept) == 3
    words = set(re.findall(r"\b(?:a|dev|prod|x|y|new)\b", config.read_text()
                           .replace('current = "prod"', "")))
    assert words == left


def test_a_name_that_another_edit_has_taken_is_refused(cli, config, clock,
                                                       hold):
    config.parent.mkdir()
    let_go, sleep = hold(), clock.sleep

    def slept(seconds):
        sleep(seconds)
        store(config, toml(endpoint='"x"'))
        let_go()
    clock.sleep = slept
    shown = cli(*add())
    assert (shown.exit_status, shown) == (2, "")
    assert "there is a deployment prod already" in shown.stderr
    assert config.read_text() == toml(endpoint='"x"')


@pytest.mark.parametrize("argv", [argv for argv, _ in EDITS])
def test_an_edit_waits_ten_seconds_for_another(cli, config, clock, hold,
                                               argv):
    store(config, toml(endpoint='"x"'))
    hold()
    shown = cli(*argv)
    assert (shown.exit_status, shown) == (3, ""), shown
    assert f"another process is changing {config}" in shown.stderr
    assert 10 <= sum(clock.slept) < 10.5 and min(clock.slept) >= 0.01
    assert config.read_text() == toml(endpoint='"x"')
    assert os.listdir(str(config.parent)) == [config.name]


@pytest.mark.parametrize("argv, code", [
    (("config", "list"), 0), (add("--dry-run", name="new"), 0),
    (("config", "use", "prd"), 3), (("config", "set", "prod", "x", "y"), 2)])
def test_what_changes_nothing_waits_for_nobody(cli, config, clock, hold,
                                               argv, code):
    store(config, toml(endpoint='"x"'))
    hold()
    assert (cli(*argv).exit_status, clock.slept) == (code, [])


class Typist(io.BytesIO):
    """A standard input that finds the config unlocked when it is read."""

    def __init__(self, typed, hold):
        super().__init__(typed)
        self.hold, self.count = hold, 0

    def isatty(self):
        return self.getvalue() != b"key\n"  # which a terminal would hide

    def read(self, *size):
        self.count += 1
        self.hold()()
        return super().read(*size)

    def readline(self, *size):
        self.count += 1
        self.hold()()
        return super().readline(*size)


@pytest.mark.parametrize("argv, typed", [
    (("config", "remove", "prod"), b"y\n"),
    (("config", "set", "prod", "endpoint", "-"), b"y"),
    (("config", "add", "new", "--base-url", "https://host/p/v1", "--api-key",
      "-"), b"key\n"),
    (("config", "init"), b"prod\ny\nhttps://host/p/v1\n")])
def test_nobody_waits_for_what_is_typed(config, clock, hold, argv, typed):
    store(config, toml(endpoint='"x"'))
    stdin = io.TextIOWrapper(Typist(typed, hold))
    streams = xeroctl.Streams(stdin, text_stream(), text_stream())
    code = xeroctl.main(argv, {"XEROTIER_CONFIG": str(config)}, streams,
                        clock)
    assert code == (argv[1] == "init"), written(streams.stderr)
    assert stdin.buffer.count


def test_edits_at_once_are_all_on_file(start, config):
    store(config, "# mine\n[deployment.a]\n[deployment.b]\ntimeout = 1\n")
    every = [add(name=f"new{number}") for number in range(5)] + [
        ("config", "set", "a", "timeout", "5"), ("config", "remove", "b",
                                                 "-y")]
    processes = [start(*argv, against=None, XEROTIER_CONFIG=str(config))
                 for argv in every]
    assert [process.wait(20) for process in processes] == [0] * len(every)
    text = config.read_text()
    assert sorted(re.findall(r"(?m)^\[deployment\.(.*)\]$", text)) == [
        "a", "new0", "new1", "new2", "new3", "new4"]
    first = re.findall(r"deployment\.(new.)", text)[0]
    assert re.findall(r'current = "(.*)"', text) == [first]
    assert "# mine\n[deployment.a]\ntimeout = 5.0\n" in text
    assert os.listdir(str(config.parent)) == [config.name]


def long_name(folder):
    """A name that is as long as can be: nothing longer goes beside it."""
    return folder / ("c" * os.pathconf(str(folder), "PC_NAME_MAX"))


@posix
def test_a_folder_that_takes_no_file_leaves_the_old_one(cli, tmp_path):
    path = long_name(tmp_path)
    store(path, toml(endpoint='"x"'))
    shown = cli("config", "set", "prod", "endpoint", "y",
                XEROTIER_CONFIG=str(path))
    assert (shown.exit_status, shown) == (3, ""), shown
    assert f"cannot write {path}: " in shown.stderr
    assert path.read_text() == toml(endpoint='"x"')


def test_a_file_where_a_folder_should_be_is_told(cli, tmp_path):
    (tmp_path / "file").write_text("mine")
    path = tmp_path / "file" / "xeroctl" / "config.toml"
    shown = cli(*add(), XEROTIER_CONFIG=str(path))
    assert (shown.exit_status, shown) == (3, ""), shown
    assert f"cannot write {path}: " in shown.stderr
    assert (tmp_path / "file").read_text() == "mine"


# == a broken file ===========================================================

READERS = [MODELS, CHAT, ("config", "list", "-o", "id"), ("config", "show"),
           ("config", "use", "prod"), ("config", "remove", "prod", "-y"),
           ("config", "set", "prod", "endpoint", "x"),
           ("config", "unset", "prod", "api_key"), add("--force")]


def check_refused(shown, router, *words):
    """Not configured, told in so many words; nothing was asked."""
    assert (shown.exit_status, shown) == (3, ""), shown
    assert "internal error" not in shown.stderr, shown
    for word in words:
        assert word in shown.stderr, shown
    assert asked(router) == []


@pytest.mark.parametrize("text, line", [
    ("current = prod\n", 1),
    ("\n[deployment.prod\n", 2),
    (f'[deployment.prod]\nbase_url = "x"\napi_key = {DEMO_KEY}\n', 3),
    (f'[deployment.prod]\n\napi_key = "{DEMO_KEY}\n', 3),
    (f'[deployment.prod]\napi_key = "{DEMO_KEY}"\n# more\napi_key = "x"\n',
     4),
    ("[deployment.prod]\n[deployment.prod]\n", 2),
])
def test_a_broken_file_is_told_with_its_line(cli, config, router, text, line):
    store(config, text)
    for argv in READERS:
        shown = cli(*argv)
        check_refused(shown, router, f"error: {config}: line {line}: ")
        assert SECRET not in shown.stderr
    assert config.read_text() == text


MORE = ['["a"]', "{a = 1}", "1979-05-27", "[\n  1,  # ]\n]"]


@pytest.mark.parametrize("value", MORE)
def test_more_toml_than_we_know_is_refused_in_a_key_of_ours(cli, config,
                                                            router, value):
    text = toml(base_url='"x"', endpoint=value)
    store(config, text)
    for argv in READERS:
        check_refused(cli(*argv), router, f"error: {config}: line 5: ")
    assert config.read_text() == text


@pytest.mark.parametrize("value", MORE)
def test_more_toml_than_we_know_stays_where_it_is_not_ours(cli, config, keep,
                                                           router, value):
    keep(endpoint='"x"', tags=value)
    text = config.read_text() + f"\n[other]\nx = {value}\n[[tags]]\n"
    store(config, text)
    assert cli(*MODELS).exit_status == 0
    assert "tags" in json.loads(cli("config", "show", "-o", "json"))
    assert cli("config", "set", "prod", "endpoint", "y").exit_status == 0
    assert config.read_text() == text.replace('"x"', '"y"')
    assert cli("config", "unset", "prod", "tags").exit_status == 0
    assert config.read_text() == text.replace('"x"', '"y"').replace(
        f"tags = {value}\n", "", 1)
    assert cli("config", "remove", "prod", "-y").exit_status == 0
    assert config.read_text().lstrip() == text[text.index("[other]"):]


@pytest.mark.parametrize("text, line", [
    ('current = "prod"\ndeployment.prod.endpoint = "x"\n', 2),
    ('[deployment]\n\n"prod".endpoint = "x"\n[other]\n', 3)])
def test_a_deployment_of_dotted_keys_is_refused(cli, config, router, text,
                                                line):
    store(config, text)
    for argv in READERS:
        check_refused(cli(*argv), router, f"error: {config}: line {line}: ",
                      "[deployment.NAME]")
    assert config.read_text() == text


@pytest.mark.parametrize("make", [
    lambda path: path.mkdir(),
    lambda path: path.write_bytes(b'a = "\xff"\n'),
    lambda path: path.write_bytes(b"#" * 1000001),
    pytest.param(lambda path: path.symlink_to(path.name), marks=posix),
], ids=["folder", "latin-1", "over 1 MB", "link to itself"])
def test_a_file_that_cannot_be_read_is_told(cli, config, router, make):
    config.parent.mkdir()
    make(config)
    for argv in (MODELS, ("config", "list"), add()):
        check_refused(cli(*argv), router, str(config))


@pytest.mark.parametrize("text, word", [
    ("deployment = 5\n", "deployment"),
    ('[deployment]\nprod = "x"\n', "deployment"),
    ("current = 5\n", "current"),
    ("current = true\n", "current"),
])
def test_a_file_of_another_shape_is_refused(cli, config, router, text, word):
    store(config, text)
    check_refused(cli(*MODELS), router, word)


@pytest.mark.parametrize("key, value", [
    ("base_url", "5"), ("base_url", '"ftp://host/p/v1"'),
    ("base_url", '"host/p/v1"'), ("base_url", '"https://host/p"'),
    ("base_url", '"https://me:s3same@host/p/v1"'), ("base_url", '""'),
    ("api_key", "5"), ("api_key", '""'), ("api_key", '"s3same open"'),
    ("api_key", "true"), ("style", '"xero"'), ("style", "5"),
    ("output", '"xml"'), ("output", "5"), ("frontend_url", "5"),
    ("frontend_url", '"host"'), ("frontend_url", '"https://a:s3same@host"'),
    ("timeout", '"5"'), ("timeout", "0"), ("timeout", "-1"),
    ("timeout", "true"), ("timeout", "nan"), ("timeout", "inf"),
    ("timeout", "1e300"), ("endpoint", "5"), ("endpoint", "true"),
])
def test_a_value_that_cannot_be_is_refused(cli, keep, router, key, value):
    keep(**dict({"endpoint": '"demo"'}, **{key: value}))
    shown = cli(*CHAT)
    check_refused(shown, router)
    assert re.search(key.replace("_", "."), shown.stderr, re.I), shown
    assert "s3same" not in shown.stderr


@pytest.mark.parametrize("key, value", [
    ("base_url", '"host/v1"'), ("style", '"x"'), ("output", '"xml"'),
    ("frontend_url", '"host"'), ("timeout", "0")])
def test_a_value_that_cannot_be_is_told_with_file_and_key(
        cli, keep, config, router, key, value):
    keep(**dict({"endpoint": '"demo"'}, **{key: value}))
    check_refused(cli(*CHAT), router, f"error: {config}: {key}: ")


def test_a_ca_bundle_that_is_no_text_is_refused(cli, keep, router):
    pytest.importorskip("ssl")
    url = router.base_url.replace("http:", "https:")
    keep(base_url=f'"{url}"', cacert="5")
    check_refused(cli(*MODELS, "--retries", "0"), router, "cacert")


def test_a_bad_form_in_the_environment_is_told_before_a_request(cli, keep,
                                                                router):
    keep()
    shown = cli("api", "POST", "/conversations", XEROTIER_OUTPUT="xml")
    assert (shown.exit_status, shown) == (2, "")
    assert "XEROTIER_OUTPUT" in shown.stderr
    assert asked(router) == []


# == key sources =============================================================

@pytest.mark.parametrize("source, value", [
    ("api_key", DEMO_KEY), ("api_key_env", "MY_KEY"),
    ("api_key_file", "my key"), ("api_key_file", "sub/../my key"),
    ("api_key_file", "~/my key"), ("api_key_file", "{config}/my key"),
    ("api_key_file", "crlf"), ("api_key_file", "bom"),
])
def test_a_key_has_a_source(cli, keep, config, router, tmp_path, source,
                            value, monkeypatch):
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(str(tmp_path / "cwd"))
    for folder, key in (("cwd", "wrong"), ("conf", DEMO_KEY),
                        ("home", DEMO_KEY)):
        store(tmp_path / folder / "my key", key + "\n")
    (tmp_path / "conf" / "sub").mkdir()
    store(tmp_path / "conf" / "crlf", f"  {DEMO_KEY}\r\n\r\n")
    store(tmp_path / "conf" / "bom", f"\ufeff{DEMO_KEY}")
    if "~" in value:
        (tmp_path / "conf" / "my key").unlink()
    value = value.format(config=config.parent)
    keep(**{"api_key": None, source: f'"{value}"'})
    shown = cli(*MODELS, "-vv", MY_KEY=DEMO_KEY, HOME=str(tmp_path / "home"))
    assert shown.exit_status == 0, shown
    assert keys_sent(router) == ["Bearer " + DEMO_KEY]
    assert SECRET not in shown + shown.stderr


def test_a_key_file_is_found_beside_a_config_in_the_current_folder(
        run, router, tmp_path, monkeypatch):
    monkeypatch.chdir(str(tmp_path))
    store(tmp_path / "my.toml", toml(
        base_url=f'"{router.base_url}"', api_key_file='"key"'))
    store(tmp_path / "key", DEMO_KEY)
    assert run(*MODELS, against=None,
               XEROTIER_CONFIG="my.toml").exit_status == 0


@pytest.mark.parametrize("source, value, word", [
    ("api_key_env", '"MY_KEY"', "MY_KEY"),
    ("api_key_env", '"EMPTY"', "EMPTY"),
    ("api_key_env", "5", "api_key_env"),
    ("api_key_file", '"missing"', "missing"),
    ("api_key_file", '"empty"', "empty"),
    ("api_key_file", '"."', "conf"),
    ("api_key_file", '"~/key"', "~/key"),
    ("api_key_file", "5", "api_key_file"),
    ("api_key_command", "5", "api_key_command"),
    ("api_key_command", '""', "api_key_command"),
    ("api_key_command", '" "', "api_key_command"),
    ("api_key_command", '''"a 'b"''', "api_key_command"),
    ("api_key_command", '"/no/such/tool now"', "/no/such/tool"),
    ("api_key_keychain", "5", "api_key_keychain"),
])
def test_a_key_that_is_not_to_be_had_is_told(cli, keep, config, router,
                                             source, value, word):
    store(config.parent / "empty", "\n")
    keep(**{"api_key": None, source: value})
    check_refused(cli(*MODELS, EMPTY=""), router, word)


@posix
def test_a_key_command_is_run_without_a_shell(cli, keep, router, tmp_path):
    tool = make_tool(tmp_path / "tool", f'printf "%s\\n" "$@" > {tmp_path}/w',
                     f"echo {DEMO_KEY}")
    keep(api_key=None, api_key_command=f"""'{tool} "$HOME" "a b" c\\ d;"""
         " echo | * > out `x`'")
    assert cli(*MODELS).exit_status == 0
    assert keys_sent(router) == ["Bearer " + DEMO_KEY]
    assert (tmp_path / "w").read_text().splitlines() == [
        "$HOME", "a b", "c d;", "echo", "|", "*", ">", "out", "`x`"]


@posix
@pytest.mark.parametrize("printed", [
    "{}", "{}\\n", "{}\\r\\n", "\\n {}\\n\\n"])
def test_line_ends_around_a_printed_key_are_none_of_it(cli, keep, router,
                                                       tmp_path, printed):
    tool = make_tool(tmp_path / "tool",
                     f"printf '{printed.format(DEMO_KEY)}'")
    keep(api_key=None, api_key_command=f'"{tool}"')
    assert cli(*MODELS).exit_status == 0
    assert keys_sent(router) == ["Bearer " + DEMO_KEY]


@posix
@pytest.mark.parametrize("lines, word", [
    (["echo s3same; exit 7"], "7"),
    (["kill -9 $$"], "-9"),
    (["exit 0"], "empty"),
    (["printf 's3same\\nopen\\n'"], "line end"),
    (["printf 's3same\\377'"], "ASCII"),
])
def test_a_key_command_that_prints_no_key_is_told(cli, keep, router,
                                                  tmp_path, lines, word):
    tool = make_tool(tmp_path / "tool", *lines)
    keep(api_key=None, api_key_command=f'"{tool}"')
    shown = cli(*MODELS, XEROTIER_DEBUG="1")
    check_refused(shown, router, word)
    assert "s3same" not in shown.stderr


@posix
def test_a_key_command_that_cannot_be_run_is_told(cli, keep, router,
                                                  tmp_path):
    make_tool(tmp_path / "tool", "echo x").chmod(0o600)
    for path in (tmp_path / "tool", tmp_path):
        keep(api_key=None, api_key_command=f'"{path}"')
        check_refused(cli(*MODELS), router, f"cannot run {path}")


@posix
@pytest.mark.parametrize("argv, environ, runs", [
    (MODELS, {}, True),
    (MODELS + ("--api-key", DEMO_KEY), {}, False),
    (MODELS, {"XEROTIER_API_KEY": DEMO_KEY}, False),
    (MODELS, {"XEROTIER_API_KEY": ""}, True),
    (("config", "list"), {}, False),
    (("config", "show"), {}, False),
    (("config", "set", "prod", "endpoint", "x"), {}, False),
    (("commands",), {}, False),
])
def test_a_key_is_fetched_only_where_it_is_needed(cli, keep, tmp_path, argv,
                                                  environ, runs):
    tool = make_tool(tmp_path / "tool", f"echo > {tmp_path}/ran",
                     f"echo {DEMO_KEY}")
    keep(api_key=None, api_key_command=f'"{tool}"')
    assert cli(*argv, **environ).exit_status == 0
    assert (tmp_path / "ran").exists() == runs


KEYCHAIN, LOOKS_UP = (
    ("security", "find-generic-password -s my key -w")
    if sys.platform == "darwin" else
    ("secret-tool", "lookup service my key"))


def run_script(*argv, **environ):
    """Run the script as a process, with something to read on stdin."""
    process = subprocess.Popen(
        [sys.executable, STARTED, *argv], stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env=environment(None, **environ))
    stdout, stderr = process.communicate(b"typed ahead\n", 20)
    return Result(stdout.decode(), stderr.decode(), process.returncode)


@posix
@pytest.mark.parametrize("lines, code, word", [
    ([f"echo {DEMO_KEY}"], 0, ""),
    (["exit 1"], 3, f"{KEYCHAIN} ended with exit code 1"),
    (None, 3, f"cannot run {KEYCHAIN}"),
], ids=["there", "not there", "no tool"])
def test_a_keychain_is_asked_by_its_own_tool(keep, config, router, tmp_path,
                                             lines, code, word):
    if lines:
        make_tool(tmp_path / KEYCHAIN, f'echo "$*" > {tmp_path}/asked',
                  f'read line; echo "$line" >> {tmp_path}/asked', *lines)
    keep(api_key=None, api_key_keychain='"my key"')
    shown = run_script(*MODELS, PATH=str(tmp_path),
                       XEROTIER_CONFIG=str(config))
    assert shown.exit_status == code, shown
    assert word in shown.stderr
    assert len(router.requests) == (code == 0)
    if lines:
        assert (tmp_path / "asked").read_text() == LOOKS_UP + "\n\n"


SOURCES = ["api_key", "api_key_env", "api_key_file", "api_key_command",
           "api_key_keychain"]


@pytest.mark.parametrize("number", range(5))
def test_two_key_sources_are_one_too_many(cli, config, keep, router, number):
    first, second = SOURCES[number], SOURCES[number - 1]
    keep(**dict({"api_key": None}, **{first: '"a"', second: '"b"'}))
    for argv in (MODELS, ("config", "list"), ("config", "show")):
        check_refused(cli(*argv, a=DEMO_KEY), router, first, second)
    assert cli("config", "unset", "prod", second).exit_status == 0
    assert f'{first} = "a"' in config.read_text()
    assert second + " =" not in config.read_text()


def test_no_key_source_is_an_error(cli, keep, router):
    keep(api_key=None)
    check_refused(cli(*MODELS), router, "no API key", "XEROTIER_API_KEY")


def test_style_openai_needs_no_key(cli, keep, router):
    keep(api_key=None, style='"openai"')
    router.order("GET /models", body=b'{"data":[{"id":"m"}]}')
    assert cli(*MODELS) == "m\n"
    assert keys_sent(router) == [None]


# == a key that others can read ==============================================

KEYED = f'api_key = "{DEMO_KEY}"\n'


@posix
@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604])
@pytest.mark.parametrize("text", [
    f"[deployment.prod]\n{KEYED}",
    f"[deployment.prod]\n  {KEYED}",
    f"[deployment.prod]\n'api_key'='{DEMO_KEY}'\n",
])
def test_a_key_that_others_can_read_is_warned_of(cli, config, text, mode):
    store(config, text, mode)
    shown = cli("config", "list", "-q", "-o", "id")
    assert (shown.exit_status, shown) == (0, "prod\n")
    line, = shown.stderr.splitlines()
    assert line.startswith("warning: ") and f"chmod 600 {config}" in line


@posix
@pytest.mark.parametrize("text, mode", [
    (f"[deployment.prod]\n{KEYED}", 0o600),
    (f"[deployment.prod]\n{KEYED}", 0o400),
    (f"[deployment.prod]\n{KEYED}", 0o700),
    (f"[deployment.prod]\n# {KEYED}", 0o644),
    ('[deployment.prod]\napi_key_env = "K"\n', 0o644),
    ('[deployment.prod]\napi_key_file = "k"\n', 0o644),
])
def test_no_key_that_others_can_read_no_warning(cli, config, text, mode):
    store(config, text, mode)
    shown = cli("config", "list", "-o", "id")
    assert (shown, shown.stderr) == ("prod\n", "")


# == precedence ==============================================================

LETTERS = {"{": "jsonl", "i": "csv", "r": "id"}

# Of each setting: what deployment, environment and flag say, the call that
# shows which of them counts, and how to see it.
SETTINGS = {
    "output": (("jsonl", "csv", "id"), ("api", "/models"),
               lambda shown, seen: LETTERS[shown[0]]),
    "endpoint": (("demo", "endpoint-dev", "endpoint-prod"), CHAT,
                 lambda shown, seen: seen.path.split("/")[2]),
    "style": (("openai", "xerotier", "openai"),
              CHAT + ("--endpoint", "demo"),
              lambda shown, seen: "xerotier" if "/demo/" in seen.path
              else "openai"),
    "base_url": (("{}/a/v1", "{}/b/v1/", "{}/c/v1"), MODELS,
                 lambda shown, seen: "{}" + seen.path[:5]),
    "frontend_url": (("{}/a", "{}/b/", "{}/c"), ("api", "/slos"),
                     lambda shown, seen: "{}" + seen.path[:2]),
    "api_key": (("xero_a_1", "xero_b_2", "xero_c_3"), MODELS,
                lambda shown, seen: seen.headers["Authorization"][7:]),
}


@pytest.mark.parametrize("given, counts", [
    ("d", 0), ("d0", 0), ("de", 1), ("df", 2), ("def", 2), ("d0f", 2)])
@pytest.mark.parametrize("name", SETTINGS)
def test_a_flag_beats_a_variable_and_that_the_file(cli, keep, router, name,
                                                   given, counts):
    texts, argv, look = SETTINGS[name]
    on_file, variable, flag = (
        text.replace("{}", router.origin) for text in texts)
    keep(**{name: f'"{on_file}"'})
    environ = {"e": variable, "0": ""}.get(given[1:2])
    words = ["--" + name.replace("_", "-"), flag] if "f" in given else []
    shown = cli(*argv, *words, **{"XEROTIER_" + name.upper(): environ})
    assert look(shown, router.requests[-1]) == texts[counts].rstrip("/")


@pytest.mark.parametrize("words, variable, name", [
    ([], None, "one"), ([], "", "one"), ([], "two", "two"),
    (["--context", "three"], "two", "three"),
    (["--context=three"], "nope", "three")])
def test_the_deployment_is_named_by_flag_variable_or_file(
        cli, config, router, words, variable, name):
    store(config, 'current = "one"\n' + "".join(
        f'[deployment.{each}]\nbase_url = "{router.origin}/{each}/v1"\n'
        f'api_key = "xero_{each}_1"\n' for each in ("one", "two", "three")))
    cli(*MODELS, *words, XEROTIER_CONTEXT=variable)
    cli(*words, *MODELS, XEROTIER_CONTEXT=variable)
    assert asked(router) == [f"GET /{name}/v1/models"] * 2
    assert keys_sent(router) == [f"Bearer xero_{name}_1"] * 2


@pytest.mark.parametrize("words, variable, current", [
    (["--context", "stagin"], "prod", "prod"), ([], "stagin", "prod"),
    ([], None, "stagin")])
def test_an_unknown_deployment_names_the_nearest(cli, config, router, words,
                                                 variable, current):
    store(config, f'current = "{current}"\n[deployment.staging]\n'
          "[deployment.prod]\n")
    check_refused(cli(*MODELS, *words, XEROTIER_CONTEXT=variable), router,
                  "'stagin'", str(config), "did you mean staging?")


def test_an_unknown_deployment_names_those_that_there_are(cli, config,
                                                          router):
    store(config, "[deployment.staging]\n[deployment.prod]\n")
    check_refused(cli(*MODELS, "--context", "xyz"), router, "staging, prod")


def test_no_deployment_is_current_unless_the_file_says_so(cli, config,
                                                          router):
    store(config, toml(base_url=f'"{router.base_url}"').partition("\n")[2])
    check_refused(cli(*MODELS), router, "no base URL")


@pytest.mark.parametrize("on_file, words, code", [
    ("0.03", [], 5), ("0.03", ["--timeout", "9"], 0),
    ("9", [], 0), ("9", ["--timeout", "0.03"], 5), (None, [], 0)])
def test_the_timeout_of_the_file_yields_to_the_flag(cli, keep, router,
                                                    on_file, words, code):
    keep(timeout=on_file)
    router.order("*", delay=0.12)
    shown = cli(*MODELS, *words, "--retries", "0")
    assert shown.exit_status == code, shown


@pytest.mark.parametrize("on_file, environ, words, counts", [
    ('"/file.pem"', {}, [], "/file.pem"),
    ('"/file.pem"', {"SSL_CERT_FILE": ""}, [], "/file.pem"),
    ('"/file.pem"', {}, ["--cacert", "/flag.pem"], "/flag.pem"),
    (None, {"SSL_CERT_FILE": "/variable.pem"}, [], "/variable.pem"),
    (None, {"SSL_CERT_FILE": "/variable.pem"}, ["--cacert", "/flag.pem"],
     "/flag.pem")])
def test_one_ca_bundle_counts(cli, keep, router, on_file, environ, words,
                              counts):
    pytest.importorskip("ssl")
    url = router.base_url.replace("http:", "https:")
    keep(base_url=f'"{url}"', cacert=on_file)
    shown = cli(*MODELS, *words, **environ)
    assert shown.exit_status in (2, 3)
    assert f"CA bundle {counts}: " in shown.stderr
    assert asked(router) == []


def test_nothing_said_is_the_default(cli, keep, router):
    keep(endpoint='"demo"')
    assert cli(*CHAT).startswith("Hello! ")
    assert asked(router) == ["POST /proj_demo/demo/v1/chat/completions"]


def test_an_endpoint_is_said_in_three_ways(cli, keep, router):
    keep()
    shown = cli(*CHAT, XEROTIER_ENDPOINT="")
    assert shown.exit_status == 2
    for way in ("--endpoint", "XEROTIER_ENDPOINT", "config set"):
        assert way in shown.stderr
    assert asked(router) == []


# == a key goes to its own origin ============================================

def localhost(url):
    return url.replace("127.0.0.1", "localhost")


@pytest.mark.parametrize("change", [
    lambda other: other.base_url, lambda other: localhost(other.base_url),
    lambda other: other.base_url.replace("http:", "https:")],
    ids=["port", "host", "scheme"])
@pytest.mark.parametrize("is_flag", [True, False])
@pytest.mark.parametrize("source", SOURCES)
def test_a_key_on_file_goes_to_no_other_origin(cli, keep, router, other,
                                               change, is_flag, source):
    keep(**{"api_key": None, source: '"K"'})
    url = change(other)
    words = ["--base-url", url] if is_flag else []
    variable = None if is_flag else url
    for argv in (MODELS, ("api", "POST", "/x", "--field", "a=1", "-vv")):
        shown = cli(*argv, *words, XEROTIER_BASE_URL=variable, K=DEMO_KEY)
        check_refused(shown, router, "prod", router.base_url, url,
                      "--api-key")
        assert SECRET not in shown.stderr
    assert asked(other) == []


def test_a_key_on_file_goes_wherever_on_its_own_origin(cli, keep, router):
    keep()
    cli(*MODELS, "--base-url", router.origin + "/proj_ABC123/v1")
    assert asked(router) == ["GET /proj_ABC123/v1/models"]
    assert keys_sent(router) == ["Bearer " + DEMO_KEY]


@pytest.mark.parametrize("words, environ", [
    (["--api-key", OTHER_KEY], {}), ([], {"XEROTIER_API_KEY": OTHER_KEY})])
def test_another_origin_gets_the_key_that_is_given_for_it(
        cli, keep, router, other, words, environ):
    keep()
    other.add_key(OTHER_KEY, "inference")
    shown = cli(*MODELS, "--base-url", other.base_url, *words, **environ)
    assert shown.exit_status == 0, shown
    assert keys_sent(other) == ["Bearer " + OTHER_KEY]
    assert asked(router) == []


def test_another_origin_may_need_no_key(cli, keep, router, other):
    keep(api_key=None, style='"openai"')
    other.order("GET /models", body=b'{"data":[]}')
    shown = cli(*MODELS, "--base-url", other.base_url)
    assert shown.exit_status == 0, shown
    assert (keys_sent(other), asked(router)) == ([None], [])


@pytest.mark.parametrize("end", ["", "/"])
@pytest.mark.parametrize("path, is_frontends", [
    ("/management/api-keys", True), ("/management/api-keys?limit=1", True),
    ("management/api-keys", True), ("/management", True), ("/slos", True),
    ("/slos?limit=1", True), ("/slos/slo_1/history", True),
    ("/exec/learnings", True), ("/exec/learnings/l_1?x=y", True),
    ("/models", False), ("/exec/tools", False), ("/managements", False),
    ("/slosh", False), ("/files/management/x", False)])
def test_a_frontend_gets_what_is_its_own(cli, keep, router, other, path,
                                         is_frontends, end):
    keep(frontend_url=f'"{other.origin}{end}"')
    cli("api", path)
    called, spared = (other, router) if is_frontends else (router, other)
    assert asked(called) == ["GET /proj_demo/v1/" + path.lstrip("/")]
    assert keys_sent(called) == ["Bearer " + DEMO_KEY]
    assert asked(spared) == []


def test_a_frontend_answers_for_its_deployment(cli, keep, other):
    keep(frontend_url=f'"{other.origin}"')
    assert cli("api", "/management/api-keys", "-o", "id") == "key_1\n"


@pytest.mark.parametrize("words, variable", [
    (["--frontend-url", "{}"], None), ([], "{}")])
def test_a_key_on_file_goes_to_no_other_frontend(cli, keep, router, other,
                                                 words, variable):
    keep()
    words = [word.format(other.origin) for word in words]
    shown = cli("api", "/management/api-keys", *words,
                XEROTIER_FRONTEND_URL=variable and other.origin)
    check_refused(shown, router, other.origin, "--api-key")
    assert asked(other) == []


def test_another_frontend_gets_the_key_that_is_given_for_it(cli, keep,
                                                            router, other):
    keep()
    cli("api", "/management/api-keys", "--frontend-url", other.origin,
        XEROTIER_API_KEY=DEMO_KEY)
    assert keys_sent(other) == ["Bearer " + DEMO_KEY]
    assert asked(router) == []


# == no key is ever shown ====================================================

WRITES = "api", "POST", "/conversations", "--field", "metadata={}"
EVERYWHERE = [
    MODELS, MODELS + ("-vv",), ("api", "/nope", "-vv"),
    ("api", "/models", "--curl"), WRITES + ("--dry-run",),
    WRITES + ("--dry-run", "-o", "json"), WRITES + ("--curl", "-o", "json"),
    WRITES + ("-vv",), CHAT + ("--endpoint", "demo", "-vv", "--stream"),
    ("config", "list", "-o", "csv"), ("config", "show", "-o", "jsonl"),
    ("config", "show", "-o", "wide"),
    ("config", "set", "prod", "api_key", DEMO_KEY, "--dry-run"),
    ("config", "set", "prod", "api_kay", DEMO_KEY),
    ("config", "set", "prod", "base_url",
     f"https://me:{DEMO_KEY}@host/p/v1"),
    ("config", "set", "prod", "api_key", DEMO_KEY + " "),
    ("config", "set", "prod", "api_key", DEMO_KEY + " x"),
    add("--dry-run", "-o", "json", name="two"), add(), add("--force"),
]


@pytest.mark.parametrize("argv", EVERYWHERE)
def test_a_key_is_never_shown(cli, keep, argv):
    keep()
    shown = cli(*argv, XEROTIER_DEBUG="1")
    assert SECRET not in shown + shown.stderr, shown
    assert shown or shown.stderr


def test_a_key_is_not_shown_where_no_host_is_found(cli, keep):
    keep(base_url=f'"https://{NO_HOST}/p/v1"')
    shown = cli(*MODELS, "-vv", XEROTIER_DEBUG="1")
    assert shown.exit_status == 5
    assert SECRET not in shown + shown.stderr
