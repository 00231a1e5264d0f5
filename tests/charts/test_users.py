"""The users that the chart makes: the mirror takes them with the passwords that it is said they have."""

from pathlib import Path

import bcrypt
import pytest

from mirror.auth.htpasswd import read_table
from tests.charts.settings import secret, secret_paths
from tests.support.helm import rendered

pytestmark = [pytest.mark.needs("helm"), pytest.mark.integration]


def test_each_has_a_password_of_its_own_that_the_pod_does_not_get(tmp_path: Path) -> None:
    objects = rendered({"auth": {"users": ["ci", "anna"]}})
    made = secret(objects, "mirror-wasm-mirror-htpasswd")
    file = tmp_path / "htpasswd"
    file.write_text(made["htpasswd"])
    table = read_table(file)
    assert set(table.entries) == {"ci", "anna"}
    for name in ("ci", "anna"):
        assert bcrypt.checkpw(made[f"password-{name}"].encode(), table.entries[name])
    assert made["password-ci"] != made["password-anna"]
    mounted = {key for name, key in secret_paths(objects).values() if name == "mirror-wasm-mirror-htpasswd"}
    assert mounted == {"htpasswd"}
