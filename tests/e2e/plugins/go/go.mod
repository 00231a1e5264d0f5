// A Proxy-Wasm plugin in Go, for the tests.
module wasm-mirror.test/plugin-in-go

go 1.24
