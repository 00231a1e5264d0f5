"""An archive that one replica has taken in is served by all of them, without a registry."""

from pathlib import Path

import pytest

from tests.replicas.test_hosted import town
from tests.support.artifacts import compat, index, raw, wasm_module
from tests.support.layouts import archive
from tests.support.pushing import whole
from tests.support.waiting import eventually

pytestmark = [pytest.mark.needs("redis-server"), pytest.mark.integration]

BOTH = index(raw(wasm_module(300_000, seed=21)), compat(wasm_module(seed=22)), platforms=("linux/amd64", "linux/arm64"))
TAR = {"Content-Type": "application/x-tar"}


@pytest.mark.parametrize("repository", ["up/team/plugin", "hosted/team/plugin"])
async def test_what_one_replica_took_in_all_of_them_serve(tmp_path: Path, repository: str) -> None:
    async with town(tmp_path, 3, "http://127.0.0.1:9") as here:
        one, *others = here.replicas
        reply = await one.ask("POST", "/api/v1/import?pin=1", TAR, archive((f"{repository}:1", BOTH)))
        assert [result["result"] for result in reply.json["results"]] == ["imported"], reply
        for mirror in others:
            assert await whole(mirror, repository, "1") == BOTH.body


async def test_what_was_imported_here_can_be_exported_there(tmp_path: Path) -> None:
    async with town(tmp_path, 2, "http://127.0.0.1:9") as here:
        one, other = here.replicas
        await one.ask("POST", "/api/v1/import", TAR, archive(("up/team/plugin:1", BOTH)))
        target = "/api/v1/export?reference=up/team/plugin:1&platforms=all"
        out = await other.get(target)
        assert out.status == 200, out
        assert out.body == (await one.get(target)).body
        await eventually(lambda: other.holds(BOTH.digest), what="it has come to this disk too")
