"""Each fault of the fake registry is as it is described."""

import asyncio
import gzip
import socket
import time
from pathlib import Path

import httpx
import pytest

from mirror.digest import Digest
from tests.support.certificates import self_signed
from tests.support.faults import Fault, Gate
from tests.support.upstream import FaultyUpstream

CONTENT = bytes(range(256)) * 400  # 102,400 bytes
REPOSITORY = "team/plugin"


def blob_url(up: FaultyUpstream) -> str:
    return f"{up.url}/v2/{REPOSITORY}/blobs/{up.add_blob(REPOSITORY, CONTENT)}"


def partial(url: str) -> bytes:
    """All that comes of a body before the connection is cut."""
    received = bytearray()

    def pull() -> None:
        with httpx.stream("GET", url, timeout=5) as answer:
            for chunk in answer.iter_raw():
                received.extend(chunk)

    with pytest.raises(httpx.TransportError):
        pull()
    return bytes(received)


def test_a_status_is_answered_to_the_requests_of_the_rule_only() -> None:
    with FaultyUpstream() as up:
        url = blob_url(up)
        up.inject(Fault(status=429, retry_after=7), method="GET", path="/blobs/", times=2, skip=1)
        statuses = [httpx.get(url).status_code for _ in range(4)]
        assert statuses == [200, 429, 429, 200]
        assert up.count(status=429) == 2
        rule = up.inject(Fault(status=405), method="HEAD")
        assert httpx.head(url).status_code == 405
        assert httpx.get(url).status_code == 200
        rule.remove()
        assert httpx.head(url).status_code == 200


def test_retry_after_comes_with_its_status() -> None:
    with FaultyUpstream() as up:
        up.inject(Fault(status=503, retry_after=3, code="TOOMANYREQUESTS"))
        answer = httpx.get(f"{up.url}/v2/")
        assert answer.headers["retry-after"] == "3"
        assert answer.json()["errors"][0]["code"] == "TOOMANYREQUESTS"


@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("after", [0, 1, 1000, 102400 - 1])
def test_the_connection_is_cut_after_exactly_so_many_bytes(framing: str, reset: bool, after: int) -> None:
    with FaultyUpstream() as up:
        url = blob_url(up)
        up.inject(Fault(cut_after=after, reset=reset, framing="chunked" if framing == "chunked" else "length"), times=1)
        received = partial(url)
        if reset:  # an RST may overtake bytes
            assert CONTENT[:after].startswith(received)
        else:
            assert received == CONTENT[:after]
        assert up.requests[0].sent == after
        assert httpx.get(url).content == CONTENT


def test_a_dropped_request_gets_no_status_line() -> None:
    with FaultyUpstream() as up:
        up.inject(Fault(drop=True), times=1)
        with pytest.raises(httpx.RemoteProtocolError):
            httpx.get(f"{up.url}/v2/")
        up.inject(Fault(drop=True, reset=True), times=1)
        with pytest.raises(httpx.ReadError):
            httpx.get(f"{up.url}/v2/")


@pytest.mark.parametrize("fault", [Fault(hang=True), Fault(stall_after=1000)])
def test_a_silent_answer_ends_with_the_client_only(fault: Fault) -> None:
    with FaultyUpstream() as up:
        url = blob_url(up)
        up.inject(fault)
        with pytest.raises(httpx.ReadTimeout):
            httpx.get(url, timeout=0.2)
        assert up.requests[0].sent == (fault.stall_after or 0)


def test_an_upstream_with_silent_answers_can_be_closed_at_once() -> None:
    async def pulls() -> float:
        gate = Gate()
        with FaultyUpstream() as up:
            url = blob_url(up)
            up.inject(Fault(hang=True), path="/v2/$")
            up.inject(Fault(gate=gate), path="/blobs/")
            async with httpx.AsyncClient() as client:
                waiting = [asyncio.create_task(client.get(address)) for address in (url, f"{up.url}/v2/")]
                await gate.reached()
                began = time.monotonic()
                await asyncio.to_thread(up.refuse)
                results = await asyncio.gather(*waiting, return_exceptions=True)
                assert all(isinstance(result, httpx.TransportError) for result in results)
        gate.release()
        return time.monotonic() - began

    assert asyncio.run(pulls()) < 5


def test_refused_connections_come_back_at_the_same_port() -> None:
    with FaultyUpstream() as up, httpx.Client() as client:
        url = blob_url(up)
        assert client.get(url).status_code == 200
        for _ in range(3):
            up.refuse()
            with pytest.raises((httpx.ConnectError, httpx.ReadError, httpx.RemoteProtocolError)):
                client.get(url)
            with pytest.raises(httpx.ConnectError):
                httpx.get(url)
            up.accept()
            assert client.get(url).status_code == 200


def test_idle_connections_can_be_cut() -> None:
    with FaultyUpstream() as up, httpx.Client() as client:
        url = blob_url(up)
        client.get(url)
        assert up.open_connections == 1
        up.cut_connections()
        assert up.open_connections == 0


def test_bytes_of_the_content_are_changed_in_ranges_too() -> None:
    with FaultyUpstream() as up:
        url = blob_url(up)
        with up.inject(Fault(flip_at=1000)):
            received = httpx.get(url).content
            assert [at for at in range(len(CONTENT)) if received[at] != CONTENT[at]] == [1000]
            assert httpx.get(url, headers={"range": "bytes=1000-"}).content[0] == CONTENT[1000] ^ 1
        with up.inject(Fault(flip_at=-1)):
            assert httpx.get(url).content == CONTENT[:-1] + bytes([CONTENT[-1] ^ 1])
        with up.inject(Fault(tamper_from=500)):
            received = httpx.get(url).content
            assert received[:500] == CONTENT[:500]
            assert all(ours ^ theirs == 255 for ours, theirs in zip(received[500:], CONTENT[500:], strict=True))
        assert httpx.get(url).content == CONTENT


def test_a_truncated_content_looks_whole() -> None:
    with FaultyUpstream() as up:
        up.inject(Fault(truncate_to=10))
        assert httpx.get(blob_url(up)).content == CONTENT[:10]


def test_a_wrong_content_length_is_sent_as_told() -> None:
    with FaultyUpstream() as up:
        url = blob_url(up)
        with up.inject(Fault(length_off_by=5)):
            assert partial(url) == CONTENT
        with up.inject(Fault(length_off_by=-5)):
            assert httpx.get(url).content == CONTENT[:-5]


@pytest.mark.parametrize("framing", ["chunked", "close"])
def test_a_body_without_content_length_is_whole(framing: str) -> None:
    with FaultyUpstream() as up:
        up.inject(Fault(framing="chunked" if framing == "chunked" else "close"))
        answer = httpx.get(blob_url(up))
        assert answer.content == CONTENT
        assert "content-length" not in answer.headers


def test_gzip_comes_unasked() -> None:
    with FaultyUpstream() as up:
        up.inject(Fault(gzip=True))
        with httpx.stream("GET", blob_url(up), headers={"accept-encoding": "identity"}) as answer:
            assert answer.headers["content-encoding"] == "gzip"
            assert gzip.decompress(b"".join(answer.iter_raw())) == CONTENT


def test_html_comes_with_200() -> None:
    with FaultyUpstream() as up:
        up.inject(Fault(html=True))
        answer = httpx.get(f"{up.url}/v2/{REPOSITORY}/manifests/1")
        assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")


def test_header_fields_are_changed_and_left_out() -> None:
    with FaultyUpstream() as up:
        url = blob_url(up)
        up.inject(Fault(headers={"docker-content-digest": None}))
        assert "docker-content-digest" not in httpx.get(url).headers
        up.inject(Fault(headers={"content-range": "bytes 7-9/11"}))
        answer = httpx.get(url, headers={"range": "bytes=1-"})
        assert answer.headers["content-range"] == "bytes 7-9/11"
        assert "docker-content-digest" not in answer.headers


def test_a_range_is_ignored() -> None:
    with FaultyUpstream() as up:
        up.inject(Fault(ignore_range=True))
        answer = httpx.get(blob_url(up), headers={"range": "bytes=5-"})
        assert (answer.status_code, answer.content) == (200, CONTENT)


def test_a_huge_manifest_is_streamed() -> None:
    size = 100 * 1024 * 1024
    with FaultyUpstream() as up:
        up.add_manifest(REPOSITORY, {"schemaVersion": 2}, tag="1")
        up.inject(Fault(pad_to=size))
        with httpx.stream("GET", f"{up.url}/v2/{REPOSITORY}/manifests/1") as answer:
            assert answer.headers["content-length"] == str(size)
            assert sum(len(chunk) for chunk in answer.iter_raw()) == size


def test_blobs_are_redirected_to_another_server() -> None:
    with FaultyUpstream() as up, FaultyUpstream(host="127.0.0.2") as storage:
        url = blob_url(up)
        blob_url(storage)
        up.inject(Fault(redirect=f"{storage.url}{{path}}?signature=1"), path="/blobs/")
        assert httpx.get(url).status_code == 307
        assert httpx.get(url, follow_redirects=True).content == CONTENT
        assert storage.requests[0].query == {"signature": "1"}


def test_delay_and_bandwidth_take_their_time() -> None:
    with FaultyUpstream() as up:
        url = blob_url(up)
        up.inject(Fault(delay=0.1))
        began = time.monotonic()
        httpx.get(url)
        assert time.monotonic() - began >= 0.1
        up.inject(Fault(bandwidth=len(CONTENT) / 0.2))
        began = time.monotonic()
        assert httpx.get(url).content == CONTENT
        assert 0.3 <= time.monotonic() - began < 5


async def test_a_gate_holds_the_body_at_its_byte() -> None:
    with FaultyUpstream() as up:
        url = blob_url(up)
        gate = Gate()
        up.inject(Fault(gate=gate, gate_at=777))
        async with httpx.AsyncClient() as client, client.stream("GET", url) as answer:
            chunks = answer.aiter_raw()
            received = b""
            while len(received) < 777:
                received += await anext(chunks)
            assert received == CONTENT[:777]
            await gate.reached()
            assert up.requests[0].sent == 777
            gate.release()
            async for chunk in chunks:
                received += chunk
            assert received == CONTENT


async def test_a_gate_holds_the_status_line_of_all_who_come() -> None:
    with FaultyUpstream() as up:
        gate = Gate()
        up.inject(Fault(hold=gate))
        async with httpx.AsyncClient() as client:
            waiting = [asyncio.create_task(client.get(f"{up.url}/v2/")) for _ in range(5)]
            await gate.reached(arrivals=5)
            assert not any(task.done() for task in waiting)
            gate.release()
            assert {answer.status_code for answer in await asyncio.gather(*waiting)} == {200}
            assert (await client.get(f"{up.url}/v2/")).status_code == 200


def test_two_hundred_clients_are_served_at_once() -> None:
    async def pull(up: FaultyUpstream, digest: Digest) -> int:
        reader, writer = await asyncio.open_connection("127.0.0.1", up.port)
        writer.write(f"GET /v2/{REPOSITORY}/blobs/{digest} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        received = await reader.read()
        writer.close()
        await writer.wait_closed()
        return len(received.partition(b"\r\n\r\n")[2])

    async def pulls() -> list[int]:
        gate = Gate()
        with FaultyUpstream() as up:
            digest = up.add_blob(REPOSITORY, CONTENT)
            up.inject(Fault(hold=gate))
            tasks = [asyncio.create_task(pull(up, digest)) for _ in range(200)]
            await gate.reached(arrivals=200)
            gate.release()
            return await asyncio.gather(*tasks)

    assert asyncio.run(pulls()) == [len(CONTENT)] * 200


def test_what_is_not_http_is_cut() -> None:
    with FaultyUpstream() as up, socket.create_connection(("127.0.0.1", up.port), timeout=5) as client:
        client.sendall(b"garbage\r\n\r\n")
        assert client.recv(100) == b""
        assert up.count() == 0


@pytest.mark.needs("openssl")
def test_the_same_is_offered_over_tls(tmp_path: Path) -> None:
    certificate = self_signed(tmp_path)
    with FaultyUpstream(tls=certificate.for_servers) as up, httpx.Client(verify=certificate.for_clients) as client:
        url = blob_url(up)
        assert up.url.startswith("https://")
        assert client.get(url).content == CONTENT
        up.inject(Fault(cut_after=1000), times=1)
        with pytest.raises(httpx.RemoteProtocolError):
            client.get(url)
        assert client.get(url).content == CONTENT
    with FaultyUpstream(tls=certificate.for_servers) as up, pytest.raises(httpx.ConnectError):
        httpx.get(f"{up.url}/v2/")
