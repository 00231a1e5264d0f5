// Command agent pulls a module as the Istio agent does, with the agent's own code. It starts n pulls at once, each with
// a cache of its own, as n agents would, and prints one JSON object a pull, in the order in which they end.
// It exits 0 when it could try, whatever became of the pulls.
package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"istio.io/istio/pkg/log"
	"istio.io/istio/pkg/util/sets"
	"istio.io/istio/pkg/wasm"
)

type result struct {
	OK      bool    `json:"ok"`
	Error   string  `json:"error"`
	Seconds float64 `json:"seconds"`
	SHA256  string  `json:"sha256"` // of the module that the agent would give to Envoy
}

func main() {
	url := flag.String("url", "", "what a WasmPlugin names: oci://host/repository:tag, or http(s)://…")
	n := flag.Int("n", 1, "simultaneous pulls")
	checksum := flag.String("checksum", "", "the WasmPlugin's sha256, in hex")
	timeout := flag.Duration("timeout", 30*time.Second, "for one pull, with all its tries")
	flag.Parse()
	if *url == "" || *n < 1 || flag.NArg() > 0 {
		flag.Usage()
		os.Exit(2)
	}
	if err := run(*url, *n, *checksum, *timeout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(url string, n int, checksum string, timeout time.Duration) error {
	options := log.DefaultOptions()
	options.OutputPaths = []string{"stderr"} // stdout is for the results
	if err := log.Configure(options); err != nil {
		return err
	}
	folder, err := os.MkdirTemp("", "agent-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(folder)
	results := make(chan result)
	for i := range n {
		go func() {
			results <- pull(filepath.Join(folder, fmt.Sprint(i)), url, fmt.Sprintf("plugin-%d", i), checksum, timeout)
		}()
	}
	out := json.NewEncoder(os.Stdout)
	for range n {
		if err := out.Encode(<-results); err != nil {
			return err
		}
	}
	return nil
}

func pull(folder, url, resource, checksum string, timeout time.Duration) result {
	if err := os.Mkdir(folder, 0o700); err != nil {
		return result{Error: err.Error()}
	}
	cache := wasm.NewLocalFileCache(folder, wasm.Options{InsecureRegistries: sets.New("*")})
	defer cache.Cleanup()
	start := time.Now()
	path, err := cache.Get(url, wasm.GetOptions{
		ResourceName:    resource,
		ResourceVersion: "1",
		RequestTimeout:  timeout,
		Checksum:        checksum,
	})
	seconds := time.Since(start).Seconds()
	if err != nil {
		return result{Error: err.Error(), Seconds: seconds}
	}
	module, err := os.ReadFile(path)
	if err != nil {
		return result{Error: err.Error(), Seconds: seconds}
	}
	sum := sha256.Sum256(module)
	return result{OK: true, Seconds: seconds, SHA256: hex.EncodeToString(sum[:])}
}
