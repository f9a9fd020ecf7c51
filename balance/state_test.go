package balance

// setState brings a backend to a state, whatever it was in.
func (l *Live) setState(to State) {
	for _, m := range []Mark{Drained, Failing, Outlier, Warming, Panicking} {
		l.Set(m, false)
	}
	l.stand(map[State]standing{StateDown: broken, StateRemoved: removed}[to])
	switch to {
	case StateSlowStart:
		l.Set(Warming, true)
	case StateDraining:
		l.Set(Drained, true)
	case StateEjected:
		l.Set(Outlier, true)
	}
}
