"""What is said of an artifact, as a table for people or JSON for programs."""

import json
import shutil
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

import click

from mirror.commands.text import escaped
from mirror.commands.text import size as size_of
from mirror.doctor.report import WIDTH, wrapped
from mirror.inspector.told import Found, Item, Memory, Module, Producer, Told, Verdict

_NARROWEST = 60
_STEP = "  "
_PAGE = 64 * 1024
_MAX_NAMES = 8  # of a list; modules may have thousands
_MAX_NAME = 80  # characters
_ROLES = {"language": "", "sdk": "SDK ", "processed-by": ""}
_PLURALS = {"memory": "memories"}


def columns() -> int:
    """How wide a table may be: as the terminal is, within bounds; `WIDTH` where there is none."""
    if sys.stdout is None or not sys.stdout.isatty():  # None: it is closed
        return WIDTH
    return max(_NARROWEST, min(WIDTH, shutil.get_terminal_size((WIDTH, 24)).columns))


def as_line(reference: str, found: Mapping[str, object]) -> str:
    """One line of JSON: the reference as it was given, and what was found. Printable ASCII, whatever names it holds."""
    return json.dumps({"reference": reference, **found})


def as_table(reference: str, told: Told, width: int = WIDTH) -> str:
    """Lines for people, with colours that `click.echo` leaves out where nobody would see them."""
    rows = [*_facts(told), *_module(told)]
    verdicts = told.accepted_by
    judges = (("Istio agents", verdicts.agents), ("Envoy Gateway", verdicts.envoy_gateway), ("Envoy", verdicts.envoy))
    wide = max(len(label) for label in [*(label for label, _ in rows), *(who for who, _ in judges)])
    lines = [click.style(escaped(reference), bold=True)]
    for label, text in rows:
        lines += _row(label, text, wide, width)
    advice = ""
    for who, verdict in judges:
        lines += _verdict(who, verdict, wide, width)
        if verdict.remedy not in ("", advice):  # what helps two of them is said once
            lines += _advice(verdict.remedy, wide, width)
            advice = verdict.remedy
    for warning in told.warnings:
        if verdicts.agents.reason and warning.startswith(verdicts.agents.reason):
            continue  # has been said
        lines += _row("warning", warning, wide, width, colour="yellow")
    return "\n".join(lines)


def summary(accepted: int, refused: int, failed: int) -> str:
    """The last line, when there were several."""
    parts = [f"{accepted} accepted", f"{refused} refused"]
    return ", ".join([*parts, f"{failed} without a description"] if failed else parts) + "."


def _facts(told: Told) -> Iterator[tuple[str, str]]:
    yield "layout", told.layout + (f" ({told.media_type})" if told.media_type else "")
    if told.digest:
        yield "digest", told.digest
    if told.index:
        yield "index", told.index
    if not told.complete:
        yield "incomplete", "not all of it was looked at; the verdicts may change once it is"


def _module(told: Told) -> Iterator[tuple[str, str]]:
    module = told.module
    if module is None:
        if told.found:
            in_layers = told.digest is not None
            yield "found", _list(_found(one) if in_layers else _bytes(one.size) for one in told.found)
        if told.problem and told.problem != told.accepted_by.envoy.reason:
            yield "problem", told.problem
        return
    yield "module", _place(module) + _bytes(module.size)
    if module.sha256:
        yield "sha256", module.sha256
    yield "kind", _kind(module)
    if module.name:
        yield "name", _short(module.name)
    if module.producers:
        yield "made with", _list(map(_producer, module.producers))
    if module.memories:
        yield "memory", "; ".join(map(_memory, module.memories[:_MAX_NAMES]))
    if module.imports:
        yield "imports", _list(f"{_short(group)} {len(items)}" for group, items in module.imports.items())
    if lacking := _full_names(module.lacking):
        yield "not in Envoy", _list(lacking)
    if module.exports:
        yield "exports", _exports(module.exports)
    if module.left_out:
        yield "left out", f"{module.left_out:,} more imports, exports, sections and producers, which nobody lists"


def _place(module: Module) -> str:
    if module.layer is None:
        return ""
    layer = f"layer {module.layer + 1}"
    return f"{_short(module.file)} in {layer}, " if module.file else f"{layer}, "


def _kind(module: Module) -> str:
    if module.kind == "component":
        return module.kind
    if not module.abi:
        return f"{module.kind}, which exports no Proxy-Wasm ABI version"
    return f"{module.kind}, Proxy-Wasm ABI {_list(map(_short, module.abi))}"


def _producer(producer: Producer) -> str:
    return _short(f"{_ROLES.get(producer.role, producer.role + ' ')}{producer.name} {producer.version}".strip())


def _memory(memory: Memory) -> str:
    most = "no maximum" if memory.maximum is None else f"{size_of(memory.maximum * _PAGE)} at most"
    kinds = {"imported": memory.imported, "64 bit": memory.memory64, "shared": memory.shared}
    return ", ".join([f"{size_of(memory.minimum * _PAGE)} at first", most, *(kind for kind in kinds if kinds[kind])])


def _full_names(groups: Mapping[str, Sequence[Item]]) -> list[str]:
    return [f"{_short(group)}.{_short(item.name)}" for group, items in groups.items() for item in items]


def _exports(exports: Sequence[Item]) -> str:
    kinds = Counter(item.kind for item in exports)
    counts = [f"{count} {kind if count == 1 else _PLURALS.get(kind, kind + 's')}" for kind, count in kinds.items()]
    ours = sum(item.name.startswith("proxy_on_") for item in exports)
    return ", ".join(counts) + (f"; {ours} of them proxy_on_…" if ours else "")


def _found(found: Found) -> str:
    what = "" if found.wasm else ", no Wasm"
    return f"{_short(found.name) + ' in ' if found.name else ''}layer {found.layer + 1} ({found.size:,} bytes{what})"


def _list(names: Iterable[str]) -> str:
    given = list(names)
    more = len(given) - _MAX_NAMES
    return ", ".join(given[:_MAX_NAMES]) + (f" and {more:,} more" if more > 0 else "")


def _short(name: str) -> str:
    return name if len(name) <= _MAX_NAME else name[:_MAX_NAME] + "…"


def _bytes(size: int) -> str:
    return f"{size:,} bytes" + (f" ({size_of(size)})" if size >= 1024 else "")


def _verdict(who: str, verdict: Verdict, wide: int, width: int) -> Iterator[str]:
    text = "accepted" if verdict.accepted else f"refused: {verdict.reason}"
    return _row(who, text, wide, width, colour="green" if verdict.accepted else "red")


def _advice(remedy: str, wide: int, width: int) -> Iterator[str]:
    indent = " " * (len(_STEP) + wide + 2)
    for number, line in enumerate(wrapped(escaped(remedy), f"{indent}-> ", width)):
        yield f"{indent}{'   ' if number else '-> '}{line}"


def _row(label: str, text: str, wide: int, width: int, colour: str | None = None) -> Iterator[str]:
    indent = " " * (len(_STEP) + wide + 2)
    first, *rest = wrapped(escaped(text), indent, width)
    shown = f"{label:<{wide}}"
    yield f"{_STEP}{click.style(shown, fg=colour) if colour else shown}  {first}"
    yield from (f"{indent}{line}" for line in rest)
