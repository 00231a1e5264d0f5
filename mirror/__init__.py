"""wasm-mirror: a caching OCI pull-through registry mirror for WebAssembly modules in a service mesh."""

__version__ = "0.1.0"
