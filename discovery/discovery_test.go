package discovery

import "testing"

func TestNewSnapshotSortsAndKeepsTheFirstOfAnID(t *testing.T) {
	s := NewSnapshot(3, []Instance{{ID: "b", Addr: "1"}, {ID: "a"}, {ID: "b", Addr: "2"}})
	if len(s.Instances) != 2 || s.Instances[0].ID != "a" || s.Instances[1].Addr != "1" || s.Index != 3 {
		t.Errorf("got %+v", s)
	}
}

func TestSameInstances(t *testing.T) {
	base := Instance{ID: "a", Addr: "h:1", Weight: 1, Node: "n", Datacenter: "d",
		Tags: []string{"x"}, Meta: map[string]string{"k": "v"}}
	changes := map[string]func(*Instance){
		"id":         func(i *Instance) { i.ID = "b" },
		"addr":       func(i *Instance) { i.Addr = "h:2" },
		"weight":     func(i *Instance) { i.Weight = 2 },
		"status":     func(i *Instance) { i.Status = Maintenance },
		"node":       func(i *Instance) { i.Node = "m" },
		"datacenter": func(i *Instance) { i.Datacenter = "e" },
		"tags":       func(i *Instance) { i.Tags = []string{"y"} },
		"meta":       func(i *Instance) { i.Meta = map[string]string{"k": "w"} },
	}
	a := NewSnapshot(1, []Instance{base})
	same := NewSnapshot(2, []Instance{base})
	same.Stale = true
	if !SameInstances(a, same) {
		t.Error("index and staleness made a difference")
	}
	for name, change := range changes {
		other := base
		change(&other)
		if SameInstances(a, NewSnapshot(1, []Instance{other})) {
			t.Errorf("a change of %s was not seen", name)
		}
	}
	if SameInstances(a, nil) || SameInstances(nil, a) || !SameInstances(nil, nil) {
		t.Error("nil is the same as something")
	}
	if SameInstances(a, NewSnapshot(1, nil)) {
		t.Error("an empty set is the same as a full one")
	}
}

func TestStatusString(t *testing.T) {
	for status, want := range map[Status]string{Up: "up", Down: "down", Maintenance: "maintenance", 9: "unknown"} {
		if got := status.String(); got != want {
			t.Errorf("Status(%d) = %q, want %q", status, got, want)
		}
	}
}
