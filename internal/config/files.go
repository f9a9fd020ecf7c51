package config

import (
	"bytes"
	cryptotls "crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// maxReferencedBytes bounds a file that a configuration names. System-wide bundles of
// authorities are well below 1 MiB.
const maxReferencedBytes = 4 << 20

// readRegular reads a file that a configuration names. Devices and pipes, which may
// never end, are refused.
func readRegular(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("not a regular file")
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxReferencedBytes+1))
	if err == nil && len(data) > maxReferencedBytes {
		return nil, fmt.Errorf("larger than %d MiB", maxReferencedBytes>>20)
	}
	return data, err
}

// content reads the file that the value at path names. It has reported why if it
// returns false.
func (v *validator) content(path, file string) ([]byte, bool) {
	data, err := v.read(file)
	if err == nil {
		return data, true
	}
	// The resolved name is said in full: that it is relative to the YAML file is what
	// people stumble over.
	if inner, ok := errors.AsType[*fs.PathError](err); ok {
		err = inner.Err
	}
	v.fail(path, "cannot read %s: %v", quoteFile(file), err)
	return nil, false
}

// quoteFile shows a file name at full length unless it needs quotes.
func quoteFile(name string) string {
	if q := fmt.Sprintf("%q", name); q != `"`+name+`"` || strings.Contains(name, " ") {
		return q
	}
	return name
}

// checkToken checks a file that holds a secret. Empty names are fine.
func (v *validator) checkToken(path, file string) {
	if file == "" || !v.usable(path) {
		return
	}
	if data, ok := v.content(path, file); ok && len(bytes.TrimSpace(data)) == 0 {
		v.fail(path, "%s is empty", quoteFile(file))
	}
}

// checkAuthorities checks a file of PEM certificates. Empty names are fine.
func (v *validator) checkAuthorities(path, file string) {
	if file == "" || !v.usable(path) {
		return
	}
	data, ok := v.content(path, file)
	if !ok {
		return
	}
	count := 0
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		count++
		if _, err := x509.ParseCertificate(block.Bytes); err != nil {
			v.fail(path, "certificate %d in %s: %s", count, quoteFile(file), plainTLS(err))
			return
		}
	}
	if count == 0 {
		v.fail(path, "%s contains no PEM certificate", quoteFile(file))
	}
}

// checkKeyPair checks the files of a certificate and its key, which stand at cert and
// key below path. Both names may be empty if the pair is optional.
func (v *validator) checkKeyPair(path string, pair KeyPair) {
	certPath, keyPath := join(path, "cert"), join(path, "key")
	if !v.usable(certPath) || !v.usable(keyPath) {
		return
	}
	switch {
	case pair.Cert == "" && pair.Key == "":
		return
	case pair.Key == "":
		v.fail(certPath, "cert is given without a key")
		return
	case pair.Cert == "":
		v.fail(keyPath, "key is given without a cert")
		return
	}
	cert, certOK := v.pemFile(certPath, pair.Cert, "certificate", "CERTIFICATE")
	key, keyOK := v.pemFile(keyPath, pair.Key, "private key", "PRIVATE KEY")
	if !certOK || !keyOK {
		return
	}
	if _, err := cryptotls.X509KeyPair(cert, key); err != nil {
		v.fail(path, "cert %s and key %s: %s", quoteFile(filepath.Base(pair.Cert)), quoteFile(filepath.Base(pair.Key)), plainTLS(err))
	}
}

// pemFile reads a file that must hold a PEM block whose type ends with suffix.
func (v *validator) pemFile(path, file, what, suffix string) ([]byte, bool) {
	data, ok := v.content(path, file)
	if !ok {
		return nil, false
	}
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		if strings.HasSuffix(block.Type, suffix) {
			return data, true
		}
	}
	v.fail(path, "%s contains no PEM %s", quoteFile(file), what)
	return nil, false
}

// plainTLS takes the name of the library off its message.
func plainTLS(err error) string {
	message := strings.TrimPrefix(err.Error(), "tls: ")
	return strings.TrimPrefix(message, "x509: ")
}

// minTicketKeyBytes is the size of a session ticket key of crypto/tls.
const minTicketKeyBytes = 32

func (v *validator) checkTicketKeys(path string, files []string) {
	for i, file := range files {
		at := element(path, i)
		if !v.usable(at) {
			continue
		}
		if data, ok := v.content(at, file); ok && len(data) < minTicketKeyBytes {
			v.fail(at, "%s has %d bytes, a ticket key needs at least %d", quoteFile(file), len(data), minTicketKeyBytes)
		}
	}
}

// checkDirectory checks that the directory of a file to be written exists.
func (v *validator) checkDirectory(path, file string) {
	if file == "" || !v.usable(path) {
		return
	}
	dir := filepath.Dir(file)
	info, err := os.Stat(dir)
	switch {
	case err != nil:
		if inner, ok := errors.AsType[*fs.PathError](err); ok {
			err = inner.Err
		}
		v.fail(path, "directory %s: %v", quoteFile(dir), err)
	case !info.IsDir():
		v.fail(path, "%s is not a directory", quoteFile(dir))
	}
}
