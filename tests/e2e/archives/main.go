// Tells what Go's archive/tar and compress/gzip read of archives, as Istio's agents use them.
//
// Standard input: archives, each after its length in 4 bytes (big-endian). Standard output: a line of JSON for each, with
// the entries that could be read whole, and the error that ended the reading, empty at the end of the archive.
package main

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"log"
	"os"
	"path/filepath"
)

const agentsRead = 256 << 20

type entry struct {
	Name   string `json:"name"` // in hex
	Base   string `json:"base"` // in hex
	Kind   byte   `json:"kind"`
	Size   int64  `json:"size"`
	Sha256 string `json:"sha256"`
	Magic  bool   `json:"magic"`
}

type listing struct {
	Entries []entry `json:"entries"`
	Error   string  `json:"error"`
}

func main() {
	input, output := bufio.NewReader(os.Stdin), bufio.NewWriter(os.Stdout)
	defer output.Flush()
	for {
		var length uint32
		err := binary.Read(input, binary.BigEndian, &length)
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			log.Fatal(err)
		}
		archive := make([]byte, length)
		if _, err := io.ReadFull(input, archive); err != nil {
			log.Fatal(err)
		}
		if err := json.NewEncoder(output).Encode(list(archive)); err != nil {
			log.Fatal(err)
		}
	}
}

func list(archive []byte) listing {
	found := listing{Entries: []entry{}}
	// A reader that can do nothing but read: agents have the body of an HTTP response.
	unzipped, err := gzip.NewReader(io.MultiReader(bytes.NewReader(archive)))
	if err != nil {
		found.Error = err.Error()
		return found
	}
	reader := tar.NewReader(io.LimitReader(unzipped, agentsRead))
	for {
		header, err := reader.Next()
		if err == io.EOF {
			return found
		}
		if err == nil {
			err = read(reader, header, &found)
		}
		if err != nil {
			found.Error = err.Error()
			return found
		}
	}
}

func read(reader io.Reader, header *tar.Header, found *listing) error {
	hash, head, left := sha256.New(), &head{}, header.Size
	if !hasContent(header) {
		left = 0
	}
	for left > 0 {
		piece := make([]byte, min(left, 1<<20))
		// As agents read: a fault that comes together with the last byte is not met.
		if _, err := io.ReadFull(reader, piece); err != nil {
			return err
		}
		hash.Write(piece)
		head.Write(piece)
		left -= int64(len(piece))
	}
	found.Entries = append(found.Entries, entry{
		Name:   hex.EncodeToString([]byte(header.Name)),
		Base:   hex.EncodeToString([]byte(filepath.Base(header.Name))),
		Kind:   header.Typeflag,
		Size:   header.Size,
		Sha256: hex.EncodeToString(hash.Sum(nil)),
		Magic:  string(head.bytes) == "\x00asm",
	})
	return nil
}

func hasContent(header *tar.Header) bool {
	switch header.Typeflag {
	case tar.TypeLink, tar.TypeSymlink, tar.TypeChar, tar.TypeBlock, tar.TypeDir, tar.TypeFifo, tar.TypeXGlobalHeader:
		return false
	}
	return true
}

// head keeps the first four bytes that are written to it.
type head struct{ bytes []byte }

func (h *head) Write(content []byte) (int, error) {
	h.bytes = append(h.bytes, content[:min(len(content), 4-len(h.bytes))]...)
	return len(content), nil
}
