"""exec: tools are looked at, started, watched and cancelled.

The router moves an invocation on with each GET, so that a watch sees it
queued, running and ended; what needs approval waits until it is decided.
"""

import functools
import io
import json

import pytest

import xeroctl
from conftest import environment, text_stream, written
from helpers import TerminalStream, asked as asked_below, caller, labelled

GROUP = ("exec",)
DONE = "inv_000000000000000000000001"
WAITING = "inv_000000000000000000000002"
WAITS_FOR = "00000001-0000-4000-800a-000000000001"
FIFTH = "inv_000000000000000000000005"
FOURTH_APPROVAL = "00000004-0000-4000-800a-000000000004"
PRINTED = ('kubectl_get {"kind": "nodes"}\n'
           "NAME        READY\nworker-07   True\n")
GET = ("invoke", "--workspace", "ws_kube_prod", "--tool", "kubectl_get",
       "--args", '{"kind": "pods"}')
DRAIN = ("invoke", "--workspace", "ws_kube_prod", "--tool", "kubectl_drain",
         "--args", '{"node": "worker-09"}')
INVOKE_GET = {"workspace_id": "ws_kube_prod", "tool": "kubectl_get",
              "args": {"kind": "pods"}}

tools = caller("exec")
asked = functools.partial(asked_below, below="/v1/exec")


@pytest.fixture
def run_bytes(router, clock):
    """Run with bytes out, on a terminal or in a pipe."""
    def runner(*argv, is_terminal=False):
        kept = io.BytesIO()
        stdout = (TerminalStream if is_terminal else io.TextIOWrapper)(kept)
        streams = xeroctl.Streams(text_stream(), stdout, text_stream())
        status = xeroctl.main(argv, environment(router), streams, clock)
        assert status == 0, written(streams.stderr)
        stdout.flush()
        return kept.getvalue()
    return runner


def interrupt():
    raise KeyboardInterrupt


def invoked(tools, *words):
    """Start a tool; return the invocation's id."""
    shown = tools(*(words or GET), "-o", "id")
    assert shown.exit_status == 0
    return shown.strip()


# == tools ===================================================================

def test_the_tools_are_listed(router, golden):
    shown = golden("exec-tools", "exec", "tools")
    assert shown.splitlines()[0].split() == ["Name", "Description"]
    assert asked(router) == ["GET /tools"]


def test_a_wide_list_of_tools_has_their_risk(tools):
    assert tools("tools", "-o", "wide").splitlines()[0].split() == [
        "Name", "Description", "Risk", "Domain"]


def test_names_of_tools_go_to_xargs(tools):
    assert tools("tools", "-o", "id") == "kubectl_get\nkubectl_drain\n"


def test_all_that_is_known_of_a_tool_is_shown(tools, router):
    shown = labelled(tools("tool-show", "kubectl_drain"))
    assert shown.pop("parameters").startswith('{"type":"object",')
    assert shown == {
        "name": "kubectl_drain", "description": "Evict the pods of a node.",
        "risk": "destructive", "domain": "kubernetes",
        "timeout_seconds": "600", "object": "exec.tool",
        "requires_approval": "yes"}
    assert asked(router) == ["GET /tools/kubectl_drain"]


def test_a_field_that_nobody_knows_yet_is_shown_too(tools, router):
    router.order("GET /tools/x", body=b'{"name": "x", "cost": {"eur": 1.50}}')
    assert labelled(tools("tool-show", "x")) == {
        "name": "x", "cost": '{"eur":1.5}'}


def test_a_tool_as_json_keeps_its_schema(tools):
    value = json.loads(tools("tool-show", "kubectl_get", "-o", "json"))
    assert value["parameters"]["properties"]["name"] == {"type": "string"}


def test_a_tool_that_nobody_offers_is_not_found(tools):
    shown = tools("tool-show", "kubectl_fly")
    assert shown.exit_status == 4 and "'kubectl_fly'" in shown.stderr
    assert "code: exec_tool_not_found" in shown.stderr


# == invoke ==================================================================

def test_a_tool_is_started(tools, router):
    shown = tools(*GET)
    assert labelled(shown) == {
        "ID": FIFTH, "Tool": "kubectl_get", "Status": "queued",
        "Workspace": "ws_kube_prod", "Approval": "-",
        "Arguments": '{"kind":"pods"}', "Error": "-", "Output": "-"}
    assert (shown.exit_status, shown.stderr) == (0, "")
    assert asked(router) == ["POST /invocations"]
    assert router.requests[0].json == INVOKE_GET


@pytest.mark.parametrize("text, args", [
    ("{}", {}),
    ('{"a": {"b": [1, 2.50, null]}}', {"a": {"b": [1, 2.5, None]}}),
    (' {"n": 12345678901234567890}\n', {"n": 12345678901234567890}),
    ('{"é": "\\u2028"}', {"é": "\u2028"}),
])
@pytest.mark.parametrize("way", ["word", "file", "stdin"])
def test_arguments_come_as_a_word_a_file_or_stdin(tools, router, tmp_path,
                                                  text, args, way):
    path = tmp_path / "args.json"
    path.write_bytes(text.encode())
    word = {"word": text, "file": f"@{path}", "stdin": "-"}[way]
    shown = tools(*GET[:-1], word, stdin=text.encode() * (way == "stdin"))
    assert shown.exit_status == 0
    assert router.requests[0].json["args"] == args


def test_a_file_with_a_mark_of_byte_order_is_read(tools, router):
    tools(*GET[:-1], "-", stdin=b'\xef\xbb\xbf{"a": 1}\r\n')
    assert router.requests[0].json["args"] == {"a": 1}


@pytest.mark.parametrize("text", ["{", "", "name=x", '{"a": NaN}', "{} {}"])
def test_arguments_that_are_no_json_are_not_sent(refused, text):
    assert "--args is not JSON" in refused(*GET[:-1], text)


@pytest.mark.parametrize("text", ["[]", "1", "null", '"{}"'])
def test_arguments_that_are_no_object_are_not_sent(refused, text):
    assert "--args is no JSON object" in refused(*GET[:-1], text)


def test_a_file_of_arguments_that_is_missing_is_named(refused):
    assert "no-such.json" in refused(*GET[:-1], "@no-such.json")


def test_stdin_is_for_one_thing(refused):
    assert "--api-key" in refused(*GET[:-1], "-", "--api-key", "-",
                                  stdin=b"{}")


def test_a_tool_that_nobody_offers_is_not_started(tools):
    shown = tools("invoke", "--workspace", "ws_kube_prod", "--tool", "nope",
                  "--args", "{}")
    assert shown.exit_status == 1 and "'nope'" in shown.stderr
    assert "code: exec_tool_not_found" in shown.stderr


def test_what_needs_approval_says_who_decides_and_how(golden):
    shown = golden("exec-pending", "exec", *DRAIN)
    assert labelled(shown)["Status"] == "pending_approval"
    assert f"xeroctl approvals approve {FOURTH_APPROVAL}" in shown.stderr
    assert f"xeroctl exec watch {FIFTH}" in shown.stderr


@pytest.mark.parametrize("form", ["json", "id", "jsonl", "csv"])
def test_the_approval_is_told_beside_any_form(tools, form):
    shown = tools(*DRAIN, "-o", form, "-q")
    assert FOURTH_APPROVAL in shown.stderr
    if form == "json":
        assert json.loads(shown)["approval_id"] == FOURTH_APPROVAL
    if form == "id":
        assert shown == FIFTH + "\n"


def test_an_invocation_is_not_sent_twice_when_its_answer_is_lost(tools,
                                                                 router):
    router.order("POST /invocations", drop="after")
    assert tools(*GET).exit_status == 5
    assert asked(router) == ["POST /invocations"]


# == waiting =================================================================

def test_a_wait_ends_with_the_result(tools, router, clock):
    shown = tools(*GET, "--wait")
    assert shown.exit_status == 0
    assert labelled(shown)["Status"] == "completed"
    assert shown.endswith("""
Output:
kubectl_get {"kind": "pods"}
NAME        READY
worker-07   True
""")
    assert asked(router) == ["POST /invocations"] + [
        f"GET /invocations/{FIFTH}"] * 3
    assert clock.slept == [2, 2]


@pytest.mark.parametrize("end", ["failed", "timeout", "cancelled",
                                 "rejected"])
@pytest.mark.parametrize("form", ["table", "json"])
def test_an_end_that_is_bad_is_exit_1(tools, router, end, form):
    router.exec_end = end
    shown = tools(*GET, "--wait", "-o", form)
    assert shown.exit_status == 1
    assert f"invocation {FIFTH}: {end}" in shown.stderr
    if form == "json":
        assert json.loads(shown)["status"] == end
    else:
        assert labelled(shown)["Status"] == end
        assert f"exec_{end}" in labelled(shown)["Error"]


@pytest.mark.parametrize("polls", [0, 1, 5])
def test_a_watch_lasts_as_long_as_it_takes(tools, router, clock, polls):
    router.exec_polls = polls
    shown = tools("watch", invoked(tools))
    assert shown.exit_status == 0
    assert labelled(shown)["Status"] == "completed"
    assert set(clock.slept) <= {2}
    assert len(router.seen("GET", FIFTH)) == len(clock.slept) + 1


def test_each_change_of_status_is_told_once(tools, router):
    router.exec_polls = 20
    shown = tools("watch", invoked(tools))
    assert shown.stderr == "".join(
        f"{FIFTH} {word}\n" for word in ("queued", "running", "completed"))


def test_quiet_leaves_the_result_alone(tools):
    shown = tools("watch", invoked(tools), "-q", "-o", "json")
    assert shown.stderr == ""
    assert json.loads(shown)["status"] == "completed"


def test_a_watch_of_what_has_ended_asks_once(tools, router, clock):
    assert tools("watch", DONE, "-o", "id") == DONE + "\n"
    assert asked(router) == [f"GET /invocations/{DONE}"]
    assert clock.slept == []


def test_a_wait_for_approval_ends_with_its_time(tools, clock):
    shown = tools(*DRAIN, "--wait", "--wait-timeout", "8")
    assert (shown, shown.exit_status) == ("", 8)
    assert clock.slept == [2] * 4
    assert f"xeroctl approvals approve {FOURTH_APPROVAL}" in shown.stderr
    assert f"xeroctl exec watch {FIFTH}" in shown.stderr


def test_a_watch_has_a_limit_too(tools, clock):
    shown = tools("watch", WAITING, "--wait-timeout", "3")
    assert (shown, shown.exit_status) == ("", 8)
    assert sum(clock.slept) == 3 and WAITS_FOR in shown.stderr


def test_a_watch_goes_on_when_it_is_approved(tools, run, clock):
    clock.steps = [lambda: None, lambda: run(
        "approvals", "approve", WAITS_FOR, "--force")]
    shown = tools("watch", WAITING)
    assert shown.exit_status == 0
    assert labelled(shown)["Status"] == "completed"
    assert shown.stderr.count("xeroctl approvals approve") == 1


def test_a_watch_ends_when_it_is_rejected(tools, run, clock):
    clock.steps = [lambda: run("approvals", "reject", WAITS_FOR)]
    shown = tools("watch", WAITING)
    assert shown.exit_status == 1
    assert labelled(shown)["Status"] == "rejected"


def test_a_watch_survives_an_answer_that_failed(tools, router):
    router.order("GET " + DONE, times=4, status=502)
    assert tools("watch", DONE).exit_status == 0


@pytest.mark.parametrize("body", [
    b"{}", b"[]", b"null", b'{"id": "x"}', b'{"status": null}',
    b'{"status": ["completed"]}', b"<html>"])
def test_an_answer_without_a_status_ends_the_watch(tools, router, body):
    router.order("GET " + DONE, body=body)
    shown = tools("watch", DONE)
    assert (shown, shown.exit_status) == ("", 1)
    assert len(router.requests) == 1 and "internal" not in shown.stderr


def test_a_status_cannot_steer_a_terminal(router, clock):
    router.order("GET " + DONE, body=b'{"status": "\\u001b[2J\\nx"}')
    stderr = TerminalStream(io.BytesIO())
    streams = xeroctl.Streams(text_stream(), text_stream(), stderr)
    assert xeroctl.main(["exec", "watch", DONE, "--color", "never"],
                        environment(router, TERM="dumb"), streams, clock) == 0
    assert "\\x1b[2J\\nx\n" in written(stderr)


@pytest.mark.parametrize("words", [("watch", FIFTH), GET + ("--wait",)])
def test_ctrl_c_tells_how_to_go_on(tools, router, clock, words):
    if words[0] == "watch":
        invoked(tools)
    clock.steps = [interrupt]
    shown = tools(*words)
    assert (shown, shown.exit_status) == ("", 130)
    assert f"xeroctl exec watch {FIFTH}" in shown.stderr
    assert router.seen("POST", "/cancel") == []


# == cancel ==================================================================

def test_an_invocation_is_cancelled(tools, router):
    shown = tools("cancel", WAITING)
    assert shown.exit_status == 0
    assert labelled(shown)["Status"] == "cancelled"
    assert asked(router) == [f"POST /invocations/{WAITING}/cancel"]
    assert labelled(tools("show", WAITING))["Status"] == "cancelled"


def test_what_has_ended_cannot_be_cancelled(tools):
    shown = tools("cancel", DONE)
    assert (shown, shown.exit_status) == ("", 1)
    assert "HTTP 409" in shown.stderr and "completed" in shown.stderr


# == executions ==============================================================

def test_executions_are_listed(router, golden):
    shown = golden("exec-list", "exec", "list")
    assert shown.splitlines()[0].split() == [
        "ID", "Tool", "Workspace", "Status", "Created"]
    assert asked(router) == ["GET /executions"]


def test_an_execution_is_shown(tools, router, golden):
    shown = golden("exec-show", "exec", "show", DONE)
    assert list(labelled(shown)) == [
        "ID", "Tool", "Workspace", "Status", "Created", "Completed", "Risk",
        "Approval", "Exit code", "Duration ms", "Arguments", "Error",
        "Output", 'kubectl_get {"kind"', "NAME        READY",
        "worker-07   True"]
    assert asked(router) == [f"GET /executions/{DONE}"]
    value = json.loads(tools("show", DONE, "-o", "json"))
    assert value["args"] == {"kind": "nodes"} and value["approval_id"] is None


@pytest.mark.parametrize("result, output", [
    ('"one\\ntwo\\tx\\n"', "\none\ntwo\tx\n"), ('"one"', "    one\n"),
    ('{"output": "a\\nb"}', "\na\nb\n"), ('{"rows": 3}', '    {"rows":3}\n'),
    ('{"stdout": "a", "stderr": "b"}', "\na\nb\n"), ("null", "    -\n"),
    ('{"content": [{"type": "text", "text": "a\\nb"}]}', "\na\nb\n"),
    ('[{"type": "text", "text": "a"}, {"text": "b"}]', "\na\nb\n"),
    ('{"output": {"rows": 3}}', '    {"rows":3}\n'), ("17", "    17\n"),
    ('{"exit_code": 0, "output": ""}', "    -\n")])
def test_an_output_is_shown_as_text(tools, router, result, output):
    router.order("GET /x", times=None, body=(
        '{"id": "x", "status": "completed", "args": {"a": "b\\nc"},'
        f' "result": {result}}}').encode())
    for verb in "watch", "show":
        shown = tools(verb, "x")
        assert shown.partition("Output:")[2].lstrip(" ") == output.lstrip(" ")
        assert labelled(shown)["Arguments"] == '{"a":"b\\nc"}'


def test_an_output_does_not_steer_a_terminal(run_bytes, router):
    router.order("GET /x", body=b'{"id": "x", "result": "a\\nb\\u001b[2J"}')
    shown = run_bytes("exec", "show", "x", "--no-color", is_terminal=True)
    assert shown.endswith(b"Output:\na\nb\\x1b[2J\n")


# == raw =====================================================================

ODD = b"\xff\x00\x1b]52;c;aGk=\x07\r\ntwo\xe2\x80\xae"


def test_what_a_tool_printed_is_written(tools, router):
    assert tools("raw", DONE) == PRINTED
    assert asked(router) == [f"GET /executions/{DONE}/raw"]


def test_bytes_pass_a_pipe_unchanged(run_bytes, router):
    router.order("GET /raw", body=ODD, content_type="text/plain")
    assert run_bytes("exec", "raw", DONE) == ODD


@pytest.mark.parametrize("media", ["application/json", "text/event-stream",
                                   "application/octet-stream"])
def test_bytes_pass_whatever_their_type(run_bytes, router, media):
    router.order("GET /raw", body=b'{"a":  1.50}', content_type=media)
    assert run_bytes("exec", "raw", DONE) == b'{"a":  1.50}'


def test_a_terminal_is_not_steered_by_a_tool(run_bytes, router):
    router.order("GET /raw", body=ODD, content_type="text/plain")
    shown = run_bytes("exec", "raw", DONE, is_terminal=True)
    assert not {0x00, 0x07, 0x1b} & set(shown)
    assert rb"\x1b]52;c;aGk=\x07" in shown and b"two" in shown
    assert b"\xe2\x80\xae" not in shown


def test_raw_lifts_that(run_bytes, router):
    router.order("GET /raw", body=ODD, content_type="text/plain")
    shown = run_bytes("exec", "raw", DONE, "--raw", is_terminal=True)
    assert b"\x1b]52;c;aGk=\x07" in shown


def test_what_runs_yet_has_printed_nothing(tools):
    shown = tools("raw", WAITING)
    assert (shown, shown.exit_status) == ("", 1)
    assert "HTTP 409" in shown.stderr
