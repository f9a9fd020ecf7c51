package test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestSlowHeads has 800 connections each send a head a byte at a time: what others ask for is
// answered all the while, and each of them ends when its time is up.
func TestSlowHeads(t *testing.T) {
	b := newStrictBackend(t)
	e := start(t, strings.ReplaceAll(strings.ReplaceAll(hasty, "handshake_timeout: 1s", "handshake_timeout: 3s"),
		"BACKENDS", fmt.Sprintf("{address: %q}", b.addr())))
	var all sync.WaitGroup
	late := make(chan error, 800)
	plain, secure := e.addr("ws"), e.addr("wss")
	for i := range 800 {
		addr := plain
		if i%4 == 0 {
			addr = secure // without a ClientHello
		}
		conn, err := net.Dial("tcp", addr)
		must(t, err)
		defer conn.Close()
		all.Go(func() { late <- drip(conn) })
	}
	client := &http.Client{Timeout: soon}
	defer client.CloseIdleConnections()
	answered := 0
	ended := make(chan struct{})
	go func() { all.Wait(); close(ended) }()
	for running := true; running; {
		select {
		case <-ended:
			running = false
		default:
		}
		res, err := client.Get("http://" + plain + "/")
		must(t, err)
		io.Copy(io.Discard, res.Body)
		res.Body.Close()
		if res.StatusCode != http.StatusOK {
			t.Fatal(res.Status)
		}
		answered++
	}
	for range 800 {
		if err := <-late; err != nil {
			t.Error(err)
		}
	}
	if answered < 10 {
		t.Errorf("%d requests were answered beside them", answered)
	}
}

// drip sends a head a byte at a time until the connection ends, which it must. What it waits
// for is the edge's clock.
func drip(conn net.Conn) error {
	const head = "GET / HTTP/1.1\r\nHost: x\r\nX-Slow: "
	ended := make(chan error, 1)
	go func() {
		conn.SetReadDeadline(time.Now().Add(2 * soon))
		_, err := io.Copy(io.Discard, conn)
		ended <- err
	}()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for i := 0; ; i++ {
		select {
		case err := <-ended:
			if errors.Is(err, os.ErrDeadlineExceeded) {
				return errors.New("a connection was not ended")
			}
			return nil
		case <-tick.C:
			conn.Write([]byte{head[i%len(head)]})
		}
	}
}
