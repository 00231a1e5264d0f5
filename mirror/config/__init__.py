"""Settings: frozen, validated, from a YAML file, the environment and the command line.

::

    values, hosts      what a single value may be
    known              what is known of public registries
    section            what all models have in common
    upstreams, hosted, rights, models
                       every key, with its default and its help
    contradictions     what is wrong between keys
    schema             the keys, read from the models
    problems           faults, as lines for a person
    document           the YAML file, with line numbers
    environment        the WASM_MIRROR_… variables
    load               all of these, in their order
    show, reference    the effective settings; the documentation
"""

from mirror.config.cache import CacheSettings
from mirror.config.hosted import HostedSettings
from mirror.config.load import load
from mirror.config.models import LogSettings, MetadataSettings, ScrubSettings, Settings, TlsSettings, WasmSettings
from mirror.config.problems import ConfigurationError
from mirror.config.rights import AuthSettings, Rule
from mirror.config.show import describe
from mirror.config.upstreams import Credentials, Defaults, EndpointSettings, UpstreamSettings

__all__ = [
    "AuthSettings",
    "CacheSettings",
    "ConfigurationError",
    "Credentials",
    "Defaults",
    "EndpointSettings",
    "HostedSettings",
    "LogSettings",
    "MetadataSettings",
    "Rule",
    "ScrubSettings",
    "Settings",
    "TlsSettings",
    "UpstreamSettings",
    "WasmSettings",
    "describe",
    "load",
]
