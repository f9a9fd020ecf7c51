package proxy

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/gobwas/ws"
	"go.uber.org/zap"
)

// What sessions are told when the edge ends.
const (
	shutdownCode   = ws.StatusGoingAway
	shutdownReason = "shutdown"
)

// Shutdown ends the edge: it stops accepting, refuses new handshakes, closes the sessions
// with 1001 spread over window, and ends at once what is left when deadline has passed
// or ctx is done; 0 of either is no time at all. It returns when nothing of the server
// runs any more.
func (s *Server) Shutdown(ctx context.Context, window, deadline time.Duration) {
	s.stopping.Store(true)
	s.applying.Lock()
	listeners, pools := s.listeners, s.pools // the last ones
	s.applying.Unlock()
	ctx, cancel := context.WithTimeout(ctx, deadline)
	defer cancel()

	for _, p := range pools {
		p.stopLeaving()
	}
	for _, ln := range listeners {
		ln.close()
	}
	for _, e := range s.current.Load().endpoints {
		e.retire()
	}
	s.log.Info("shutting down", zap.Int("sessions", s.sessions.len()), zap.Duration("window", window), zap.Duration("deadline", deadline))
	stop := s.start(func(ctx context.Context) { s.closeOver(ctx, window) })
	err := s.sessions.wait(ctx, func() bool { return s.stats.handshaking.Load() == 0 })
	stop()
	if err != nil {
		s.log.Warn("not all ended in time", zap.Int("sessions", s.sessions.len()), zap.Int64("requests", s.stats.handshaking.Load()))
	}
	s.http2.wait(ctx) // for GOAWAY, and what goes before it
	s.cancel()
	for _, p := range pools {
		p.close()
	}
	s.attending.Lock()
	s.ended = true
	s.attending.Unlock()
	for _, x := range s.sessions.list(nil) {
		x.kill() // some may wait for what comes of their moves
	}
	s.wg.Wait()
	// No handler runs any more, so that these are all.
	for _, x := range s.sessions.list(nil) {
		x.kill()
	}
	s.sessions.wait(context.Background(), func() bool { return true })
	if s.engines != nil {
		s.startEngines() // they may never have run
		s.stopEngines()
	}
}

// closeOver closes all sessions and event streams, one in each equal slot of the window, at a
// random moment of its slot: clients that reconnect must not come in step.
func (s *Server) closeOver(ctx context.Context, window time.Duration) {
	var all []func()
	for _, x := range s.sessions.list(nil) {
		all = append(all, func() { x.Close(shutdownCode, shutdownReason, WhyShutdown) })
	}
	for _, stream := range s.streams.of(nil) {
		all = append(all, stream.end)
	}
	rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	start := time.Now()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for i, leave := range all {
		slot := float64(window) / float64(len(all))
		at := start.Add(time.Duration(slot * (float64(i) + rand.Float64())))
		timer.Reset(time.Until(at))
		select {
		case <-timer.C:
			leave()
		case <-ctx.Done():
			return
		}
	}
}
