"""embeddings, rerank and score: texts go out, numbers come back.

The router gives the same vector for the same text; files that are written
are read here by hand, as their formats say.
"""

import ast
import base64
import csv
import io
import json
import math
import os
import struct

import pytest

from helpers import caller

embed = caller("embeddings", "--endpoint", "demo")
rerank = caller("rerank", "--endpoint", "demo", "--query", "linux kernel")
score = caller("score", "--endpoint", "demo", "--text", "linux kernel")
TEXTS = ["bread", "linux kernel", "linux"]


@pytest.fixture
def lines(tmp_path):
    """lines(b"…") is the path of a file with these bytes."""
    def writer(data):
        path = tmp_path / "in.txt"
        path.write_bytes(data)
        return str(path)
    return writer


def rows(shown):
    """The rows of a table without its head, each as its words."""
    return [line.split() for line in shown.splitlines()[1:]]


def vectors_in(page):
    return [item["embedding"] for item in page["data"]]


def numbered(count):
    return "".join(f"text {number}\n" for number in range(count)).encode()


def read_npy(path):
    """((rows, columns), vectors) of an NPY 1.0 file of float32."""
    with open(path, "rb") as source:
        data = source.read()
    assert data[:8] == b"\x93NUMPY\x01\x00"
    length, = struct.unpack("<H", data[8:10])
    assert (10 + length) % 64 == 0
    head = data[10:10 + length]
    assert head.endswith(b"\n")
    about = ast.literal_eval(head.decode("ascii"))
    assert (about["descr"], about["fortran_order"]) == ("<f4", False)
    count, size = about["shape"]
    assert len(data) == 10 + length + 4 * count * size
    floats = struct.unpack(f"<{count * size}f", data[10 + length:])
    return about["shape"], [list(floats[at:at + size]) for at in
                            range(0, len(floats), size)]


# == embeddings: what is sent ================================================

def test_csv_has_whole_vectors(embed):
    words = "--input", "a", "--input", "b", "--dimensions", "12", "-o"
    head, *found = csv.reader(io.StringIO(embed(*words, "csv"), newline=""))
    assert head == ["Index", "Dimensions", "Norm", "Values"]
    wanted = vectors_in(json.loads(embed(*words, "json")))
    assert [json.loads(row[3]) for row in found] == wanted
    assert [row[:2] for row in found] == [["0", "12"], ["1", "12"]]
    assert all(abs(float(row[2]) - 1) < 0.001 for row in found)


def test_one_text_is_sent_as_it_is(embed, router):
    assert embed("--input", "hello").exit_status == 0
    assert router.requests[0].path == "/proj_demo/demo/v1/embeddings"
    assert router.requests[-1].json == {"model": "default", "input": "hello"}


def test_the_verb_may_be_named(run, router):
    run("embeddings", "create", "--input", "hi", XEROTIER_ENDPOINT="demo")
    assert router.requests[-1].json == {"model": "default", "input": "hi"}


def test_several_texts_are_a_list(embed, router):
    embed("--input", "a", "--input", "--b", "--input", "日")
    assert router.requests[-1].json["input"] == ["a", "--b", "日"]


@pytest.mark.parametrize("words, more", [
    (["--model", "m"], {"model": "m"}),
    (["--dimensions", "3"], {"dimensions": 3}),
    (["--encoding-format", "float"], {"encoding_format": "float"}),
    (["--encoding-format", "base64"], {"encoding_format": "base64"}),
])
def test_each_flag_adds_its_field(embed, router, words, more):
    embed("--input", "a", *words)
    assert router.requests[-1].json == dict({"model": "default", "input": "a"},
                                     **more)


def test_standard_input_is_one_text(embed, router):
    embed("--input", "-", stdin=b"a\nb\n")
    assert router.requests[-1].json["input"] == "a\nb"


@pytest.mark.parametrize("data", [b"one\ntwo\n", b"one\ntwo",
                                  b"one\r\ntwo\r\n"])
def test_a_file_has_a_text_on_each_line(embed, router, lines, data):
    embed("--input-file", lines(data))
    assert router.requests[-1].json["input"] == ["one", "two"]


def test_only_line_feeds_end_a_line(embed, router, lines):
    text = "a\u2028b\u0085c\x0bd"
    embed("--input-file", lines(f"{text}\ne\n".encode()))
    assert router.requests[-1].json["input"] == [text, "e"]


def test_a_file_of_one_line_is_a_list_too(embed, router, lines):
    embed("--input-file", lines(b"one\n"))
    assert router.requests[-1].json["input"] == ["one"]


def test_texts_of_flags_come_before_those_of_a_file(embed, router, lines):
    embed("--input-file", lines(b"two\n"), "--input", "one")
    assert router.requests[-1].json["input"] == ["one", "two"]


def test_lines_may_come_from_standard_input(embed, router):
    embed("--input-file", "-", stdin=b"one\ntwo\n")
    assert router.requests[-1].json["input"] == ["one", "two"]


@pytest.mark.parametrize("words, stdin, told", [
    ([], b"", "--input is missing"),
    (["--input-file", "-"], b"", "-: line 1 is blank"),
    (["--input-file", "-"], b"a\n\nb\n", "-: line 2 is blank"),
    (["--input-file", "/no/such"], b"", "/no/such"),
    (["--input", "-", "--input-file", "-"], b"a", "-"),
    (["--input", "-", "--input", "-"], b"a", "-"),
    (["--input", "a", "--dimensions", "0"], b"", "--dimensions"),
    (["--input", "a", "--encoding-format", "int8"], b"",
     "--encoding-format"),
    (["--input", "a", "--output-file", "out.csv"], b"", "out.csv"),
])
def test_what_cannot_be_sent_is_refused(embed, router, words, stdin, told):
    shown = embed(*words, stdin=stdin)
    assert shown.exit_status == 2 and shown == "" and told in shown.stderr
    assert router.requests == []


def test_any_server_is_told_the_model(run, openai_router):
    shown = run("embeddings", "--style", "openai", "--endpoint", "m",
                "--input", "a", against=openai_router)
    assert shown.exit_status == 0
    seen, = openai_router.requests
    assert seen.path == "/v1/embeddings" and seen.json["model"] == "m"


# == embeddings: several requests ============================================

@pytest.mark.parametrize("count, sizes", [
    (255, [255]), (256, [256]), (257, [256, 1]), (600, [256, 256, 88])])
def test_256_texts_go_in_a_request(embed, router, count, sizes):
    shown = embed("--input-file", "-", "-o", "json", stdin=numbered(count))
    assert [len(seen.json["input"]) for seen in router.requests] == sizes
    assert [text for seen in router.requests
            for text in seen.json["input"]] == [
        f"text {number}" for number in range(count)]
    page = json.loads(shown)
    assert [item["index"] for item in page["data"]] == list(range(count))
    assert page["usage"] == {"prompt_tokens": 2 * count,
                             "total_tokens": 2 * count}


def test_requests_can_be_smaller(embed, router):
    embed("--input-file", "-", "--batch-size", "32", stdin=numbered(70))
    assert [len(seen.json["input"]) for seen in router.requests] == [
        32, 32, 6]
    assert embed("--input", "a", "--batch-size", "0").exit_status == 2


def test_order_is_kept_over_several_requests(embed):
    page = json.loads(embed("--input-file", "-", "-o", "json",
                            stdin=numbered(257)))
    alone = json.loads(embed("--input", "text 256", "-o", "json"))
    assert vectors_in(page)[256] == vectors_in(alone)[0]


def test_what_comes_out_of_order_is_put_in_it(embed, router):
    router.order("POST /embeddings", body=json.dumps({"data": [
        {"index": 1, "embedding": [2.0]},
        {"index": 0, "embedding": [1.0]}]}).encode())
    shown = embed("--input", "a", "--input", "b", "-o", "json")
    assert vectors_in(json.loads(shown)) == [[1.0], [2.0]]


@pytest.mark.parametrize("indexes, status", [
    ([0, 0, 0], 0), ([0, 0, 1], 1), ([2, 1, 0], 0)])
def test_an_index_that_says_nothing_is_none(embed, router, indexes, status):
    router.order("POST /embeddings", body=json.dumps({"data": [
        {"index": index, "embedding": [1.0]} for index in indexes]}).encode())
    shown = embed("--input", "a", "--input", "b", "--input", "c")
    assert shown.exit_status == status


@pytest.mark.parametrize("count", [0, 1, 3])
@pytest.mark.parametrize("words", [[], ["-o", "json"]])
def test_another_count_of_vectors_is_an_error(embed, router, count, words):
    router.order("POST /embeddings", body=json.dumps({"data": [
        {"index": number, "embedding": [1.0]}
        for number in range(count)]}).encode())
    shown = embed("--input", "a", "--input", "b", *words)
    assert shown.exit_status == 1 and shown == ""
    assert f"{count} embeddings came for 2 texts" in shown.stderr


def test_a_later_request_that_fails_shows_nothing(embed, router):
    router.order("POST /embeddings", status=400, message="no",
                 when=lambda seen: len(seen.json["input"]) == 1)
    shown = embed("--input-file", "-", "-o", "jsonl", stdin=numbered(257))
    assert shown.exit_status == 1 and shown == ""


# == embeddings: what is shown ===============================================

def test_a_table_shows_each_vector(embed):
    shown = embed("--input", "hello", "--input", "you there")
    assert shown.splitlines()[0].split() == [
        "Index", "Dimensions", "Norm", "Values"]
    first, second = rows(shown)
    assert first == ["0", "8", "1.0000", "0.4771", "-0.4213", "0.1444",
                     "-0.5021", "0.1153", "0.3199", "…"]
    assert second[:3] == ["1", "8", "1.0000"]


def test_a_short_vector_is_shown_whole(embed):
    shown = embed("--input", "hello", "--dimensions", "3")
    assert len(rows(shown)[0]) == 6 and "…" not in shown


def test_base64_shows_the_same_table(embed):
    assert embed("--input", "hello", "--encoding-format", "base64") == (
        embed("--input", "hello"))


def test_usage_is_told_on_stderr(embed):
    shown = embed("--input", "one two")
    assert shown.stderr == "usage: prompt_tokens=2, total_tokens=2\n"
    assert "usage" not in shown


@pytest.mark.parametrize("usage, told", [
    ({"prompt_tokens": 2, "completion_tokens": 0, "total_tokens": 2,
      "completion_tokens_details": None, "prompt_tokens_details": None},
     "usage: prompt_tokens=2, completion_tokens=0, total_tokens=2\n"),
    ({"prompt_tokens": None}, ""), ({}, ""), (None, "")])
def test_usage_that_is_null_is_not_told(embed, router, usage, told):
    router.order("POST /embeddings", body=json.dumps({
        "data": [{"index": 0, "embedding": [1.0]}], "usage": usage}).encode())
    assert embed("--input", "one").stderr == told


def test_json_is_as_received(embed):
    page = json.loads(embed("--input", "hello", "-o", "json",
                            "--encoding-format", "base64"))
    text, = vectors_in(page)
    values = struct.unpack("<8f", base64.b64decode(text))
    assert math.isclose(sum(value * value for value in values), 1,
                        abs_tol=1e-6)
    assert list(page) == ["object", "model", "data", "usage"]


def test_jsonl_is_a_vector_a_line_whatever_came(embed):
    shown = embed("--input", "a", "--input", "b", "-o", "jsonl",
                  "--encoding-format", "base64")
    items = [json.loads(line) for line in shown.splitlines()]
    assert [item["index"] for item in items] == [0, 1]
    assert all(len(item["embedding"]) == 8 for item in items)
    assert shown == embed("--input", "a", "--input", "b", "-o", "jsonl")
    assert shown.stderr == ""


@pytest.mark.parametrize("text", ["****", "AAAA", "AAAAAAA"])
def test_base64_that_is_none_is_an_error(embed, router, text):
    router.order("POST /embeddings", body=json.dumps({"data": [
        {"index": 0, "embedding": text}]}).encode())
    shown = embed("--input", "a", "--encoding-format", "base64")
    assert shown.exit_status == 1 and "base64" in shown.stderr


@pytest.mark.parametrize("body", [
    b'{"data": [{"index": 0, "embedding": null}]}',
    b'{"data": null}', b"[]", b"5",
    b'{"data": [{"index": 0, "embedding": ["x"]}]}',
    b'{"data": [{"index": "z", "embedding": [1]}]}',
    b'{"data": [{"index": 0, "embedding": [[1]]}]}'])
@pytest.mark.parametrize("words", [[], ["-o", "jsonl"], ["--output-file"]])
def test_an_odd_answer_makes_no_traceback(embed, router, tmp_path, body,
                                          words):
    router.order("POST /embeddings", body=body)
    if words == ["--output-file"]:
        words = ["--output-file", str(tmp_path / "out.npy")]
    shown = embed("--input", "a", *words)
    assert "internal" not in shown.stderr and "Traceback" not in shown.stderr
    is_odd = b'"z"' not in body         # an index can be done without
    assert shown.exit_status == is_odd
    assert os.listdir(str(tmp_path)) == [] or not is_odd


@pytest.mark.parametrize("words, body", [
    ([], b'{"data": [5]}'), (["-o", "jsonl"], b'{"data": [5]}'),
    ([], b'{"data": [[1]]}'), (["-o", "jsonl"], b'{"data": [{"index": 0}]}'),
    (["--input", "b"], b'{"data": [{"index": "z", "embedding": [1]},'
     b' {"index": 0, "embedding": [2]}]}'),
])
def test_an_odd_item_makes_no_traceback(embed, router, words, body):
    router.order("POST /embeddings", body=body)
    shown = embed("--input", "a", *words)
    assert "internal" not in shown.stderr and shown.exit_status in (0, 1)


def test_a_request_can_be_planned(embed, router, tmp_path):
    path = tmp_path / "out.npy"
    shown = embed("--input", "a", "--output-file", str(path), "--dry-run",
                  "-o", "json")
    plan = json.loads(shown)
    assert plan["url"] == f"{router.origin}/proj_demo/demo/v1/embeddings"
    assert plan["body"] == {"model": "default", "input": "a"}
    assert router.requests == [] and not path.exists()


def test_several_requests_can_be_planned(embed):
    shown = embed("--input-file", "-", "--dry-run", "-o", "json",
                  stdin=numbered(300))
    assert [len(plan["body"]["input"]) for plan in json.loads(shown)] == [
        256, 44]


# == embeddings: files =======================================================

@pytest.mark.parametrize("encoding", ["float", "base64"])
@pytest.mark.parametrize("count", [1, 3, 300])
def test_an_npy_file_is_what_numpy_reads(embed, tmp_path, encoding, count):
    path = str(tmp_path / "out.npy")
    data = numbered(count)
    shown = embed("--input-file", "-", "--output-file", path,
                  "--encoding-format", encoding, stdin=data)
    assert shown == f"vectors: {count} -> {path}\n"
    page = json.loads(embed("--input-file", "-", "-o", "json", stdin=data))
    assert read_npy(path) == ((count, 8), vectors_in(page))
    assert os.listdir(str(tmp_path)) == ["out.npy"]


@pytest.mark.parametrize("encoding", ["float", "base64"])
def test_a_jsonl_file_has_a_vector_a_line(embed, tmp_path, encoding):
    path = tmp_path / "out.jsonl"
    embed("--input-file", "-", "--output-file", str(path),
          "--encoding-format", encoding, stdin=b"a\nb\n")
    page = json.loads(embed("--input-file", "-", "-o", "json",
                            stdin=b"a\nb\n"))
    assert [json.loads(line) for line in path.read_text().splitlines()] == [
        {"index": number, "embedding": vector}
        for number, vector in enumerate(vectors_in(page))]


def test_a_file_is_replaced_whole_or_not_at_all(embed, router, tmp_path):
    path = tmp_path / "out.npy"
    path.write_bytes(b"old")
    router.order("POST /embeddings", status=400,
                 when=lambda seen: len(seen.json["input"]) == 1)
    shown = embed("--input-file", "-", "--output-file", str(path),
                  stdin=numbered(257))
    assert shown.exit_status == 1 and path.read_bytes() == b"old"
    assert os.listdir(str(tmp_path)) == ["out.npy"]


def test_vectors_of_two_sizes_are_no_npy(embed, router, tmp_path):
    router.order("POST /embeddings", body=b'{"data": [{"index": 0,'
                 b' "embedding": [1]}, {"index": 1, "embedding": [1, 2]}]}')
    shown = embed("--input", "a", "--input", "b", "--output-file",
                  str(tmp_path / "out.npy"))
    assert shown.exit_status == 1 and "size" in shown.stderr
    assert os.listdir(str(tmp_path)) == []


def test_a_place_that_cannot_be_is_refused_before_asking(embed, router,
                                                         tmp_path):
    shown = embed("--input", "a", "--output-file",
                  str(tmp_path / "none" / "out.npy"))
    assert shown.exit_status == 2 and router.requests == []


# == rerank ==================================================================

def test_documents_are_ranked(rerank, router):
    shown = rerank("--documents", *TEXTS)
    assert shown == ("Rank  Index  Score     Document\n"
                     "1     1      0.982736  linux kernel\n"
                     "2     2      0.529126  linux\n"
                     "3     0      0.078611  bread\n")
    assert router.requests[0].path == "/proj_demo/demo/v1/rerank"
    body = router.requests[-1].json
    assert list(body) == ["model", "query", "documents"]
    assert (body["query"], body["documents"]) == ("linux kernel", TEXTS)


@pytest.mark.parametrize("words, more", [
    (["--model", "m", "--top-n", "2"], {"top_n": 2}),
    (["--model", "m", "--return-documents"], {"return_documents": True}),
    (["--model", "m"], {}),
])
def test_each_flag_of_a_ranking_adds_its_field(rerank, router, words, more):
    rerank("--documents", "a", *words)
    assert router.requests[-1].json == dict({
        "model": "m", "query": "linux kernel", "documents": ["a"]}, **more)


@pytest.mark.parametrize("group, text", [("rerank", "--query"),
                                         ("score", "--text")])
def test_the_model_is_the_slug_unless_named(run, router, group, text):
    more = "--documents" if group == "rerank" else "--candidates"
    run(group, "--endpoint", "demo", text, "q", more, "a")
    assert router.requests[-1].json["model"] == "demo"


def test_top_n_shows_only_the_best(rerank):
    shown = rerank("--documents", *TEXTS, "--top-n", "2")
    assert [row[1] for row in rows(shown)] == ["1", "2"]


def test_documents_of_the_server_are_shown(rerank, router):
    router.order("POST /rerank", body=b'{"results": [{"index": 0,'
                 b' "relevance_score": 0.5, "document": {"text": "sent"}},'
                 b' {"index": 1, "relevance_score": 0.25}]}')
    shown = rerank("--documents", "a", "b")
    assert rows(shown) == [["1", "0", "0.5", "sent"], ["2", "1", "0.25", "b"]]


@pytest.mark.parametrize("index", ["7", "-1", "null", '"x"'])
def test_an_unknown_index_has_no_document(rerank, router, index):
    router.order("POST /rerank", body=b'{"results": [{"index": '
                 + index.encode() + b', "relevance_score": 0.5}]}')
    row, = rows(rerank("--documents", "a"))
    assert row[2:] == ["0.5", "-"]


def scored(*indexes):
    """Results that say that they are about these texts."""
    return json.dumps({"data": [{"index": index, "score": 0.5}
                                for index in indexes]}).encode()


@pytest.mark.parametrize("indexes", [[], [0], [1, 1], [0, 1, 0]])
@pytest.mark.parametrize("words", [[], ["-o", "json"], ["-o", "id"]])
def test_there_is_a_score_for_each_text(rerank, score, router, indexes,
                                        words):
    router.order("POST /rerank", body=scored(*indexes))
    router.order("POST /score", body=scored(*indexes))
    for shown in (rerank("--documents", "a", "b", *words),
                  score("--candidates", "a", "b", *words)):
        assert shown.exit_status == 1 and shown == ""
        assert f"{len(indexes)} scores came for 2 texts" in shown.stderr


@pytest.mark.parametrize("top, indexes, status", [
    ("2", [2, 0], 0), ("2", [1], 1), ("2", [0, 1, 2], 1), ("9", [2, 0, 1], 0),
    ("9", [2, 0], 1)])
def test_top_n_is_how_many_come(rerank, router, top, indexes, status):
    router.order("POST /rerank", body=scored(*indexes))
    shown = rerank("--documents", *TEXTS, "--top-n", top)
    assert shown.exit_status == status


def test_a_score_of_zero_is_a_score(rerank, router):
    router.order("POST /rerank", body=b'{"results": [{"index": 0,'
                 b' "relevance_score": 0.0}]}')
    assert rows(rerank("--documents", "a")) == [["1", "0", "0.0", "a"]]


def test_a_ranking_is_json_as_received(rerank):
    page = json.loads(rerank("--documents", *TEXTS, "-o", "json"))
    assert [item["index"] for item in page["results"]] == [1, 2, 0]
    assert list(page) == ["id", "model", "results", "usage"]
    assert "document" not in page["results"][0]


def test_csv_fills_in_the_documents(rerank):
    shown = rerank("--documents", "a,b", "-o", "csv")
    head, row = shown.splitlines()
    assert head == "Rank,Index,Score,Document" and row.endswith(',"a,b"')


# == rerank and score: where the texts come from =============================

FORMS = [
    (b"one\ntwo x\n", ["one", "two x"]),
    (b'"one"\n"a\\nb"\n', ["one", "a\nb"]),
    (b'{"text": "one"}\n{"id": 5, "text": "two"}\n', ["one", "two"]),
    (b'one\n"two"\n{"text": "three"}', ["one", "two", "three"]),
    (b'"one" said he\n{not json\n', ['"one" said he', "{not json"]),
    (b"5\ntrue\nnull\n[1]\n", ["5", "true", "null", "[1]"]),
    ("größe 日本\r\na\u2028b\r\n".encode(), ["größe 日本", "a\u2028b"]),
    (b"\xef\xbb\xbfone\n", ["one"]),
]


@pytest.mark.parametrize("data, texts", FORMS)
@pytest.mark.parametrize("group, flag, field", [
    ("rerank", "--documents-file", "documents"),
    ("score", "--candidates-file", "text_2")])
def test_a_file_has_its_forms(run, router, lines, group, flag, field, data,
                              texts):
    text = "--query" if group == "rerank" else "--text"
    for path, stdin in ((lines(data), b""), ("-", data)):
        shown = run(group, "--endpoint", "demo", text, "q", flag, path,
                    stdin=stdin)
        assert shown.exit_status == 0
        assert router.requests[-1].json[field] == texts


@pytest.mark.parametrize("data, told", [
    (b"one\n\ntwo\n", "line 2 is blank"), (b"  \n", "line 1 is blank"),
    (b'one\n{"txt": "x"}\n', "line 2 has no text"),
    (b'{"text": 5}\n', "line 1 has no text"), (b"", "line 1 is blank")])
def test_a_wrong_line_is_named(rerank, score, router, lines, data, told):
    path = lines(data)
    for shown in (rerank("--documents-file", path),
                  score("--candidates-file", path)):
        assert shown.exit_status == 2 and shown == ""
        assert f"{path}: {told}" in shown.stderr
    assert router.requests == []


def test_a_dash_is_standard_input(rerank, score, router):
    rerank("--documents", "-", "a", stdin=b"from stdin\n")
    assert router.requests[-1].json["documents"] == ["from stdin", "a"]
    score("--candidates", "b", "-", stdin=b"from stdin\n")
    assert router.requests[-1].json["text_2"] == ["b", "from stdin"]


def test_a_flag_may_come_again(rerank, router):
    rerank("--documents", "a", "b", "--top-n", "2", "--documents", "c")
    assert router.requests[-1].json["documents"] == ["a", "b", "c"]


@pytest.mark.parametrize("words, told", [
    (["rerank", "--query", "q"], "--documents is missing"),
    (["rerank", "--query", "q", "--documents", "a", "--top-n", "0"],
     "--top-n"),
    (["rerank", "--query", "q", "--documents", "-", "--documents-file", "-"],
     "-"),
    (["score", "--text", "t"], "--candidates is missing"),
])
def test_what_is_missing_is_named(run, router, words, told):
    shown = run(*words, XEROTIER_ENDPOINT="demo")
    assert shown.exit_status == 2 and told in shown.stderr
    assert router.requests == []


# == score ===================================================================

def test_candidates_are_scored_in_their_order(score, router):
    shown = score("--candidates", *TEXTS)
    assert shown == ("Index  Score     Text\n"
                     "0      0.078611  bread\n"
                     "1      0.982736  linux kernel\n"
                     "2      0.529126  linux\n")
    assert router.requests[0].path == "/proj_demo/demo/v1/score"


def test_the_body_of_a_score(score, router):
    score("--candidates", *TEXTS, "--model", "m")
    assert router.requests[-1].json == {"model": "m", "text_1": "linux kernel",
                                 "text_2": TEXTS}


def test_scores_are_shown_in_input_order(score, router):
    router.order("POST /score", body=b'{"data": [{"index": 1, "score": 0.5},'
                 b' {"index": 0, "score": 0.25}]}')
    assert rows(score("--candidates", "a", "b")) == [
        ["0", "0.25", "a"], ["1", "0.5", "b"]]


def test_scores_are_json_as_received(score):
    page = json.loads(score("--candidates", *TEXTS, "-o", "json"))
    assert [item["index"] for item in page["data"]] == [0, 1, 2]
    assert list(page) == ["id", "object", "created", "model", "data",
                          "usage"]


@pytest.mark.parametrize("words", [
    ["embeddings", "--input", "a"],
    ["rerank", "--query", "q", "--documents", "a"],
    ["score", "--text", "q", "--candidates", "a"]])
def test_a_plan_says_nothing_but_itself(run, router, words):
    shown = run(*words, "--dry-run", XEROTIER_ENDPOINT="demo")
    assert shown.exit_status == 0 and router.requests == []
    assert shown.startswith(f"POST {router.origin}/proj_demo/demo/v1/"
                            + words[0])
    assert shown.stderr == ""


def test_a_vector_for_each_token_is_told_as_such(run, router):
    router.order("POST /embeddings", body=b'{"data": [{"index": 0, '
                 b'"embedding": [[0.5, 1], [1, 2]]}]}')
    shown = run("embeddings", "--endpoint", "demo", "--input", "a")
    assert (shown, shown.exit_status) == ("", 1)
    assert "a vector for each token" in shown.stderr
