"""wasm-mirror: a caching OCI pull-through registry mirror for WebAssembly modules in a service mesh."""

import sys

# Where rich is installed, httpx loads it for a command line of its own: a tenth of a second, and megabytes of a process
# that draws nothing. What is None here cannot be imported, and then httpx goes on without.
sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type]  # the import system's own way to say so

__version__ = "0.1.0"
