package consul

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"go.uber.org/zap"
)

// change notes the good sets of all datacenters. They are written once save is called
// at due or later, so that a busy service does not keep the disk busy.
func (f *snapshotFile) change(datacenters []*datacenter, now time.Time) {
	if f.path == "" {
		return
	}
	f.unsaved = make([]savedDatacenter, 0, len(datacenters))
	for _, d := range datacenters {
		if d.accepted != nil {
			f.unsaved = append(f.unsaved, d.saved())
		}
	}
	if f.due.IsZero() {
		f.due = now
		if next := f.written.Add(f.interval); next.After(now) {
			f.due = next
		}
	}
}

func (d *datacenter) saved() savedDatacenter {
	s := savedDatacenter{Name: d.name, Instances: make([]savedInstance, 0, len(d.accepted))}
	for _, i := range d.accepted {
		s.Instances = append(s.Instances, savedInstance{
			ID: i.ID, Address: i.Addr, Weight: i.Weight, Status: i.Status.String(),
			Node: i.Node, Datacenter: i.Datacenter, Tags: i.Tags, Meta: i.Meta,
		})
	}
	return s
}

// save writes what is due at now. A failure is reported when it begins and is tried
// again with the next change.
func (f *snapshotFile) save(now time.Time) {
	if f.unsaved == nil || now.Before(f.due) {
		return
	}
	saved := f.question
	saved.SavedAt, saved.Datacenters = now.UTC(), f.unsaved
	f.unsaved, f.due, f.written = nil, time.Time{}, now
	if err := writeSnapshotFile(f.path, saved); err != nil {
		if f.trouble.begin(now) {
			f.log.Error("consul snapshot file cannot be written", zap.Error(err))
		}
	} else if lasted, ended := f.trouble.end(now); ended {
		f.log.Info("consul snapshot file is written again", zap.Duration("after", lasted))
	}
}

// flush writes what is not written yet, whenever it is due.
func (f *snapshotFile) flush() {
	f.due = time.Time{}
	f.save(time.Now())
}

// writeSnapshotFile replaces path in one step: whoever reads it, after a crash too,
// finds the old content or the new one.
func writeSnapshotFile(path string, saved savedFile) (err error) {
	raw, err := json.MarshalIndent(saved, "", " ")
	if err != nil {
		return fmt.Errorf("encoding: %w", err)
	}
	dir := filepath.Dir(path)
	temp, err := os.CreateTemp(dir, "."+filepath.Base(path)+".*") // mode 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(temp.Name())
		}
	}()
	_, err = temp.Write(append(raw, '\n'))
	if err == nil {
		err = temp.Sync()
	}
	if closed := temp.Close(); err == nil {
		err = closed
	}
	if err == nil {
		err = os.Rename(temp.Name(), path)
	}
	if err != nil {
		return err
	}
	return syncDir(dir)
}

// syncDir makes a rename in dir last.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
