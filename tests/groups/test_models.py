"""models: the whole life of a model, as the product's page tells it.

The router keeps the six models of the page; what is asked of it, and what
is not, is looked at as closely as what is shown.
"""

import json

import pytest

from helpers import asked, encoded, labelled
from router import Router

pty = pytest.importorskip("pty")

NOW = 1770000000
GROUP = ("models",)
QWEN = "8b1f4c2d-9e7a-4f3b-bc11-2d8e6a4c5f01"
LLAMA = "2a3c5b6e-7d8f-4019-9c2a-1b4d3e5f6a7c"
BGE = "3f7e8d9a-1c2b-4d5e-8f60-7a8b9c0d1e2f"
RERANKER = "4a5b6c7d-8e9f-4012-9a3b-5c6d7e8f9012"
MIXTRAL = "5b6c7d8e-9f01-4234-8a4b-6c7d8e9f0123"
MAMBA = "6c7d8e9f-0123-4456-8b5c-7d8e9f012345"
ALL = [QWEN, LLAMA, BGE, RERANKER, MIXTRAL, MAMBA]

HEADS = ["ID", "Name", "Format", "Size", "Status", "Version", "Shared"]
WIDE_HEADS = HEADS + ["Architecture", "Quantization", "Context",
                      "Parameters", "Created"]
LABELS = ["ID", "Name", "Created", "Owner", "Format", "Size", "Status",
          "Version", "Is Latest", "Description", "Architecture",
          "Quantization", "Context Length", "Parameters", "Workload Type",
          "Shared"]
VERSION_HEADS = ["Version", "ID", "Latest", "Status", "Notes", "Created"]


@pytest.fixture
def router():
    """A router with whole records, whose clock stands still."""
    with Router(clock=lambda: NOW) as router:
        router.lists_names = False
        yield router


@pytest.fixture
def models(run):
    """run, with the group's name before the words."""
    def runner(*words, **more):
        return run("models", *words, **more)
    return runner


def last_body(router):
    return router.requests[-1].json


def cells(line):
    return [cell for cell in line.split("  ") if cell]


def head_of(shown):
    """The heads of a table's columns."""
    return [cell.strip() for cell in cells(shown.split("\n", 1)[0])]


# == list ====================================================================

def test_a_list_is_as_the_page_says(models, router, golden):
    shown = models()
    golden("models-list", ["models"], shown)
    assert head_of(shown) == HEADS
    assert asked(router) == ["GET /models"]


def test_a_wide_list_asks_for_what_it_shows(models, router):
    shown = models("-o", "wide")
    assert head_of(shown) == WIDE_HEADS
    assert asked(router) == ["GET /models?extended=true"]
    assert [cell.strip() for cell in cells(shown.splitlines()[2])] == [
        LLAMA, "llama-3.3-70b-instruct", "safetensors", "141.1 GB",
        "active", "1.0.0", "yes", "transformer", "-", "131072", "70.6B",
        "2025-05-20 20:20 UTC"]


@pytest.mark.parametrize("count, told", [
    (7000000000, "7.0B"), (567754752, "567.8M"), (None, "-")])
def test_parameters_are_counted_for_people(models, router, count, told):
    router.models[QWEN]["parameter_count"] = count
    assert cells(models("-o", "wide", "--limit", "1").splitlines()[1])[
        -2].strip() == told


def test_extended_fields_are_for_json(models, router):
    shown = models("--extended", "-o", "json")
    assert asked(router) == ["GET /models?extended=true"]
    assert json.loads(shown)["data"] == list(router.models.values())


def test_extended_leaves_the_table_as_it_is(models):
    assert models("--extended") == models()


def test_json_has_no_extended_fields_unless_asked(models):
    first = json.loads(models("-o", "json"))["data"][0]
    assert first["size_bytes"] == 15231233024
    assert "architecture" not in first


def test_csv_has_the_wide_columns_raw(models):
    head, row, _ = models("-o", "csv", "--limit", "2").split("\r\n", 2)
    assert head.split(",") == WIDE_HEADS
    assert row.startswith(f"{QWEN},qwen3-7b-instruct,safetensors,"
                          "15231233024,validated,1.1.0,false,")
    assert row.endswith(",1747772400")


def test_csv_fills_its_wide_columns(models):
    row = models("-o", "csv", "--limit", "1").split("\r\n")[1]
    assert row.endswith("false,transformer,awq,32768,7000000000,1747772400")


def test_the_last_page_tells_of_no_next_one(models):
    shown = models("--limit", "2", "--offset", "4", "-o", "id")
    assert shown.split() == [MIXTRAL, MAMBA] and shown.stderr == ""


def test_any_limit_is_sent(models, router):
    models("--limit", "5000")
    assert asked(router) == ["GET /models?limit=5000"]


@pytest.mark.parametrize("words", [
    ("--limit", "0"), ("--limit", "x"), ("--offset", "-1")])
def test_odd_pages_are_refused(refused, words):
    assert words[0] in refused(*words)


def test_all_goes_on_from_an_offset(models):
    shown = models("--all", "--limit", "2", "--offset", "3", "-o", "id")
    assert shown.split() == ALL[3:]


def test_an_endpoint_lists_what_it_serves(models, router):
    shown = models("--endpoint", "demo")
    assert [seen.path for seen in router.requests] == [
        "/proj_demo/demo/v1/models"]
    assert cells(shown.splitlines()[1])[0] == "reference-parrot-1b"


def test_an_endpoint_of_the_environment_is_not_meant(models, router):
    models(XEROTIER_ENDPOINT="demo")
    assert [seen.path for seen in router.requests] == [
        "/proj_demo/v1/models"]


# == other shapes of an answer ===============================================

CAMEL = {"id": "m1", "name": "n", "format": "gguf", "sizeBytes": 4200000000,
         "status": "ready", "createdAt": "2026-02-02T02:40:00Z",
         "isShared": True, "isLatest": False, "ownedBy": "me",
         "contextLength": 8192, "parameterCount": 7000000000,
         "workloadType": "inference"}


@pytest.mark.parametrize("place", ["models", "data"])
def test_camel_case_is_read_in_either_place(models, router, place):
    router.order("GET /models", body=encoded({place: [CAMEL]}))
    assert [cell.strip() for cell in cells(
        models("-o", "wide").splitlines()[1])] == [
        "m1", "n", "gguf", "4.2 GB", "ready", "-", "yes", "-", "-", "8192",
        "7.0B", "2026-02-02 02:40 UTC"]


def test_a_list_under_models_keeps_its_shape_in_json(models, router):
    router.order("GET /models", body=encoded({"models": [CAMEL]}))
    assert json.loads(models("-o", "json")) == {"models": [CAMEL]}


def test_a_list_under_models_has_ids(models, router):
    router.order("GET /models", body=encoded({"models": [CAMEL] * 2}))
    assert models("-o", "id") == "m1\nm1\n"


def test_a_record_may_be_in_camel_case(models, router):
    router.order("GET /models/m1", body=encoded(CAMEL))
    found = labelled(models("m1"))
    assert list(found) == LABELS
    assert (found["Owner"], found["Size"], found["Created"]) == (
        "me", "4.2 GB", "2026-02-02 02:40 UTC")
    assert (found["Is Latest"], found["Context Length"],
            found["Parameters"], found["Workload Type"],
            found["Shared"]) == ("no", "8192", "7.0B", "inference", "yes")


def test_a_plain_list_of_names_renders(models, router):
    router.order("GET /models", body=encoded({"object": "list", "data": [
        {"id": "gpt", "object": "model", "created": NOW,
         "owned_by": "me"}]}))
    shown = models("-o", "wide")
    assert head_of(shown) == WIDE_HEADS
    assert shown.splitlines()[1].split() == (
        ["gpt"] + ["-"] * 10 + ["2026-02-02", "02:40", "UTC"])
    assert shown.stderr == ""


@pytest.mark.parametrize("words, status, paths", [
    (["-o", "wide"], 0, ["/v1/models"]), (["--extended"], 2, []),
    (["m", "--extended"], 2, [])])
def test_any_server_is_not_asked_for_more(run, openai_router, words, status,
                                          paths):
    shown = run("models", *words, against=openai_router,
                XEROTIER_STYLE="openai")
    assert shown.exit_status == status
    assert [seen.target for seen in openai_router.requests] == paths


def test_any_server_of_names_will_do(run, openai_router):
    shown = run("models", "--all", against=openai_router,
                XEROTIER_STYLE="openai")
    assert shown.exit_status == 0 and len(shown.splitlines()) == 2
    assert [seen.path for seen in openai_router.requests] == ["/v1/models"]


# == show ====================================================================

def test_a_record_is_as_the_page_says(models, router, golden):
    shown = models(BGE)
    golden("models-show", ["models", BGE], shown)
    assert list(labelled(shown)) == LABELS
    assert asked(router) == [f"GET /models/{BGE}"]


@pytest.mark.parametrize("text, shown", [
    ("x" * 120, "x" * 120),
    ("x" * 121, "x" * 119 + "…"),
    ("a\nb", "a\\nb"),
])
def test_a_description_is_cut_at_120_characters(models, router, text, shown):
    router.models[QWEN]["description"] = text
    assert labelled(models(QWEN))["Description"] == shown


def test_a_wide_character_counts_as_one(models, router):
    router.models[QWEN]["description"] = "日" * 120
    assert labelled(models(QWEN))["Description"] == "日" * 120


def test_full_shows_all_of_a_description(models, router):
    text = router.models[QWEN]["description"] = "word " * 99 + "end"
    assert labelled(models(QWEN, "--full"))["Description"] == text


def test_a_change_shows_the_description_as_the_model_does(models):
    text = "word " * 99 + "end"
    cut = labelled(models(QWEN, "--description", text))["Description"]
    assert cut == text[:119] + "…"
    shown = models("update", QWEN, "--full", "--description", text)
    assert labelled(shown)["Description"] == text


def test_full_alone_changes_nothing(refused):
    assert "nothing to update" in refused("update", QWEN, "--full")


def test_json_never_cuts_a_description(models, router):
    text = router.models[QWEN]["description"] = "x" * 500
    assert json.loads(models(QWEN, "-o", "json"))["description"] == text


@pytest.mark.parametrize("model_id, path", [
    ("a/b c", "a%2Fb%20c"), ("a?b", "a%3Fb")])
def test_an_id_is_quoted_in_a_path(models, router, model_id, path):
    shown = models(model_id)
    assert shown.exit_status == 4
    assert asked(router) == [f"GET /models/{path}"]
    assert "HTTP 404 No model with the id" in shown.stderr


def test_a_modifier_of_one_model_needs_it(refused):
    assert "ID" in refused("--full")


def test_a_flag_of_lists_is_not_for_one_model(refused):
    assert "--limit" in refused(QWEN, "--limit", "3")


# == update ==================================================================

@pytest.mark.parametrize("words, body", [
    (["--description", "-5 degrees"], {"description": "-5 degrees"}),
    (["--description", ""], {"description": ""}),
    (["--license", "MIT"], {"license": "MIT"}),
    (["--architecture", "mamba"], {"architecture": "mamba"}),
    (["--quantization", "awq"], {"quantization": "awq"}),
    (["--context-length", "8192"], {"context_length": 8192}),
    (["--parameter-count", "7000000000"], {"parameter_count": 7000000000}),
    (["--hidden-size", "4096"], {"hidden_size": 4096}),
    (["--num-layers", "32"], {"num_layers": 32}),
    (["--vocab-size", "32000"], {"vocab_size": 32000}),
    (["--workload-type", "embedding"], {"workload_type": "embedding"}),
    (["--torch-dtype", "float16"], {"torch_dtype": "float16"}),
    (["--torch-dtype", "bfloat16"], {"torch_dtype": "bfloat16"}),
    (["--torch-dtype", "float32"], {"torch_dtype": "float32"}),
    (["--num-experts", "64"], {"num_experts": 64}),
    (["--num-experts-per-tok", "2"], {"num_experts_per_tok": 2}),
    (["--pre-quantized"], {"pre_quantized": True}),
    (["--pre-quantization-method", "gptq"],
     {"pre_quantization_method": "gptq"}),
    (["--pre-quantization-method", "awq"],
     {"pre_quantization_method": "awq"}),
    (["--pre-quantization-method", "compressed-tensors"],
     {"pre_quantization_method": "compressed-tensors"}),
    (["--pre-quantization-bits", "4"], {"pre_quantization_bits": 4}),
    (["--pre-quantization-bits", "8"], {"pre_quantization_bits": 8}),
], ids=lambda value: " ".join(value) if isinstance(value, list) else "")
def test_each_field_is_sent_alone(models, router, words, body):
    shown = models(QWEN, *words)
    assert shown.exit_status == 0 and shown.stderr == ""
    assert asked(router) == [f"PATCH /models/{QWEN}"]
    assert last_body(router) == body
    name, = body
    assert router.models[QWEN][name] == body[name]


def test_several_fields_go_in_one_request(models, router):
    shown = models(QWEN, "--description", "Fine-tuned for code generation",
                   "--context-length", "8192", "--pre-quantized")
    assert last_body(router) == {
        "description": "Fine-tuned for code generation",
        "context_length": 8192, "pre_quantized": True}
    assert len(router.requests) == 1
    assert list(labelled(shown)) == LABELS
    assert labelled(shown)["Context Length"] == "8192"


def test_an_update_can_be_planned(models, router):
    shown = models(QWEN, "--num-layers", "2", "--dry-run", "-o", "json")
    plan = json.loads(shown)
    assert (plan["method"], plan["body"]) == ("PATCH", {"num_layers": 2})
    assert plan["url"].endswith("/proj_demo/v1/models/" + QWEN)
    assert router.requests == []


@pytest.mark.parametrize("flag, value", [
    ("--torch-dtype", "int8"), ("--torch-dtype", ""),
    ("--pre-quantization-method", "gguf"),
    ("--pre-quantization-bits", "5"), ("--pre-quantization-bits", "x"),
    ("--context-length", "0"), ("--context-length", "many"),
    ("--parameter-count", "7.5"), ("--num-experts", "-1"),
])
def test_what_is_no_choice_is_refused(refused, flag, value):
    assert flag in refused(QWEN, f"{flag}={value}")


def test_choices_are_named_where_none_was_met(refused):
    told = refused(QWEN, "--pre-quantization-method", "gguf")
    assert all(word in told for word in ("gptq", "awq",
                                         "compressed-tensors"))


def test_an_update_needs_a_model(refused):
    assert "ID" in refused("--description", "x")


@pytest.mark.parametrize("action", [
    "--delete", "--share", "--unshare", "--revalidate", "--catalog-info"])
def test_an_update_goes_with_no_action(refused, action):
    told = refused(QWEN, "--license", "MIT", action)
    assert "--license" in told and action in told


@pytest.mark.parametrize("first, second", [
    ("--share", "--delete"), ("--share", "--unshare"),
    ("--revalidate", "--catalog-info")])
def test_two_actions_are_refused(refused, first, second):
    told = refused(QWEN, first, second)
    assert first in told and second in told


@pytest.mark.parametrize("action", [
    "--delete", "--share", "--unshare", "--revalidate", "--catalog-info"])
def test_an_action_needs_a_model(refused, action):
    told = refused(action)
    assert action in told and "ID" in told


@pytest.mark.parametrize("words", [
    [], ["--share"], ["--unshare"], ["--revalidate"], ["--catalog-info"],
    ["--description", "x"], ["--full"]])
def test_several_ids_are_for_delete_alone(refused, words):
    assert f"takes one model ID: '{LLAMA}' is one more" in refused(
        QWEN, LLAMA, *words)


# == delete ==================================================================

def test_a_model_is_deleted(models, router):
    shown = models(QWEN, "--delete", "--force")
    assert shown == f"deleted {QWEN}\n" and shown.exit_status == 0
    assert asked(router) == [f"DELETE /models/{QWEN}"]
    assert QWEN not in router.models and len(router.models) == 5


def test_the_answer_to_a_deletion_is_json(models):
    assert json.loads(models(QWEN, "--delete", "--force", "-o", "json")) == {
        "id": QWEN, "object": "model", "deleted": True}


def test_a_deletion_of_several_needs_a_yes(refused):
    assert "--force" in refused(QWEN, LLAMA, "--delete")


@pytest.mark.parametrize("typed, status, left", [
    (b"y\n", 0, 5), (b"n\n", 1, 6), (b"\n", 1, 6), (b"\x04", 1, 6)])
def test_a_deletion_is_asked_about(answer, router, typed, status, left):
    code, told = answer("models", QWEN, "--delete", typed=typed)
    assert f"Delete model qwen3-7b-instruct ({QWEN})? [y/N]" in told
    assert (code, len(router.models)) == (status, left)
    assert [seen.method for seen in router.requests] == (
        ["GET", "DELETE"][:7 - left])


@pytest.mark.parametrize("fault", [
    {"status": 500}, {"body": b"<html>"}, {"body": b"[]"},
    {"body": b'{"id": "x"}'}, {"body": b'{"name": ""}'}])
def test_a_name_that_is_not_to_be_had_is_no_harm(answer, router, fault):
    router.order(f"GET /models/{QWEN}", times=None, **fault)
    code, told = answer("models", QWEN, "--delete", "--retries", "0",
                        typed=b"y\n")
    assert f"Delete model {QWEN}? [y/N]" in told and code == 0
    assert QWEN not in router.models


@pytest.mark.parametrize("flag", ["--force", "--dry-run"])
def test_a_name_is_asked_for_only_to_ask(answer, router, flag):
    assert answer("models", QWEN, "--delete", flag, typed=b"")[0] == 0
    assert [seen.method for seen in router.requests] == ["DELETE"] * (
        flag == "--force")


def test_several_are_asked_about_once(answer, router):
    code, told = answer("models", QWEN, LLAMA, "--delete", typed=b"y\n")
    assert told.count("?") == 1 and "2 models" in told
    assert code == 0 and len(router.models) == 4


def test_several_are_deleted(models, router):
    shown = models(QWEN, LLAMA, BGE, "--delete", "--force")
    assert shown == (f"[OK] {QWEN}\n[OK] {LLAMA}\n[OK] {BGE}\n"
                     "3 of 3 deleted\n")
    assert shown.exit_status == 0 and shown.stderr == ""
    assert list(router.models) == [RERANKER, MIXTRAL, MAMBA]


def test_what_was_done_before_a_refused_key_is_told(models, router):
    router.order("DELETE /models/" + LLAMA, status=401, message="revoked",
                 times=None)
    shown = models(QWEN, LLAMA, BGE, "--delete", "--force", "-o", "json")
    assert [(each["id"], each["ok"]) for each in json.loads(shown)["data"]
            ] == [(QWEN, True), (LLAMA, False), (BGE, False)]
    assert shown.exit_status == 3 and "revoked" in shown.stderr
    assert asked(router) == [f"DELETE /models/{each}"
                             for each in (QWEN, LLAMA)]


def test_a_failure_does_not_stop_the_others(models, router):
    shown = models(QWEN, "nope", LLAMA, "--delete", "--force")
    assert shown == (
        f"[OK] {QWEN}\n[FAIL] nope (HTTP 404 No model with the id 'nope'.)\n"
        f"[OK] {LLAMA}\n2 of 3 deleted\n")
    assert shown.exit_status == 1
    assert asked(router) == [f"DELETE /models/{each}"
                             for each in (QWEN, "nope", LLAMA)]


def test_an_id_may_stand_behind_the_flag(models, router):
    models("--delete", "--force", QWEN, LLAMA)
    assert len(router.models) == 4


def test_outcomes_are_a_list_in_json(models):
    shown = models(QWEN, "nope", "--delete", "--force", "-o", "json")
    assert shown.exit_status == 1
    assert json.loads(shown) == {"object": "list", "data": [
        {"id": QWEN, "ok": True, "error": None},
        {"id": "nope", "ok": False,
         "error": "HTTP 404 No model with the id 'nope'."}]}


def test_ids_are_those_that_were_deleted(models):
    shown = models(QWEN, "nope", LLAMA, "--delete", "--force", "-o", "id")
    assert shown == f"{QWEN}\n{LLAMA}\n" and shown.exit_status == 1


def test_a_bulk_deletion_can_be_planned(models, router):
    shown = models(QWEN, LLAMA, "--delete", "--dry-run", "-o", "json")
    assert [(plan["method"], plan["url"]) for plan in json.loads(shown)] == [
        ("DELETE", f"{router.base_url}/models/{each}")
        for each in (QWEN, LLAMA)]
    assert router.requests == [] and shown.exit_status == 0


# == share, unshare, catalog-info ============================================

def test_a_model_is_shared_and_taken_back(models, router):
    shown = models(QWEN, "--share")
    assert shown.exit_status == 0 and QWEN in shown
    assert router.models[QWEN]["shared"] is True
    assert models(QWEN, "--unshare").exit_status == 0
    assert router.models[QWEN]["shared"] is False
    assert asked(router) == [f"POST /models/{QWEN}/share",
                             f"POST /models/{QWEN}/unshare"]


def test_what_is_shared_is_not_shared_again(models):
    shown = models(LLAMA, "--share")
    assert shown.exit_status == 1
    assert "HTTP 409 The model is shared already." in shown.stderr


def test_the_catalog_shows_every_field(models, router):
    more = {"x_new": {"a": [1, 2]}, "note": "n"}
    router.order(f"GET /models/{LLAMA}/catalog", body=encoded(
        dict({"id": LLAMA, "role": "deployable", "tags": ["chat"]}, **more)))
    found = labelled(models(LLAMA, "--catalog-info"))
    assert found == {"id": LLAMA, "role": "deployable", "tags": '["chat"]',
                     "x_new": '{"a":[1,2]}', "note": "n"}


def test_the_catalog_is_json_as_received(models, router):
    shown = json.loads(models(LLAMA, "--catalog-info", "-o", "json"))
    assert shown["role"] == "deployable" and shown["downloads"] == 3
    assert asked(router) == [f"GET /models/{LLAMA}/catalog"]


# == revalidate ==============================================================

def test_a_check_is_queued(models, router):
    shown = models(QWEN, "--revalidate")
    assert shown.exit_status == 0 and "queued" in shown
    assert asked(router) == [f"POST /models/{QWEN}/revalidate"]


def test_a_wait_polls_until_the_end(models, router, clock):
    shown = models(QWEN, "--revalidate", "--wait")
    assert shown.exit_status == 0
    assert labelled(shown)["Status"] == "validated"
    assert asked(router) == [f"POST /models/{QWEN}/revalidate"] + [
        f"GET /models/{QWEN}"] * 4
    assert clock.slept == [2, 2, 2]
    assert "validating" in shown.stderr


@pytest.mark.parametrize("end, status", [
    ("active", 0), ("ready", 0), ("validated", 0),
    ("error", 1), ("failed", 1), ("invalid", 1)])
def test_an_end_is_good_or_bad(models, router, end, status):
    router.revalidation_end = end
    shown = models(QWEN, "--revalidate", "--wait", "-o", "json")
    assert shown.exit_status == status
    assert json.loads(shown)["status"] == end
    assert (f"model {QWEN}: {end}" in shown.stderr) == bool(status)


@pytest.mark.parametrize("lag", [1, 2])
@pytest.mark.parametrize("before, end, status", [
    ("validated", "invalid", 1), ("failed", "ready", 0),
    ("failed", "failed", 1)])
def test_the_status_from_before_is_no_end(models, router, lag, before, end,
                                          status):
    router.models[QWEN]["status"] = before
    router.revalidation_lag, router.revalidation_end = lag, end
    shown = models(QWEN, "--revalidate", "--wait")
    assert shown.exit_status == status
    assert labelled(shown)["Status"] == end
    assert len(router.seen("GET", QWEN)) == lag + 4


def test_a_status_that_stays_is_believed_at_the_third_poll(models, router):
    router.revalidation_polls = 0
    assert models(QWEN, "--revalidate", "--wait").exit_status == 0
    assert len(router.seen("GET", QWEN)) == 3


def test_a_check_that_ends_at_once_is_over_once_it_differs(models, router):
    router.revalidation_lag, router.revalidation_polls = 1, 0
    router.revalidation_end = "invalid"
    assert models(QWEN, "--revalidate", "--wait").exit_status == 1
    assert len(router.seen("GET", QWEN)) == 2


def test_a_wait_ends_when_its_time_is_up(models, router, clock):
    router.revalidation_polls = 1000
    shown = models(QWEN, "--revalidate", "--wait", "--wait-timeout", "5")
    assert shown.exit_status == 8 and shown == "" and clock.at == 5
    assert f"xeroctl models {QWEN}" in shown.stderr


def test_a_wait_takes_600_seconds_unless_told(models, router, clock):
    router.revalidation_polls = 1000
    assert models(QWEN, "--revalidate", "--wait").exit_status == 8
    assert clock.at == 600


def test_a_wait_bears_a_passing_failure(models, router):
    router.order(f"GET /models/{QWEN}", status=502, times=4)
    assert models(QWEN, "--revalidate", "--wait").exit_status == 0


def test_a_check_that_is_refused_is_not_waited_for(models, router):
    shown = models("nope", "--revalidate", "--wait")
    assert shown.exit_status == 4 and len(router.requests) == 1


@pytest.mark.parametrize("words, named", [
    (["--wait"], ["--wait", "--revalidate"]),
    (["--wait-timeout", "5"], ["--wait-timeout"]),
    (["--revalidate", "--wait-timeout", "5"], ["--wait-timeout", "--wait"]),
    (["--share", "--wait"], ["--share", "--wait"]),
    (["--revalidate", "--wait", "--wait-timeout", "0"], ["--wait-timeout"]),
])
def test_a_wait_is_for_a_check(refused, words, named):
    told = refused(QWEN, *words)
    assert all(flag in told for flag in named)


# == versions ================================================================

@pytest.fixture
def versions(run):
    """run, with the words before those of a version."""
    def runner(*words, **more):
        return run("models", "versions", *words, **more)
    return runner


def test_versions_are_listed(versions, router):
    shown = versions(QWEN)
    assert head_of(shown) == VERSION_HEADS
    first, second = shown.splitlines()[1:]
    assert [cell.strip() for cell in cells(first)] == [
        "1.1.0", "00000002-0000-4000-8002-000000000002", "yes", "validated",
        "-", "2026-02-02 02:40 UTC"]
    assert "The first one" in second
    assert asked(router) == [f"GET /models/{QWEN}/versions"]


def test_versions_may_be_in_camel_case(versions, router):
    router.order("GET /versions", body=encoded({"data": [
        {"id": "v", "version": "1.0.0", "isLatest": True,
         "versionNotes": "n", "createdAt": NOW}]}))
    assert versions(QWEN).splitlines()[1].split() == [
        "1.0.0", "v", "yes", "-", "n", "2026-02-02", "02:40", "UTC"]


@pytest.mark.parametrize("words, notes", [
    ([], None), (["--notes", "Improved accuracy"], "Improved accuracy")])
def test_a_version_is_made(versions, router, words, notes):
    shown = versions(QWEN, "--create", "2.0.0", *words)
    assert shown.exit_status == 0
    assert asked(router) == [f"POST /models/{QWEN}/versions"]
    assert last_body(router) == (
        {"version": "2.0.0", "version_notes": notes} if notes
        else {"version": "2.0.0"})
    assert labelled(shown)["Version"] == "2.0.0"
    assert labelled(shown)["Latest"] == "no"
    assert versions(QWEN).splitlines()[1].startswith("2.0.0 ")


@pytest.mark.parametrize("version", [
    "0.0.0", "1.0.0-alpha", "1.0.0-alpha.1", "1.0.0-0.3.7", "1.0.0-x-y-z.-",
    "1.0.0+20130313144700", "1.0.0-beta+exp.sha.5114f85",
    "99999999999.999999.99999"])
def test_any_semantic_version_is_taken(versions, router, version):
    assert versions(QWEN, "--create", version).exit_status == 0
    assert last_body(router) == {"version": version}


@pytest.mark.parametrize("version", [
    "2", "2.0", "v2.0.0", "2.0.0.0", "02.0.0", "2.0.00", "2.0.x", "",
    "2.0.0-", "2.0.0+", "2.0.0 ", "2.0.0\n", "2.0.0-a..b", "1.0.0+a+b",
    "²..0.0", "١.0.0"])
@pytest.mark.parametrize("action", ["create", "promote", "rollback"])
def test_what_is_no_semantic_version_is_refused(refused, version, action):
    told = refused("versions", QWEN, f"--{action}={version}")
    assert "--" + action in told


@pytest.mark.parametrize("version", ["1.0.0-01", "1.0.0-a.01", "1١.0.0"])
def test_leading_zeros_and_foreign_digits_are_refused(refused, version):
    refused("versions", QWEN, "--create", version)


def test_a_version_is_promoted_and_rolled_back(versions, router):
    versions(QWEN, "--create", "2.0.0")
    shown = versions(QWEN, "--promote", "2.0.0")
    assert shown.exit_status == 0 and "2.0.0" in shown
    assert router.models[QWEN]["version"] == "2.0.0"
    assert versions(QWEN, "--rollback", "1.0.0").exit_status == 0
    assert router.models[QWEN]["version"] == "1.0.0"
    assert asked(router)[1:] == [
        f"POST /models/{QWEN}/versions/2.0.0/promote",
        f"POST /models/{QWEN}/versions/1.0.0/rollback"]
    assert all(not seen.body for seen in router.requests[1:])


def test_a_version_is_quoted_in_a_path(versions, router):
    assert versions(QWEN, "--promote", "2.0.0+b").exit_status == 4
    assert asked(router) == [f"POST /models/{QWEN}/versions/2.0.0%2Bb"
                             "/promote"]


@pytest.mark.parametrize("words, named", [
    (["--notes", "x"], ["--notes", "--create"]),
    (["--promote", "1.0.0", "--notes", "x"],
     ["--notes", "--promote", "--create"]),
    (["--rollback", "1.0.0", "--notes", "x"],
     ["--notes", "--rollback", "--create"]),
    (["--create", "2.0.0", "--promote", "1.0.0"],
     ["--create", "--promote"]),
    (["--promote", "2.0.0", "--rollback", "1.0.0"],
     ["--promote", "--rollback"]),
    (["--create", "2.0.0", "--rollback", "1.0.0"],
     ["--create", "--rollback"]),
])
def test_notes_and_actions_that_do_not_go_together(refused, words, named):
    told = refused("versions", QWEN, *words)
    assert all(flag in told for flag in named)


def test_versions_are_of_one_model(refused):
    assert "ID" in refused("versions")
    refused("versions", QWEN, LLAMA)


# == probe, capabilities, recommendations ====================================

UNPROBED = "Model probing is not available on this router deployment (501)."


def test_a_probe_is_json(models, router):
    shown = models("probe", QWEN)
    found = json.loads(shown)
    assert found["model_id"] == QWEN
    assert found["capabilities"]["chat"] is True
    assert shown == models("probe", QWEN, "-o", "json")
    assert asked(router) == [f"GET /models/{QWEN}/probe"] * 2


def test_a_probe_that_is_not_there_is_no_failure(models, router):
    router.order("GET /probe", status=501)
    shown = models("probe", QWEN)
    assert shown.exit_status == 0
    assert shown + shown.stderr == UNPROBED + "\n"
    assert len(router.requests) == 1


def test_a_probe_that_is_not_there_leaves_json_clean(models, router):
    router.order("GET /probe", status=501)
    shown = models("probe", QWEN, "-o", "json")
    assert shown == "" and shown.stderr == UNPROBED + "\n"


@pytest.mark.parametrize("status, code", [(404, 4), (400, 1), (403, 3)])
def test_any_other_failure_of_a_probe_is_one(models, router, status, code):
    router.order("GET /probe", status=status)
    assert models("probe", QWEN).exit_status == code


def test_capabilities_are_replaced(models, router):
    models("set-capabilities", QWEN, "chat", "tool-use")
    shown = models("set-capabilities", QWEN, "vision")
    assert shown.exit_status == 0
    assert router.models[QWEN]["capabilities"] == ["vision"]
    assert asked(router) == [f"PATCH /models/{QWEN}/capabilities"] * 2
    assert [seen.json for seen in router.requests] == [
        {"capabilities": ["chat", "tool-use"]}, {"capabilities": ["vision"]}]


def test_at_least_one_capability_is_needed(refused):
    refused("set-capabilities", QWEN)


def test_models_are_recommended_for_a_workspace(models, router):
    shown = models("recommend-for-workspace", "ws_kube_prod")
    assert head_of(shown) == ["Model ID", "Name", "Score", "Reason"]
    assert [cell.strip() for cell in cells(shown.splitlines()[1])] == [
        QWEN, "qwen3-7b-instruct", "0.97", "Fits inference in this workspace"]
    assert asked(router) == [
        "GET /workspaces/ws_kube_prod/recommended-models"]


def test_a_recommendation_is_json_as_received(models, router):
    body = {"object": "list", "data": [{"model_id": "m", "x": 1}], "y": 2}
    router.order("GET /recommended-models", body=encoded(body))
    shown = models("recommend-for-workspace", "w", "-o", "json")
    assert json.loads(shown) == body


def test_recommendations_have_ids(models):
    assert models("recommend-for-workspace", "ws_kube_prod", "-o",
                  "id").split()[0] == QWEN


def test_a_workspace_that_is_not_there_is_told(models):
    assert models("recommend-for-workspace", "ws_none").exit_status == 4
    assert models("recommend-for-workspace").exit_status == 2
