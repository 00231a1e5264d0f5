"""``wasm-mirror inspect``."""
