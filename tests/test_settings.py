"""Where a call goes, and with which key: what beats what, and what is said.

The flag --context means its deployment whole; a variable that beats a
deployment is named; a key on file goes to its own origin only; a base URL is
taken as people paste it, and what is wrong with it is told by its variable.
"""

import json

import pytest

from conftest import every_case
from helpers import asked_whole as asked, keys_sent
from router import DEMO_KEY

pytestmark = every_case

CHAT = "chat", "-m", "hi"
OTHER_KEY = "xero_other_0000000000000000"


@pytest.fixture
def path(tmp_path, router, other):
    """A config: prod is the router, staging the other one, local a server."""
    path = tmp_path / "config.toml"
    path.write_text(f"""current = "prod"
[deployment.prod]
base_url = "{router.base_url}"
api_key = "{DEMO_KEY}"
endpoint = "demo"
[deployment.staging]
base_url = "{other.base_url}"
api_key = "{OTHER_KEY}"
[deployment.local]
base_url = "{router.origin}/v1"
style = "openai"
output = "id"
endpoint = "llama"
""")
    path.chmod(0o600)
    other.add_key(OTHER_KEY, "inference", "management")
    return path


@pytest.fixture
def cli(run, path):
    """As run, with the config and no variable but those that are given."""
    def runner(*argv, against=None, **environ):
        return run(*argv, against=against, XEROTIER_CONFIG=str(path),
                   **environ)
    return runner


def check_refused(shown, code, *words):
    assert (shown.exit_status, shown) == (code, ""), shown
    for word in words:
        assert word in shown.stderr, shown


def production(router):
    """The variables that a person has exported for production."""
    return {"XEROTIER_BASE_URL": router.base_url, "XEROTIER_API_KEY": DEMO_KEY,
            "XEROTIER_FRONTEND_URL": router.origin,
            "XEROTIER_STYLE": "xerotier"}


# == --context means a deployment whole ======================================

@pytest.mark.parametrize("argv, target", [
    (("models",), "GET /proj_demo/v1/models"),
    (("models", "m", "--delete", "-y"), "DELETE /proj_demo/v1/models/m"),
    (("keys",), "GET /proj_demo/v1/management/api-keys"),
    (("chat", "-m", "hi", "--endpoint", "demo"),
     "POST /proj_demo/demo/v1/chat/completions")])
def test_a_deployment_that_the_flag_names_is_meant_whole(cli, router, other,
                                                         argv, target):
    cli("--context", "staging", *argv, **production(router))
    assert asked(router) == []
    assert asked(other) == [target]
    assert keys_sent(other) == ["Bearer " + OTHER_KEY]


def test_a_variable_only_chooses_the_deployment(cli, router, other):
    cli("models", XEROTIER_CONTEXT="staging", **production(router))
    assert (asked(router), asked(other)) == (["GET /proj_demo/v1/models"], [])


def test_a_deployment_without_a_key_gets_none_from_a_variable(cli, path,
                                                              router):
    path.write_text(path.read_text().replace(f'api_key = "{DEMO_KEY}"\n', ""))
    check_refused(cli("--context", "prod", "models",
                      XEROTIER_API_KEY=DEMO_KEY), 3, "no API key")
    cli("--context", "local", "models", XEROTIER_API_KEY=DEMO_KEY,
        XEROTIER_STYLE="xerotier")
    assert asked(router) == ["GET /v1/models"]
    assert keys_sent(router) == [None]


def test_endpoint_and_output_beat_their_variables(cli, router):
    router.order("*", body=b'{"data":[{"id":"m"}]}')
    environ = {"XEROTIER_ENDPOINT": "other", "XEROTIER_OUTPUT": "json"}
    assert cli("models", "--context", "local", **environ) == "m\n"
    shown = cli(*CHAT, "--context", "local", "--dry-run", **environ)
    assert '"model": "llama"' in shown
    shown = cli(*CHAT, "--context", "local", "-o", "json", "--dry-run",
                "--endpoint", "mine", XEROTIER_ENDPOINT="other")
    assert json.loads(shown)["body"]["model"] == "mine"


def test_what_the_deployment_lacks_its_variable_says(cli, other):
    shown = cli(*CHAT, "--context", "staging", XEROTIER_ENDPOINT="demo",
                XEROTIER_OUTPUT="json")
    assert json.loads(shown)["object"] == "chat.completion"
    assert asked(other) == ["POST /proj_demo/demo/v1/chat/completions"]


def test_another_flag_beats_the_deployment(cli, router, other):
    cli("models", "--context", "staging", "--base-url", router.base_url,
        "--api-key", DEMO_KEY)
    assert keys_sent(router) == ["Bearer " + DEMO_KEY]
    assert asked(other) == []


@pytest.mark.parametrize("words", [["models", "x", "y"], ["models", "nope"]])
def test_errors_too_have_the_form_of_the_deployment(cli, words):
    shown = cli("--context", "local", *words, XEROTIER_OUTPUT="json")
    assert shown.stderr.startswith("error: "), shown
    shown = cli("--context", "prod", *words, XEROTIER_OUTPUT="json")
    assert "message" in json.loads(shown.stderr)["error"]


def test_an_empty_name_is_no_deployment(cli, router):
    check_refused(cli("models", "--context", ""), 3, "''")
    assert asked(router) == []


# == what beats what is told =================================================

@pytest.mark.parametrize("argv", [
    ("config", "show"), ("config", "list"), ("config", "use", "prod"),
    ("status",)])
def test_a_variable_that_beats_a_deployment_is_named(cli, router, other,
                                                     argv):
    shown = cli(*argv, XEROTIER_BASE_URL=other.base_url,
                XEROTIER_API_KEY=DEMO_KEY, XEROTIER_ENDPOINT="x",
                XEROTIER_STYLE="", XEROTIER_OUTPUT="json")
    assert ("prod gives way to XEROTIER_BASE_URL and XEROTIER_ENDPOINT:"
            " --context prod goes by prod alone\n") in shown.stderr, shown
    quiet = cli(*argv, "-q", XEROTIER_BASE_URL=other.base_url,
                XEROTIER_API_KEY=DEMO_KEY)
    assert quiet.stderr == ""
    whole = cli(*argv, "--context", "prod", XEROTIER_BASE_URL=other.base_url)
    assert "XEROTIER" not in whole.stderr


@pytest.mark.parametrize("name, value, is_told", [
    ("STYLE", "openai", True), ("STYLE", "xerotier", False),
    ("API_KEY", OTHER_KEY, True), ("FRONTEND_URL", "https://f", False)])
def test_what_says_the_same_beats_nothing(cli, name, value, is_told):
    shown = cli("config", "show", **{"XEROTIER_" + name: value})
    assert ("XEROTIER_" + name in shown.stderr) == is_told, shown


def test_a_variable_that_chooses_another_is_named(cli):
    shown = cli("config", "use", "staging", XEROTIER_CONTEXT="prod")
    assert "staging gives way to XEROTIER_CONTEXT:" in shown.stderr


def test_a_curl_command_says_whose_key_it_needs(cli):
    argv = "models", "--context", "staging", "--curl"
    for key, is_told in ((DEMO_KEY, True), (OTHER_KEY, False)):
        shown = cli(*argv, XEROTIER_API_KEY=key)
        assert "Bearer $XEROTIER_API_KEY" in shown
        assert ("XEROTIER_API_KEY" in shown.stderr) == is_told


# == servers without a key ===================================================

def test_a_key_on_file_stays_at_home_and_the_call_goes_without(
        cli, router, other):
    argv = "models", "--base-url", other.origin + "/v1"
    check_refused(cli(*argv), 3, "not for " + other.origin)
    shown = cli(*argv, "--style", "openai")
    assert keys_sent(other) == [None]
    assert "none is sent" in shown.stderr and router.origin in shown.stderr
    assert "none is sent" not in cli(*argv, "--style", "openai",
                                     "-q").stderr


def test_a_frontend_is_of_no_meaning_with_style_openai(cli, other):
    cli("api", "/slos", "--style", "openai", XEROTIER_FRONTEND_URL="https://x",
        XEROTIER_BASE_URL=other.origin + "/v1")
    assert asked(other) == ["GET /v1/slos"]


def test_an_empty_key_is_none(cli, router):
    check_refused(cli("models", "--api-key", ""), 3, "no API key")
    cli("models", "--api-key", "", "--style", "openai",
        XEROTIER_API_KEY=DEMO_KEY)
    assert keys_sent(router) == [None]
    words = "config", "add", "new", "--base-url", "http://h/v1", "--api-key="
    check_refused(cli(*words), 2, "--api-key @FILE")
    assert cli(*words, "--style", "openai") == "added new\n"


# == base URLs as people paste them ==========================================

def sdk(router, slug="demo"):
    return router.base_url[:-len("v1")] + slug + "/v1"


@pytest.mark.parametrize("argv, target", [
    (CHAT, "POST /proj_demo/demo/v1/chat/completions"),
    (CHAT + ("--endpoint", "demo"),
     "POST /proj_demo/demo/v1/chat/completions"),
    (("models",), "GET /proj_demo/v1/models"),
    (("files",), "GET /proj_demo/v1/files"),
    (("conversations",), "GET /proj_demo/v1/conversations"),
    (("batches",), "GET /proj_demo/demo/v1/batches")])
@pytest.mark.parametrize("end", ["", "/"])
def test_the_base_url_of_an_sdk_names_an_endpoint(run, router, argv, target,
                                                  end):
    shown = run(*argv, XEROTIER_BASE_URL=sdk(router) + end)
    assert shown.exit_status == 0, shown
    assert asked(router) == [target]


def test_a_slug_in_a_base_url_is_decoded_once(run, router):
    run("api", "/models", "--endpoint", "é b",
        XEROTIER_BASE_URL=sdk(router, "%C3%A9%20b"))
    assert asked(router)[0] == "GET /proj_demo/%C3%A9%20b/v1/models"


@pytest.mark.parametrize("words, environ", [
    (["--endpoint", "mine"], {}), ([], {"XEROTIER_ENDPOINT": "mine"})])
def test_two_endpoints_are_one_too_many(run, router, words, environ):
    check_refused(run(*CHAT, *words, XEROTIER_BASE_URL=sdk(router),
                      **environ), 2, "'demo'", "'mine'", router.base_url)
    assert asked(router) == []


def test_two_endpoints_are_not_stored(cli, path, router):
    before = path.read_text()
    words = ("config", "add", "new", "--base-url", sdk(router), "--api-key",
             DEMO_KEY, "--endpoint")
    check_refused(cli(*words, "mine"), 2, "'demo'", "'mine'")
    assert path.read_text() == before
    assert cli(*words, "demo") == "added new\n"


def test_only_style_xerotier_has_a_slug(run, router):
    run("models", "--style", "openai", XEROTIER_BASE_URL=sdk(router))
    assert asked(router) == ["GET /proj_demo/demo/v1/models"]


@pytest.mark.parametrize("prefix", ["a/b/", "a/b/c/"])
def test_a_longer_path_is_a_prefix(run, router, prefix):
    run(*CHAT, "--endpoint", "x",
        XEROTIER_BASE_URL=f"{router.origin}/{prefix}p/v1")
    assert asked(router)[0] == f"POST /{prefix}p/x/v1/chat/completions"


@pytest.mark.parametrize("name", ["BASE_URL", "FRONTEND_URL"])
def test_a_scheme_may_be_in_upper_case(run, router, name):
    url = (router.base_url if name == "BASE_URL" else router.origin) + "//"
    shown = run("api", "/slos", "-v", **{
        "XEROTIER_" + name: url.replace("http:", "HTTP:")})
    assert asked(router) == ["GET /proj_demo/v1/slos"]
    assert f"GET {router.base_url}/slos " in shown.stderr


@pytest.mark.parametrize("shape", [
    "{}\r", "{}\n", " {}", "{}\t", '"{}"', "'{}'", '"{}"\r'])
def test_what_a_file_of_variables_adds_is_none_of_it(run, router, shape):
    shown = run(*CHAT, XEROTIER_OUTPUT=shape.format(""), **{
        "XEROTIER_" + name: shape.format(value) for name, value in (
            ("BASE_URL", router.base_url), ("FRONTEND_URL", router.origin),
            ("ENDPOINT", "demo"), ("STYLE", "xerotier"),
            ("API_KEY", DEMO_KEY))})
    assert shown.exit_status == 0, shown
    assert asked(router) == ["POST /proj_demo/demo/v1/chat/completions"]


@pytest.mark.parametrize("name, value, code", [
    ("BASE_URL", "host/v1", 3), ("FRONTEND_URL", "'x", 3), ("STYLE", "x", 2),
    ("OUTPUT", "xml", 2), ("API_KEY", "a b", 3)])
def test_a_variable_that_cannot_be_is_named(run, router, name, value, code):
    shown = run(*CHAT, "--endpoint", "demo", **{"XEROTIER_" + name: value})
    check_refused(shown, code, f"error: XEROTIER_{name}: ")
    assert asked(router) == []


def test_a_key_may_have_a_line_end_behind_it(run):
    assert run(*CHAT, XEROTIER_ENDPOINT="demo",
               XEROTIER_API_KEY=DEMO_KEY + "\r\n").exit_status == 0


@pytest.mark.parametrize("key, said", [
    ("xero_a b", "' '"), ("xero_a\nb", r"'\n'"), ("xero_a\u2026", "'\u2026'")])
def test_what_no_key_holds_is_named(run, key, said):
    check_refused(run("models", XEROTIER_API_KEY=key), 3,
                  f"XEROTIER_API_KEY: the API key holds {said}")
    shown = run("models", "--api-key", key)
    check_refused(shown, 3, f"the API key holds {said}")
    assert "xero_a" not in shown.stderr
