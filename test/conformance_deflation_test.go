package test

import (
	"bytes"
	"compress/flate"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// deflation is permessage-deflate at one end of a connection (RFC 7692 §7.2).
type deflation struct {
	out      *flate.Writer
	buf      bytes.Buffer
	freshOut bool // each message stands for itself
	in       io.ReadCloser
	dict     []byte // what came last
	freshIn  bool
}

// deflateWindow is how far DEFLATE refers back at most (RFC 1951 §2).
const deflateWindow = 32 << 10

// deflateTail is what a compressor ends a message with and does not send; behind it stands a
// last block that is empty, so that a reader finds an end.
const deflateTail = "\x00\x00\xff\xff"

// newDeflation makes what was agreed on, nil if it was nothing.
func newDeflation(agreed string, client bool) *deflation {
	terms := parseTerms(agreed)
	if terms["permessage-deflate"] == "" {
		return nil
	}
	own, other := "server_", "client_"
	if client {
		own, other = other, own
	}
	d := &deflation{freshOut: terms[own+"no_context_takeover"] != "", freshIn: terms[other+"no_context_takeover"] != ""}
	level := flate.BestSpeed
	if w := terms[own+"max_window_bits"]; w != "" && windowBits(w) < 15 {
		level = flate.HuffmanOnly // which refers back to nothing
	}
	d.out, _ = flate.NewWriter(&d.buf, level)
	d.in = flate.NewReader(nil)
	return d
}

// parseTerms reads an extension with its parameters. One without a value has its name.
func parseTerms(s string) map[string]string {
	terms := map[string]string{}
	for _, part := range strings.Split(s, ";") {
		name, value, _ := strings.Cut(strings.TrimSpace(part), "=")
		if value == "" {
			value = name
		}
		terms[name] = strings.Trim(value, `"`)
	}
	return terms
}

func windowBits(s string) int {
	n, err := strconv.Atoi(s)
	if err != nil || n < 8 || n > 15 {
		return 16
	}
	return n
}

// deflate compresses a message; the result is the caller's.
func (d *deflation) deflate(p []byte) []byte {
	d.buf.Reset()
	if d.freshOut {
		d.out.Reset(&d.buf)
	}
	d.out.Write(p)
	d.out.Flush()
	return bytes.Clone(bytes.TrimSuffix(d.buf.Bytes(), []byte(deflateTail)))
}

// inflate is the opposite.
func (d *deflation) inflate(p []byte) ([]byte, error) {
	if d.freshIn {
		d.dict = nil
	}
	if err := d.in.(flate.Resetter).Reset(io.MultiReader(bytes.NewReader(p), strings.NewReader(deflateTail+"\x01\x00\x00\xff\xff")), d.dict); err != nil {
		return nil, err
	}
	message, err := io.ReadAll(d.in)
	if err != nil {
		return message, fmt.Errorf("inflating %d octets: %w", len(p), err)
	}
	d.dict = append(d.dict, message...)
	d.dict = bytes.Clone(d.dict[max(0, len(d.dict)-deflateWindow):])
	return message, nil
}
