package main

import (
	"errors"
	"fmt"
	"slices"
)

// merge takes the samples of one file over into another, which is written again. A measure
// is taken over whole: proxies are only compared within a run.
func merge(from, into string) error {
	run, err := readResults(from)
	if err != nil {
		return err
	}
	all, err := readResults(into)
	if err != nil {
		return err
	}
	if err := all.take(run); err != nil {
		return fmt.Errorf("merging %s into %s: %w", from, into, err)
	}
	return all.write(into)
}

// take puts the samples of a run in the place of those of the same measures.
func (r *results) take(run *results) error {
	if len(run.Later) > 0 {
		return errors.New("others have been merged into these samples: merge those of each run")
	}
	from := &later{heading: run.heading}
	for _, s := range run.Samples {
		if !slices.Contains(from.Measures, s.Measure) {
			from.Measures = append(from.Measures, s.Measure)
		}
	}
	if len(from.Measures) == 0 {
		return errors.New("there are no samples")
	}
	replaced := func(measure string) bool { return slices.Contains(from.Measures, measure) }
	r.Samples = slices.DeleteFunc(r.Samples, func(s *sample) bool { return replaced(s.Measure) })
	r.Samples = append(r.Samples, run.Samples...)
	for _, l := range r.Later {
		l.Measures = slices.DeleteFunc(l.Measures, replaced)
	}
	r.Later = append(slices.DeleteFunc(r.Later, func(l *later) bool { return len(l.Measures) == 0 }), from)
	return nil
}
