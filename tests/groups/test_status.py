"""status: where a connection fails, step by step."""

import json
import re
import socket
import sys
import threading

import pytest

from helpers import asked_whole as asked
from router import DEMO_KEY, Router

STEPS = ["config", "proxy", "DNS", "connect", "TLS", "healthz", "key",
         "latency"]
SECRET = DEMO_KEY.rpartition("_")[2]
NOW = 1770000000
NO_HOST = "a" * 64 + ".example"     # too long for any look-up

# Valid for 127.0.0.1 from 2020 to 2120, and signed by nobody else.
CERTIFICATE = """\
-----BEGIN EC PRIVATE KEY-----
MHcCAQEEIBlztfddZI2Bp2wwxBny2Q80sIq/7oXEratoq4CHKHqJoAoGCCqGSM49
AwEHoUQDQgAExwwaCMqH9iSMpN4HEVBUp+lTkz102LLsdLHzY8LY0Y5sRH5cBBbk
mTaanIbzsUKd7+N5yolbZZCjujGNK+ol2g==
-----END EC PRIVATE KEY-----
-----BEGIN CERTIFICATE-----
MIIBbTCCARKgAwIBAgIBATAKBggqhkjOPQQDAjAUMRIwEAYDVQQDDAkxMjcuMC4w
LjEwIBcNMjAwMTAxMDAwMDAwWhgPMjEyMDAxMDEwMDAwMDBaMBQxEjAQBgNVBAMM
CTEyNy4wLjAuMTBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABMcMGgjKh/YkjKTe
BxFQVKfpU5M9dNiy7HSx82PC2NGObER+XAQW5Jk2mpyG87FCne/jecqJW2WQo7ox
jSvqJdqjUzBRMA8GA1UdEQQIMAaHBH8AAAEwDwYDVR0TAQH/BAUwAwEB/zAOBgNV
HQ8BAf8EBAMCAoQwHQYDVR0OBBYEFGQav20gjEczVFbHmsUJwMOgvzHDMAoGCCqG
SM49BAMCA0kAMEYCIQC0L8jn9th/Vc7MBqqIBu3Au9mUcMRBExTYWplKqf3QswIh
AP9rCdPaaMmAdfMFhq+4O8JWEvW4GR8zJzV9amrao/Qx
-----END CERTIFICATE-----
"""
LAST_DAY = 4733510400


class TlsFront(threading.Thread):
    """TLS in front of a router: one request a connection, handed on."""

    def __init__(self, router, bundle):
        ssl = pytest.importorskip("ssl")
        super().__init__(daemon=True)
        self.router, self.is_over = router, False
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(bundle)
        self.listener = socket.socket()
        self.listener.bind(("127.0.0.1", 0))
        self.listener.listen(8)
        self.port = self.listener.getsockname()[1]
        self.base_url = router.base_url.replace(
            router.origin, f"https://127.0.0.1:{self.port}")
        self.start()

    def run(self):
        while True:
            client = self.listener.accept()[0]
            if self.is_over:
                return client.close()
            threading.Thread(target=self.serve, args=(client,),
                             daemon=True).start()

    def serve(self, client):
        client.settimeout(20)
        try:
            with self.context.wrap_socket(client, server_side=True) as client:
                self.hand_on(client)
        except OSError:     # the caller did not like what it got
            client.close()

    def hand_on(self, client):
        request = b""
        while not request.endswith(b"\r\n\r\n"):
            block = client.recv(65536)
            if not block:
                return
            request += block
        with socket.create_connection(("127.0.0.1",
                                       self.router.port)) as inner:
            inner.sendall(request)
            for block in iter(lambda: inner.recv(65536), b""):
                client.sendall(block)

    def close(self):
        # To close a listener does not wake accept everywhere; a call does.
        self.is_over = True
        socket.create_connection(("127.0.0.1", self.port)).close()
        self.join(20)
        self.listener.close()


@pytest.fixture
def bundle(tmp_path):
    path = tmp_path / "server.pem"
    path.write_text(CERTIFICATE)
    return str(path)


@pytest.fixture
def front(router, bundle):
    front = TlsFront(router, bundle)
    yield front
    front.close()


@pytest.fixture
def config(tmp_path, router):
    """A config file with the router as prod, which is current."""
    path = tmp_path / "config.toml"
    path.write_text(f'current = "prod"\n[deployment.prod]\nbase_url = '
                    f'"{router.base_url}"\napi_key = "{DEMO_KEY}"\n')
    path.chmod(0o600)
    return path


def rows_of(shown):
    """{step: row} of a run with -o json; the order of the steps is right."""
    page = json.loads(shown)
    assert page["object"] == "list"
    assert [row["step"] for row in page["data"]] == STEPS
    return {row["step"]: row for row in page["data"]}


def statuses(shown):
    """The statuses of a run, as a text: ok - ok ok - ok ok ok."""
    return " ".join(row["status"] for row in rows_of(shown).values())


# == all is well =============================================================

def test_every_step_is_told(run, router):
    shown = run("status", "-o", "json")
    assert (shown.exit_status, shown.stderr) == (0, ""), shown
    assert statuses(shown) == "ok - ok ok - ok ok ok"
    rows = rows_of(shown)
    assert router.base_url in rows["config"]["detail"]
    assert "127.0.0.1" in rows["DNS"]["detail"]
    assert rows["connect"]["detail"] == f"127.0.0.1:{router.port}"
    assert "xero_demo_… is accepted" in rows["key"]["detail"]
    assert "GET /models" in rows["latency"]["detail"]
    assert all(row["ms"] == 0 for row in rows.values())
    assert SECRET not in shown


def test_health_is_asked_without_the_key(run, router):
    run("status")
    assert asked(router) == ["GET /healthz", "GET /proj_demo/v1/models"]
    health, models = router.requests
    assert health.headers["Authorization"] is None
    assert models.headers["Authorization"] == "Bearer " + DEMO_KEY


def test_a_person_gets_a_row_for_each_step(run, router):
    head, *lines = run("status").splitlines()
    assert head.split() == ["Step", "Status", "Time", "(ms)", "Detail"]
    assert [line.split()[0] for line in lines] == STEPS
    assert [line.split()[1] for line in lines] == [
        "ok", "-", "ok", "ok", "-", "ok", "ok", "ok"]
    assert len({line.index(line.split()[1]) for line in [head, *lines]}) == 1


def test_the_other_forms_have_a_line_for_each_step(run):
    shown = run("status", "-o", "jsonl")
    assert [json.loads(line)["step"] for line in shown.splitlines()] == STEPS
    head, *lines = run("status", "-o", "csv").splitlines()
    assert head == "Step,Status,Time (ms),Detail"
    assert [line.partition(",")[0] for line in lines] == STEPS


@pytest.mark.parametrize("words, environ, name", [
    ([], {}, "prod: "), (["--context", "prod"], {}, "prod: "),
    ([], {"XEROTIER_CONTEXT": "prod"}, "prod: ")])
def test_the_deployment_is_named(run, config, router, words, environ, name):
    shown = run("status", *words, "-o", "json", against=None,
                XEROTIER_CONFIG=str(config), **environ)
    assert shown.exit_status == 0, shown
    assert rows_of(shown)["config"]["detail"] == name + router.base_url


def test_a_step_takes_the_time_it_takes(router, clock, run):
    clock.monotonic = iter(range(1000)).__next__
    rows = rows_of(run("status", "-o", "json"))
    assert all(row["ms"] >= 1000 for row in rows.values())
    assert re.search(r"[1-9]\d* ms", rows["latency"]["detail"])


# == each step fails =========================================================

def check_failure(shown, code, step, *words):
    """This step failed, those after it were skipped, those before not."""
    rows = rows_of(shown)
    index = STEPS.index(step)
    found = [rows[name]["status"] for name in STEPS]
    assert found[index:] == ["failed"] + ["skipped"] * (7 - index), rows
    assert set(found[:index]) <= {"ok", "-"}, rows
    for name in STEPS[index + 1:]:
        assert (rows[name]["detail"], rows[name]["ms"]) == (None, None)
    for word in words:
        assert word in rows[step]["detail"], rows
    said = json.loads(shown.stderr[shown.stderr.index("{"):])["error"]
    assert rows[step]["detail"].endswith(said["message"]), shown
    assert shown.exit_status == code, shown


@pytest.mark.parametrize("environ, word", [
    ({"XEROTIER_BASE_URL": ""}, "no base URL"),
    ({"XEROTIER_API_KEY": ""}, "no API key"),
    ({"XEROTIER_BASE_URL": "http://127.0.0.1/p"}, "/v1"),
    ({"XEROTIER_BASE_URL": "file:///etc/v1"}, "URL"),
    ({"XEROTIER_API_KEY": "a b"}, "key"),
    ({"XEROTIER_CONTEXT": "nope", "XEROTIER_BASE_URL": ""}, "nope"),
])
def test_a_missing_config_is_the_first_step(run, router, environ, word):
    shown = run("status", "-o", "json", **environ)
    check_failure(shown, 3, "config", word)
    assert asked(router) == []


@pytest.mark.parametrize("text, words", [
    ("[deployment.prod\n", ["line 1"]),
    ('current = "prd"\n[deployment.prod]\n', ["'prd'"]),
    ('current = "prod"\n[deployment.prod]\nbase_url = "https://h/p/v1"\n'
     'api_key = "a"\napi_key_env = "B"\n', ["api_key", "api_key_env"]),
    ('current = "prod"\n[deployment.prod]\nbase_url = "https://h/p/v1"\n'
     'api_key_command = "/no/such/tool"\n', ["/no/such/tool"]),
    ('current = "prod"\n[deployment.prod]\nbase_url = "https://h/p/v1"\n'
     'api_key = "a"\ntimeout = "5"\n', ["timeout"]),
])
@pytest.mark.parametrize("words_before", [[], ["-vv"]])
def test_a_broken_config_is_the_first_step(run, config, router, text, words,
                                           words_before):
    config.write_text(text)
    shown = run(*words_before, "status", "-o", "json", against=None,
                XEROTIER_CONFIG=str(config))
    check_failure(shown, 3, "config", *words)
    assert asked(router) == []


@pytest.mark.parametrize("text", [
    "[deployment.prod\n", 'current = "prd"\n[deployment.prod]\n',
    'current = "prod"\n[deployment.prod]\noutput = "xml"\n'])
def test_a_broken_config_is_told_to_a_person_too(run, config, text):
    config.write_text(text)
    shown = run("status", against=None, XEROTIER_CONFIG=str(config))
    assert shown.exit_status == 3, shown
    rows = [line.split() for line in shown.splitlines()[1:]]
    assert [row[:2] for row in rows] == [["config", "failed"]] + [
        [step, "skipped"] for step in STEPS[1:]]
    assert shown.stderr.startswith("error: ")


@pytest.mark.parametrize("proxy", [
    "socks5://127.0.0.1:1080", "https://127.0.0.1:1", "http://", "::"])
@pytest.mark.parametrize("is_flag", [True, False])
def test_a_proxy_that_cannot_be(run, router, proxy, is_flag):
    words = ["--proxy", proxy] if is_flag else []
    shown = run("status", "-o", "json", *words,
                HTTP_PROXY=None if is_flag else proxy)
    check_failure(shown, 3, "proxy", "--proxy" if is_flag else "HTTP_PROXY")
    assert asked(router) == []


def test_a_host_that_is_not_found(run, router, clock):
    shown = run("status", "-o", "json",
                XEROTIER_BASE_URL=f"https://{NO_HOST}/p/v1")
    check_failure(shown, 5, "DNS", NO_HOST)
    assert clock.slept == [] and asked(router) == []


def test_a_port_where_nobody_listens(run, router, clock, closed_port):
    shown = run("status", "-o", "json",
                XEROTIER_BASE_URL=f"http://127.0.0.1:{closed_port}/p/v1")
    check_failure(shown, 5, "connect", f"127.0.0.1:{closed_port}")
    assert clock.slept == [] and asked(router) == []


def test_a_server_that_does_not_speak_tls(run, router):
    pytest.importorskip("ssl")
    url = router.base_url.replace("http:", "https:")
    shown = run("status", "-o", "json", XEROTIER_BASE_URL=url)
    check_failure(shown, 5, "TLS", "127.0.0.1")
    assert asked(router) == []


def test_a_certificate_that_nobody_trusts(run, router, front):
    shown = run("status", "-o", "json", XEROTIER_BASE_URL=front.base_url)
    check_failure(shown, 5, "TLS", "signed certificate"  # 3.6 tells no cause
                  if sys.version_info >= (3, 7) else "verify failed")
    assert asked(router) == []


@pytest.mark.parametrize("fault, code, word", [
    ({"status": 500}, 1, "HTTP 500"), ({"status": 503}, 6, "HTTP 503"),
    ({"drop": "after"}, 5, "HTTP: "),
])
def test_a_server_that_is_not_well(run, router, fault, code, word):
    router.order("GET /healthz", times=None, **fault)
    shown = run("status", "-o", "json", "--retries", "0")
    check_failure(shown, code, "healthz", word)
    assert asked(router) == ["GET /healthz"]


@pytest.mark.parametrize("fault", [
    {"status": 401}, {"status": 403}, {"status": 404}, {"status": 405},
    {"odd": "an error"}, {"odd": "a login page"}, {"odd": "null"},
    {"redirect": "http://elsewhere.example/"}])
def test_a_server_that_has_no_healthz_may_be_well(run, router, fault):
    router.order("GET /healthz", **fault)
    shown = run("status", "-o", "json")
    assert (shown.exit_status, shown.stderr) == (0, ""), shown
    assert statuses(shown) == "ok - ok ok - - ok ok"


def test_a_key_that_is_wrong(run, router):
    shown = run("status", "-o", "json", XEROTIER_API_KEY="xero_demo_wrong1")
    check_failure(shown, 3, "key", "HTTP 401")
    assert asked(router) == ["GET /healthz", "GET /proj_demo/v1/models"]


def test_a_key_that_lacks_the_scope(run, router):
    router.add_key("xero_demo_scopeless", "management")
    shown = run("status", "-o", "json",
                XEROTIER_API_KEY="xero_demo_scopeless")
    check_failure(shown, 3, "key", "HTTP 403", "inference")


def test_a_project_that_is_not_there(run, router):
    """The platform has a list of models: 404 is a wrong base URL."""
    wrong = router.base_url.replace("proj_demo", "proj_typo")
    shown = run("status", "-o", "json", "--base-url", wrong)
    check_failure(shown, 4, "key", "HTTP 404")


@pytest.mark.parametrize("status", [404, 405, 501])
def test_a_server_without_models_is_told_as_that(run, router, status):
    router.order("GET /models", times=None, status=status)
    shown = run("status", "-o", "json", "--style", "openai")
    assert shown.exit_status == 0 and "/models" in shown, shown
    assert statuses(shown) == "ok - ok ok - ok - ok"


@pytest.mark.parametrize("fault, code", [
    ({"status": 403}, 3), ({"status": 429, "retry_after": 90}, 6),
    ({"html": True}, 1), ({"raw": b"{}"}, 1), ({"cut": 20}, 5)])
def test_models_that_do_not_come(run, router, fault, code):
    router.order("GET /models", times=None, **fault)
    shown = run("status", "-o", "json", "--retries", "0")
    assert shown.exit_status == code, shown
    assert statuses(shown) == "ok - ok ok - ok failed skipped"


@pytest.mark.parametrize("path", ["/healthz", "/models"])
def test_a_failure_that_passes_is_no_failure(run, router, clock, path):
    router.order("GET " + path, status=503)
    shown = run("status", "-o", "json")
    assert shown.exit_status == 0 and len(clock.slept) == 1, shown


def test_what_failed_is_told_below_the_rows(run):
    shown = run("status", XEROTIER_API_KEY="xero_demo_wrong1")
    assert len(shown.splitlines()) == 9
    error, *facts = shown.stderr.splitlines()
    assert error.startswith("error: HTTP 401 ")
    assert any(line.startswith("  hint: ") for line in facts)


def test_no_key_that_a_server_quotes_is_shown(run, router):
    router.order("GET /models", status=401, message=f"Bad key {DEMO_KEY}")
    shown = run("status", "-o", "json")
    assert shown.exit_status == 3
    assert SECRET not in shown and SECRET not in shown.stderr


# == style openai ============================================================

def test_a_server_that_needs_no_key(run, openai_router):
    openai_router.order("GET /models", body=b'{"data":[{"id":"m"}]}')
    shown = run("status", "-o", "json", against=openai_router,
                XEROTIER_API_KEY="", XEROTIER_STYLE="openai")
    assert shown.exit_status == 0, shown
    assert rows_of(shown)["key"]["detail"] == "none is needed; 1 model"
    assert asked(openai_router) == ["GET /healthz", "GET /v1/models"]
    assert [seen.headers["Authorization"]
            for seen in openai_router.requests] == [None, None]


def test_a_server_that_needs_a_key_after_all(run, openai_router):
    shown = run("status", "-o", "json", against=openai_router,
                XEROTIER_API_KEY="", XEROTIER_STYLE="openai")
    check_failure(shown, 3, "key", "HTTP 401")


# == proxies and TLS =========================================================

def test_a_proxy_is_looked_up_and_connected_to(run, router):
    with Router() as proxy:
        shown = run("status", "-o", "json",
                    XEROTIER_BASE_URL=f"http://{NO_HOST}/proj_demo/v1",
                    HTTP_PROXY=f"http://me:s3same@127.0.0.1:{proxy.port}")
    rows = rows_of(shown)
    assert shown.exit_status == 0, shown
    assert statuses(shown) == "ok ok ok ok - ok ok ok"
    assert rows["proxy"]["detail"] == (
        f"127.0.0.1:{proxy.port} (from HTTP_PROXY)")
    assert rows["connect"]["detail"] == f"127.0.0.1:{proxy.port}"
    assert [seen.target for seen in proxy.requests] == [
        f"http://{NO_HOST}/healthz", f"http://{NO_HOST}/proj_demo/v1/models"]
    assert "s3same" not in shown + shown.stderr


def test_a_proxy_where_nobody_listens(run, router, closed_port):
    shown = run("status", "-o", "json", "--proxy",
                f"http://127.0.0.1:{closed_port}")
    check_failure(shown, 5, "connect", "proxy: ", str(closed_port))
    assert asked(router) == []


@pytest.mark.parametrize("words, environ", [
    (["--proxy", ""], {}), ([], {"NO_PROXY": "127.0.0.1"})])
def test_a_proxy_can_be_passed_by(run, closed_port, words, environ):
    shown = run("status", "-o", "json", *words,
                HTTP_PROXY=f"http://127.0.0.1:{closed_port}", **environ)
    assert (shown.exit_status, statuses(shown)) == (
        0, "ok - ok ok - ok ok ok"), shown


def test_a_proxy_that_makes_no_tunnel(run, router):
    pytest.importorskip("ssl")
    router.order("CONNECT *", status=403)
    shown = run("status", "-o", "json", "--proxy", router.origin,
                XEROTIER_BASE_URL=f"https://{NO_HOST}/p/v1")
    check_failure(shown, 5, "TLS", "proxy: ")


def test_a_certificate_has_days_left(run, router, front, bundle):
    shown = run("status", "-o", "json", "--cacert", bundle,
                XEROTIER_BASE_URL=front.base_url)
    assert (shown.exit_status, statuses(shown)) == (
        0, "ok - ok ok ok ok ok ok"), shown
    days = f"{(LAST_DAY - NOW) / 86400:.0f}"
    assert re.match(rf"TLSv1\.\d, .*\b{days}\b.* days",
                    rows_of(shown)["TLS"]["detail"]), shown
    assert asked(router) == ["GET /healthz", "GET /proj_demo/v1/models"]


def test_a_certificate_may_be_left_unchecked(run, front):
    shown = run("status", "-o", "json", "--insecure",
                XEROTIER_BASE_URL=front.base_url)
    assert shown.exit_status == 0, shown
    assert "not checked" in rows_of(shown)["TLS"]["detail"]
    assert shown.stderr.startswith("warning: --insecure")


# == plans ===================================================================

def test_a_dry_run_reads_all_the_same(run, router):
    shown = run("status", "-o", "json", "--dry-run")
    assert (shown.exit_status, statuses(shown)) == (
        0, "ok - ok ok - ok ok ok"), shown


def test_curl_sends_nothing(run, router):
    run("status", "--curl")
    assert asked(router) == []
