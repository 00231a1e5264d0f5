// Command agent pulls a module as the Istio agent does, with the agent's own code. It starts n pulls at once, or some
// every second until its standard input ends; each with a cache of its own, as so many agents would. With URLs as
// arguments it starts n pulls of each. It prints one JSON object a pull, in the order in which they end.
// It exits 0 when it could try, whatever became of the pulls.
package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"istio.io/istio/pkg/log"
	"istio.io/istio/pkg/util/sets"
	"istio.io/istio/pkg/wasm"
)

type result struct {
	OK      bool    `json:"ok"`
	Error   string  `json:"error"`
	Seconds float64 `json:"seconds"`
	SHA256  string  `json:"sha256"`        // of the module that the agent would give to Envoy
	URL     string  `json:"url,omitempty"` // if it was given as an argument
}

// wanted is what each pull asks for; the same for all.
type wanted struct {
	urls     []string
	checksum string
	timeout  time.Duration
	secret   []byte
	verify   bool
	policy   wasm.PullPolicy
	gets     int
}

func main() {
	url := flag.String("url", "", "what a WasmPlugin names: oci://host/repository:tag, or http(s)://…")
	n := flag.Int("n", 1, "simultaneous pulls")
	rate := flag.Float64("per-second", 0, "pulls to start each second until standard input ends, instead of n at once")
	checksum := flag.String("checksum", "", "the WasmPlugin's sha256, in hex")
	timeout := flag.Duration("timeout", 30*time.Second, "for one pull, with all its tries")
	secret := flag.String("pull-secret", "", "the WasmPlugin's pull secret: a file in the form of docker's config.json")
	verify := flag.Bool("verify", false, "verify certificates, as an agent does without WASM_INSECURE_REGISTRIES")
	policy := flag.String("pull-policy", "UNSPECIFIED_POLICY", "the WasmPlugin's imagePullPolicy")
	gets := flag.Int("gets", 1, "how often each agent asks for it, each time for a new version of the WasmPlugin")
	flag.Parse()
	pullPolicy, known := wasm.PullPolicyValues[*policy]
	if (*url == "") == (flag.NArg() == 0) || *n < 1 || *rate < 0 || *gets < 1 || !known {
		flag.Usage()
		os.Exit(2)
	}
	what := wanted{flag.Args(), *checksum, *timeout, nil, *verify, pullPolicy, *gets}
	if *url != "" {
		what.urls = []string{*url}
	}
	if *secret != "" {
		content, err := os.ReadFile(*secret)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(2)
		}
		what.secret = content
	}
	if err := run(what, *n, *rate); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(what wanted, n int, rate float64) error {
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
	var pulls sync.WaitGroup
	start := func(i int) {
		pulls.Add(1)
		go func() {
			defer pulls.Done()
			url := what.urls[i%len(what.urls)]
			one := pull(filepath.Join(folder, fmt.Sprint(i)), url, what, fmt.Sprintf("plugin-%d", i))
			if flag.NArg() > 0 {
				one.URL = url
			}
			results <- one
		}()
	}
	go func() {
		if rate > 0 {
			steadily(rate, start)
		} else {
			for i := range n * len(what.urls) {
				start(i)
			}
		}
		pulls.Wait()
		close(results)
	}()
	out := json.NewEncoder(os.Stdout)
	for one := range results {
		if err := out.Encode(one); err != nil {
			return err
		}
	}
	return nil
}

// steadily calls start with 0, 1, … so many times a second until standard input ends.
func steadily(rate float64, start func(int)) {
	ended := make(chan struct{})
	go func() {
		io.Copy(io.Discard, os.Stdin)
		close(ended)
	}()
	began := time.Now()
	for i := 0; ; i++ {
		due := began.Add(time.Duration(float64(i) / rate * float64(time.Second)))
		select {
		case <-ended:
			return
		case <-time.After(time.Until(due)):
			start(i)
		}
	}
}

func pull(folder, url string, what wanted, resource string) result {
	if err := os.Mkdir(folder, 0o700); err != nil {
		return result{Error: err.Error()}
	}
	defer os.RemoveAll(folder)
	insecure := sets.New[string]()
	if !what.verify {
		insecure.Insert("*")
	}
	cache := wasm.NewLocalFileCache(folder, wasm.Options{
		InsecureRegistries:    insecure,
		HTTPRequestTimeout:    wasm.DefaultHTTPRequestTimeout,
		HTTPRequestMaxRetries: wasm.DefaultHTTPRequestMaxRetries,
	})
	defer cache.Cleanup()
	start := time.Now()
	var path string
	var err error
	for version := range what.gets {
		path, err = cache.Get(url, wasm.GetOptions{
			ResourceName:    resource,
			ResourceVersion: fmt.Sprint(version),
			RequestTimeout:  what.timeout,
			Checksum:        what.checksum,
			PullSecret:      what.secret,
			PullPolicy:      what.policy,
		})
	}
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
