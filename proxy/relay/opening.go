package relay

// opening is the first messages of a session, kept to be told to each next backend.
type opening struct {
	bytes    []byte // frames, as they went
	messages int    // how many of them are whole
	end      int    // where the last whole one ends
	tooBig   bool   // they are more than MaxBuffered: the session cannot move
	discard  int    // how many messages of the backend answer a replay

	replay, replayed int // up to where, and how many: what is recorded behind it is held by the move
}

// record keeps what goes to the backend of an opening message.
func (r *Relay) record(p ...[]byte) {
	o := r.pol.opening
	if o == nil || o.messages == r.opt.Migrate.ReplayMessages || o.tooBig {
		return
	}
	for _, p := range p {
		if len(o.bytes)+len(p) > r.opt.Migrate.MaxBuffered {
			o.tooBig = true
			if m := r.moving(); m == nil || !m.holding() {
				o.bytes = nil
			} else {
				o.bytes = o.bytes[:o.replay]
			}
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

// cut is the moment from which on the move keeps what the client says. A replay ends there,
// since what is kept follows it; a message that the old backend has in part goes nowhere.
func (o *opening) cut() {
	if o != nil && !o.tooBig {
		o.bytes = o.bytes[:o.end]
		o.replay, o.replayed = o.end, o.messages
	}
}

// over is the end of the move.
func (o *opening) over() {
	if o != nil && o.tooBig {
		o.bytes = nil
	}
}

// answers returns how many messages answer a replay.
func (o *opening) answers(opt *MoveOptions) int {
	if o.replayed < opt.ReplayMessages {
		return min(opt.DiscardReplies, o.replayed)
	}
	return opt.DiscardReplies
}
