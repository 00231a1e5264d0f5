module wasm-mirror/tests/e2e/archives

go 1.24
