"""The effective settings as a person wants to see them: YAML that can be loaded again, but for the masked secrets."""

import yaml

from mirror.config.models import Settings


def describe(settings: Settings) -> str:
    """The effective settings as YAML, every secret masked, ending in a line break."""
    whole = settings.model_dump(mode="json")
    for upstream in whole["upstreams"].values():
        if upstream["credentials"] is not None:  # they are the last endpoint's, too; once is enough to read
            del upstream["endpoints"][-1]["credentials"]
    whole["upstreams"] = _without_nothing(whole["upstreams"])
    text: str = yaml.safe_dump(whole, sort_keys=False, allow_unicode=True, default_flow_style=False)
    return text


def _without_nothing(value: object) -> object:
    match value:
        case dict():
            return {key: _without_nothing(inner) for key, inner in value.items() if inner is not None}
        case list():
            return [_without_nothing(inner) for inner in value]
    return value
