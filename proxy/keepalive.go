package proxy

import (
	"net"
	"time"
)

// probes returns the keepalive probes of one connection. Connections that were opened
// together and are silent since would be probed together, in a burst of which the network
// loses a part, and the same part each time. So early, in [0, 1), moves the first probe
// forward by up to a tenth of the idle time, and often, in [0, 1), brings those behind it
// closer together.
//
// With TCP_USER_TIMEOUT set, Linux does not count lost probes. When its timer fires, after
// the idle time and then after each interval, tcp_keepalive_timer (net/ipv4/tcp_timer.c)
//
//  1. starts over if something waits to be sent or acknowledged, or came meanwhile;
//  2. ends the connection if nothing has come for the user timeout and at least one probe
//     went unanswered; without a user timeout, if as many did as the count says;
//  3. otherwise sends a probe, and sets the timer to the interval.
//
// The peer thus gets the probes that fit in between the idle time and the user timeout,
// and one in any case. An eighth to a quarter of that time, rounded down to the whole
// seconds that the options are, makes it four at least; an end comes with the timer, less
// than an interval behind the user timeout. Timers fire late by up to an eighth
// (kernel/time/timer.c), which leaves three where the user timeout is longer than the idle
// time by half of it, and by 4 s. Package config sees to that.
//
// Systems that know no user timeout go by the count, which comes to about the same time.
func (s TCPSettings) probes(early, often float64) net.KeepAliveConfig {
	idle := (s.Keepalive + time.Second - 1).Truncate(time.Second)
	spread := idle / 10 / time.Second
	first := idle - time.Duration(early*float64(spread+1))*time.Second
	if s.UserTimeout == 0 {
		return net.KeepAliveConfig{Enable: idle > 0, Idle: first, Interval: idle, Count: 3}
	}
	between := s.UserTimeout - first
	interval := max(time.Duration(float64(between)/(4+4*often)).Truncate(time.Second), time.Second)
	return net.KeepAliveConfig{Enable: idle > 0, Idle: first, Interval: interval, Count: max(int(between/interval), 4)}
}
