package consul

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"slices"
	"strconv"
	"time"

	"go.uber.org/zap"

	"github.com/tidegate/tidegate/discovery"
)

// fileVersion is the version of the format below. A reader refuses any other.
const fileVersion = 1

// savedFile is the JSON of a snapshot file. It names the question, so that a file that
// belongs to another service is not mistaken for this one's.
type savedFile struct {
	Version     int               `json:"version"`
	Service     string            `json:"service"`
	Tags        []string          `json:"tags,omitempty"`
	Filter      string            `json:"filter,omitempty"`
	SavedAt     time.Time         `json:"saved_at"`
	Datacenters []savedDatacenter `json:"datacenters"`
}

type savedDatacenter struct {
	Name      string          `json:"name"` // "": the agent's own
	Instances []savedInstance `json:"instances"`
}

type savedInstance struct {
	ID         string            `json:"id"`
	Address    string            `json:"address"`
	Weight     int               `json:"weight"`
	Status     string            `json:"status"`
	Node       string            `json:"node,omitempty"`
	Datacenter string            `json:"datacenter,omitempty"`
	Tags       []string          `json:"tags,omitempty"`
	Meta       map[string]string `json:"meta,omitempty"`
}

// snapshotFile keeps the last good sets on disk. It belongs to the goroutine of Watch.
// Without a path all its methods do nothing.
type snapshotFile struct {
	path     string
	question savedFile // without time and sets
	interval time.Duration
	log      *zap.Logger

	unsaved []savedDatacenter // nil: nothing to write
	due     time.Time         // of the next write; zero for none
	written time.Time         // the last one
	trouble trouble
}

func newSnapshotFile(c *Config, interval time.Duration, log *zap.Logger) *snapshotFile {
	return &snapshotFile{
		path:     c.SnapshotFile,
		question: savedFile{Version: fileVersion, Service: c.Service, Tags: c.Tags, Filter: c.Filter},
		interval: interval,
		log:      log.With(zap.String("file", c.SnapshotFile)),
	}
}

// load returns the sets by datacenter, or nil if there is no file that can be used.
// That is reported and no error: the file is for bad days only.
func (f *snapshotFile) load(now time.Time) map[string][]discovery.Instance {
	if f.path == "" {
		return nil
	}
	saved, err := readSnapshotFile(f.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil && (saved.Service != f.question.Service || saved.Filter != f.question.Filter ||
		!slices.Equal(saved.Tags, f.question.Tags)) {
		err = fmt.Errorf("it answers another question (service %q, tags %q, filter %q)",
			saved.Service, saved.Tags, saved.Filter)
	}
	if err != nil {
		f.log.Warn("consul snapshot file is ignored", zap.Error(err))
		return nil
	}
	f.log.Info("consul snapshot file is at hand", zap.Duration("age", now.Sub(saved.SavedAt)))
	sets := make(map[string][]discovery.Instance)
	for _, d := range saved.Datacenters {
		sets[d.Name] = d.restore()
	}
	return sets
}

func readSnapshotFile(path string) (savedFile, error) {
	file, err := os.Open(path)
	if err != nil {
		return savedFile{}, err
	}
	defer file.Close()
	raw, err := io.ReadAll(io.LimitReader(file, maxAnswerBytes+1))
	if err != nil {
		return savedFile{}, err
	}
	if len(raw) > maxAnswerBytes {
		return savedFile{}, errAnswerTooLarge
	}
	return parseSnapshotFile(raw)
}

// parseSnapshotFile reads a file all or nothing: what it returns without an error could
// have come from Consul.
func parseSnapshotFile(raw []byte) (savedFile, error) {
	var saved savedFile
	decoder := json.NewDecoder(bytes.NewReader(raw))
	if err := decoder.Decode(&saved); err != nil {
		return savedFile{}, fmt.Errorf("parsing: %w", err)
	}
	if saved.Version != fileVersion {
		return savedFile{}, fmt.Errorf("version %d, not %d", saved.Version, fileVersion)
	}
	if _, err := decoder.Token(); err != io.EOF {
		return savedFile{}, errors.New("parsing: something follows the end")
	}
	for _, d := range saved.Datacenters {
		for i, instance := range d.Instances {
			if err := instance.check(); err != nil {
				return savedFile{}, fmt.Errorf("datacenter %q, instance %d: %w", d.Name, i, err)
			}
		}
	}
	return saved, nil
}

func (i savedInstance) check() error {
	if !isID(i.ID) {
		return errBadID
	}
	host, port, err := net.SplitHostPort(i.Address)
	if err != nil || !isHost(host) {
		return errNoAddress
	}
	if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
		return errNoPort
	}
	if i.Weight < 0 || i.Weight > maxWeight {
		return fmt.Errorf("weight %d is out of range", i.Weight)
	}
	if _, ok := parseStatus(i.Status); !ok {
		return fmt.Errorf("unknown status %q", i.Status)
	}
	return nil
}

func parseStatus(text string) (discovery.Status, bool) {
	for _, status := range []discovery.Status{discovery.Up, discovery.Down, discovery.Maintenance} {
		if status.String() == text {
			return status, true
		}
	}
	return 0, false
}

// restore returns the instances, which were checked, sorted by ID.
func (d savedDatacenter) restore() []discovery.Instance {
	set := make([]discovery.Instance, 0, len(d.Instances))
	for _, i := range d.Instances {
		status, _ := parseStatus(i.Status)
		set = append(set, discovery.Instance{
			ID: i.ID, Addr: i.Address, Weight: i.Weight, Status: status,
			Node: i.Node, Datacenter: i.Datacenter, Tags: boundTags(i.Tags), Meta: boundMeta(i.Meta),
		})
	}
	return discovery.NewSnapshot(0, set).Instances
}
