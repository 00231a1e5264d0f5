"""ls: pages, filters, pins."""

import time
from collections.abc import Iterator

import pytest

from tests.commands.support import Answer, FakeMirror, Request, command, complaints, drawn, lines

DIGEST = f"sha256:{'ab' * 32}"


def module(reference: str, **more: object) -> dict[str, object]:
    fixed: dict[str, object] = {"upstream": "up", "repository": "team/a", "tag": "1", "digest": DIGEST}
    fixed |= {"media_type": "x", "size": 1536, "complete": True, "hits": 1234, "fresh": True, "pinned": False}
    return {"reference": reference, **fixed, "used_at": None, "fetched_at": None, "verdict": None, **more}


def page(*modules: dict[str, object], following: str | None = None) -> Answer:
    return Answer({"modules": list(modules), "next": following, "total": 3})


@pytest.fixture
def fake() -> Iterator[FakeMirror]:
    with FakeMirror() as server:
        server.on("GET", "modules", page(module("up/a:1")))
        server.on("GET", "pins", Answer({"pins": []}))
        yield server


def test_a_table_says_what_is_held_and_in_which_state(fake: FakeMirror) -> None:
    now = time.time()
    fake.on(
        *("GET", "modules"),
        page(
            module("up/a:1", used_at=now - 7200, fetched_at=now - 86400 * 3, verdict="accepted"),
            module("up/b\x1b[2J:1", hits=0, complete=False, fresh=False, verdict="refused"),
        ),
    )
    done = command("ls", "--mirror", fake.url)
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "REFERENCE         SIZE   HITS   USED  FETCHED  DIGEST               STATE",
        "up/a:1         1.5 KiB  1,234    2 h      3 d  sha256:abababababab  -",
        "up/b\\x1b[2J:1  1.5 KiB      0  never        -  sha256:abababababab  stale, incomplete, agents: refused",
    ]


def test_by_a_verdict_it_is_said_why_and_of_what_envoy_refuses_always_that_it_does(fake: FakeMirror) -> None:
    lacks = {"layout": "oci raw", "abi": ["0.2.1"], "verdict": "accepted", "why": "it imports\x1b[2J what Envoy lacks"}
    fake.on("GET", "modules", page(module("up/a:1", **lacks), module("up/b:1", verdict="accepted")))
    done = command("ls", "--mirror", fake.url, "--verdict", "accepted")
    head, one, other = done.stdout.splitlines()
    assert head.split()[-3:] == ["STATE", "LAYOUT", "WHY"]
    assert one.endswith("Envoy: refused  oci raw  it imports\\x1b[2J what Envoy lacks")
    assert other.split()[-3:] == ["-", "-", "-"]
    head, one, _ = command("ls", "--mirror", fake.url).stdout.splitlines()
    assert (head.split()[-1], one.endswith("Envoy: refused")) == ("STATE", True)


def test_pages_are_read_to_the_last_one(fake: FakeMirror) -> None:
    fake.on(
        *("GET", "modules"),
        page(module("up/a:1"), module("up/b:1"), following="p 2"),
        page(module("up/c:1"), following="p3"),
        page(),
    )
    assert [line["reference"] for line in lines(command("ls", "--mirror", fake.url, "--json"))] == [
        *("up/a:1", "up/b:1", "up/c:1"),
    ]
    asked = [dict(request.query) for request in fake.requests]
    assert [query.get("after") for query in asked] == [None, "p 2", "p3"]
    assert {query["limit"] for query in asked} == {"1000"}


def test_no_more_are_asked_for_than_are_wanted(fake: FakeMirror) -> None:
    def answer(request: Request) -> Answer:
        limit = int(dict(request.query)["limit"])
        return page(*(module(f"up/{number}:1") for number in range(limit)), following="more")

    fake.on("GET", "modules", answer)
    assert len(lines(command("ls", "--mirror", fake.url, "--json", "--limit", "1003"))) == 1003
    assert [dict(request.query)["limit"] for request in fake.requests] == ["1000", "3"]


def test_filters_and_orders_are_the_mirrors(fake: FakeMirror) -> None:
    words = ["--upstream", "ghcr.io", "--repository", "team/**", "--hosted", "--min-size", "1KiB", "--max-size", "1GiB"]
    words += ["--older-than", "7d", "--min-hits", "3", "--search", "Auth z", "--verdict", "not_wasm"]
    command("ls", "--mirror", fake.url, *words)
    assert dict(fake.requests[-1].query) == {
        **{"upstream": "ghcr.io", "repository": "team/**", "hosted": "true", "min_size": "1024"},
        **{"max_size": "1073741824", "older_than": "604800.0", "min_hits": "3", "sort": "reference", "order": "asc"},
        **{"search": "Auth z", "verdict": "not_wasm", "limit": "1000"},
    }
    for words, sort, order in (
        (["--sort", "size"], "size", "desc"),
        (["--sort", "used", "--reverse"], "used", "asc"),
        (["--reverse"], "reference", "desc"),
    ):
        command("ls", "--mirror", fake.url, *words)
        asked = dict(fake.requests[-1].query)
        assert (asked["sort"], asked["order"]) == (sort, order)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--min-size", "big"], "must be a size such as"),
        (["--older-than", "7"], "must be a duration such as"),
        (["--min-hits", "-1"], "-1"),
        (["--sort", "colour"], "colour"),
        (["--verdict", "fine"], "fine"),
        (["up/a:1"], "up/a:1"),
    ],
)
def test_a_filter_that_is_none_is_said(fake: FakeMirror, words: list[str], said: str) -> None:
    done = command("ls", "--mirror", fake.url, *words)
    assert (done.exit_code, fake.requests) == (2, [])
    assert said in done.stderr


def test_pins_are_listed_with_who_pinned_them_and_what_is_wrong(fake: FakeMirror) -> None:
    now = time.time()

    def pin(reference: str, **more: object) -> dict[str, object]:
        fixed = {"digests": [DIGEST], "complete": True, "bytes": 9, "pinned_at": now, "by": "the token"}
        return {"reference": reference, **fixed, "problem": None, **more}

    lost = pin("up/lost:1", digests=[], complete=False, bytes=0, problem="no such manifest")
    fake.on("GET", "modules", page(module("up/a:1", pinned=True)))
    fake.on("GET", "pins", Answer({"pins": [pin("up/a:1"), lost]}))
    done = command("ls", "--mirror", fake.url, "--pinned")
    table = done.stdout.splitlines()
    assert len(table) == 3
    assert table[1].endswith("pinned by the token")
    assert table[2].startswith("up/lost:1")
    assert table[2].endswith("pinned by the token, incomplete, no such manifest")
    assert dict(fake.asked("GET", "modules")[0].query)["pinned"] == "true"
    assert lines(command("ls", "--mirror", fake.url, "--pinned", "--json")) == [
        {**module("up/a:1", pinned=True), "pin": pin("up/a:1")},
        {"reference": "up/lost:1", "pin": lost},
    ]
    assert len(lines(command("ls", "--mirror", fake.url, "--pinned", "--json", "--upstream", "up"))) == 1


def test_a_terminal_has_the_same_table_within_its_width(fake: FakeMirror) -> None:
    long = f"up/{'x' * 80}:1"
    fake.on("GET", "modules", page(module(long, pinned=True), module("up/[bold]b[/bold]:1")))
    shown = drawn("ls", "--mirror", fake.url, columns=100)
    assert shown.status == 0
    assert "up/[bold]b[/bold]:1" in shown.seen, "nothing is taken for markup"
    assert "2 modules, 3 KiB; what several of them share counts for each." in shown.seen
    assert "\x1b[1m" in shown.seen
    assert shown.seen.count("x") >= 80, "the reference is folded, and not cut"


def test_an_answer_of_another_shape_is_said(fake: FakeMirror) -> None:
    for answer in (page(module("up/a:1", size="big")), page({}), Answer({"modules": [5]}), Answer({})):
        fake.on("GET", "modules", answer)
        done = command("ls", "--mirror", fake.url)
        assert done.exit_code == 1
        (complaint,) = complaints(done)
        assert "is it a wasm-mirror, and of this release?" in complaint
