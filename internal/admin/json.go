package admin

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strconv"
)

// errorAnswer is the body of every answer that is not a success.
type errorAnswer struct {
	Error       string       `json:"error"`
	Diagnostics []Diagnostic `json:"diagnostics,omitempty"`
}

func writeError(w http.ResponseWriter, status int, message string) {
	writeJSON(w, status, errorAnswer{Error: message})
}

// writeJSON answers with v. It is encoded before anything is sent, so that what
// cannot be encoded becomes an error instead of half an answer.
func writeJSON(w http.ResponseWriter, status int, v any) {
	var b bytes.Buffer
	if err := json.NewEncoder(&b).Encode(v); err != nil {
		status = http.StatusInternalServerError
		b.Reset()
		b.WriteString(`{"error":"the answer cannot be encoded"}` + "\n")
	}
	body := escapeControls(b.Bytes())
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	_, _ = w.Write(body) // the peer's loss
}

// escapeControls writes DEL and the C1 controls (U+0080 to U+009F), which
// encoding/json leaves alone, as \u00XX. A terminal takes some of them for the start
// of a command, and people look at this JSON on terminals. Outside of strings JSON
// has neither, so the text stays JSON for the same value.
func escapeControls(b []byte) []byte {
	const hex = "0123456789abcdef"
	var out []byte // nil while nothing had to be escaped
	kept := 0      // b[:kept] is in out
	for i := 0; i < len(b); i++ {
		var control byte
		size := 1
		switch {
		case b[i] == 0x7f:
			control = b[i]
		case b[i] == 0xc2 && i+1 < len(b) && b[i+1] >= 0x80 && b[i+1] <= 0x9f:
			control, size = b[i+1], 2
		default:
			continue
		}
		out = append(out, b[kept:i]...)
		out = append(out, '\\', 'u', '0', '0', hex[control>>4], hex[control&0xf])
		i += size - 1
		kept = i + 1
	}
	if out == nil {
		return b
	}
	return append(out, b[kept:]...)
}
