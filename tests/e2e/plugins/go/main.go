// A Proxy-Wasm plugin without an SDK: it adds a header to each response. Built with
// GOOS=wasip1 GOARCH=wasm go build -buildmode=c-shared.
package main

import "unsafe"

const (
	continueStream  = 0
	responseHeaders = 2
)

// What the host asked to put something into: kept from the garbage collector until the next time.
var given []byte

//go:wasmexport proxy_abi_version_0_2_1
func abiVersion() {}

//go:wasmexport proxy_on_memory_allocate
func allocate(size uint32) *byte {
	given = make([]byte, size+1)
	return &given[0]
}

//go:wasmexport proxy_on_response_headers
func onResponseHeaders(context, count, end uint32) uint32 {
	name, value := "x-plugin", "made with Go"
	addHeader(
		responseHeaders,
		unsafe.StringData(name), uint32(len(name)),
		unsafe.StringData(value), uint32(len(value)),
	)
	return continueStream
}

//go:wasmimport env proxy_add_header_map_value
func addHeader(headers uint32, name *byte, nameSize uint32, value *byte, valueSize uint32) uint32

func main() {}
