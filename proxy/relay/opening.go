package relay

// opening is the first messages of a session, kept to be told to each next backend.
type opening struct {
	bytes    []byte // frames, as they went
	messages int    // how many of them are whole
	end      int    // where the last whole one ends
	tooBig   bool   // they are more than MaxBuffered: the session cannot move
	discard  int    // how many messages of the backend answer a replay
}

// record keeps what goes to the backend of an opening message.
func (r *Relay) record(p ...[]byte) {
	o := r.pol.opening
	if o == nil || o.messages == r.opt.Migrate.ReplayMessages || o.tooBig {
		return
	}
	for _, p := range p {
		if len(o.bytes)+len(p) > r.opt.Migrate.MaxBuffered {
			o.bytes, o.tooBig = nil, true
			return
		}
		o.bytes = append(o.bytes, p...)
	}
}

// recorded is the end of a message.
func (r *Relay) recorded() {
	if o := r.pol.opening; o != nil && o.messages < r.opt.Migrate.ReplayMessages && !o.tooBig {
		o.messages++
		o.end = len(o.bytes)
	}
}

// answers returns how many messages answer a replay.
func (o *opening) answers(opt *MoveOptions) int {
	if o.messages < opt.ReplayMessages {
		return min(opt.DiscardReplies, o.messages)
	}
	return opt.DiscardReplies
}
