package tls

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
)

// maxFileBytes is far above any certificate chain or CA bundle. It keeps a path
// that was mistyped from filling the memory.
const maxFileBytes = 4 << 20

// FileError says what is wrong with a file, or with several that only make sense
// together, and what to do about it.
type FileError struct {
	Files  []string // as in the settings, at least one
	Remedy string   // an instruction, without a full stop
	Err    error    // what is wrong
}

func (e *FileError) Error() string {
	return fmt.Sprintf("%s: %v: %s", strings.Join(e.Files, ", "), e.Err, e.Remedy)
}

// Unwrap returns what is wrong: [ErrKeyEncrypted], [ErrKeyMismatch], an
// *fs.PathError, an error of crypto/x509.
func (e *FileError) Unwrap() error { return e.Err }

func fileError(file string, err error, remedy string) error {
	return &FileError{Files: []string{file}, Err: err, Remedy: remedy}
}

// readFunc returns the content of a file, or a *FileError.
type readFunc func(file string) ([]byte, error)

func readFile(file string) ([]byte, error) {
	// Stat first: opening a named pipe would block until somebody writes to it.
	info, err := os.Stat(file)
	if err != nil {
		return nil, unreadable(file, err)
	}
	if !info.Mode().IsRegular() {
		return nil, fileError(file, errors.New("is not a regular file"), "name a file (or a link to one) that can be read again")
	}
	f, err := os.Open(file)
	if err != nil {
		return nil, unreadable(file, err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFileBytes+1))
	if err != nil {
		return nil, unreadable(file, err)
	}
	if len(data) > maxFileBytes {
		return nil, fileError(file, fmt.Errorf("is larger than %d bytes", maxFileBytes), "check that this is the file that was meant")
	}
	return data, nil
}

func unreadable(file string, err error) error {
	remedy := "make the file readable"
	switch {
	case errors.Is(err, fs.ErrNotExist):
		remedy = "create the file or correct the path"
	case errors.Is(err, fs.ErrPermission):
		remedy = "let the user that runs tidegate read it"
	}
	// The path stands in front already: only the reason is kept of a PathError.
	if pathError, ok := errors.AsType[*fs.PathError](err); ok {
		err = fmt.Errorf("%s: %w", pathError.Op, pathError.Err)
	}
	return fileError(file, err, remedy)
}

// digest identifies the content of all files of a part.
type digest [sha256.Size]byte

// readFiles returns the contents of files and a digest over all of them. The
// length goes in front of each, so that bytes cannot move from one file to
// another unnoticed.
func readFiles(read readFunc, files []string) ([][]byte, digest, error) {
	contents := make([][]byte, len(files))
	hash := sha256.New()
	for i, file := range files {
		data, err := read(file)
		if err != nil {
			return nil, digest{}, err
		}
		hash.Write(binary.BigEndian.AppendUint64(nil, uint64(len(data))))
		hash.Write(data)
		contents[i] = data
	}
	return contents, digest(hash.Sum(nil)), nil
}

var errDamagedPEM = errors.New("a PEM block is damaged or cut short")

// pemBlocks returns all blocks of data. Unlike pem.Decode, which skips what it
// cannot read, it fails when a block begins that does not end well: half a chain
// would load and then fail at the clients.
func pemBlocks(data []byte) ([]*pem.Block, error) {
	begin := []byte("\n-----BEGIN ")
	begun := bytes.Count(data, begin)
	if bytes.HasPrefix(data, begin[1:]) {
		begun++
	}
	var blocks []*pem.Block
	for {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			break
		}
		blocks = append(blocks, block)
	}
	if len(blocks) != begun {
		return nil, errDamagedPEM
	}
	return blocks, nil
}
