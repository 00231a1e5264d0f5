"""htpasswd files for tests: entries as cheap as bcrypt has them."""

import base64
from collections.abc import Mapping
from pathlib import Path

import bcrypt

_SALT = b"$2b$04$" + b"abcdefghijklmnopqrstue"


def line(user: str, password: str, kind: str = "2y") -> str:
    """A user's line, as `htpasswd -B -C 4` prints it."""
    entry = bcrypt.hashpw(password.encode(), _SALT).decode()
    return f"{user}:{entry.replace('2b', kind, 1)}\n"


def users_file(folder: Path, users: Mapping[str, str]) -> Path:
    """A file of these users and their passwords."""
    file = folder / "users"
    file.write_text("".join(line(user, password) for user, password in users.items()))
    return file


def basic(user: str, password: str) -> dict[str, str]:
    """The header with which a client is this user."""
    return {"authorization": f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"}
