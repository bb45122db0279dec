"""api: any call, with the same retries, errors, plans and output."""

import json

import pytest

from helpers import ACME, asked_whole as asked, encoded
from router import PROJECT_MODELS


def pretty(value):
    return json.dumps(value, indent=2) + "\n"


def make_conversations(run, count):
    for number in range(count):
        assert run("api", "/conversations", "--field",
                   f'metadata={{"n":"{number}"}}').exit_status == 0


# == method and body =========================================================

@pytest.mark.parametrize("words, method", [
    (["/x"], "GET"),
    (["/x", "--field", "a=1"], "POST"),
    (["/x", "--raw-field", "a=1"], "POST"),
    (["/x", "--input", "-"], "POST"),
    (["--field", "a=1", "PATCH", "/x"], "PATCH"),
    (["PUT", "/x", "--input", "-"], "PUT"),
    (["DELETE", "/x"], "DELETE"),
    (["delete", "/x"], "DELETE"),
    (["HEAD", "/x"], "HEAD"),
    (["POST", "/x"], "POST"),
    (["PROPFIND", "/x"], "PROPFIND"),
])
def test_the_method_is_get_or_post_unless_given(run, router, words, method):
    run("api", *words)
    assert asked(router) == [f"{method} /proj_demo/v1/x"]


@pytest.mark.parametrize("words, body", [
    (["--field", "a=1"], b'{"a":1}'),
    (["--field", "a=1.50", "--field", 'b="1"'], b'{"a":1.5,"b":"1"}'),
    (["--field", 'a={"b":[true,null]}'], b'{"a":{"b":[true,null]}}'),
    (["--field", "a=12345678901234567890"], b'{"a":12345678901234567890}'),
    (["--field", "=="], None),
    (["--raw-field", "a=1"], b'{"a":"1"}'),
    (["--raw-field", "a="], b'{"a":""}'),
    (["--raw-field", "a=b=c"], b'{"a":"b=c"}'),
    (["--raw-field", "a=é\n"], '{"a":"é\\n"}'.encode()),
    (["--raw-field", "a=\udcff"], '{"a":"\ufffd"}'.encode()),
    (["--field", "b=1", "--raw-field", "a=x"], b'{"b":1,"a":"x"}'),
    (["--field", "a=1", "--field", "a=2"], b'{"a":2}'),
    (["--field", "a=x"], None),
    (["--field", "a=NaN"], None),
    (["--field", "a"], None),
    (["--raw-field", "a"], None),
    (["--raw-field", "=a"], None),
])
def test_fields_make_a_body(run, router, words, body):
    shown = run("api", "/x", *words)
    assert [seen.body for seen in router.requests] == (
        [] if body is None else [body])
    if body is None:
        assert shown.exit_status == 2 and words[0] in shown.stderr
    else:
        assert router.requests[0].headers.get_all("Content-Type") == [
            "application/json"]


@pytest.mark.parametrize("path, query", [
    ("/x", "a=2&b=x%26y&c=true&d=%5B1%2C2%5D&e=%C3%A9+%2B"),
    ("/x?z=1", "z=1&a=2&b=x%26y&c=true&d=%5B1%2C2%5D&e=%C3%A9+%2B"),
])
def test_fields_of_a_get_make_a_query(run, router, path, query):
    run("api", "GET", path, "--field", "a=2", "--field", 'b="x&y"',
        "--field", "c=true", "--field", "d=[1, 2]", "--raw-field", "e=é +")
    assert asked(router) == [f"GET /proj_demo/v1/x?{query}"]
    assert router.requests[0].body == b""
    assert "Content-Type" not in router.requests[0].headers


ODD_BYTES = b'\xef\xbb\xbf{"a": \xff\r\n\x00}\r\n\r\n'


@pytest.mark.parametrize("data", [ODD_BYTES, b"", b"\n"])
@pytest.mark.parametrize("from_stdin", [True, False])
def test_an_input_is_sent_byte_for_byte(run, router, tmp_path, data,
                                        from_stdin):
    (tmp_path / "body").write_bytes(data)
    run("api", "/x", "--input",
        "-" if from_stdin else str(tmp_path / "body"),
        stdin=data if from_stdin else b"not asked for")
    seen, = router.requests
    assert seen.method == "POST" and seen.body == data
    assert seen.headers["Content-Length"] == str(len(data))


@pytest.mark.parametrize("words, said", [
    (["--input", "no-such-file"], "no-such-file"),
    (["--input", "-", "--field", "a=1"], "--field"),
    (["--input", "-", "--raw-field", "a=b"], "--field"),
    (["--input", "-", "--api-key", "-"], "--api-key"),
])
def test_an_input_that_cannot_be_is_not_sent(run, router, words, said):
    shown = run("api", "/x", *words, stdin=b"{}")
    assert shown.exit_status == 2 and said in shown.stderr
    assert router.requests == []


def test_a_header_can_be_added_and_replaced(run, router):
    run("api", "/x", "--input", "-", "--header", "content-type: text/csv",
        "--header", "X-Odd: 1")
    headers = router.requests[0].headers
    assert headers.get_all("Content-Type") == ["text/csv"]
    assert headers["X-Odd"] == "1"


# == paths ===================================================================

@pytest.mark.parametrize("path, target", [
    ("/models", "/models"),
    ("models", "/models"),
    ("/models?limit=2&x=a%20b", "/models?limit=2&x=a%20b"),
    ("/files/a b", "/files/a%20b"),
    ("/files/a%2Fb", "/files/a%2Fb"),
    ("/files/größe.txt", "/files/gr%C3%B6%C3%9Fe.txt"),
    ("/files/\udcff", "/files/%EF%BF%BD"),
    ("/files/a#b", "/files/a%23b"),
    ('/files/"<\\>^`{|}', "/files/%22%3C%5C%3E%5E%60%7B%7C%7D"),
    ("/files/a\r\nX-Evil: 1", "/files/a%0D%0AX-Evil:%201"),
    ("/chat/completions?metadata[k]=v", "/chat/completions?metadata[k]=v"),
    ("/~a-b_c.d!$&'()*+,;=:@", "/~a-b_c.d!$&'()*+,;=:@"),
    ("//double//slash", "//double//slash"),
])
def test_odd_characters_of_a_path_arrive(run, router, path, target):
    run("api", path)
    assert asked(router) == ["GET /proj_demo/v1" + target]
    assert "X-Evil" not in router.requests[0].headers


@pytest.mark.parametrize("words, variable, target", [
    ([], None, "/proj_demo/v1/models"),
    ([], "demo", "/proj_demo/v1/models"),
    (["--endpoint", "demo"], None, "/proj_demo/demo/v1/models"),
    (["--endpoint", "demo"], "endpoint-dev", "/proj_demo/demo/v1/models"),
    (["--endpoint", "a/b"], None, "/proj_demo/a%2Fb/v1/models"),
])
def test_only_the_flag_makes_a_path_an_endpoints(run, router, words,
                                                 variable, target):
    run("api", "/models", *words, XEROTIER_ENDPOINT=variable)
    assert asked(router)[0] == "GET " + target
    assert asked(router)[1:] == ["GET /proj_demo/v1/endpoints"] * (
        "a/b" in words)


def test_style_openai_has_no_slug_in_its_paths(run, openai_router):
    shown = run("api", "/models", "--endpoint", "demo", "-o", "id",
                against=openai_router, XEROTIER_STYLE="openai")
    assert shown == "demo\n"
    assert asked(openai_router) == ["GET /v1/models"]


def test_a_full_url_on_the_same_origin_is_called(run, router):
    shown = run("api", router.origin + "/healthz?x=a b", "-o", "jsonl")
    assert shown == '{"status":"ok"}\n'
    assert asked(router) == ["GET /healthz?x=a%20b"]


@pytest.mark.parametrize("form", [
    "http://localhost:{port}/healthz",
    "https://127.0.0.1:{port}/healthz",
    "http://127.0.0.1/healthz",
    "http://127.0.0.1:{port}@localhost:{port}/healthz",
    "http://127.0.0.1:{port}.example/healthz",
])
def test_another_origin_gets_neither_call_nor_key(run, router, form):
    shown = run("api", form.format(port=router.port))
    assert shown.exit_status == 2 and "origin" in shown.stderr
    assert router.key not in shown.stderr and router.requests == []


# == lists ===================================================================

def test_all_pages_of_a_cursor_list_become_one(run, router):
    make_conversations(run, 5)
    del router.requests[:]
    shown = run("api", "GET", "/conversations", "--field", "limit=2",
                "--all")
    page = json.loads(shown)
    ids = [record["id"] for record in page["data"]]
    assert ids == sorted(router.store.conversations.records, reverse=True)
    assert len(ids) == 5
    assert page["has_more"] is False and page["last_id"] == ids[-1]
    assert [seen.query for seen in router.requests] == [
        [("limit", "2")], [("limit", "2"), ("after", ids[1])],
        [("limit", "2"), ("after", ids[3])]]


def test_all_pages_of_an_offset_list_become_one(run, router):
    shown = run("api", "GET", "/models", "--field", "limit=3", "--all")
    page = json.loads(shown)
    assert [record["id"] for record in page["data"]] == list(PROJECT_MODELS)
    assert page["has_more"] is False
    assert [dict(seen.query).get("offset") for seen in router.requests] == [
        None, "3", "6"]


@pytest.mark.parametrize("form", ["id", "jsonl", "csv"])
def test_all_pages_make_one_document_in_each_form(run, form):
    words = "api", "GET", "/models", "-o", form
    assert run(*words, "--field", "limit=3", "--all") == run(*words)
    assert len(run(*words).splitlines()) in (7, 8)


def test_a_query_in_the_path_stays_on_every_page(run, router):
    make_conversations(run, 2)
    del router.requests[:]
    run("api", "/conversations?limit=1&order=asc", "--all")
    first, second = router.store.conversations.records
    assert [seen.query for seen in router.requests][:2] == [
        [("limit", "1"), ("order", "asc")],
        [("limit", "1"), ("order", "asc"), ("after", first)]]


@pytest.mark.parametrize("pages, ids", [
    ([[], []], []),
    ([[{"id": "a"}], []], ["a"]),
    ([{"data": [{"id": "a"}], "has_more": False}], ["a"]),
    ([{"data": [{"id": "a"}, {"id": "b"}]}, {"data": [{"id": "c"}]}],
     ["a", "b", "c"]),
    ([{"data": [{"id": "a"}], "has_more": True},
      {"data": [{"id": "a"}], "has_more": True}], ["a"]),
])
def test_lists_that_say_little_end_where_nothing_new_comes(run, router, pages,
                                                           ids):
    # A list of two with a limit of two may go on; the last one has less.
    for page in pages:
        router.order("GET /things", body=encoded(page))
    router.order("GET /things", times=None, status=500)
    shown = run("api", "GET", "/things", "--field", "limit=2", "--all",
                "-o", "id", "--retries", "0")
    assert shown.exit_status == 0, shown
    assert shown.split() == ids


def test_only_a_get_has_pages(run, router):
    shown = run("api", "POST", "/conversations", "--all")
    assert shown.exit_status == 2 and "--all" in shown.stderr
    assert router.requests == []


def test_pages_of_what_is_no_list_are_refused(run, router):
    shown = run("api", router.origin + "/healthz", "--all")
    assert shown.exit_status == 1 and shown == ""


def test_a_page_that_fails_leaves_no_half_a_document(run, router):
    router.order("GET /models", body=encoded(
        {"data": [{"id": "a"}], "has_more": True, "total": 2}))
    router.order("GET /models", status=400)
    shown = run("api", "/models", "--all")
    assert shown.exit_status == 1 and shown == ""


def test_a_list_that_was_cut_says_how_to_go_on(run):
    words = "api", "GET", "/models", "--field", "limit=3"
    assert "--all" in run(*words).stderr
    assert run(*words, "-q").stderr == ""
    assert run(*words, "--all").stderr == run("api", "/models").stderr == ""


# == what is shown ===========================================================

ITEM = {"id": "x_1", "größe": 1.0, "a": {"b": [1, None]}, "n": None,
        "text": 'say "hi",\nthen go', "big": 12345678901234567890}
PAGE = {"object": "list", "data": [
    {"id": "a", "n": 1}, {"id": "b", "more": [True]}], "x_new": 1}


@pytest.mark.parametrize("form, text", [
    ("table", json.dumps(ITEM, indent=2, ensure_ascii=False) + "\n"),
    ("wide", json.dumps(ITEM, indent=2, ensure_ascii=False) + "\n"),
    ("json", json.dumps(ITEM, indent=2, ensure_ascii=False) + "\n"),
    ("jsonl", json.dumps(ITEM, separators=(",", ":"),
                         ensure_ascii=False) + "\n"),
    ("csv", "id,größe,a,n,text,big\r\n"
            'x_1,1.0,"{""b"":[1,null]}",,"say ""hi"",\nthen go",'
            "12345678901234567890\r\n"),
    ("id", "x_1\n"),
])
def test_an_object_in_each_form(run, router, form, text):
    router.order("GET /x", body=encoded(ITEM))
    shown = run("api", "/x", "-o", form)
    assert shown == text
    assert shown.exit_status == 0 and shown.stderr == ""


def test_csv_takes_any_key_for_a_head(run, router):
    router.order("GET /x", body=encoded(
        {"a.b": 1, "c:d": 2, "e=f": 3, "g|h": 4, "+i": 5, "": 6}))
    assert run("api", "/x", "-o", "csv") == (
        "a.b,c:d,e=f,g|h,+i,\r\n1,2,3,4,5,6\r\n")


@pytest.mark.parametrize("form, text", [
    ("table", pretty(PAGE)),
    ("json", pretty(PAGE)),
    ("jsonl", '{"id":"a","n":1}\n{"id":"b","more":[true]}\n'),
    ("csv", "id,n,more\r\na,1,\r\nb,,[true]\r\n"),
    ("id", "a\nb\n"),
])
@pytest.mark.parametrize("key", ["data", "models", "items", "results", None])
def test_a_list_in_each_form(run, router, form, text, key):
    page = PAGE["data"] if key is None else {
        key if name == "data" else name: value
        for name, value in PAGE.items()}
    router.order("GET /x", body=encoded(page))
    shown = run("api", "/x", "-o", form)
    assert shown == (pretty(page) if form in ("table", "json") else text)


def test_an_empty_list_is_empty_in_each_form(run):
    empty = {"object": "list", "data": [], "first_id": None,
             "last_id": None, "has_more": False}
    for form, text in (("table", pretty(empty)), ("json", pretty(empty)),
                       ("jsonl", ""), ("id", "")):
        assert run("api", "/conversations", "-o", form) == text


@pytest.mark.parametrize("content_type", [
    "application/json", "application/json; charset=utf-8",
    "application/problem+json"])
def test_json_is_known_by_its_media_type(run, router, content_type):
    router.order("GET /x", body=b'{"a":1}', content_type=content_type)
    assert run("api", "/x") == '{\n  "a": 1\n}\n'


@pytest.mark.parametrize("form", ["table", "json", "id"])
@pytest.mark.parametrize("content_type", [
    "application/octet-stream", "text/plain", "application/jsonl"])
def test_what_is_no_json_passes_byte_for_byte(run_bytes, router, form,
                                              content_type):
    data = bytes(range(256)) * 300 + b'{"id":1}\r\n{"id":2}'
    router.order("GET /files/f/content", body=data,
                 content_type=content_type)
    assert run_bytes("api", "/files/f/content", "-o", form) == (0, data, "")


def test_an_answer_without_a_body_is_no_failure(run_bytes, router):
    router.order("DELETE /x", status=204, headers={"Content-Type": None})
    assert run_bytes("api", "DELETE", "/x") == (0, b"", "")


@pytest.mark.parametrize("data", [b"{oops", b"nan", b"[" * 100000])
def test_json_that_is_none_is_an_error(run, router, data):
    router.order("GET /x", body=data)
    shown = run("api", "/x")
    assert shown.exit_status == 1 and shown == ""
    assert "no JSON" in shown.stderr and "Traceback" not in shown.stderr


def test_a_number_that_is_no_json_is_null(run, router):
    router.order("GET /x", body=b'{"a":[NaN,-Infinity,1e999,1.10]}')
    shown = run("api", "/x", "-o", "jsonl")
    assert shown == '{"a":[null,null,null,1.1]}\n', shown


@pytest.mark.parametrize("content_type, form", [
    ("application/json", "table"), ("text/plain", "table"),
    ("application/json", "jsonl")])
def test_a_short_body_is_an_error(run, router, content_type, form):
    router.order("GET /x", body=b'{"a":1}', lie=5, times=None,
                 content_type=content_type)
    shown = run("api", "/x", "-o", form)
    assert shown.exit_status == 5 and "broke off" in shown.stderr


# == event streams ===========================================================

EVENTS = ('event: response.created\r\ndata: {"type":"response.created"}\r\n'
          '\r\n: kept alive\n\ndata: {"type":"response.completed",\n'
          'data: "x":"é"}\n\n').encode()


def test_an_event_stream_passes_byte_for_byte(run_bytes, router):
    router.order("POST /responses", frames=[EVENTS], drip=True)
    assert run_bytes("api", "POST", "/responses") == (0, EVENTS, "")


def test_jsonl_shows_the_payload_of_each_event(run, router):
    router.order("POST /responses", frames=[EVENTS])
    assert run("api", "POST", "/responses", "-o", "jsonl") == (
        '{"type":"response.created"}\n'
        '{"type":"response.completed","x":"é"}\n')


CHUNK = b'data: {"choices":[{"index":0,"delta":{"content":"Hi"}%b}]}\n\n'


@pytest.mark.parametrize("frames, code", [
    ([CHUNK % b"", b"data: [DONE]\n\n"], 0),
    ([CHUNK % b',"finish_reason":"stop"'], 0),
    ([CHUNK % b""], 7),
    ([CHUNK % b"", b'data: {"error":{"message":"lost"}}\n\n'], 7),
    ([CHUNK % b"", b"data: {oops\n\n"], 7),
])
def test_jsonl_tells_a_complete_stream_from_a_broken_one(run, router, frames,
                                                         code):
    router.order("POST /x", frames=frames)
    shown = run("api", "POST", "/x", "-o", "jsonl")
    assert shown.exit_status == code, shown
    assert shown.startswith('{"choices":[{"index":0,"delta":{"content":"Hi"}')
    assert bool(shown.stderr) == bool(code)


def test_a_stream_of_any_kind_breaks_off_after_a_delta(run, router):
    router.order("POST /responses", frames=[
        b'data: {"type":"response.output_text.delta","delta":"Hi"}\n\n'])
    shown = run("api", "POST", "/responses", "-o", "jsonl")
    assert shown == '{"type":"response.output_text.delta","delta":"Hi"}\n'
    assert shown.exit_status == 7


def test_bytes_of_a_stream_that_is_cut_are_kept(run_bytes, router):
    router.order("POST /x", frames=[CHUNK % b"", CHUNK % b""],
                 cut=len(CHUNK % b"") + 5)
    status, stdout, stderr = run_bytes("api", "POST", "/x")
    assert stdout == (CHUNK % b"") + b"data:"
    assert status == 7 and stderr.startswith("error: ")


# == include, plans, errors ==================================================

def test_include_shows_status_and_headers_first(run, router):
    router.order("GET /x", status=203, reason="Not Quite", body=b'{"a":1}',
                 headers={"X-Odd": "1", "X-Request-ID": None})
    shown = run("api", "/x", "--include")
    assert shown == ("HTTP 203 Not Quite\nContent-Type: application/json\n"
                     "Content-Length: 7\nConnection: close\nX-Odd: 1\n\n"
                     '{\n  "a": 1\n}\n')


@pytest.mark.parametrize("form", ["json", "jsonl", "csv", "id"])
def test_include_never_mixes_with_data(run, router, form):
    router.order("GET /x", body=b'{"id":"a"}', times=2)
    shown = run("api", "/x", "--include", "-q", "-o", form)
    assert shown == run("api", "/x", "-o", form)
    assert shown.stderr.startswith("HTTP 200 OK\n")
    assert "Content-Length: 10\n" in shown.stderr


@pytest.mark.parametrize("words, method, body", [
    (["/x", "--field", "a=1"], "POST", {"a": 1}),
    (["PATCH", "/x", "--raw-field", "a=1"], "PATCH", {"a": "1"}),
    (["DELETE", "/x"], "DELETE", None),
    (["PUT", "/x", "--input", "-"], "PUT", "not {JSON}\n"),
])
def test_a_dry_run_changes_nothing(run, router, words, method, body):
    shown = run("api", *words, "--dry-run", "-o", "json",
                stdin=b"not {JSON}\n")
    assert shown.exit_status == 0 and router.requests == []
    plan = json.loads(shown)
    assert plan["method"] == method and plan["body"] == body
    assert plan["url"] == router.base_url + "/x"
    assert router.key not in shown


def test_a_dry_run_reads_what_changes_nothing(run):
    assert run("api", "/models", "--dry-run") == run("api", "/models")


def test_curl_sends_nothing(run, router):
    shown = run("api", "/models", "--curl")
    assert shown.startswith(f"curl -sS -X GET {router.base_url}/models ")
    assert router.requests == []


@pytest.mark.parametrize("words, code", [
    (["/none"], 4), (["PATCH", "/models"], 1), (["/models?limit=0"], 1),
    (["/chat/completions"], 4),
])
def test_an_error_of_the_router_is_one_of_ours(run, words, code):
    shown = run("api", *words, "-o", "json")
    assert shown.exit_status == code and shown == ""
    assert json.loads(shown.stderr)["error"]["message"]


# == conversations ===========================================================

def test_api_makes_lists_changes_and_deletes(run, router):
    made = json.loads(run("api", "/conversations", "--field",
                          'metadata={"topic":"tests"}'))
    assert made["metadata"] == {"topic": "tests"}
    one = "/conversations/" + made["id"]
    assert run("api", "/conversations", "-o", "id") == made["id"] + "\n"
    changed = run("api", "POST", one, "--field", 'metadata={"topic":"b"}')
    assert json.loads(changed)["metadata"] == {"topic": "b"}
    assert json.loads(run("api", "DELETE", one))["deleted"] is True
    assert run("api", "/conversations", "-o", "id") == ""
    assert run("api", one).exit_status == 4


# == what a person sees ======================================================

SEEN = {
    "api-list": ("api", "/models?limit=2", "--endpoint", "demo"),
    "api-csv": ("api", "/models", "-o", "csv"),
    "api-post": ("api", "/conversations", "--field",
                 'metadata={"topic":"tests"}'),
    "api-include": ("api", "/exec/tools", "--include"),
    "api-no-route": ("api", "/chat/completions"),
    "api-no-route-json": ("api", "/chat/completions", "-o", "json"),
    "api-bad-field": ("api", "/x", "--field", "topic=tests"),
}


@pytest.mark.parametrize("name", sorted(SEEN))
def test_what_a_person_sees(golden, name):
    golden(name, *SEEN[name])


def test_what_a_person_sees_of_a_missing_scope(router, golden):
    key = router.add_key("xero_demo_weak", "inference")
    golden("api-scope", "api", "/management/api-keys", XEROTIER_API_KEY=key)


PLANNED = {
    "api-dry-run": ("api", "/conversations", "--raw-field", "a=Grüße!",
                    "--header", "X-Secret: 1", "--dry-run"),
    "api-curl": ("api", "GET", "/models", "--field", "limit=2",
                 "--header", "X-Secret: 1", "--curl"),
}


@pytest.mark.parametrize("name", sorted(PLANNED))
def test_what_a_person_sees_of_a_plan(golden, name):
    golden(name, *PLANNED[name], **ACME)
