package admin

import (
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
)

// maxTokenBytes bounds a token file, so that a wrong path cannot fill the memory.
const maxTokenBytes = 4 << 10

// tokenFile is the file with the bearer token. It is read for each request: requests
// are rare, a change must hold at once, and nothing can then be out of date.
type tokenFile struct{ path string }

// ReadToken returns the token in a file, without the white space around it. An empty
// file is an error, as is one over 4 KiB.
func ReadToken(path string) (string, error) { return (&tokenFile{path}).read() }

func (t *tokenFile) read() (string, error) {
	// Opening a pipe would wait for its writer.
	if info, err := os.Stat(t.path); err != nil {
		return "", err
	} else if !info.Mode().IsRegular() {
		return "", fmt.Errorf("%s is not a regular file", t.path)
	}
	f, err := os.Open(t.path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxTokenBytes+1))
	if err != nil {
		return "", err
	}
	if len(b) > maxTokenBytes {
		return "", fmt.Errorf("%s is longer than %d bytes", t.path, maxTokenBytes)
	}
	token := strings.TrimSpace(string(b))
	if token == "" {
		return "", fmt.Errorf("%s holds no token", t.path)
	}
	return token, nil
}

// errUnauthorized is the answer to a missing and to a wrong token alike.
var errUnauthorized = errors.New("a valid bearer token is needed")

// check returns nil if r carries the token, errUnauthorized if not, and another error
// if the file cannot be read, which lets nobody in.
func (t *tokenFile) check(r *http.Request) error {
	want, err := t.read()
	if err != nil {
		return err
	}
	scheme, have, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return errUnauthorized
	}
	// Hashes have one length, so the comparison tells nothing of the token's.
	h, w := sha256.Sum256([]byte(strings.TrimSpace(have))), sha256.Sum256([]byte(want))
	if subtle.ConstantTimeCompare(h[:], w[:]) != 1 {
		return errUnauthorized
	}
	return nil
}
